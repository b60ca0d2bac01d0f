//! What `healthgpt doctor` knows: how a computer is set up, and what follows from it. Looks at files, never at prompts,
//! pictures or answers.

mod findings;
mod machine;

pub use findings::{Finding, Grade, of_device, of_machine, of_model};
pub use machine::Machine;

/// 10^9 bytes, with one decimal.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

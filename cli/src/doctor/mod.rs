//! What `healthgpt doctor` knows: how a computer is set up, and what follows from it. Looks at files, never at prompts,
//! pictures or answers.

mod findings;
mod machine;

pub use findings::{Finding, Grade, of_device, of_machine, of_model};
pub use machine::Machine;

/// 10^9 bytes, or 10^6.
pub fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

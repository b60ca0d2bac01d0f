//! Makes HealthGPT model files from the published checkpoint, and shows, compares and exports them.
//!
//! `source` reads what was published, `config` says what model that is, `assemble` makes the values of each tensor of
//! the file, `write` packs and writes them. The format itself is the runtime's.

pub mod assemble;
pub mod calibrate;
pub mod compare;
pub mod config;
mod error;
pub mod export;
pub mod inspect;
pub mod matrix;
pub mod methods;
pub mod model;
mod parallel;
pub mod recipe;
pub mod report;
pub mod source;
pub mod transform;
pub mod write;

pub use error::{Error, Result};

/// Says how far a long piece of work is, and is asked whether to go on.
pub trait Progress: Sync {
    /// `values` more weights are done.
    fn advance(&self, values: u64);
    /// Whether to stop.
    fn interrupted(&self) -> bool;
}

/// Shows nothing and never stops.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn advance(&self, _values: u64) {}

    fn interrupted(&self) -> bool {
        false
    }
}

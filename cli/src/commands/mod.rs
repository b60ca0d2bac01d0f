//! One file per command.

pub mod ask;
pub mod bench;
pub mod devices;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod perplexity;
pub mod trace;
pub mod verify;

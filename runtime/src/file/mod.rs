//! The container of a model: one safetensors file, read in pieces and hashed as it is read. Knows names, shapes and
//! bytes, not what they mean. Layout: `docs/model-file.md`.
//!
//! Read with plain reads, never mapped: a mapped file that is cut short under us would end the process.

mod reader;
mod writer;

pub use reader::{Container, Stored};
pub use writer::{Layout, Writer};

/// Value of the metadata key `format`.
pub const FORMAT: &str = "healthgpt";
/// Value of the metadata key `version`: files of another version are refused.
pub const VERSION: &str = "1";

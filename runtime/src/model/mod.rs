//! The networks of the paper, one file each, and the table of their tensors.

pub(crate) mod clip;
mod config;
pub(crate) mod load;
pub(crate) mod phi3;
mod recipe;
mod synthetic;
mod tensors;
mod traffic;
pub(crate) mod vqgan;

pub use config::{Adapter, Config, Language, Task, TaskConfig, Vision, Vocabulary, Vqgan};
pub use load::Header;
pub use recipe::{Recipe, StoredFormat};
pub use tensors::{Class, Kind, LINEARS, Origin, Part, Spec};

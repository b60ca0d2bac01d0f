//! The networks of the paper, one file each, and the table of their tensors.

mod basis;
pub(crate) mod clip;
mod config;
pub(crate) mod load;
pub(crate) mod phi3;
mod recipe;
mod rotation;
mod synthetic;
mod tensors;
mod traffic;
pub(crate) mod vqgan;

pub(crate) use basis::WayBack;
pub use basis::{Basis, FOLDED_NORM, channel_scale, value_scale};
pub use config::{Adapter, Config, Language, Task, TaskConfig, Vision, Vocabulary, Vqgan};
pub use load::{Header, Planes};
pub use recipe::{Recipe, StoredFormat};
pub use rotation::Rotation;
pub use tensors::{Class, Kind, LINEARS, Origin, Part, Spec};

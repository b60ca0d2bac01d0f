//! What a device has and which kernel variants it prefers: data and one rule, no driver in sight.
//!
//! `runtime::gpu` fills [`Facts`]; [`select`] picks a [`shaders::Variant`]; nothing else decides.

mod facts;
mod profile;
mod select;

pub use facts::{Backend, Facts, Kind};
pub use profile::{GENERIC, PROFILES, Profile, profile};
pub use select::{Forced, meets, select};

//! What a device has and which kernel variants it prefers: data and one rule, no driver in sight.
//!
//! `runtime::gpu` fills [`Facts`]; [`select`] picks a [`shaders::Variant`]; nothing else decides.

mod facts;
mod faults;
mod profiles;
mod select;

pub use facts::{Backend, Facts, Kind, vendor};
pub use faults::{FAULTS, Fault, On, faults};
pub use profiles::{Ceiling, GENERIC, PROFILES, Profile, profile};
pub use select::{Forced, meets, select};

//! GPUs that share the computer's memory. The ceilings leave room for the system, the desktop and the imaging pipeline.

use super::{Ceiling, GENERIC, Profile};
use crate::facts::vendor;
use crate::{Facts, Kind};

/// Boards of 4 GB report less than this.
const TINY_BYTES: u64 = 5 << 30;
/// Boards of 8 GB report less than this.
const SMALL_BYTES: u64 = 11 << 30;

/// What is installed, if it shares it.
fn shared_bytes(facts: &Facts) -> Option<u64> {
    // Where nobody tells, the second smallest of what there is.
    (facts.kind == Kind::Integrated).then(|| facts.installed_bytes().unwrap_or(TINY_BYTES))
}

/// A GPU that a desktop leaves little of, and whose arithmetic takes seconds before the first token.
fn is_weak(facts: &Facts) -> bool {
    facts.kind == Kind::Integrated
        && match facts.vendor {
            vendor::NVIDIA | vendor::APPLE => false,
            // From Lunar Lake on there are no subgroups of 8, and no `Arc` in the name that Mesa gives.
            vendor::INTEL => facts.subgroup_size[0] < 16 && !facts.name.contains("Arc"),
            // Vega and older have subgroups of 64 only.
            vendor::AMD => facts.subgroup_size[0] >= 64,
            _ => !facts.name.starts_with("Apple"),
        }
}

/// UHD, Iris Xe, Vega, Adreno, Mali, V3D.
pub const WEAK: Profile = Profile {
    name: "weak-shared",
    matches: is_weak,
    chunk: 64,
    slice_ms: 4,
    ceiling: Ceiling::PercentOfFree(60),
    context: 1280,
    ..GENERIC
};

/// 4 GB: Jetson Nano, TX2 NX, Orin Nano 4 GB.
pub const TINY: Profile = Profile {
    name: "tiny-shared",
    matches: |facts| shared_bytes(facts).is_some_and(|bytes| bytes < TINY_BYTES),
    chunk: 32,
    ceiling: Ceiling::Bytes(2_900_000_000),
    context: 1024,
    ..GENERIC
};

/// 8 GB: Jetson TX2, Xavier NX, Orin Nano and NX of 8 GB, Apple M1 of 8 GB.
pub const SMALL: Profile = Profile {
    name: "small-shared",
    matches: |facts| shared_bytes(facts).is_some_and(|bytes| bytes < SMALL_BYTES),
    ceiling: Ceiling::Bytes(4_500_000_000),
    ..GENERIC
};

/// 16 GB and more: Orin NX 16, AGX, Thor, Radeon 780M, Arc 140V, Apple M.
pub const ROOMY: Profile = Profile {
    name: "roomy-shared",
    matches: |facts| shared_bytes(facts).is_some(),
    chunk: 256,
    ceiling: Ceiling::Bytes(8_000_000_000),
    ..GENERIC
};

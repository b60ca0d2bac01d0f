//! What all others are measured against.

use super::{Ceiling, Profile};
use shaders::KvFormat;

/// For a device of no class below.
pub const GENERIC: Profile = Profile {
    name: "generic",
    matches: |_| true,
    prefer: &[
        ("gemv", "split_k"),
        ("gemv_residual", "split_k"),
        ("gemm", "coop16"),
        ("gemm", "coop8"),
        ("gemm", "tile"),
        ("conv", "tile"),
    ],
    chunk: 128,
    workgroups: 256,
    // A twentieth of the strictest watchdog for desktops that anybody documents, a fifth of that for embedded GPUs.
    slice_ms: 100,
    ceiling: Ceiling::AllBut(1_500_000_000),
    context: 2048,
    // A twentieth of an answer's bytes less, for 3e-4 nats a token (docs/fidelity.md).
    kv: KvFormat::Q8,
};

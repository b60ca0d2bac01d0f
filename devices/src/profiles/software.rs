//! No GPU.

use super::{Ceiling, GENERIC, Profile};
use crate::Kind;
use shaders::KvFormat;

/// A software device: loads cost, arithmetic does not, barriers are expensive. For tests and for want of better.
pub const SOFTWARE: Profile = Profile {
    name: "software",
    matches: |facts| facts.kind == Kind::Cpu,
    prefer: &[
        ("gemv", "broadcast"),
        ("gemv", "uniform_x"),
        ("gemv_residual", "broadcast"),
        ("gemv_residual", "uniform_x"),
        ("gemm", "stripe"),
        ("gemm", "tile"),
        ("conv", "stripe"),
    ],
    chunk: 64,
    workgroups: 1,
    ceiling: Ceiling::Unlimited,
    // Bytes do not count there.
    kv: KvFormat::F16,
    ..GENERIC
};

//! The arithmetic of HealthGPT: WGSL kernels, the Rust contract of each, and its CPU reference.
//!
//! Knows nothing of devices, drivers, files or models. A kernel is one stem, twice: `wgsl/K.wgsl` and `src/K.rs`;
//! `tests/kernels` runs every variant of every kernel against its `cases()`.

mod case;
mod compose;
mod kernel;
mod weights;

pub mod add;
pub mod argmax;
pub mod attention;
pub mod attention_combine;
pub mod attention_decode;
pub mod bias_act;
pub mod codebook;
pub mod conv;
pub mod embed;
pub mod gemm;
pub mod gemv;
pub mod gemv_residual;
pub mod groupnorm_stats;
pub mod groupnorm_swish;
pub mod hlora;
pub mod hlora_gate;
pub mod layernorm;
pub mod residual_adapted;
pub mod rmsnorm;
pub mod rope_append;
pub mod swiglu;
pub mod swiglu_adapted;

pub use case::{Case, CaseGrid, Expected, Input, Output, kv_q8_values};
pub use compose::compose;
pub use kernel::{
    Access, Binding, Choice, Constant, DOWN, Import, Kernel, KvFormat, Needs, Step, Variant, import, kernels,
};
pub use weights::{Format, FormatError, Packed, round_to_f16, usable_scale};

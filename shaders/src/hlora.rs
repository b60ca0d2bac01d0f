//! What the kernels that add the way up of an adapter share; see `wgsl/shared/hlora.wgsl`. Source: HealthGPT §3.

use crate::case::noise;
use crate::{Constant, Format, Packed, gemv, hlora_gate};
use bytemuck::{Pod, Zeroable};

/// Largest rank of an adapter that one workgroup holds.
pub const MAX_RANK: usize = 1024;

/// The fields that `hlora.wgsl` wants in a kernel's params.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable, Default)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct HLora {
    pub rank: u32,
    pub experts: u32,
    pub up_blocks: u32,
    pub hlora_scale: f32,
}

/// Makes room in workgroup memory for an adapter of so many blocks of 32, and no more.
pub fn constant(up_blocks: usize) -> Constant {
    ("RANK4", up_blocks as f64 * 8.0)
}

/// An adapter's output for one token: B (gate * scale * A x), from u = (A x, R x).
pub(crate) fn adapter(h: &HLora, up: &Packed, u: &[f32]) -> Vec<f32> {
    let params = hlora_gate::Params { rank: h.rank, experts: h.experts, v_cols: h.rank, scale: h.hlora_scale };
    let [v, _] = hlora_gate::reference(&params, u);
    gemv::reference(up, &v)
}

/// An adapter of `rows` outputs with its u, for the cases of the kernels that add one.
pub(crate) fn made_up(rank: usize, experts: usize, rows: usize, format: Format) -> (HLora, Packed, Vec<f32>) {
    let up = format.pack(rows, rank, &noise("up", rows * rank)).expect("small values");
    let hlora = HLora {
        rank: rank as u32,
        experts: experts as u32,
        up_blocks: rank.div_ceil(32) as u32,
        hlora_scale: 2.0 * experts as f32,
    };
    // Spread wide enough that one expert often takes nearly all.
    (hlora, up, noise("u", rank + experts).into_iter().map(|v| v * 2.0).collect())
}

//! The output of a linear with its adapter joins the residual stream; see `wgsl/residual_adapted.wgsl`.

use crate::case::{Output, input_f32, noise, output_f32};
use crate::gemv::{FORMATS, prepare, weight_inputs};
use crate::hlora_gate;
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Format, Kernel, Packed, Step, gemv};
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

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols: u32,
    pub hlora: HLora,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "residual_adapted",
    source: include_str!("../wgsl/residual_adapted.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "y"), write(3, "x"), read(4, "norm"), write(5, "normed")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q8", "weights_f16", "weights_q4"])],
    variants: REDUCTIONS,
    cases,
};

/// Workgroups for a residual stream of `cols`.
pub fn grid(cols: u32) -> [u32; 3] {
    [cols.div_ceil(64), 1, 1]
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

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, format) in FORMATS {
        for (cols, rank, experts) in [(192, 64, 4), (100, 6, 3)] {
            let (hlora, up, u) = made_up(rank, experts, cols, format);
            let (x, norm) = (noise("x", cols), noise("norm", cols));
            let mut y = noise("y", cols);
            let added = adapter(&hlora, &up, &u);
            let sum: Vec<f32> = (0..cols).map(|i| x[i] + y[i] + added[i]).collect();
            let normed = prepare(&sum, &norm);
            y.extend(u);
            let mut inputs = weight_inputs(&up);
            inputs.extend([input_f32("y", &y), input_f32("norm", &norm)]);
            let initial = bytemuck::cast_slice(&x).to_vec();
            cases.push(Case {
                name: format!("{name}, {cols} wide, rank {rank}"),
                imports: vec![format.import()],
                constants: format.constants(),
                params: bytemuck::bytes_of(&Params { cols: cols as u32, hlora }).to_vec(),
                step: Step::new(0, 1),
                inputs,
                outputs: vec![Output { initial, ..output_f32("x", sum) }, output_f32("normed", normed)],
                grid: Box::new(move |_| grid(cols as u32)),
            });
        }
    }
    cases
}

//! The output of a linear with its adapter joins the residual stream; see `wgsl/residual_adapted.wgsl`.

use crate::case::{Output, input_f32, noise, output_f32};
use crate::gemv::{FORMATS, prepare, weight_inputs};
use crate::hlora::{HLora, adapter, constant, made_up};
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

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
                constants: [format.constants(), vec![constant(hlora.up_blocks as usize)]].concat(),
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

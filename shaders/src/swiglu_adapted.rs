//! Gated activation of one token, after the adapter; see `wgsl/swiglu_adapted.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::gemv::{FORMATS, weight_inputs};
use crate::hlora::{HLora, adapter, constant, made_up};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step, swiglu};
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
    name: "swiglu_adapted",
    source: include_str!("../wgsl/swiglu_adapted.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "y"), write(3, "m")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q8", "weights_f16", "weights_q4"])],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups for `cols` outputs.
pub fn grid(cols: u32) -> [u32; 3] {
    [cols.div_ceil(64), 1, 1]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, format) in FORMATS {
        for (f, rank, experts, size) in [(320, 256, 4, 1.0), (70, 6, 3, 1.0), (64, 32, 1, 100.0)] {
            let (hlora, up, u) = made_up(rank, experts, 2 * f, format);
            let mut y: Vec<f32> = noise("y", 2 * f).into_iter().map(|v| v * size).collect();
            let sum: Vec<f32> = y.iter().zip(adapter(&hlora, &up, &u)).map(|(y, a)| y + a).collect();
            let m = swiglu::reference(&sum, f);
            y.extend(u);
            let mut inputs = weight_inputs(&up);
            inputs.push(input_f32("y", &y));
            cases.push(Case {
                name: format!("{name}, f {f}, rank {rank}, values of {size}"),
                imports: vec![format.import()],
                constants: [format.constants(), vec![constant(hlora.up_blocks as usize)]].concat(),
                params: bytemuck::bytes_of(&Params { cols: f as u32, hlora }).to_vec(),
                step: Step::new(0, 1),
                inputs,
                outputs: vec![output_f32("m", m)],
                grid: Box::new(move |_| grid(f as u32)),
            });
        }
    }
    cases
}

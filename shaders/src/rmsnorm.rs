//! Root mean square normalisation; see `wgsl/rmsnorm.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols: u32,
    pub last: u32,
    pub eps: f32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "rmsnorm",
    source: include_str!("../wgsl/rmsnorm.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "x"), read(3, "weight"), write(4, "y")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: REDUCTIONS,
    cases,
};

/// Workgroups for a chunk of `tokens`.
pub fn grid(tokens: u32) -> [u32; 3] {
    [tokens, 1, 1]
}

/// `x` is `[n][d]`.
pub fn reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    x.chunks_exact(weight.len())
        .flat_map(|row| {
            let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            row.iter().zip(weight).map(move |(v, w)| (f64::from(*v) * scale * f64::from(*w)) as f32).collect::<Vec<_>>()
        })
        .collect()
}

fn cases() -> Vec<Case> {
    // The large one has values whose squares would not fit f16; the small one is dominated by eps.
    [
        ("d 192", 192, 3, 1.0, 0),
        ("ragged d 100", 100, 2, 1.0, 0),
        ("large", 3072, 1, 3e4, 0),
        ("tiny", 64, 2, 1e-4, 0),
        ("last", 96, 5, 1.0, 1),
    ]
    .into_iter()
    .map(|(name, d, n, size, last)| {
        let x: Vec<f32> = noise("x", n * d).into_iter().map(|v| v * size).collect();
        let weight = noise("weight", d);
        let from = if last == 1 { &x[(n - 1) * d..] } else { &x };
        let params = Params { cols: d as u32, last, eps: 1e-5 };
        let groups = if last == 1 { 1 } else { n as u32 + 1 };
        Case {
            name: name.into(),
            imports: vec![],
            constants: vec![],
            params: bytemuck::bytes_of(&params).to_vec(),
            step: Step::new(0, n),
            inputs: vec![input_f32("x", &x), input_f32("weight", &weight)],
            outputs: vec![output_f32("y", reference(from, &weight, 1e-5))],
            grid: Box::new(move |_| grid(groups)),
        }
    })
    .collect()
}

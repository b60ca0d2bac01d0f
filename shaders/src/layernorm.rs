//! Layer normalisation; see `wgsl/layernorm.wgsl`.

use crate::case::{F32_BOUND, input_f32, noise, output_f32};
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols: u32,
    pub eps: f32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "layernorm",
    source: include_str!("../wgsl/layernorm.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "x"), read(3, "weight"), read(4, "bias"), write(5, "y")],
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
pub fn reference(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let d = weight.len();
    x.chunks_exact(d)
        .flat_map(|row| {
            let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / d as f64;
            let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / d as f64;
            let scale = 1.0 / (variance + f64::from(eps)).sqrt();
            (0..d).map(move |c| ((f64::from(row[c]) - mean) * scale * f64::from(weight[c]) + f64::from(bias[c])) as f32)
        })
        .collect()
}

fn cases() -> Vec<Case> {
    // With a mean of 1000 a one-pass variance would keep three digits.
    [("d 128", 128, 3, 0.0, F32_BOUND), ("ragged d 100", 100, 2, 0.0, F32_BOUND), ("large mean", 1024, 2, 1000.0, 1e-8)]
        .into_iter()
        .map(|(name, d, n, mean, bound)| {
            let x: Vec<f32> = noise("x", n * d).into_iter().map(|v| v + mean).collect();
            let (weight, bias) = (noise("weight", d), noise("bias", d));
            let params = Params { cols: d as u32, eps: 1e-5 };
            Case {
                name: name.into(),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, n),
                inputs: vec![input_f32("x", &x), input_f32("weight", &weight), input_f32("bias", &bias)],
                outputs: vec![output_f32("y", reference(&x, &weight, &bias, 1e-5)).within(bound)],
                grid: Box::new(move |_| grid(n as u32 + 1)),
            }
        })
        .collect()
}

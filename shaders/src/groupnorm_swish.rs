//! Second half of GroupNorm, with swish; see `wgsl/groupnorm_swish.wgsl`.

use crate::case::{F32_BOUND, input_f32, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step, groupnorm_stats};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub pixels: u32,
    pub channels: u32,
    pub groups: u32,
    pub parts: u32,
    pub swish: u32,
    pub eps: f32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "groupnorm_swish",
    source: include_str!("../wgsl/groupnorm_swish.wgsl"),
    bindings: &[
        uniform(0, "params"),
        read(2, "x"),
        read(3, "stats"),
        read(4, "weight"),
        read(5, "bias"),
        write(6, "y"),
    ],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups: sixteen pixels each, in two dimensions past 65,535.
pub fn grid(params: &Params) -> [u32; 3] {
    let groups = params.pixels.div_ceil(16);
    [groups.min(65535), groups.div_ceil(65535), 1]
}

/// `[pixels][channels]`; the whole of GroupNorm, in f64.
pub fn reference(p: &Params, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let (channels, width) = (p.channels as usize, (p.channels / p.groups) as usize);
    let mut y = vec![0.0; x.len()];
    for group in 0..p.groups as usize {
        let at = |i: usize| (i / width) * channels + group * width + i % width;
        let count = p.pixels as usize * width;
        let mean = (0..count).map(|i| f64::from(x[at(i)])).sum::<f64>() / count as f64;
        let variance = (0..count).map(|i| (f64::from(x[at(i)]) - mean).powi(2)).sum::<f64>() / count as f64;
        for i in (0..count).map(at) {
            let c = i % channels;
            let v = (f64::from(x[i]) - mean) / (variance + f64::from(p.eps)).sqrt();
            let v = v * f64::from(weight[c]) + f64::from(bias[c]);
            y[i] = if p.swish == 1 { v / (1.0 + (-v).exp()) } else { v } as f32;
        }
    }
    y
}

fn cases() -> Vec<Case> {
    [(64, 64, 4, 1, 0.0), (37, 96, 5, 0, 0.0), (3, 32, 8, 1, 0.0), (100, 64, 7, 1, 50.0)]
        .into_iter()
        .map(|(pixels, channels, parts, swish, mean)| {
            let groups = 32;
            let p = Params { pixels, channels, groups, parts, swish, eps: 1e-6 };
            let x: Vec<f32> = noise("x", (pixels * channels) as usize).into_iter().map(|v| v + mean).collect();
            let (weight, bias) = (noise("weight", channels as usize), noise("bias", channels as usize));
            let stats = groupnorm_stats::reference(&groupnorm_stats::Params { pixels, channels, groups, parts }, &x);
            Case {
                name: format!("{pixels} pixels, {channels} channels, {parts} parts, mean {mean}"),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&p).to_vec(),
                step: Step::new(0, 1),
                inputs: vec![
                    input_f32("x", &x),
                    input_f32("stats", &stats),
                    input_f32("weight", &weight),
                    input_f32("bias", &bias),
                ],
                // With a mean of 50 the inputs themselves have lost three digits.
                outputs: vec![output_f32("y", reference(&p, &x, &weight, &bias)).within(if mean > 0.0 {
                    1e-10
                } else {
                    F32_BOUND
                })],
                grid: Box::new(move |_| grid(&p)),
            }
        })
        .collect()
}

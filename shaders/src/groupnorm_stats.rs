//! First half of GroupNorm; see `wgsl/groupnorm_stats.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Kernel, Step};
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
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "groupnorm_stats",
    source: include_str!("../wgsl/groupnorm_stats.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "x"), write(3, "stats")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: REDUCTIONS,
    cases,
};

/// Workgroups.
pub fn grid(params: &Params) -> [u32; 3] {
    [params.groups, params.parts, 1]
}

/// `[groups][parts][4]`: count, mean, sum of squared deviations, 0.
pub fn reference(p: &Params, x: &[f32]) -> Vec<f32> {
    let (channels, width) = (p.channels as usize, (p.channels / p.groups) as usize);
    let each = p.pixels.div_ceil(p.parts) as usize;
    let mut stats = Vec::new();
    for group in 0..p.groups as usize {
        for part in 0..p.parts as usize {
            let first = (part * each).min(p.pixels as usize);
            let last = (first + each).min(p.pixels as usize);
            let values: Vec<f64> = (first..last)
                .flat_map(|i| x[i * channels + group * width..][..width].iter().map(|v| f64::from(*v)))
                .collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            stats.extend([values.len() as f32, mean as f32, squares as f32, 0.0]);
        }
    }
    stats
}

fn cases() -> Vec<Case> {
    [(64, 64, 32, 4), (37, 96, 32, 5), (3, 32, 32, 8), (200, 128, 32, 1)]
        .into_iter()
        .map(|(pixels, channels, groups, parts)| {
            let p = Params { pixels, channels, groups, parts };
            let x: Vec<f32> = noise("x", (pixels * channels) as usize).into_iter().map(|v| v + 3.0).collect();
            let expected = reference(&p, &x);
            Case {
                name: format!("{pixels} pixels, {channels} channels, {parts} parts"),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&p).to_vec(),
                step: Step::new(0, 1),
                inputs: vec![input_f32("x", &x)],
                outputs: vec![output_f32("stats", expected)],
                grid: Box::new(move |_| grid(&p)),
            }
        })
        .collect()
}

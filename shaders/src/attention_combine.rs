//! Joins the parts of an attention; see `wgsl/attention_combine.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub heads: u32,
    pub head_dim4: u32,
    pub parts: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "attention_combine",
    source: include_str!("../wgsl/attention_combine.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "parts"), write(3, "out")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups.
pub fn grid(heads: u32, head_dim4: u32) -> [u32; 3] {
    [(heads * head_dim4).div_ceil(64), 1, 1]
}

/// Values that `parts` parts of an attention take.
pub fn part_values(parts: usize, heads: usize, head_dim: usize) -> usize {
    parts * heads * (head_dim + 4)
}

fn cases() -> Vec<Case> {
    [(6, 32, 2), (32, 96, 8), (3, 64, 5)]
        .into_iter()
        .map(|(heads, head_dim, parts)| {
            // Of each part and head: sums, largest score, total, two of padding. The second part is empty.
            let mut values = noise("parts", part_values(parts, heads, head_dim));
            for (i, of_head) in values.chunks_exact_mut(head_dim + 4).enumerate() {
                let (largest, total) = if i / heads == 1 { (0.0, 0.0) } else { (3.0 * of_head[head_dim] - 200.0, 1.5) };
                of_head[head_dim..].copy_from_slice(&[largest, total, 0.0, 0.0]);
                if total == 0.0 {
                    of_head[..head_dim].fill(0.0);
                }
            }
            let of = |p: usize, h: usize| &values[(p * heads + h) * (head_dim + 4)..][..head_dim + 4];
            let mut out = Vec::new();
            for h in 0..heads {
                let some = |p: &usize| of(*p, h)[head_dim + 1] > 0.0;
                let largest = (0..parts).filter(some).map(|p| of(p, h)[head_dim]).fold(f32::MIN, f32::max);
                let weight = |p: usize| if some(&p) { f64::from(of(p, h)[head_dim] - largest).exp() } else { 0.0 };
                let total: f64 = (0..parts).map(|p| weight(p) * f64::from(of(p, h)[head_dim + 1])).sum();
                let sum = |i: usize| (0..parts).map(|p| weight(p) * f64::from(of(p, h)[i])).sum::<f64>();
                out.extend((0..head_dim).map(|i| (sum(i) / total) as f32));
            }
            let params = Params { heads: heads as u32, head_dim4: head_dim as u32 / 4, parts: parts as u32 };
            Case {
                name: format!("{heads} heads of {head_dim}, {parts} parts"),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, 1),
                inputs: vec![input_f32("parts", &values)],
                outputs: vec![output_f32("out", out)],
                grid: Box::new(move |_| grid(params.heads, params.head_dim4)),
            }
        })
        .collect()
}

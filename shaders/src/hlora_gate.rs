//! H-LoRA between its two products; see `wgsl/hlora_gate.wgsl`. Source: HealthGPT §3.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub rank: u32,
    pub experts: u32,
    pub v_cols: u32,
    pub scale: f32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "hlora_gate",
    source: include_str!("../wgsl/hlora_gate.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "u"), write(3, "v"), write(4, "gates")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups for a chunk of `tokens`.
pub fn grid(tokens: u32) -> [u32; 3] {
    [tokens, 1, 1]
}

/// (v `[n][v_cols]`, gates `[n][experts]`) of u `[n][rank + experts]`.
pub fn reference(p: &Params, u: &[f32]) -> [Vec<f32>; 2] {
    let (rank, experts) = (p.rank as usize, p.experts as usize);
    let (mut v, mut all_gates) = (Vec::new(), Vec::new());
    for row in u.chunks_exact(rank + experts) {
        let (down, route) = row.split_at(rank);
        let largest = route.iter().fold(f32::MIN, |m, r| m.max(*r));
        let weights: Vec<f64> = route.iter().map(|r| f64::from(r - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let gates: Vec<f64> = weights.iter().map(|w| w / total).collect();
        v.extend((0..p.v_cols as usize).map(|k| {
            if k < rank { (f64::from(p.scale) * gates[k / (rank / experts)] * f64::from(down[k])) as f32 } else { 0.0 }
        }));
        all_gates.extend(gates.iter().map(|g| *g as f32));
    }
    [v, all_gates]
}

fn cases() -> Vec<Case> {
    [(16, 4, 8.0, 3), (64, 4, 8.0, 1), (256, 4, 8.0, 2), (6, 3, 1.5, 2), (8, 1, 2.0, 1), (96, 96, 3.0, 1)]
        .into_iter()
        .map(|(rank, experts, scale, n)| {
            let p = Params { rank, experts, v_cols: rank.next_multiple_of(32), scale };
            // Spread wide enough that one expert often takes nearly all.
            let u: Vec<f32> = noise("u", n * (rank + experts) as usize).into_iter().map(|v| v * 4.0).collect();
            let [v, gates] = reference(&p, &u);
            Case {
                name: format!("rank {rank}, {experts} experts"),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&p).to_vec(),
                step: Step::new(0, n),
                inputs: vec![input_f32("u", &u)],
                outputs: vec![output_f32("v", v), output_f32("gates", gates)],
                grid: Box::new(move |_| grid(n as u32 + 1)),
            }
        })
        .collect()
}

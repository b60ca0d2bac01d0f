//! Rotary embedding and the writing of k and v into the cache; see `wgsl/rope_append.wgsl`.

use crate::case::{input_f32, kv_output, kv_rounded, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, KvFormat, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub kv_factors: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "rope_append",
    source: include_str!("../wgsl/rope_append.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "qkv"), read(3, "rope"), write(4, "q")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("kv_update", &["kv_update_f16", "kv_update_q8", "kv_update_f32"])],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups for a chunk of `tokens`.
pub fn grid(params: &Params, tokens: u32) -> [u32; 3] {
    [params.heads + 2 * params.kv_heads, tokens, 1]
}

/// cos and sin of every position and frequency, `[positions][head_dim/2]`; angles rounded to f32 as the published code
/// has them.
pub fn table(positions: usize, head_dim: usize, theta: f64) -> Vec<[f32; 2]> {
    let inverse: Vec<f32> =
        (0..head_dim / 2).map(|i| (1.0 / theta.powf(2.0 * i as f64 / head_dim as f64)) as f32).collect();
    (0..positions)
        .flat_map(|pos| {
            inverse.iter().map(move |f| f64::from(pos as f32 * f)).map(|a| [a.cos() as f32, a.sin() as f32])
        })
        .collect()
}

/// (q, k, v) of `[n]` tokens, q and k rotated; `qkv` is `[n][(heads + 2 kv_heads) head_dim]`.
pub fn reference(p: &Params, rope: &[[f32; 2]], qkv: &[f32], pos: usize) -> [Vec<f32>; 3] {
    let d = p.head_dim as usize;
    let (heads, kv_heads) = (p.heads as usize, p.kv_heads as usize);
    let mut out = [Vec::new(), Vec::new(), Vec::new()];
    for (t, row) in qkv.chunks_exact((heads + 2 * kv_heads) * d).enumerate() {
        for (h, head) in row.chunks_exact(d).enumerate() {
            let to = if h < heads {
                0
            } else if h < heads + kv_heads {
                1
            } else {
                2
            };
            for i in 0..d {
                let [cos, sin] = rope[(pos + t) * d / 2 + i % (d / 2)];
                let other = if i < d / 2 { -head[i + d / 2] } else { head[i - d / 2] };
                out[to].push(if to == 2 { head[i] } else { head[i] * cos + other * sin });
            }
        }
    }
    out
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, head_dim, n) in [(6, 6, 32, 3), (9, 3, 64, 2), (4, 2, 12, 1), (2, 2, 96, 2)] {
        for kv in [KvFormat::F16, KvFormat::Q8, KvFormat::F32] {
            if kv == KvFormat::Q8 && !(head_dim as usize).is_multiple_of(KvFormat::GROUP) {
                continue;
            }
            let (pos, positions) = (5_usize, 12_usize);
            let kv_dim = (kv_heads * head_dim) as usize;
            let p = Params { heads, kv_heads, head_dim, kv_factors: kv.factors_at(positions * kv_dim) };
            let rope = table(positions, head_dim as usize, 10000.0);
            let qkv = noise("qkv", n * ((heads + 2 * kv_heads) * head_dim) as usize);
            let [q, k, v] = reference(&p, &rope, &qkv, pos);
            // Other positions keep what they held.
            let cache = |name, rows: &[f32]| {
                let before = vec![0.75; positions * kv_dim];
                let mut after = kv_rounded(kv, before.clone());
                after[pos * kv_dim..pos * kv_dim + rows.len()].copy_from_slice(rows);
                kv_output(name, kv, &before, after)
            };
            cases.push(Case {
                name: format!("{heads} heads, {kv_heads} kv, {head_dim} wide, {kv:?}"),
                imports: vec![kv.update_import()],
                constants: vec![],
                params: bytemuck::bytes_of(&p).to_vec(),
                step: Step::new(pos, n),
                inputs: vec![input_f32("qkv", &qkv), input_f32("rope", rope.as_flattened())],
                outputs: vec![output_f32("q", q), cache("k_cache", &k), cache("v_cache", &v)],
                grid: Box::new(move |_| grid(&p, n as u32 + 1)),
            });
        }
    }
    cases
}

//! Attention over the cache or over one activation; see `wgsl/attention.wgsl`.

use crate::case::{Input, input_f32, kv_bytes, kv_rounded, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, KvFormat, Step};
use bytemuck::{Pod, Zeroable};

/// Largest head_dim.
pub const MAX_HEAD_DIM: usize = 1024;

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim4: u32,
    pub full: u32,
    pub window: u32,
    pub q_offset4: u32,
    pub q_stride4: u32,
    pub k_offset4: u32,
    pub v_offset4: u32,
    pub kv_stride4: u32,
    pub scale: f32,
    pub kv_factors: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "attention",
    source: include_str!("../wgsl/attention.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "q"), write(3, "out")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("kv_read", &["kv_read_f16", "kv_read_q8", "kv_read_f32"])],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups for a chunk of `tokens`.
pub fn grid(heads: u32, head_dim: u32, tokens: u32) -> [u32; 3] {
    [heads, tokens.div_ceil(8), head_dim.div_ceil(128)]
}

/// One head of one token: q `[d]`, k and v the positions that it sees, `[d]` each.
pub fn reference(q: &[f32], k: &[&[f32]], v: &[&[f32]], scale: f64) -> Vec<f32> {
    let scores: Vec<f64> =
        k.iter().map(|k| scale * q.iter().zip(*k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()).collect();
    let largest = scores.iter().fold(f64::MIN, |m, s| m.max(*s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len())
        .map(|i| (weights.iter().zip(v).map(|(w, v)| w * f64::from(v[i])).sum::<f64>() / total) as f32)
        .collect()
}

struct Shape {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    n: usize,
    pos: usize,
    causal: bool,
    window: usize,
    kv: KvFormat,
}

fn cases() -> Vec<Case> {
    let base = Shape {
        name: "",
        heads: 6,
        kv_heads: 6,
        head_dim: 32,
        n: 1,
        pos: 9,
        causal: true,
        window: 2047,
        kv: KvFormat::F32,
    };
    [
        Shape { name: "decode, first position", pos: 0, ..base },
        Shape { name: "decode past two tiles", pos: 140, kv: KvFormat::F16, ..base },
        Shape { name: "an int8 cache", n: 3, pos: 70, kv: KvFormat::Q8, ..base },
        Shape { name: "decode, M3 heads", heads: 2, kv_heads: 2, head_dim: 96, pos: 64, ..base },
        Shape { name: "prefill, grouped heads", heads: 9, kv_heads: 3, head_dim: 64, n: 7, pos: 60, ..base },
        Shape { name: "prefill, window of 5 past two tiles", n: 9, pos: 150, window: 5, ..base },
        Shape { name: "prefill, window of 70", n: 12, pos: 80, window: 70, kv: KvFormat::F16, ..base },
        Shape { name: "prefill, no window", n: 20, pos: 70, window: u32::MAX as usize, ..base },
        Shape { name: "prefill, window of 5", n: 20, pos: 0, window: 5, kv: KvFormat::F16, ..base },
        Shape { name: "not causal, one activation", head_dim: 16, n: 70, pos: 0, causal: false, ..base },
        Shape {
            name: "one head of 512, one activation",
            heads: 1,
            kv_heads: 1,
            head_dim: 512,
            n: 66,
            pos: 0,
            causal: false,
            ..base
        },
        Shape { name: "widest head", heads: 1, kv_heads: 1, head_dim: 1024, n: 2, pos: 3, ..base },
    ]
    .into_iter()
    .map(case)
    .collect()
}

fn case(s: Shape) -> Case {
    let d = s.head_dim;
    let kv_len = s.pos + s.n;
    // From one activation the rows are q, k, v; else q stands alone and the cache holds k and v apart.
    let row = if s.causal { s.heads * d } else { 3 * s.heads * d };
    let kv_row = if s.causal { s.kv_heads * d } else { row };
    let (k_offset, v_offset) = if s.causal { (0, 0) } else { (s.heads * d, 2 * s.heads * d) };
    let q = noise("q", s.n * row);
    let (k, v) =
        if s.causal { (noise("k", kv_len * kv_row), noise("v", kv_len * kv_row)) } else { (q.clone(), q.clone()) };
    let caches = [kv_bytes(s.kv, &k), kv_bytes(s.kv, &v)];
    let (k, v) = (kv_rounded(s.kv, k), kv_rounded(s.kv, v));
    let scale = 1.0 / (d as f64).sqrt();
    let mut expected = Vec::new();
    for t in 0..s.n {
        let end = if s.causal { s.pos + t + 1 } else { s.n };
        let begin = if s.causal { (s.pos + t).saturating_sub(s.window) } else { 0 };
        for h in 0..s.heads {
            let at = (h / (s.heads / s.kv_heads)) * d;
            let rows = |x: &'_ [f32], offset: usize| -> Vec<Vec<f32>> {
                (begin..end).map(|j| x[j * kv_row + offset + at..][..d].to_vec()).collect()
            };
            let (k, v) = (rows(&k, k_offset), rows(&v, v_offset));
            let (k, v): (Vec<&[f32]>, Vec<&[f32]>) =
                (k.iter().map(Vec::as_slice).collect(), v.iter().map(Vec::as_slice).collect());
            expected.extend(reference(&q[t * row + h * d..][..d], &k, &v, scale));
        }
    }
    let params = Params {
        heads: s.heads as u32,
        kv_heads: s.kv_heads as u32,
        head_dim4: d as u32 / 4,
        full: if s.causal { 0 } else { s.n as u32 },
        window: s.window as u32,
        q_offset4: 0,
        q_stride4: row as u32 / 4,
        k_offset4: k_offset as u32 / 4,
        v_offset4: v_offset as u32 / 4,
        kv_stride4: kv_row as u32 / 4,
        scale: scale as f32,
        kv_factors: s.kv.factors_at(kv_len * kv_row),
    };
    let [k_bytes, v_bytes] = caches;
    let cache = |name, bytes| Input { name, bytes };
    Case {
        name: s.name.into(),
        imports: vec![s.kv.read_import()],
        constants: vec![],
        params: bytemuck::bytes_of(&params).to_vec(),
        step: Step::new(s.pos, s.n),
        inputs: vec![input_f32("q", &q), cache("k_cache", k_bytes), cache("v_cache", v_bytes)],
        outputs: vec![output_f32("out", expected)],
        grid: Box::new(move |_| grid(s.heads as u32, d as u32, s.n as u32 + 9)),
    }
}

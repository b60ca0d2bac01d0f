//! The attention of one token, from the qkv linear on; see `wgsl/attention_decode.wgsl`.

use crate::case::{input_f32, kv_output, kv_rounded, noise, output_f32};
use crate::gemv::weight_inputs;
use crate::hlora::{HLora, adapter, made_up};
use crate::kernel::{REDUCTIONS, read, uniform, write};
use crate::{Case, Constant, Format, Kernel, KvFormat, Step, attention, hlora, rope_append};
use bytemuck::{Pod, Zeroable};

/// Largest head_dim.
pub const MAX_HEAD_DIM: usize = 512;

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub window: u32,
    pub parts: u32,
    pub scale: f32,
    pub hlora: HLora,
    pub kv_factors: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "attention_decode",
    source: include_str!("../wgsl/attention_decode.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "qkv"), read(3, "rope"), write(4, "out")],
    params_bytes: size_of::<Params>(),
    data_imports: &[
        ("weights", &["weights_none", "weights_q8", "weights_f16", "weights_q4"]),
        ("kv_update", &["kv_update_f16", "kv_update_q8", "kv_update_f32"]),
    ],
    variants: REDUCTIONS,
    cases,
};

/// Makes room in workgroup memory for a head, and no more.
pub fn constants(head_dim: usize) -> [Constant; 2] {
    [("HEAD", head_dim as f64), ("HEAD4", head_dim as f64 / 4.0)]
}

/// Workgroups.
pub fn grid(heads: u32, parts: u32) -> [u32; 3] {
    [heads, parts, 1]
}

struct Shape {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    pos: usize,
    window: usize,
    kv: KvFormat,
    /// rank, experts, format of B
    adapter: Option<(usize, usize, Format)>,
    parts: usize,
}

fn cases() -> Vec<Case> {
    let q4 = Format::Q4 { group: 32, zero_points: true };
    let base = Shape {
        name: "",
        heads: 6,
        kv_heads: 6,
        head_dim: 32,
        pos: 9,
        window: 2047,
        kv: KvFormat::F32,
        adapter: Some((64, 4, Format::Q8)),
        parts: 1,
    };
    [
        Shape { name: "first position", pos: 0, ..base },
        Shape { name: "no adapter, past two tiles", pos: 140, adapter: None, ..base },
        Shape { name: "f16 cache", pos: 70, kv: KvFormat::F16, adapter: Some((6, 3, Format::F16)), ..base },
        Shape { name: "int8 cache", kv_heads: 3, pos: 70, kv: KvFormat::Q8, ..base },
        Shape { name: "M3 heads", heads: 2, kv_heads: 2, head_dim: 96, pos: 64, ..base },
        Shape {
            name: "grouped heads, q4 adapter",
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            adapter: Some((256, 4, q4)),
            ..base
        },
        Shape { name: "window of 5", pos: 90, window: 5, ..base },
        Shape { name: "no window", pos: 90, window: u32::MAX as usize, ..base },
        Shape { name: "three parts", pos: 150, parts: 3, ..base },
        Shape { name: "more parts than tiles", heads: 4, kv_heads: 2, pos: 70, parts: 4, ..base },
        Shape { name: "parts of a window", pos: 300, window: 130, parts: 2, ..base },
        Shape { name: "head of 12", heads: 4, kv_heads: 2, head_dim: 12, ..base },
        Shape { name: "widest head", heads: 1, kv_heads: 1, head_dim: 512, pos: 3, ..base },
    ]
    .into_iter()
    .map(case)
    .collect()
}

fn case(s: Shape) -> Case {
    let (d, kv_dim) = (s.head_dim, s.kv_heads * s.head_dim);
    let outputs = (s.heads + 2 * s.kv_heads) * d;
    let before = [noise("k", (s.pos + 2) * kv_dim), noise("v", (s.pos + 2) * kv_dim)];
    let [mut k, mut v] = before.clone().map(|x| kv_rounded(s.kv, x));

    let mut linear = noise("qkv", outputs);
    let mut qkv = linear.clone();
    let (mut imports, mut constants, mut inputs) = (vec![s.kv.update_import()], vec![], vec![]);
    let mut hlora = HLora::default();
    match s.adapter {
        Some((rank, experts, format)) => {
            let (made, up, u) = made_up(rank, experts, outputs, format);
            hlora = made;
            for (y, a) in linear.iter_mut().zip(adapter(&hlora, &up, &u)) {
                *y += a / 4.0;
            }
            // Weaker than made up, so that no score leaves all others behind.
            hlora.hlora_scale /= 4.0;
            qkv.extend(u);
            inputs.extend(weight_inputs(&up));
            imports.push(format.import());
            constants = format.constants();
        }
        None => {
            qkv.resize(outputs + 1, f32::NAN);
            imports.push(("weights", "weights_none"));
        }
    }
    constants.extend(self::constants(d));
    constants.push(hlora::constant(hlora.up_blocks.max(1) as usize));
    let turn =
        rope_append::Params { heads: s.heads as u32, kv_heads: s.kv_heads as u32, head_dim: d as u32, kv_factors: 0 };
    let rope = rope_append::table(s.pos + 1, d, 10000.0);
    let [q, own_k, own_v] = rope_append::reference(&turn, &rope, &linear, s.pos);
    // The token itself is taken as it is; what is written for later tokens may be rounded.
    k[s.pos * kv_dim..][..kv_dim].copy_from_slice(&own_k);
    v[s.pos * kv_dim..][..kv_dim].copy_from_slice(&own_v);

    let scale = 1.0 / (d as f64).sqrt();
    let first = s.pos.saturating_sub(s.window);
    let each = (s.pos - first).div_ceil(s.parts).next_multiple_of(64);
    let mut out = Vec::new();
    for part in 0..s.parts {
        let begin = first + part * each;
        let mut seen: Vec<usize> = (begin..(begin + each).min(s.pos)).collect();
        if part == s.parts - 1 {
            seen.push(s.pos);
        }
        for h in 0..s.heads {
            let at = (h / (s.heads / s.kv_heads)) * d;
            let rows =
                |x: &'_ [f32]| -> Vec<Vec<f32>> { seen.iter().map(|j| x[j * kv_dim + at..][..d].to_vec()).collect() };
            let (k, v) = (rows(&k), rows(&v));
            let (k, v): (Vec<&[f32]>, Vec<&[f32]>) =
                (k.iter().map(Vec::as_slice).collect(), v.iter().map(Vec::as_slice).collect());
            let q = &q[h * d..][..d];
            if s.parts == 1 {
                out.extend(attention::reference(q, &k, &v, scale));
                continue;
            }
            let scores: Vec<f64> = k
                .iter()
                .map(|k| scale * q.iter().zip(*k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>())
                .collect();
            let largest = scores.iter().fold(f64::MIN, |m, s| f64::max(m, *s));
            let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            let mean = if seen.is_empty() { vec![0.0; d] } else { attention::reference(q, &k, &v, scale) };
            out.extend(mean.iter().map(|m| (f64::from(*m) * total) as f32));
            out.extend([if seen.is_empty() { 0.0 } else { largest as f32 }, total as f32, 0.0, 0.0]);
        }
    }
    let params = Params {
        heads: s.heads as u32,
        kv_heads: s.kv_heads as u32,
        head_dim: d as u32,
        window: s.window as u32,
        parts: s.parts as u32,
        scale: scale as f32,
        hlora,
        kv_factors: s.kv.factors_at((s.pos + 2) * kv_dim),
    };
    inputs.extend([input_f32("qkv", &qkv), input_f32("rope", rope.as_flattened())]);
    Case {
        name: s.name.into(),
        imports,
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        step: Step::new(s.pos, 1),
        inputs,
        outputs: vec![
            output_f32("out", out),
            kv_output("k_cache", s.kv, &before[0], k),
            kv_output("v_cache", s.kv, &before[1], v),
        ],
        grid: Box::new(move |_| grid(s.heads as u32, s.parts as u32)),
    }
}

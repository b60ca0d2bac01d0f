//! The language model: Phi-3 with H-LoRA in every linear.
//!
//! Source: Phi-3 report §2; HealthGPT §3 for the adapters.

use super::config::{Config, Language, Task};
use super::load::Loader;
use super::tensors::LINEARS;
use crate::Result;
use crate::gpu::{Buffer, Gpu, Usage};
use crate::plan::{Act, Attention, Builder, HLora, Linear, Matrix, Vector};
use shaders::KvFormat;
use std::ops::Range;

/// One decoder layer, shared by the tasks.
pub(crate) struct Layer {
    input_norm: Vector,   // [d]
    linears: [Matrix; 4], // qkv [q + 2 kv, d], o [d, q], gate_up [2 f, d], down [d, f]
    post_norm: Vector,    // [d]
}

/// The decoder without tables.
pub(crate) struct Phi3 {
    layers: Vec<Layer>,
    norm: Vector, // [d]
}

/// What a task brings of its own to the decoder.
pub(crate) struct Adapted {
    /// Embedding table `[rows][d]`.
    pub embed: Matrix,
    /// Output head `[rows][d]`.
    pub head: Matrix,
    /// Adapters by layer, in the order of [`LINEARS`].
    pub adapters: Vec<[HLora; 4]>,
}

/// Keys and values of a conversation: one buffer each a layer, `[positions][kv_heads head_dim]`.
pub(crate) struct KvCache {
    pub positions: usize,
    k: Vec<Buffer>,
    v: Vec<Buffer>,
    rope: Buffer,
}

impl KvCache {
    /// *Errors*: those of an allocation.
    pub fn new(gpu: &Gpu, l: &Language, positions: usize, format: KvFormat) -> Result<Self> {
        let bytes = (positions * l.kv_heads * l.head_dim * format.bytes()) as u64;
        let buffers = |what: &str| -> Result<Vec<_>> {
            (0..l.layers).map(|i| gpu.buffer(&format!("{what} {i}"), bytes, Usage::Activation)).collect()
        };
        let table = shaders::rope_append::table(positions, l.head_dim, l.rope_theta);
        let rope = gpu.buffer("rope", (table.len() * 8) as u64, Usage::Weights)?;
        gpu.write(&rope, 0, bytemuck::cast_slice(&table));
        Ok(KvCache { positions, k: buffers("k_cache")?, v: buffers("v_cache")?, rope })
    }
}

impl Phi3 {
    pub fn load(loader: &mut Loader, config: &Config) -> Result<Self> {
        let layer = |i: usize, loader: &mut Loader| -> Result<Layer> {
            let stem = format!("language.layers.{i}");
            let input_norm = loader.vector(&format!("{stem}.input_norm"))?;
            let [a, b, c, d] = LINEARS.map(|(linear, _)| loader.matrix(&format!("{stem}.{linear}")));
            let post_norm = loader.vector(&format!("{stem}.post_norm"))?;
            Ok(Layer { input_norm, linears: [a?, b?, c?, d?], post_norm })
        };
        let layers = (0..config.language.layers).map(|i| layer(i, loader)).collect::<Result<_>>()?;
        Ok(Phi3 { layers, norm: loader.vector("language.norm")? })
    }

    /// The residual stream after all layers; `x` `[n, d]` is updated in place.
    pub fn layers(&self, p: &mut Builder, l: &Language, task: &Adapted, kv: &KvCache, x: Act) {
        for (i, layer) in self.layers.iter().enumerate() {
            p.scope(format!("layers.{i}"));
            let attention = Attention {
                heads: l.heads,
                kv_heads: l.kv_heads,
                head_dim: l.head_dim,
                window: l.sliding_window,
                rope: &kv.rope,
                k: &kv.k[i],
                v: &kv.v[i],
            };
            layer.forward(p, l, &task.adapters[i], &attention, x);
            p.tap("out", x);
        }
        p.scope("");
    }

    /// Final norm of every row, for comparisons.
    pub fn norm_all(&self, p: &mut Builder, l: &Language, x: Act) -> Act {
        let all = p.rmsnorm(x, &self.norm, l.rms_norm_eps);
        p.tap("final_norm", all);
        all
    }

    /// Logits of the last token of a run.
    pub fn head_last(&self, p: &mut Builder, l: &Language, task: &Adapted, x: Act, logits: Act) {
        let last = p.rmsnorm_last(x, &self.norm, l.rms_norm_eps);
        p.matrix_into(&task.head, last, logits);
    }
}

impl Layer {
    /// One decoder layer. `x`: `[n, d]`, the residual stream, updated in place.
    fn forward(&self, p: &mut Builder, l: &Language, adapters: &[HLora; 4], kv: &Attention, x: Act) {
        let [qkv, o, gate_up, down] =
            std::array::from_fn(|i| Linear { weight: &self.linears[i], bias: None, hlora: Some(&adapters[i]) });

        let h = p.rmsnorm(x, &self.input_norm, l.rms_norm_eps);
        let qkv = p.linear(&qkv, h); // [n, q + 2 kv]
        p.tap("qkv", qkv);
        let q = p.rope_append(qkv, kv); // [n, q]; k, v go to the cache
        let a = p.attention(q, kv); // [n, q]
        let o = p.linear(&o, a); // [n, d]
        p.tap("attn_out", o);
        p.add(x, o);

        let h = p.rmsnorm(x, &self.post_norm, l.rms_norm_eps);
        let gate_up = p.linear(&gate_up, h); // [n, 2 f]
        let m = p.swiglu(gate_up); // [n, f]
        let down = p.linear(&down, m); // [n, d]
        p.add(x, down);
    }
}

impl Adapted {
    /// With the rows `head` of the head.
    pub fn load(loader: &mut Loader, config: &Config, task: Task, head: Range<usize>) -> Result<Self> {
        Ok(Adapted {
            embed: loader.table(&format!("{}.embed", task.name()))?,
            head: loader.matrix_rows(&format!("{}.head", task.name()), head)?,
            adapters: (0..config.language.layers).map(|i| loader.layer_adapters(task, i)).collect::<Result<_>>()?,
        })
    }
}

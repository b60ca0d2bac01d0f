//! The language model: Phi-3 with H-LoRA in every linear.
//!
//! Source: Phi-3 report §2; HealthGPT §3 for the adapters.

use super::config::{Config, Language, Task};
use super::load::Loader;
use super::tensors::LINEARS;
use crate::gpu::{Buffer, Gpu, Usage};
use crate::plan::{Act, Attention, Builder, HLora, Linear, Matrix, Stream, Vector};
use crate::{Error, Result};
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
    /// Adapters by layer, in the order of [`LINEARS`]; none if they lie in the base weights.
    pub adapters: Vec<[HLora; 4]>,
}

/// Keys and values of a conversation: one buffer each a layer, `[positions][kv_heads head_dim]`.
pub(crate) struct KvCache {
    pub positions: usize,
    format: KvFormat,
    k: Vec<Buffer>,
    v: Vec<Buffer>,
    rope: Buffer,
}

impl KvCache {
    /// *Errors*: [`Error::Input`] for heads that the format cannot hold; those of an allocation.
    pub fn new(gpu: &Gpu, l: &Language, positions: usize, format: KvFormat) -> Result<Self> {
        if format == KvFormat::Q8 && !l.head_dim.is_multiple_of(KvFormat::GROUP) {
            let problem =
                format!("heads of {} elements; a cache in q8 needs a multiple of {}", l.head_dim, KvFormat::GROUP);
            return Err(Error::Input { what: "kv".into(), problem });
        }
        let bytes = format.bytes(positions * l.kv_heads * l.head_dim) as u64;
        let buffers = |what: &str| -> Result<Vec<_>> {
            (0..l.layers).map(|i| gpu.buffer(&format!("{what} {i}"), bytes, Usage::Activation)).collect()
        };
        let table = shaders::rope_append::table(positions, l.head_dim, l.rope_theta);
        let rope = gpu.buffer("rope", (table.len() * 8) as u64, Usage::Weights)?;
        gpu.write(&rope, 0, bytemuck::cast_slice(&table));
        Ok(KvCache { positions, format, k: buffers("k_cache")?, v: buffers("v_cache")?, rope })
    }

    fn attention(&self, l: &Language, layer: usize) -> Attention<'_> {
        Attention {
            heads: l.heads,
            kv_heads: l.kv_heads,
            head_dim: l.head_dim,
            window: l.sliding_window,
            rope: &self.rope,
            k: &self.k[layer],
            v: &self.v[layer],
            kv: self.format,
            kv_factors: self.format.factors_at(self.positions * l.kv_heads * l.head_dim),
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.k.iter().chain(&self.v).map(Buffer::size).sum()
    }

    /// Those of the table of cosines and sines.
    pub fn rope_bytes(&self) -> u64 {
        self.rope.size()
    }
}

impl Phi3 {
    pub fn load(loader: &mut Loader, config: &Config) -> Result<Self> {
        let layers = (0..config.language.layers).map(|i| Layer::load(loader, i)).collect::<Result<_>>()?;
        Ok(Phi3 { layers, norm: loader.vector("language.norm")? })
    }

    /// The residual stream after all layers; `x` `[n, d]` is updated in place. `adapts`: with the task's adapters.
    pub fn layers(&self, p: &mut Builder, l: &Language, task: &Adapted, adapts: bool, kv: &KvCache, x: Act) -> Stream {
        let mut stream = p.stream(x, &self.layers[0].input_norm, l.rms_norm_eps);
        for (i, layer) in self.layers.iter().enumerate() {
            p.scope(format!("layers.{i}"));
            let next = self.layers.get(i + 1).map_or(&self.norm, |l| &l.input_norm);
            let adapters = task.adapters.get(i).filter(|_| adapts);
            stream = layer.forward(p, l, adapters, &kv.attention(l, i), stream, next);
            p.tap("out", x);
        }
        p.scope("");
        stream
    }

    /// Final norm of every row, for comparisons.
    pub fn norm_all(&self, p: &mut Builder, l: &Language, x: Act) -> Act {
        let all = p.rmsnorm(x, &self.norm, l.rms_norm_eps);
        p.tap("final_norm", all);
        all
    }

    /// Logits of the last token of a run.
    pub fn head_last(&self, p: &mut Builder, l: &Language, task: &Adapted, stream: Stream, logits: Act) {
        p.head_last(&task.head, stream, &self.norm, l.rms_norm_eps, logits);
    }
}

impl Layer {
    pub fn load(loader: &mut Loader, i: usize) -> Result<Self> {
        let stem = format!("language.layers.{i}");
        let input_norm = loader.vector(&format!("{stem}.input_norm"))?;
        let [a, b, c, d] = LINEARS.map(|(linear, _)| loader.matrix(&format!("{stem}.{linear}")));
        let post_norm = loader.vector(&format!("{stem}.post_norm"))?;
        Ok(Layer { input_norm, linears: [a?, b?, c?, d?], post_norm })
    }

    /// This layer alone, of many tokens; `x` `[n, d]` is updated in place. `kv` holds one layer.
    pub fn alone(&self, p: &mut Builder, l: &Language, adapters: Option<&[HLora; 4]>, kv: &KvCache, x: Act) {
        assert!(x.rows > 1, "what follows this layer is not known");
        let stream = p.stream(x, &self.input_norm, l.rms_norm_eps);
        self.forward(p, l, adapters, &kv.attention(l, 0), stream, &self.post_norm);
    }

    /// One decoder layer over the residual stream `[n, d]`; `next` is the norm after it.
    fn forward(
        &self,
        p: &mut Builder,
        l: &Language,
        adapters: Option<&[HLora; 4]>,
        kv: &Attention,
        x: Stream,
        next: &Vector,
    ) -> Stream {
        let [qkv, o, gate_up, down] =
            std::array::from_fn(|i| Linear { weight: &self.linears[i], hlora: adapters.map(|a| &a[i]) });

        let qkv = p.linear_norm(&qkv, x, &self.input_norm, l.rms_norm_eps); // [n, q + 2 kv]
        p.tap("qkv", qkv.y);
        let a = p.attention(qkv, kv); // [n, q]; k, v go to the cache
        p.tap_input("values", a);
        let x = p.linear_add(&o, "attn_out", a, x, &self.post_norm);
        p.tap_input("middle", x.x);

        let gate_up = p.linear_norm(&gate_up, x, &self.post_norm, l.rms_norm_eps); // [n, 2 f]
        let m = p.swiglu(gate_up); // [n, f]
        p.tap_input("inner", m);
        p.linear_add(&down, "mlp_out", m, x, next)
    }
}

impl Adapted {
    /// Bytes of the adapters on the device.
    pub fn adapter_bytes(&self) -> u64 {
        self.adapters.iter().flatten().map(|h| h.down.bytes() + h.up.bytes()).sum()
    }

    /// With the rows `head` of the head.
    pub fn load(loader: &mut Loader, config: &Config, task: Task, head: Range<usize>) -> Result<Self> {
        Ok(Adapted {
            embed: loader.table(&format!("{}.embed", task.name()))?,
            head: loader.matrix_rows(&format!("{}.head", task.name()), head)?,
            adapters: (0..config.language.layers)
                .filter_map(|i| loader.layer_adapters(task, i).transpose())
                .collect::<Result<_>>()?,
        })
    }
}

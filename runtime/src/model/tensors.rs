//! The table of every tensor of a model file: name, shape, what it is made from. Loader, quantiser and report read it.

use super::basis::{FOLDED_NORM, channel_scale};
use super::config::{Config, Task, Vqgan};

/// Which recipe entry decides the precision of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The four linears of a decoder layer.
    Language,
    /// `[A; R]` and B.
    Adapter,
    /// `lm_head`.
    Head,
    /// Linears of the vision tower, patch convolution included.
    Vision,
    /// The projector.
    Projector,
    /// Convolutions of the picture decoder.
    Vqgan,
}

impl Class {
    /// All, in the order of the file.
    pub const ALL: [Class; 6] =
        [Class::Language, Class::Adapter, Class::Head, Class::Vision, Class::Projector, Class::Vqgan];

    /// As in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Language => "language",
            Class::Adapter => "adapter",
            Class::Head => "head",
            Class::Vision => "vision",
            Class::Projector => "projector",
            Class::Vqgan => "vqgan",
        }
    }
}

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A weight matrix `[rows][cols]`, packed in the format that the recipe gives its class.
    Matrix {
        /// Who decides the format.
        class: Class,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
    },
    /// An embedding table, row-major f16 `[rows][cols]`.
    Table {
        /// Ids.
        rows: usize,
        /// Width.
        cols: usize,
    },
    /// f32 `[rows][cols]`; a vector has one row. Small and sensitive: norms, biases, positions, codebook.
    Plain {
        /// First dimension.
        rows: usize,
        /// Second dimension.
        cols: usize,
    },
}

/// A part of the published checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Phi-3.
    Language,
    /// CLIP.
    Vision,
    /// A task's H-LoRA file, projector included.
    Adapter(Task),
    /// Tables of the generation task; where the adapter file brings its own, those win.
    Tables(Task),
    /// VQGAN.
    Vqgan,
}

/// What a tensor is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Rows of these tensors, one after another.
    Stack(Part, Vec<String>),
    /// A convolution `[out][in][kh][kw]` as `[out][kh][kw][in]`: a picture is stored channels last.
    Convolution(Part, String),
    /// A patch convolution `[v][3][p][p]` as it is, flattened.
    Flatten(Part, String),
    /// The position table with the class embedding added to its first row, so that the class token's patch may be zero.
    ClassAndPosition(Part, String, String),
    /// The base table's rows below `vocabulary.tokens`, then their mean: every later row of the resized table.
    BaseWithMean(Part, String),
    /// The task's own table, one row per id.
    OwnTable(Part, String),
    /// Nothing published: what tells the file's basis. A run does not need it.
    Basis,
}

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name in the file; planes of a packed matrix have it as a prefix.
    pub name: String,
    /// Storage and shape.
    pub kind: Kind,
    /// What it is made from.
    pub origin: Origin,
}

impl Spec {
    /// The class of a matrix.
    pub fn class(&self) -> Option<Class> {
        match self.kind {
            Kind::Matrix { class, .. } => Some(class),
            Kind::Table { .. } | Kind::Plain { .. } => None,
        }
    }
}

/// Prefix of CLIP's names.
const CLIP: &str = "vision_model.";

struct Table(Vec<Spec>);

impl Table {
    fn push(&mut self, name: String, kind: Kind, origin: Origin) {
        self.0.push(Spec { name, kind, origin });
    }

    fn matrix(&mut self, name: String, class: Class, [rows, cols]: [usize; 2], origin: Origin) {
        self.push(name, Kind::Matrix { class, rows, cols }, origin);
    }

    fn vector(&mut self, name: String, cols: usize, origin: Origin) {
        self.push(name, Kind::Plain { rows: 1, cols }, origin);
    }

    /// `weight` and `bias` of one linear.
    fn biased(&mut self, name: &str, class: Class, shape: [usize; 2], part: Part, sources: &[String]) {
        let named = |suffix: &str| Origin::Stack(part, sources.iter().map(|s| format!("{s}.{suffix}")).collect());
        self.matrix(name.into(), class, shape, named("weight"));
        self.vector(format!("{name}.bias"), shape[0], named("bias"));
    }

    /// `weight` and `bias` of a norm.
    fn norm(&mut self, name: &str, cols: usize, part: Part, source: &str) {
        for suffix in ["weight", "bias"] {
            self.vector(format!("{name}.{suffix}"), cols, Origin::Stack(part, vec![format!("{source}.{suffix}")]));
        }
    }

    fn convolution(&mut self, name: &str, [out, inputs, side]: [usize; 3], source: &str) {
        let shape = [out, inputs * side * side];
        self.matrix(name.into(), Class::Vqgan, shape, Origin::Convolution(Part::Vqgan, format!("{source}.weight")));
        self.vector(format!("{name}.bias"), out, Origin::Stack(Part::Vqgan, vec![format!("{source}.bias")]));
    }
}

/// The four linears of a decoder layer: name in the file, name in the checkpoint.
pub const LINEARS: [(&str, &str); 4] = [
    ("qkv", "self_attn.qkv_proj"),
    ("o", "self_attn.o_proj"),
    ("gate_up", "mlp.gate_up_proj"),
    ("down", "mlp.down_proj"),
];

impl Config {
    /// `[outputs, inputs]` of [`LINEARS`].
    pub fn linear_shapes(&self) -> [[usize; 2]; 4] {
        let l = &self.language;
        let (q, kv) = (l.heads * l.head_dim, l.kv_heads * l.head_dim);
        [[q + 2 * kv, l.hidden], [l.hidden, q], [2 * l.intermediate, l.hidden], [l.hidden, l.intermediate]]
    }

    /// Every tensor of the file, in the order in which they are stored: what both tasks share, then each task's own,
    /// so that a task's weights lie together.
    pub fn tensors(&self) -> Vec<Spec> {
        let mut t = Table(Vec::new());
        self.language_tensors(&mut t);
        self.vision_tensors(&mut t);
        for task in Task::ALL {
            self.task_tensors(&mut t, task);
        }
        if let Some(vqgan) = &self.vqgan {
            vqgan_tensors(&mut t, vqgan);
        }
        t.0
    }

    fn language_tensors(&self, t: &mut Table) {
        let l = &self.language;
        let one = |source: String| Origin::Stack(Part::Language, vec![source]);
        for i in 0..l.layers {
            for (name, source) in [("input_norm", "input_layernorm"), ("post_norm", "post_attention_layernorm")] {
                t.vector(format!("language.layers.{i}.{name}"), l.hidden, one(format!("layers.{i}.{source}.weight")));
            }
            for ((name, source), shape) in LINEARS.iter().zip(self.linear_shapes()) {
                let origin = one(format!("layers.{i}.{source}.weight"));
                t.matrix(format!("language.layers.{i}.{name}"), Class::Language, shape, origin);
            }
        }
        t.vector("language.norm".into(), l.hidden, one("norm.weight".into()));
        if self.basis.rotation.is_some() {
            t.vector(FOLDED_NORM.into(), l.hidden, Origin::Basis);
        }
        for i in 0..if self.basis.scaled { l.layers } else { 0 } {
            for ((name, _), [_, inputs]) in LINEARS.iter().zip(self.linear_shapes()) {
                t.vector(channel_scale(i, name), inputs, Origin::Basis);
            }
        }
    }

    fn vision_tensors(&self, t: &mut Table) {
        let Some(v) = &self.vision else { return };
        let part = Part::Vision;
        let embeddings = format!("{CLIP}embeddings");
        let patch = Origin::Flatten(part, format!("{embeddings}.patch_embedding.weight"));
        t.matrix("vision.patch".into(), Class::Vision, [v.hidden, v.patch_inputs()], patch);
        let position = Origin::ClassAndPosition(
            part,
            format!("{embeddings}.class_embedding"),
            format!("{embeddings}.position_embedding.weight"),
        );
        t.push("vision.position".into(), Kind::Plain { rows: v.patches() + 1, cols: v.hidden }, position);
        t.norm("vision.pre_norm", v.hidden, part, &format!("{CLIP}pre_layrnorm"));
        for i in 0..v.layers {
            let (name, source) = (format!("vision.layers.{i}"), format!("{CLIP}encoder.layers.{i}"));
            let qkv = ["q_proj", "k_proj", "v_proj"].map(|p| format!("{source}.self_attn.{p}"));
            t.norm(&format!("{name}.norm1"), v.hidden, part, &format!("{source}.layer_norm1"));
            t.biased(&format!("{name}.qkv"), Class::Vision, [3 * v.hidden, v.hidden], part, &qkv);
            let linear = |from: &str| [format!("{source}.{from}")];
            t.biased(&format!("{name}.o"), Class::Vision, [v.hidden, v.hidden], part, &linear("self_attn.out_proj"));
            t.norm(&format!("{name}.norm2"), v.hidden, part, &format!("{source}.layer_norm2"));
            t.biased(&format!("{name}.fc1"), Class::Vision, [v.intermediate, v.hidden], part, &linear("mlp.fc1"));
            t.biased(&format!("{name}.fc2"), Class::Vision, [v.hidden, v.intermediate], part, &linear("mlp.fc2"));
        }
    }

    fn task_tensors(&self, t: &mut Table, task: Task) {
        let Some(config) = self.task(task) else { return };
        let l = &self.language;
        let name = task.name();
        let (part, a) = (Part::Adapter(task), &config.adapter);
        let table = |rows: usize, source: &str| {
            if rows == self.vocabulary.rows() {
                Origin::OwnTable(Part::Tables(task), source.into())
            } else {
                Origin::BaseWithMean(Part::Language, source.into())
            }
        };
        let rows = config.embed_rows;
        t.push(format!("{name}.embed"), Kind::Table { rows, cols: l.hidden }, table(rows, "embed_tokens.weight"));
        let rows = config.head_rows;
        t.matrix(format!("{name}.head"), Class::Head, [rows, l.hidden], table(rows, "lm_head.weight"));
        for i in 0..if a.folded { 0 } else { l.layers } {
            for ((linear, source), [outputs, inputs]) in LINEARS.iter().zip(self.linear_shapes()) {
                let stem = format!("{name}.layers.{i}.{linear}");
                let from = |suffix: &str| format!("layers.{i}.{source}.{suffix}.weight");
                let down = Origin::Stack(part, vec![from("lora_A"), from("lora_route")]);
                t.matrix(format!("{stem}.down"), Class::Adapter, [a.rank + a.experts, inputs], down);
                t.matrix(
                    format!("{stem}.up"),
                    Class::Adapter,
                    [outputs, a.rank],
                    Origin::Stack(part, vec![from("lora_B")]),
                );
            }
        }
        if let Some(v) = &self.vision {
            for (i, source, inputs) in [(0, "mm_projector.0", v.hidden), (1, "mm_projector.2", l.hidden)] {
                let shape = [l.hidden, inputs];
                t.biased(&format!("{name}.projector.{i}"), Class::Projector, shape, part, &[source.into()]);
            }
        }
    }
}

fn vqgan_tensors(t: &mut Table, q: &Vqgan) {
    let codebook = Origin::Stack(Part::Vqgan, vec!["quantize.embed.weight".into()]);
    t.push("vqgan.codebook".into(), Kind::Plain { rows: q.codes, cols: q.embed }, codebook);
    t.convolution("vqgan.post_quant", [q.z, q.embed, 1], "post_quant_conv");
    let last = q.multiples.len() - 1;
    let mut width = q.channels * q.multiples[last];
    t.convolution("vqgan.conv_in", [width, q.z, 3], "decoder.conv_in");
    residual_block(t, "mid.block_1", width, width);
    attention(t, "mid.attn_1", width);
    residual_block(t, "mid.block_2", width, width);
    for level in (0..=last).rev() {
        for block in 0..q.blocks {
            let out = q.channels * q.multiples[level];
            residual_block(t, &format!("up.{level}.block.{block}"), width, out);
            width = out;
            if q.attention_levels.contains(&level) {
                attention(t, &format!("up.{level}.attn.{block}"), width);
            }
        }
        if level > 0 {
            let name = format!("up.{level}.upsample");
            t.convolution(&format!("vqgan.{name}"), [width, width, 3], &format!("decoder.{name}.conv"));
        }
    }
    t.norm("vqgan.norm_out", width, Part::Vqgan, "decoder.norm_out");
    t.convolution("vqgan.conv_out", [q.out_channels, width, 3], "decoder.conv_out");
}

fn residual_block(t: &mut Table, stem: &str, inputs: usize, out: usize) {
    let (name, source) = (format!("vqgan.{stem}"), format!("decoder.{stem}"));
    t.norm(&format!("{name}.norm1"), inputs, Part::Vqgan, &format!("{source}.norm1"));
    t.convolution(&format!("{name}.conv1"), [out, inputs, 3], &format!("{source}.conv1"));
    t.norm(&format!("{name}.norm2"), out, Part::Vqgan, &format!("{source}.norm2"));
    t.convolution(&format!("{name}.conv2"), [out, out, 3], &format!("{source}.conv2"));
    if inputs != out {
        t.convolution(&format!("{name}.shortcut"), [out, inputs, 1], &format!("{source}.nin_shortcut"));
    }
}

fn attention(t: &mut Table, stem: &str, width: usize) {
    let (name, source) = (format!("vqgan.{stem}"), format!("decoder.{stem}"));
    t.norm(&format!("{name}.norm"), width, Part::Vqgan, &format!("{source}.norm"));
    for (linear, from) in [("q", "q"), ("k", "k"), ("v", "v"), ("o", "proj_out")] {
        t.convolution(&format!("{name}.{linear}"), [width, width, 1], &format!("{source}.{from}"));
    }
}

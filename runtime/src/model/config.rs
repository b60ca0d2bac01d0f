//! Every dimension of a model, as the file's header states it. Nothing here has a built-in default.

use super::basis::Basis;
use serde::{Deserialize, Serialize};

/// The two things HealthGPT does. They differ in data, not in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Picture and question in, text out ("comprehension").
    Ask,
    /// Picture and instruction in, picture out ("generation").
    Generate,
}

impl Task {
    /// Both.
    pub const ALL: [Task; 2] = [Task::Ask, Task::Generate];

    /// As on the command line and in tensor names.
    pub fn name(self) -> &'static str {
        match self {
            Task::Ask => "ask",
            Task::Generate => "generate",
        }
    }
}

/// A model file's `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The base language model, shared by the tasks.
    pub language: Language,
    /// What the tokenizer knows.
    pub vocabulary: Vocabulary,
    /// The vision tower; absent in a file that takes no pictures.
    pub vision: Option<Vision>,
    /// What answers need.
    pub ask: Option<TaskConfig>,
    /// What pictures out need.
    pub generate: Option<TaskConfig>,
    /// The picture decoder, there with `generate`.
    pub vqgan: Option<Vqgan>,
    /// The basis of the weights, where it is not the published one.
    #[serde(default, skip_serializing_if = "Basis::is_published")]
    pub basis: Basis,
}

/// Phi-3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Language {
    /// Decoder layers.
    pub layers: usize,
    /// Width d of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Inner width f of the feed-forward network.
    pub intermediate: usize,
    /// Under the root of RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Keys before itself that a query sees; all if absent.
    pub sliding_window: Option<usize>,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
}

/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// `len(tokenizer)`: base pieces and added tokens. Ids from here on are HealthGPT's.
    pub tokens: usize,
    /// Picture codes; three more tokens stand around them.
    pub codes: usize,
}

impl Vocabulary {
    /// Rows of the resized tables: tokens, `<start_index>`, codes, `<end_index>`, `<pixel_newline>`.
    pub fn rows(&self) -> usize {
        self.tokens + self.codes + 3
    }
}

/// CLIP's vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vision {
    /// Layers stored: the most that a task needs.
    pub layers: usize,
    /// Width v.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Inner width of the MLP.
    pub intermediate: usize,
    /// Side of the picture in pixels.
    pub image: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Of LayerNorm.
    pub layer_norm_eps: f32,
    /// `quick_gelu` or `gelu`.
    pub activation: String,
    /// `preprocessor_config.json`, as published.
    pub preprocessor: serde_json::Value,
}

impl Vision {
    /// Patches of a picture, P.
    pub fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }

    /// Inputs of the patch convolution.
    pub fn patch_inputs(&self) -> usize {
        3 * self.patch * self.patch
    }
}

/// What differs between the tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskConfig {
    /// Vision layers computed: `hidden_states[k]` is what the projector sees.
    pub vision_layers: usize,
    /// Rows of the task's embedding table. With `vocabulary.tokens + 1` rows the last one stands for all later ids;
    /// else there is one per id.
    pub embed_rows: usize,
    /// Rows of the task's head, likewise.
    pub head_rows: usize,
    /// Its adapter.
    pub adapter: Adapter,
}

/// An H-LoRA adapter: `y = W x + B (gates of experts, each repeated rank / experts times) * scale * A x`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Rows of A, all experts together.
    pub rank: usize,
    /// Rows of the router.
    pub experts: usize,
    /// alpha / rank * experts.
    pub scale: f32,
    /// Whether it lies in the base weights, its gates fixed at their means, instead of beside them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
}

/// taming-transformers' GumbelVQ decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vqgan {
    /// Codes of the codebook.
    pub codes: usize,
    /// Width of a codebook row.
    pub embed: usize,
    /// Width after `post_quant_conv`.
    pub z: usize,
    /// Channels of the widest picture.
    pub channels: usize,
    /// Multiples of `channels` by level, the largest picture first.
    pub multiples: Vec<usize>,
    /// Residual blocks of a level, the decoder's extra one included.
    pub blocks: usize,
    /// Levels with attention after each block.
    pub attention_levels: Vec<usize>,
    /// Side of the code grid.
    pub grid: usize,
    /// Channels of the picture.
    pub out_channels: usize,
}

impl Vqgan {
    /// Groups of every GroupNorm; fixed in taming-transformers.
    pub const GROUPS: usize = 32;
    /// Under its root; fixed likewise.
    pub const EPS: f32 = 1e-6;

    /// Codes of a picture.
    pub fn codes_per_picture(&self) -> usize {
        self.grid * self.grid
    }

    /// Side of the picture in pixels.
    pub fn side(&self) -> usize {
        self.grid << (self.multiples.len() - 1)
    }
}

impl Config {
    /// Most positions of a session.
    pub fn context_max(&self) -> usize {
        self.language.max_positions
    }

    /// Positions that a picture takes; 0 for a model that takes none.
    pub fn image_tokens(&self) -> usize {
        self.vision.as_ref().map_or(0, Vision::patches)
    }

    /// Side of the pictures that are drawn, in pixels; 0 for a model that draws none.
    pub fn output_side(&self) -> usize {
        self.vqgan.as_ref().map_or(0, Vqgan::side)
    }

    /// The task's part.
    pub fn task(&self, task: Task) -> Option<&TaskConfig> {
        match task {
            Task::Ask => self.ask.as_ref(),
            Task::Generate => self.generate.as_ref(),
        }
    }

    /// Checks what the kernels take for granted.
    ///
    /// *Errors*: one line that names the dimension, its value and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        let bounded = |name: &str, value: usize, most: usize| {
            rule((1..=most).contains(&value), format!("{name} is {value}; 1 to {most} is supported"))
        };
        let l = &self.language;
        bounded("language layers", l.layers, 1024)?;
        bounded("language hidden size", l.hidden, 1 << 16)?;
        bounded("language intermediate size", l.intermediate, 1 << 18)?;
        bounded("language heads", l.heads, 1024)?;
        bounded("language kv heads", l.kv_heads, 1024)?;
        bounded("language head_dim", l.head_dim, shaders::attention_decode::MAX_HEAD_DIM)?;
        bounded("language positions", l.max_positions, 1 << 24)?;
        bounded("vocabulary", self.vocabulary.tokens, 1 << 24)?;
        rule(
            self.vocabulary.codes <= 1 << 20,
            format!("{} codes; at most {} are supported", self.vocabulary.codes, 1 << 20),
        )?;
        rule(
            l.heads.is_multiple_of(l.kv_heads),
            format!("{} heads do not share {} kv heads evenly", l.heads, l.kv_heads),
        )?;
        rule(l.head_dim.is_multiple_of(4), format!("language head_dim is {}; a multiple of 4 is needed", l.head_dim))?;
        for (name, width) in [("hidden", l.hidden), ("intermediate", l.intermediate)] {
            rule(width.is_multiple_of(4), format!("language {name} size is {width}; a multiple of 4 is needed"))?;
        }
        rule(l.rms_norm_eps > 0.0 && l.rms_norm_eps < 1.0, format!("rms_norm_eps is {}", l.rms_norm_eps))?;
        rule(l.rope_theta > 1.0 && l.rope_theta.is_finite(), format!("rope_theta is {}", l.rope_theta))?;
        if let Some(v) = &self.vision {
            bounded("vision layers", v.layers, 1024)?;
            bounded("vision hidden size", v.hidden, 1 << 16)?;
            bounded("vision intermediate size", v.intermediate, 1 << 18)?;
            bounded("vision heads", v.heads, 1024)?;
            bounded("vision picture side", v.image, 4096)?;
            bounded("vision patch side", v.patch, v.image)?;
            bounded("vision patches", v.patches(), 1 << 14)?;
            rule(
                v.hidden.is_multiple_of(4 * v.heads),
                format!("{} vision heads do not divide {} into multiples of 4", v.heads, v.hidden),
            )?;
            bounded("vision head_dim", v.hidden / v.heads, shaders::attention::MAX_HEAD_DIM)?;
            rule(
                v.intermediate.is_multiple_of(4),
                format!("vision intermediate size is {}; a multiple of 4 is needed", v.intermediate),
            )?;
            rule(
                matches!(v.activation.as_str(), "quick_gelu" | "gelu"),
                format!("vision activation `{}` is not supported", v.activation),
            )?;
            rule(v.layer_norm_eps > 0.0 && v.layer_norm_eps < 1.0, format!("layer_norm_eps is {}", v.layer_norm_eps))?;
        }
        for task in Task::ALL {
            let Some(t) = self.task(task) else { continue };
            let name = task.name();
            let a = &t.adapter;
            bounded(&format!("{name} adapter rank"), a.rank, shaders::hlora::MAX_RANK)?;
            bounded(&format!("{name} adapter experts"), a.experts, a.rank)?;
            rule(
                a.rank.is_multiple_of(a.experts),
                format!("{name}: {} experts do not share rank {} evenly", a.experts, a.rank),
            )?;
            rule(a.scale.is_finite(), format!("{name}: adapter scale is {}", a.scale))?;
            let rows = [self.vocabulary.tokens + 1, self.vocabulary.rows()];
            rule(
                task == Task::Ask || t.head_rows == rows[1],
                format!("{name}: head of {} rows; {} are expected", t.head_rows, rows[1]),
            )?;
            for (table, count) in [("embedding table", t.embed_rows), ("head", t.head_rows)] {
                rule(
                    rows.contains(&count),
                    format!("{name}: {table} of {count} rows; {} or {} are expected", rows[0], rows[1]),
                )?;
            }
            let stored = self.vision.as_ref().map_or(0, |v| v.layers);
            rule(
                self.vision.is_none() || t.vision_layers <= stored,
                format!("{name} needs {} vision layers, {stored} are stored", t.vision_layers),
            )?;
        }
        if let Some(q) = &self.vqgan {
            bounded("vqgan codes", q.codes, 1 << 20)?;
            bounded("vqgan embed", q.embed, 1 << 12)?;
            bounded("vqgan z", q.z, 1 << 12)?;
            bounded("vqgan channels", q.channels, 1 << 14)?;
            bounded("vqgan levels", q.multiples.len(), 16)?;
            bounded("vqgan blocks", q.blocks, 64)?;
            bounded("vqgan grid", q.grid, 128)?;
            bounded("vqgan picture side", q.side(), 1024)?;
            bounded("vqgan out_channels", q.out_channels, 16)?;
            for m in &q.multiples {
                bounded("vqgan multiple", *m, 64)?;
                let width = m * q.channels;
                let fits = width.is_multiple_of(Vqgan::GROUPS) && width <= shaders::attention::MAX_HEAD_DIM;
                let most = shaders::attention::MAX_HEAD_DIM;
                rule(
                    fits,
                    format!("vqgan level of {width} channels; a multiple of {} up to {most} is needed", Vqgan::GROUPS),
                )?;
            }
            for (name, width) in [("embed", q.embed), ("z", q.z)] {
                rule(width.is_multiple_of(4), format!("vqgan {name} is {width}; a multiple of 4 is needed"))?;
            }
            let codes = self.vocabulary.codes;
            rule(q.codes == codes, format!("the codebook has {} codes, the vocabulary {codes}", q.codes))?;
        }
        let folded = |t: &Option<TaskConfig>| t.as_ref().is_some_and(|t| t.adapter.folded);
        let alone = self.ask.is_none() || self.generate.is_none();
        rule(
            alone || !(folded(&self.ask) || folded(&self.generate)),
            "an adapter lies in the base weights, which another task would share".into(),
        )?;
        rule(self.ask.is_some() || self.generate.is_some(), "the file holds neither task".into())?;
        rule(self.generate.is_none() || self.vqgan.is_some(), "generate needs the picture decoder".into())
    }
}

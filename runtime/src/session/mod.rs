//! The path of a request: an open model, and a conversation with it.

mod ask;
mod decode;
mod fit;
mod footprint;
mod generate;
mod layerwise;
mod measure;
mod model;
mod score;
mod trace;

pub use ask::{Answer, Finish, Request, Timings, Token};
pub use fit::Use;
pub use footprint::Footprint;
pub use generate::{Draw, Generated, Grid, Row};
pub use layerwise::{Inside, Layerwise, LoadedHead, LoadedLayer, project, ready_picture};
pub use measure::{KernelTime, Kernels, Measured, Speed, Workload};
pub use model::{Model, ModelSummary, OpenOptions, Picture, Progress};
pub use score::{By, Judged, Perplexity};
pub use trace::{Tensor, Trace, Values};

use crate::gpu::{Buffer, Gpu, Usage};
use crate::model::Task;
use crate::model::phi3::KvCache;
use crate::plan::{Builder, Control, Pacer, Plan, Pool, Submission, Submissions};
use crate::{Error, Result, thread};
use model::TaskWeights;
use shaders::{KvFormat, Step};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Allowed for the text of an instruction where the caller does not say.
const PROMPT_TOKENS: usize = 256;
/// Most tokens of a chunk: a workgroup's axis must hold them.
const MAX_CHUNK: usize = 4096;

/// How a session is planned.
#[derive(Clone)]
pub struct SessionOptions {
    /// What it is for.
    pub task: Task,
    /// Positions of the cache; by default the profile's, at most what the model was made for.
    pub context: Option<usize>,
    /// Format of the cache.
    pub kv: KvFormat,
    /// Most tokens computed at once; by default the profile's.
    pub chunk: Option<usize>,
    /// With the task's adapters; off only to measure what they are worth and what they cost.
    pub adapter: bool,
    /// Keep every named stage readable, for [`Session::trace`]; slower.
    pub traced: bool,
    /// What the system turn of every prompt says; by default what the model was trained with.
    pub system: Option<String>,
    /// How other threads reach the session while it works.
    pub control: Control,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            task: Task::Ask,
            context: None,
            kv: KvFormat::F16,
            chunk: None,
            adapter: true,
            traced: false,
            system: None,
            control: Control::new(),
        }
    }
}

/// A conversation: the cache of what has been computed, and the plans that extend it. Everything it needs on the device
/// is allocated when it is made.
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    chunk: usize,
    cache: KvCache,
    buffers: Buffers,
    prefill: Plan,
    decode: Plan,
    vision: Option<Plan>,
    decoder: Option<Plan>,
    /// What the cache holds, by position: token ids, or rows of the picture in the form of [`shaders::embed`].
    cached: Vec<u32>,
    /// Which picture `buffers.picture` holds.
    picture: Option<[u8; 32]>,
    pacer: Pacer,
    footprint: Footprint,
    /// Activations of the plans.
    _pool: Pool,
}

/// Buffers that outlive a run.
struct Buffers {
    step: Buffer,
    chunk_tokens: Buffer,  // [chunk]
    token: Buffer,         // [1]: written by argmax or the host, read by the next step
    logits: Buffer,        // [head rows]
    patches: Buffer,       // [P + 1, patch inputs]
    picture: Buffer,       // [P, d]
    codes: Buffer,         // [grid * grid]
    drawn: Buffer,         // [side * side, 3]
    readback: [Buffer; 2], // an id each, or one of them logits or the picture
}

impl Session {
    /// Plans a conversation and allocates all it needs.
    ///
    /// *Errors*: [`Error::Input`] for a context beyond the model's; [`Error::Faulty`] if the device computes a kernel wrongly
    /// that opening the model did not try; those of allocation.
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Self> {
        let gpu = &model.gpu;
        let config = &model.header.config;
        let l = &config.language;
        let most = l.max_positions;
        // A picture out needs a position per code and per row, and its prompt.
        let drawn = config.vqgan.as_ref().filter(|_| options.task == Task::Generate);
        let answer = drawn.map_or(0, |q| q.codes_per_picture() + q.grid);
        let prompt = config.vision.as_ref().map_or(0, |v| v.patches()) + PROMPT_TOKENS;
        let positions = options.context.unwrap_or(gpu.profile().context.max(prompt + answer).min(most));
        if positions < 2 || positions > most {
            let problem = format!("{positions} positions; this model takes 2 to {most}");
            return Err(Error::Input { what: "context".into(), problem });
        }
        let task = model.task(options.task)?;
        // For a format that opening did not know of.
        model.settle(&options)?;
        let chunk = options.chunk.unwrap_or(gpu.profile().chunk).clamp(2, positions.min(MAX_CHUNK));
        let cache = KvCache::new(gpu, l, positions, options.kv)?;
        let rows = config.vision.as_ref().map_or(1, |v| v.patches());
        let patch_cols = model.clip.as_ref().map_or(4, |c| c.patch_cols());
        let head_rows = task.adapted.head.rows;
        let drawn = config.vqgan.as_ref().filter(|_| task.decoder.is_some());
        let drawn_values = drawn.map_or(1, |q| q.side().pow(2) * q.out_channels);
        let buffer = |label, elements: usize, usage| gpu.buffer(label, (elements * 4) as u64, usage);
        let buffers = Buffers {
            step: buffer("step", 4, Usage::Uniform)?,
            chunk_tokens: buffer("tokens", chunk, Usage::Activation)?,
            token: buffer("token", 1, Usage::Activation)?,
            logits: buffer("logits", head_rows, Usage::Activation)?,
            patches: buffer("patches", (rows + 1) * patch_cols, Usage::Activation)?,
            picture: buffer("picture", rows * l.hidden, Usage::Activation)?,
            codes: buffer("codes", drawn.map_or(1, |q| q.codes_per_picture()), Usage::Activation)?,
            drawn: buffer("drawn", drawn_values, Usage::Activation)?,
            readback: [
                buffer("readback", head_rows.max(drawn_values), Usage::Readback)?,
                buffer("readback", 1, Usage::Readback)?,
            ],
        };
        let tokens_plan = |rows: usize| {
            let mut p = Builder::new(gpu, rows, options.traced);
            let ids = if rows == 1 { &buffers.token } else { &buffers.chunk_tokens };
            let tokens = p.fixed(ids, rows, 1);
            let x = p.embed(tokens, &task.adapted.embed, &buffers.picture);
            p.tap("embeds", x);
            let stream = model.phi3.layers(&mut p, l, &task.adapted, options.adapter, &cache, x);
            if options.traced && rows > 1 {
                model.phi3.norm_all(&mut p, l, x);
            }
            let logits = p.fixed(&buffers.logits, 1, head_rows);
            model.phi3.head_last(&mut p, l, &task.adapted, stream, logits);
            p.tap("logits", logits);
            let token = p.fixed(&buffers.token, 1, 1);
            p.argmax(logits, task.rows.ordinary, task.rows.first_id, token);
            p
        };
        // Side by side, for drivers that compile a pipeline when it is made.
        let (prefill, decode, vision, decoder) = std::thread::scope(|scope| {
            let decode = thread::spawn(scope, || tokens_plan(1));
            let vision = thread::spawn(scope, || vision_plan(model, task, &options, &buffers));
            let decoder = thread::spawn(scope, || decoder_plan(model, task, &options, &buffers));
            let prefill = tokens_plan(chunk);
            (prefill, joined(decode), joined(vision), joined(decoder))
        });
        let mut pool = Pool::default();
        let prefill = prefill.finish(&mut pool, &buffers.step)?;
        let decode = decode.finish(&mut pool, &buffers.step)?;
        let vision = vision.map(|p| p.finish(&mut pool, &buffers.step)).transpose()?;
        let decoder = decoder.map(|p| p.finish(&mut pool, &buffers.step)).transpose()?;
        let pacer = Pacer::new(gpu, options.control.clone())?;
        let plans = [Some(&prefill), Some(&decode), vision.as_ref(), decoder.as_ref()].into_iter().flatten();
        let staging = buffers.readback.iter().map(Buffer::size).sum::<u64>() + pacer.bytes();
        let footprint = Footprint {
            kv_per_token: (l.layers * 2 * options.kv.bytes(l.kv_heads * l.head_dim)) as u64,
            kv: cache.bytes(),
            scratch: buffers.scratch_bytes() + cache.rope_bytes() + pool.bytes() + plans.map(Plan::bytes).sum::<u64>(),
            staging,
            ..model.footprint()
        };
        if !gpu.is_imagined() {
            gpu.save_pipelines();
            log::info!(
                "session: {positions} positions, chunks of {chunk}, {} dispatches a token, {} MB of activations",
                decode.dispatches(),
                pool.bytes() >> 20
            );
        }
        Ok(Session {
            model: model.clone(),
            options,
            chunk,
            cache,
            buffers,
            prefill,
            decode,
            vision,
            decoder,
            cached: Vec::new(),
            picture: None,
            pacer,
            footprint,
            _pool: pool,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        self.options.task
    }

    /// The kernels of all its plans with the variants that were chosen for them, each once.
    pub fn variants(&self) -> BTreeSet<(&'static str, &'static str)> {
        let plans = [Some(&self.prefill), Some(&self.decode), self.vision.as_ref(), self.decoder.as_ref()];
        plans.into_iter().flatten().flat_map(Plan::variants).collect()
    }

    /// Positions that the cache holds.
    pub fn context(&self) -> usize {
        self.cache.positions
    }

    /// How other threads reach this session while it works.
    pub fn control(&self) -> &Control {
        &self.options.control
    }

    /// Looks at a picture now, so that a question about it finds it seen.
    ///
    /// *Errors*: [`Error::Input`] if the model takes no pictures, [`Error::Cancelled`], those of the device.
    pub fn encode(&mut self, picture: &Picture) -> Result<()> {
        self.pacer.begin(None);
        self.see(picture).map(drop)
    }

    /// Forgets what has been computed, and the picture too unless it is to be kept.
    pub fn reset(&mut self, keep_picture: bool) {
        self.cached.clear();
        if !keep_picture {
            self.picture = None;
        }
    }

    /// What the last call submitted.
    pub fn submissions(&self) -> Submissions {
        self.pacer.sums()
    }

    /// The same one by one. Copies of results are not among them.
    pub fn each_submission(&self) -> &[Submission] {
        self.pacer.submissions()
    }

    /// What model and session take of the device's memory; the model's part is there once for all of its sessions. While
    /// a model is opened, up to 48 MiB of staging memory come on top.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// The steps of one decoded token, one a line.
    pub fn decode_plan(&self) -> String {
        self.decode.to_string()
    }

    /// Dispatches of one decoded token.
    pub fn dispatches_per_token(&self) -> usize {
        self.decode.dispatches()
    }

    fn gpu(&self) -> &Gpu {
        &self.model.gpu
    }

    /// *Errors*: [`Error::Input`] unless the head has a row for every id, so that logits mean what they seem to.
    fn needs_whole_head(&self, what: &str) -> Result<()> {
        match self.model.task(self.options.task)?.rows.first_id {
            0 => Ok(()),
            _ => Err(Error::Input { what: what.into(), problem: "this session can only draw pictures".into() }),
        }
    }

    /// Values of the next run.
    fn set_step(&self, step: Step) -> Step {
        self.gpu().write(&self.buffers.step, 0, bytemuck::bytes_of(&step));
        step
    }
}

impl Buffers {
    /// Bytes of all but those that the host reads from.
    fn scratch_bytes(&self) -> u64 {
        let Buffers { step, chunk_tokens, token, logits, patches, picture, codes, drawn, readback: _ } = self;
        [step, chunk_tokens, token, logits, patches, picture, codes, drawn].map(Buffer::size).iter().sum()
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// What a thread made; its panic goes on in this one.
fn joined<T>(thread: std::thread::ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn vision_plan<'a>(
    model: &'a Model,
    task: &TaskWeights,
    options: &SessionOptions,
    buffers: &Buffers,
) -> Option<Builder<'a>> {
    let config = &model.header.config;
    let (Some(v), Some(clip), Some(projector)) = (&config.vision, &model.clip, &task.projector) else { return None };
    let layers = config.task(options.task).map_or(0, |t| t.vision_layers);
    let rows = v.patches() + 1;
    let mut p = Builder::new(&model.gpu, rows, options.traced);
    let patches = p.fixed(&buffers.patches, rows, clip.patch_cols());
    let features = clip.forward(&mut p, v, layers, patches);
    let picture = p.fixed(&buffers.picture, rows - 1, config.language.hidden);
    projector.forward(&mut p, features, picture);
    Some(p)
}

fn decoder_plan<'a>(
    model: &'a Model,
    task: &TaskWeights,
    options: &SessionOptions,
    buffers: &Buffers,
) -> Option<Builder<'a>> {
    let (Some(q), Some(decoder)) = (&model.header.config.vqgan, &task.decoder) else { return None };
    let mut p = Builder::new(&model.gpu, q.codes_per_picture(), options.traced);
    let codes = p.fixed(&buffers.codes, q.codes_per_picture(), 1);
    let drawn = p.fixed(&buffers.drawn, q.side().pow(2), q.out_channels);
    decoder.forward(&mut p, q, codes, drawn);
    Some(p)
}

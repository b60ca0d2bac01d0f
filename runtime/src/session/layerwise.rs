//! A model run one layer at a time over sequences whose residual streams the host keeps: for models that are larger than
//! memory, and for whoever must know what goes into each linear. Quantising and comparing files stand on it.

use super::Picture;
use super::model::{preprocess, vision_patches};
use crate::gpu::{Buffer, Gpu, Usage};
use crate::image::RgbPicture;
use crate::model::clip::{Clip, Projector};
use crate::model::load::{Loader, Source};
use crate::model::phi3::{KvCache, Layer};
use crate::model::{Config, Header, Planes, Task};
use crate::plan::{Builder, Control, HLora, Matrix, Pacer, Plan, Pool, Vector};
use crate::{Error, Result};
use shaders::{KvFormat, Step};
use std::collections::BTreeMap;

/// Tokens computed at once.
const CHUNK: usize = 512;
/// Tokens whose logits are computed at once: each has one for every id.
const LOGIT_ROWS: usize = 32;

/// What a layer shows of its inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// What `o` reads, `[n, heads head_dim]`.
    Values,
    /// The residual stream between attention and feed-forward network, `[n, d]`.
    Middle,
    /// What `down` reads, `[n, f]`.
    Inner,
    /// Gates of the adapter of this linear, `[n, experts]`.
    Gates(&'static str),
}

/// Runs parts of one model.
pub struct Layerwise {
    gpu: Gpu,
    header: Header,
    kv: KvCache,
    step: Buffer,
    stream: Buffer, // [chunk, d]
    pool: Pool,
    pacer: Pacer,
    chunk: usize,
}

/// A layer on the device, with the adapters of some tasks.
pub struct LoadedLayer {
    plans: BTreeMap<Task, Plan>,
    inside: bool,
    /// On the device as long as the plans.
    _weights: (Layer, Vec<Option<[HLora; 4]>>),
}

/// The last norm and a task's head on the device.
pub struct LoadedHead {
    plan: Plan,
    stream: Buffer, // [rows, d]
    logits: Buffer, // [rows, head rows]
    /// Of the head.
    rows: usize,
    /// Of the vocabulary.
    all: usize,
    /// On the device as long as the plan.
    _weights: (Vector, Matrix),
}

impl Layerwise {
    /// For sequences of up to `positions` tokens.
    ///
    /// *Errors*: [`Error::ContextFull`] beyond what the model was made for; those of allocation.
    pub fn new(gpu: &Gpu, header: Header, positions: usize) -> Result<Self> {
        let l = &header.config.language;
        if positions > l.max_positions {
            return Err(Error::ContextFull { need: positions, have: l.max_positions });
        }
        let chunk = CHUNK.min(positions.max(2));
        let one = crate::model::Language { layers: 1, ..l.clone() };
        let stream_bytes = (chunk * l.hidden * 4) as u64;
        Ok(Layerwise {
            kv: KvCache::new(gpu, &one, positions, KvFormat::F32)?,
            step: gpu.buffer("step", 16, Usage::Uniform)?,
            stream: gpu.buffer("stream", stream_bytes, Usage::Activation)?,
            pool: Pool::default(),
            pacer: Pacer::new(gpu, Control::new())?,
            gpu: gpu.clone(),
            header,
            chunk,
        })
    }

    /// Dimensions and formats.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Loads layer `index`. `planes` holds the layer's tensors and those of the tasks' adapters. With `inside`, a run shows
    /// what is inside.
    ///
    /// *Errors*: those of the device. *Panics* if a plane is missing.
    pub fn load(&mut self, index: usize, planes: &Planes, tasks: &[Task], inside: bool) -> Result<LoadedLayer> {
        let l = &self.header.config.language;
        let mut unwatched = |_| Ok(());
        let mut loader = Loader::new(&self.gpu, Source::Memory(planes), &self.header, &mut unwatched);
        let layer = Layer::load(&mut loader, index)?;
        let (mut plans, mut all_adapters) = (BTreeMap::new(), Vec::new());
        for task in tasks {
            let adapters = loader.layer_adapters(*task, index)?;
            let mut p = Builder::new(&self.gpu, self.chunk, false);
            if inside {
                p.with_inputs();
            }
            let x = p.fixed(&self.stream, self.chunk, l.hidden);
            layer.alone(&mut p, l, adapters.as_ref(), &self.kv, x);
            plans.insert(*task, p.finish(&mut self.pool, &self.step)?);
            all_adapters.push(adapters);
        }
        loader.verify_rest()?;
        Ok(LoadedLayer { plans, inside, _weights: (layer, all_adapters) })
    }

    /// Takes the residual stream of a sequence, `[n, d]`, through a layer that was loaded with the task's adapters. `take`
    /// sees what is inside, some tokens at a time.
    ///
    /// *Errors*: those of the device. *Panics* for a sequence longer than was said.
    pub fn run(
        &mut self,
        layer: &mut LoadedLayer,
        task: Task,
        stream: &mut [f32],
        mut take: impl FnMut(Inside, &[f32]),
    ) -> Result<()> {
        let width = self.header.config.language.hidden;
        assert!(stream.len() <= self.kv.positions * width, "a sequence of {} values", stream.len());
        let plan = layer.plans.get_mut(&task).unwrap_or_else(|| panic!("loaded without {}", task.name()));
        for (i, chunk) in stream.chunks_mut(self.chunk * width).enumerate() {
            let tokens = chunk.len() / width;
            self.gpu.write(&self.stream, 0, bytemuck::cast_slice(chunk));
            let step = Step::new(i * self.chunk, tokens);
            self.gpu.write(&self.step, 0, bytemuck::bytes_of(&step));
            if !layer.inside {
                self.pacer.run(plan, step)?;
            } else {
                plan.run_traced(&self.gpu, tokens, |t| {
                    let inside = match t.name.as_str() {
                        "values" => Inside::Values,
                        "middle" => Inside::Middle,
                        "inner" => Inside::Inner,
                        linear => match crate::model::LINEARS.iter().find(|(name, _)| *name == linear) {
                            Some((name, _)) => Inside::Gates(name),
                            None => return,
                        },
                    };
                    take(inside, &t.values);
                })?;
            }
            let bytes = self.gpu.read(&self.stream, (chunk.len() * 4) as u64)?;
            chunk.copy_from_slice(&bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
        }
        Ok(())
    }

    /// Loads the last norm and the head of a task, which `planes` holds.
    ///
    /// *Errors*: those of the device. *Panics* if a plane is missing.
    pub fn head(&self, planes: &Planes, task: Task) -> Result<LoadedHead> {
        let config = &self.header.config;
        let l = &config.language;
        let stored = config.task(task).map_or(0, |t| t.head_rows);
        // Of a head with a mean row all but that.
        let rows = if stored == config.vocabulary.tokens + 1 { stored - 1 } else { stored };
        let gpu = &self.gpu;
        let mut unwatched = |_| Ok(());
        let mut loader = Loader::new(gpu, Source::Memory(planes), &self.header, &mut unwatched);
        let norm = loader.vector("language.norm")?;
        let head = loader.matrix_rows(&format!("{}.head", task.name()), 0..rows)?;
        let logits = gpu.buffer("all logits", (LOGIT_ROWS * rows * 4) as u64, Usage::Activation)?;
        let stream = gpu.buffer("stream", (LOGIT_ROWS * l.hidden * 4) as u64, Usage::Activation)?;
        let mut p = Builder::new(gpu, LOGIT_ROWS, false);
        let x = p.fixed(&stream, LOGIT_ROWS, l.hidden);
        let h = p.rmsnorm(x, &norm, l.rms_norm_eps);
        let y = p.fixed(&logits, LOGIT_ROWS, rows);
        p.matrix_into(&head, h, y);
        let plan = p.finish(&mut Pool::default(), &self.step)?;
        loader.verify_rest()?;
        Ok(LoadedHead { plan, stream, logits, rows, all: config.vocabulary.rows(), _weights: (norm, head) })
    }

    /// The logits, one for every id of the vocabulary, after each token of a residual stream that went through all layers.
    /// `take` gets those of one token after another.
    ///
    /// *Errors*: those of the device.
    pub fn logits(&mut self, head: &mut LoadedHead, stream: &[f32], mut take: impl FnMut(Vec<f32>)) -> Result<()> {
        let width = self.header.config.language.hidden;
        for chunk in stream.chunks(LOGIT_ROWS * width) {
            let count = chunk.len() / width;
            self.gpu.write(&head.stream, 0, bytemuck::cast_slice(chunk));
            let step = Step::new(0, count);
            self.gpu.write(&self.step, 0, bytemuck::bytes_of(&step));
            self.pacer.run(&mut head.plan, step)?;
            let bytes = self.gpu.read(&head.logits, (count * head.rows * 4) as u64)?;
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            found.chunks_exact(head.rows).for_each(|row| take(super::decode::for_every_id(row.to_vec(), head.all)));
        }
        Ok(())
    }
}

/// Makes a picture ready for the vision tower of a model.
///
/// *Errors*: [`Error::Input`] if it takes none.
pub fn ready_picture(config: &Config, picture: &RgbPicture) -> Result<Picture> {
    let wrong = |problem: String| Error::Input { what: "picture".into(), problem };
    let preprocess = preprocess(config).map_err(wrong)?;
    let preprocess = preprocess.ok_or_else(|| wrong("this model has no vision tower".into()))?;
    Ok(Picture::new(preprocess.run(picture)))
}

/// What the language model sees of pictures, `[P, d]` each, when it does this task. `planes` holds the vision tower and the
/// task's projector.
///
/// *Errors*: [`Error::Input`] if the model takes no pictures; those of the device. *Panics* if a plane is missing.
pub fn project(
    gpu: &Gpu,
    header: &Header,
    planes: &Planes,
    task: Task,
    pictures: &[&Picture],
) -> Result<Vec<Vec<f32>>> {
    let config = &header.config;
    let Some(v) = &config.vision else {
        return Err(Error::Input { what: "picture".into(), problem: "this model has no vision tower".into() });
    };
    let layers = config.task(task).map_or(0, |t| t.vision_layers);
    let mut unwatched = |_| Ok(());
    let mut loader = Loader::new(gpu, Source::Memory(planes), header, &mut unwatched);
    let clip = Clip::load(&mut loader, layers)?;
    let projector = Projector::load(&mut loader, task)?;
    let (rows, width) = (v.patches(), config.language.hidden);
    let patches = gpu.buffer("patches", ((rows + 1) * clip.patch_cols() * 4) as u64, Usage::Activation)?;
    let picture = gpu.buffer("picture", (rows * width * 4) as u64, Usage::Activation)?;
    let step = gpu.buffer("step", 16, Usage::Uniform)?;
    let mut p = Builder::new(gpu, rows + 1, false);
    let input = p.fixed(&patches, rows + 1, clip.patch_cols());
    let features = clip.forward(&mut p, v, layers, input);
    let out = p.fixed(&picture, rows, width);
    projector.forward(&mut p, features, out);
    let mut plan = p.finish(&mut Pool::default(), &step)?;
    loader.verify_rest()?;
    let mut pacer = Pacer::new(gpu, Control::new())?;
    let values = Step::new(0, rows + 1);
    gpu.write(&step, 0, bytemuck::bytes_of(&values));
    let mut projected = Vec::new();
    for shown in pictures {
        gpu.write(&patches, 0, bytemuck::cast_slice(&vision_patches(v, clip.patch_cols(), shown)));
        pacer.run(&mut plan, values)?;
        projected.push(bytemuck::pod_collect_to_vec(&gpu.read(&picture, (rows * width * 4) as u64)?));
    }
    Ok(projected)
}

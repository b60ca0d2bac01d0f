//! Rounding by what goes into each linear: the unquantised model is run over calibration data one layer at a time, each layer
//! is rounded as soon as its inputs are known, and what was held back is taken through the rounded layers beside it.
//!
//! Needs a device, and memory for one layer and the residual streams; never the whole model.

mod judge;
mod phantom;
mod set;
mod state;

pub use judge::{Figures, Judge, Rows};
pub use set::{Purpose, Sequence, Set};
pub use state::{LayerNotes, LayerState, State, Streams};

use crate::assemble::shape_of;
use crate::config::Choices;
use crate::matrix::{Factor, Gram};
use crate::methods::awq::{self, Heads};
use crate::methods::{Inputs, Rounding, rotate};
use crate::report::{Card, put};
use crate::source::Parts;
use crate::transform::{Fold, Scales};
use crate::write::{Job, Stored};
use crate::{Error, Progress, Quiet, Result};
use runtime::gpu::Gpu;
use runtime::model::{Adapter, Config, Header, LINEARS, Planes, Recipe, Rotation, Spec, Task};
use runtime::text::Tokenizer;
use runtime::{Inside, Layerwise, LoadedLayer, Picture, project, ready_picture};
use serde::Serialize;
use sha2::{Digest, Sha256};
use shaders::embed::PICTURE_ROW;
use shaders::round_to_f16;
use std::collections::BTreeMap;
use std::path::Path;

/// Of the mean of the diagonal, added to the diagonal of the products of the inputs.
const DAMPING: f64 = 0.1;
/// Tokens of a piece on its way to the statistics: as many as the device computes at once.
const CHUNK: usize = 512;

/// What calibrating found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// By layer.
    pub layers: Vec<LayerNotes>,
    /// Over what was held back.
    pub figures: Option<Figures>,
    /// The same of folding the adapters alone, if they were.
    pub folding: Option<Figures>,
}

impl Outcome {
    /// As it is written into the file.
    pub fn card(&self, job: &Job, set: &Set) -> Card {
        Card {
            method: job.recipe.method.clone(),
            calibration: set.source.clone(),
            calibration_sha256: set.sha256.clone(),
            calibration_tokens: set.tokens(),
            figures: self.figures,
            folding: self.folding,
            gates: self.layers.iter().filter_map(|l| l.gates.clone()).collect(),
            layer_cosines: self.layers.iter().map(|l| l.cosine).collect(),
        }
    }
}

/// A model whose tensors can be had as planes.
pub trait Side {
    /// Dimensions and formats.
    fn header(&self) -> Header;
    /// Planes of these tensors, as a file would hold them.
    ///
    /// *Errors*: a read fault, an interruption.
    fn planes(&self, specs: &[Spec], progress: &dyn Progress) -> Result<Planes>;
    /// A row of a task's embedding table, as f16 would hold it.
    ///
    /// *Errors*: a read fault.
    fn embedding(&self, task: Task, row: usize) -> Result<Vec<f32>>;
    /// How its residual stream is rotated.
    fn rotation(&self) -> Option<&Rotation>;
}

impl Job<'_> {
    /// Calibration data from a file or folder, or what is built in: about so many positions.
    ///
    /// *Errors*: as [`Set::read`]; a damaged tokenizer.
    pub fn calibration_set(&self, data: Option<&Path>, purpose: Purpose, tokens: usize) -> Result<Set> {
        let mut files = Vec::new();
        for (_, path) in &self.tokenizer {
            files.push(std::fs::read(path).map_err(|e| Error::file(path, e.to_string()))?);
        }
        let json = files.first().map_or(&[][..], Vec::as_slice);
        let tokenizer = Tokenizer::new(json, files.get(1).map(Vec::as_slice))
            .map_err(|problem| Error::file(&self.tokenizer[0].1, problem))?
            .with_codes(self.config.vocabulary.codes);
        match data {
            Some(path) => Set::read(path, &self.config, &tokenizer, purpose, tokens),
            None => Set::built_in(&self.config, &tokenizer, purpose, tokens),
        }
    }

    fn find(&self, name: &str) -> Result<&(Spec, crate::assemble::Source<'_>)> {
        let found = self.tensors.iter().find(|(spec, _)| spec.name == name);
        found.ok_or_else(|| Error::Usage(format!("`{name}` is in no table of tensors")))
    }
}

impl Side for Job<'_> {
    fn header(&self) -> Header {
        Header { config: self.config.clone(), recipe: self.recipe.clone() }
    }

    fn planes(&self, specs: &[Spec], progress: &dyn Progress) -> Result<Planes> {
        let mut planes = Planes::new();
        for wanted in specs {
            let (spec, source) = self.find(&wanted.name)?;
            let stored = self.pack(spec, source, &Inputs::Unknown, progress)?;
            planes.extend(spec.layouts(&self.recipe).into_iter().map(|l| l.name).zip(stored.planes));
        }
        Ok(planes)
    }

    fn embedding(&self, task: Task, row: usize) -> Result<Vec<f32>> {
        let (spec, source) = self.find(&format!("{}.embed", task.name()))?;
        let mut values = self.transform.read(spec, source, row..row + 1)?;
        values.iter_mut().for_each(|v| *v = round_to_f16(*v));
        Ok(values)
    }

    fn rotation(&self) -> Option<&Rotation> {
        self.transform.rotation()
    }
}

fn tasks(config: &Config) -> Vec<Task> {
    Task::ALL.into_iter().filter(|t| config.task(*t).is_some()).collect()
}

/// Tensors whose names one of the patterns begins.
fn specs(config: &Config, patterns: &[String]) -> Vec<Spec> {
    let wanted = |spec: &Spec| patterns.iter().any(|p| spec.name.starts_with(p.as_str()));
    config.tensors().into_iter().filter(wanted).collect()
}

fn layer_specs(config: &Config, layer: usize) -> Vec<Spec> {
    let patterns =
        tasks(config).into_iter().map(|t| t.name()).chain(["language"]).map(|o| format!("{o}.layers.{layer}."));
    specs(config, &patterns.collect::<Vec<_>>())
}

/// The residual streams of sequences before the first layer; empty for those that are not wanted.
fn embedded(
    side: &dyn Side,
    gpu: &Gpu,
    set: &Set,
    pictures: &[Picture],
    wanted: impl Fn(&Sequence) -> bool,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f32>>> {
    let header = side.header();
    let config = &header.config;
    let mut streams = vec![Vec::new(); set.sequences.len()];
    for task in tasks(config) {
        let own = |s: &Sequence| s.task == task && wanted(s);
        let mut shown: Vec<usize> = set.sequences.iter().filter(|s| own(s)).filter_map(|s| s.picture).collect();
        shown.sort_unstable();
        shown.dedup();
        let projected = if shown.is_empty() {
            Vec::new()
        } else {
            let patterns = ["vision.".into(), format!("{}.projector.", task.name())];
            let planes = side.planes(&specs(config, &patterns), progress)?;
            let chosen: Vec<&Picture> = shown.iter().map(|i| &pictures[*i]).collect();
            project(gpu, &header, &planes, task, &chosen)?
        };
        let width = config.language.hidden;
        let last = config.task(task).map_or(0, |t| t.embed_rows) - 1;
        let mut known: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (s, stream) in set.sequences.iter().zip(&mut streams).filter(|(s, _)| own(s)) {
            let picture = s.picture.and_then(|p| Some(&projected[shown.binary_search(&p).ok()?]));
            for id in &s.ids {
                match (id & PICTURE_ROW, picture) {
                    (0, _) => {
                        let row = (*id as usize).min(last);
                        if let std::collections::btree_map::Entry::Vacant(entry) = known.entry(row) {
                            entry.insert(side.embedding(task, row)?);
                        }
                        stream.extend_from_slice(&known[&row]);
                    }
                    (_, Some(rows)) => {
                        let row = (id ^ PICTURE_ROW) as usize;
                        stream.extend_from_slice(&rows[row * width..(row + 1) * width]);
                    }
                    (_, None) => stream.resize(stream.len() + width, 0.0),
                }
            }
        }
    }
    Ok(streams)
}

/// What is collected of the inputs of one linear.
enum Collected {
    Products(Gram),
    Energies { sums: Vec<f64>, rows: usize },
}

impl Collected {
    fn new(width: usize, products: bool) -> Self {
        match products {
            true => Collected::Products(Gram::new(width)),
            false => Collected::Energies { sums: vec![0.0; width], rows: 0 },
        }
    }

    fn add(&mut self, x: &[f32]) {
        match self {
            Collected::Products(gram) => gram.add(x),
            Collected::Energies { sums, rows } => {
                for row in x.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v) * f64::from(*v));
                    *rows += 1;
                }
            }
        }
    }

    fn energies(&self) -> Vec<f64> {
        match self {
            Collected::Products(gram) => gram.energies(),
            Collected::Energies { sums, rows } => sums.iter().map(|s| s / (*rows).max(1) as f64).collect(),
        }
    }

    /// What is known of the inputs after they were divided by `factors`.
    fn finish(self, factors: Option<&[f32]>, rounding: Rounding) -> Option<Inputs> {
        match (self, rounding) {
            (Collected::Products(mut gram), Rounding::Gptq) => {
                if let Some(factors) = factors {
                    gram.divide(factors);
                }
                Factor::new(&gram, DAMPING).map(Inputs::Products)
            }
            (collected, Rounding::Weighted) => {
                let energies = collected.energies();
                let factor = |i: usize| factors.map_or(1.0, |f| f64::from(f[i]));
                let scaled = energies.iter().enumerate().map(|(i, e)| (e / factor(i).powi(2)) as f32);
                Some(Inputs::Energies(scaled.collect())).filter(|_| energies.iter().all(|e| e.is_finite()))
            }
            _ => Some(Inputs::Unknown),
        }
    }
}

/// The inputs of a layer's four linears, and the gates of their adapters.
struct Statistics<'a> {
    job: &'a Job<'a>,
    layer: usize,
    inputs: [Collected; 4],
    /// Sums over tokens, by linear; all tasks'.
    gates: [Vec<f64>; 4],
    tokens: usize,
}

impl<'a> Statistics<'a> {
    fn new(job: &'a Job<'a>, layer: usize) -> Self {
        let products = job.methods.rounding == Rounding::Gptq;
        let inputs = job.config.linear_shapes().map(|[_, width]| Collected::new(width, products));
        Statistics { job, layer, inputs, gates: Default::default(), tokens: 0 }
    }

    /// Rows of the stream as qkv or gate_up reads them in the file's basis, before they are divided by factors.
    fn normed(&self, stream: &[f32], second: bool) -> Vec<f32> {
        let l = &self.job.config.language;
        let mut rows = stream.to_vec();
        for row in rows.chunks_exact_mut(l.hidden) {
            let mean = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / l.hidden as f64;
            let factor = (1.0 / (mean + f64::from(l.rms_norm_eps)).sqrt()) as f32;
            row.iter_mut().for_each(|v| *v *= factor);
        }
        match self.job.transform.rotation() {
            Some(rotation) => rotate::columns(rotation, &mut rows),
            None => {
                let weights = self.job.transform.norm(self.layer, second);
                rows.chunks_exact_mut(l.hidden).for_each(|r| r.iter_mut().zip(weights).for_each(|(v, w)| *v *= w));
            }
        }
        rows
    }

    /// Before a sequence goes through the layer.
    fn before(&mut self, stream: &[f32]) {
        self.tokens += stream.len() / self.job.config.language.hidden;
        for chunk in stream.chunks(CHUNK * self.job.config.language.hidden) {
            let rows = self.normed(chunk, false);
            self.inputs[0].add(&rows);
        }
    }

    /// While it goes through.
    fn inside(&mut self, inside: Inside, values: &[f32]) {
        match inside {
            Inside::Values => self.inputs[1].add(values),
            Inside::Middle => {
                let rows = self.normed(values, true);
                self.inputs[2].add(&rows);
            }
            Inside::Inner => self.inputs[3].add(values),
            // Which are folded only where there is one task.
            Inside::Gates(linear) if !self.job.folded.is_empty() => {
                let experts = tasks(&self.job.config).first().and_then(|t| self.job.config.task(*t));
                let experts = experts.map_or(1, |t| t.adapter.experts);
                if let Some(i) = LINEARS.iter().position(|(name, _)| *name == linear) {
                    let sums = &mut self.gates[i];
                    sums.resize(experts, 0.0);
                    for row in values.chunks_exact(experts) {
                        sums.iter_mut().zip(row).for_each(|(s, g)| *s += f64::from(*g));
                    }
                }
            }
            Inside::Gates(_) => {}
        }
    }

    /// Mean gates by linear, if adapters are to be folded.
    fn mean_gates(&self) -> Option<BTreeMap<String, Vec<f64>>> {
        let mean = |sums: &Vec<f64>| sums.iter().map(|s| s / self.tokens.max(1) as f64).collect();
        let named = LINEARS.iter().zip(&self.gates).map(|((name, _), sums)| ((*name).to_owned(), mean(sums)));
        (!self.job.folded.is_empty()).then(|| named.collect())
    }

    /// Factors of the input channels, if the recipe asks for them.
    fn scales(&self) -> Option<Scales> {
        if !self.job.methods.awq {
            return None;
        }
        let l = &self.job.config.language;
        let shared = l.heads / l.kv_heads;
        let scales = std::array::from_fn(|i| {
            let energies = self.inputs[i].energies();
            match i {
                // A rotated stream has no strong channels, and its norms no weights.
                0 | 2 if self.job.transform.rotation().is_some() => vec![1.0; energies.len()],
                1 => awq::factors(&energies, Some(Heads { head_dim: l.head_dim, shared })),
                _ => awq::factors(&energies, None),
            }
        });
        Some(scales)
    }
}

/// Values of a layer's linears, each of which is worked on once.
fn layer_values(config: &Config) -> u64 {
    config.linear_shapes().iter().map(|[rows, cols]| (rows * cols) as u64).sum()
}

/// How many units of progress calibrating takes: running and rounding, in values of the linears.
pub fn work(job: &Job) -> u64 {
    (RUN_WORK + 1) * layer_values(&job.config) * job.config.language.layers as u64
}

/// Running a layer over the calibration data takes about as long as handling its values so often.
const RUN_WORK: u64 = 8;

/// The jobs that calibrating takes: one model in several forms.
pub struct Models<'a> {
    /// What is to be written.
    pub job: Job<'a>,
    /// In f16 and the published basis, adapters beside the weights: what it is measured against.
    reference: Job<'a>,
    /// The same with folded adapters, where they are to be.
    folded: Option<Job<'a>>,
}

impl<'a> Models<'a> {
    /// *Errors*: as [`Job::new`].
    pub fn new(parts: &'a Parts, choices: &Choices, recipe: Recipe) -> Result<Self> {
        let f16 = || Recipe::named("f16", 32).map_err(Error::Usage);
        let folded = choices.folded.then(|| Job::new(parts, choices, f16()?)).transpose()?;
        let reference = Job::new(parts, &Choices { folded: false, ..choices.clone() }, f16()?)?;
        Ok(Models { job: Job::new(parts, choices, recipe)?, reference, folded })
    }

    /// Collects, rounds and judges every layer. The job's transformation is complete afterwards, and `state` holds the linears.
    ///
    /// *Errors*: a read or write fault, values that are no numbers, an interruption, those of the device.
    pub fn calibrate(&mut self, gpu: &Gpu, set: &Set, state: &State, progress: &dyn Progress) -> Result<Outcome> {
        let longest = set.longest();
        let mut plain = Layerwise::new(gpu, self.reference.header(), longest)?;
        let mut rounded = Layerwise::new(gpu, self.job.header(), longest)?;
        let mut folding = self.folded.as_ref().map(|f| Layerwise::new(gpu, f.header(), longest)).transpose()?;
        let mut outcome = Outcome::default();
        let mut streams = match state.streams() {
            Some(streams) => streams,
            None => self.start(gpu, set)?,
        };
        for layer in 0..streams.layers {
            let kept = state.layer(layer)?;
            outcome.layers.push(kept.notes);
            if let Some(scales) = kept.scales {
                self.job.transform.set_scales(layer, scales);
            }
            progress.advance((RUN_WORK + 1) * layer_values(&self.job.config));
        }
        let (tasks, width) = (tasks(&self.job.config), self.job.config.language.hidden);
        let quiet = Stopping(progress);
        for layer in streams.layers..self.job.config.language.layers {
            let mut loaded = {
                let specs = layer_specs(&self.reference.config, layer);
                plain.load(layer, &self.reference.planes(&specs, &quiet)?, &tasks, true)?
            };
            let Learnt { inputs, scales, gates } =
                collect(&self.job, layer, &mut plain, &mut loaded, set, &mut streams.before, progress)?;
            drop(loaded);
            let mut kept = LayerState { scales, ..Default::default() };
            if let Some(scales) = &kept.scales {
                self.job.transform.set_scales(layer, scales.clone());
            }
            if let Some(gates) = &gates {
                self.fold(layer, gates)?;
            }
            round(&self.job, layer, inputs, &mut kept, progress)?;

            let mut loaded = {
                let linears = LINEARS.map(|(l, _)| format!("language.layers.{layer}.{l}"));
                let others = layer_specs(&self.job.config, layer).into_iter().filter(|s| !linears.contains(&s.name));
                let mut planes = self.job.planes(&others.collect::<Vec<_>>(), &quiet)?;
                planes.extend(kept.planes.iter().map(|(n, p)| (n.clone(), p.clone())));
                rounded.load(layer, &planes, &tasks, false)?
            };
            run_all(&mut rounded, &mut loaded, set, &mut streams.after, progress)?;
            drop(loaded);
            if let (Some(job), Some(model)) = (&self.folded, &mut folding) {
                let planes = job.planes(&layer_specs(&job.config, layer), &quiet)?;
                let mut loaded = model.load(layer, &planes, &tasks, false)?;
                run_all(model, &mut loaded, set, &mut streams.folded, progress)?;
            }
            let rows = compare_streams(width, self.job.transform.rotation(), &streams.before, &streams.after);
            kept.notes = LayerNotes { cosine: rows.cosine(), stream_nmse: rows.nmse(), gates, ..kept.notes };
            streams.layers = layer + 1;
            state.save_layer(layer, &kept)?;
            state.save_streams(&streams)?;
            outcome.layers.push(kept.notes);
        }
        let before = &streams.before;
        outcome.figures = judge_words(
            [&self.reference, &self.job],
            [&mut plain, &mut rounded],
            set,
            [before, &streams.after],
            progress,
        )?;
        if let (Some(job), Some(model)) = (&self.folded, &mut folding) {
            outcome.folding =
                judge_words([&self.reference, job], [&mut plain, model], set, [before, &streams.folded], progress)?;
        }
        Ok(outcome)
    }

    /// Streams before the first layer.
    fn start(&self, gpu: &Gpu, set: &Set) -> Result<Streams> {
        let pictures = ready_pictures(&self.reference.config, set)?;
        let before = embedded(&self.reference, gpu, set, &pictures, |_| true, &Quiet)?;
        let after = embedded(&self.job, gpu, set, &pictures, |s| s.held_back, &Quiet)?;
        let held_back = |(s, b): (&Sequence, &Vec<f32>)| if s.held_back { b.clone() } else { Vec::new() };
        let folded = self.folded.iter().flat_map(|_| set.sequences.iter().zip(&before).map(held_back)).collect();
        Ok(Streams { layers: 0, before, after, folded })
    }

    /// Puts the adapters of a layer into its linears, with these gates.
    fn fold(&mut self, layer: usize, gates: &BTreeMap<String, Vec<f64>>) -> Result<()> {
        let folds = folds_of(&self.job, layer, gates)?;
        if let Some(folded) = &mut self.folded {
            folded.transform.set_fold(layer, folds.clone());
        }
        self.job.transform.set_fold(layer, folds);
        Ok(())
    }
}

/// The adapters of a layer with these gates.
///
/// *Errors*: a read fault.
pub(crate) fn folds_of(job: &Job, layer: usize, gates: &BTreeMap<String, Vec<f64>>) -> Result<[Fold; 4]> {
    let [a, b, c, d] = LINEARS.map(|(linear, _)| fold_of(job, layer, linear, gates));
    Ok([a?, b?, c?, d?])
}

/// The adapter of a linear with its gates fixed.
fn fold_of(job: &Job, layer: usize, linear: &str, gates: &BTreeMap<String, Vec<f64>>) -> Result<Fold> {
    let task = tasks(&job.config)[0];
    let Adapter { rank, experts, scale, .. } = job.config.task(task).map(|t| t.adapter.clone()).unwrap_or_default();
    let read = |way: &str| -> Result<Vec<f32>> {
        let name = format!("{}.layers.{layer}.{linear}.{way}", task.name());
        let found = job.folded.iter().find(|(spec, _)| spec.name == name);
        let (spec, source) = found.ok_or_else(|| Error::Usage(format!("`{name}` is in no table of tensors")))?;
        source.rows(0..shape_of(spec)[0])
    };
    let (up, mut down) = (read("up")?, read("down")?);
    let inputs = down.len() / (rank + experts);
    // Without the router.
    down.truncate(rank * inputs);
    for (k, row) in down.chunks_exact_mut(inputs).enumerate() {
        let gate = gates.get(linear).and_then(|g| g.get(k / (rank / experts))).copied().unwrap_or_default();
        let factor = (f64::from(scale) * gate) as f32;
        row.iter_mut().for_each(|v| *v *= factor);
    }
    Ok(Fold { up, down })
}

/// Asks whether to stop, and leaves counting to others.
struct Stopping<'a>(&'a dyn Progress);

impl Progress for Stopping<'_> {
    fn advance(&self, _values: u64) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// What a layer's run taught.
struct Learnt {
    inputs: [Inputs; 4],
    scales: Option<Scales>,
    gates: Option<BTreeMap<String, Vec<f64>>>,
}

/// Takes sequences through a layer; those without a stream are left out.
fn run_all(
    model: &mut Layerwise,
    loaded: &mut LoadedLayer,
    set: &Set,
    streams: &mut [Vec<f32>],
    progress: &dyn Progress,
) -> Result<()> {
    for (s, stream) in set.sequences.iter().zip(streams).filter(|(_, stream)| !stream.is_empty()) {
        go_on(progress)?;
        model.run(loaded, s.task, stream, |_, _| {})?;
    }
    Ok(())
}

/// Takes all sequences through a layer of the unquantised model; what is not held back is collected.
fn collect(
    job: &Job,
    layer: usize,
    model: &mut Layerwise,
    loaded: &mut LoadedLayer,
    set: &Set,
    streams: &mut [Vec<f32>],
    progress: &dyn Progress,
) -> Result<Learnt> {
    let mut statistics = Statistics::new(job, layer);
    let total: usize = set.sequences.iter().map(|s| s.ids.len()).sum();
    let run_work = RUN_WORK * layer_values(&job.config);
    for (s, stream) in set.sequences.iter().zip(streams) {
        go_on(progress)?;
        match s.held_back {
            true => model.run(loaded, s.task, stream, |_, _| {})?,
            false => {
                statistics.before(stream);
                model.run(loaded, s.task, stream, |inside, values| statistics.inside(inside, values))?;
            }
        }
        progress.advance(run_work * s.ids.len() as u64 / total.max(1) as u64);
    }
    let (scales, gates) = (statistics.scales(), statistics.mean_gates());
    let rounding = if job.recipe.has_q4() { job.methods.rounding } else { Rounding::Nearest };
    let mut inputs = [Inputs::Unknown, Inputs::Unknown, Inputs::Unknown, Inputs::Unknown];
    for (i, collected) in statistics.inputs.into_iter().enumerate() {
        let finished = collected.finish(scales.as_ref().map(|s| s[i].as_slice()), rounding);
        inputs[i] = finished.ok_or_else(|| {
            let name = LINEARS[i].0;
            Error::Usage(format!("calibration: what goes into `language.layers.{layer}.{name}` are not numbers"))
        })?;
    }
    Ok(Learnt { inputs, scales, gates })
}

/// Rounds the linears of a layer.
fn round(job: &Job, layer: usize, inputs: [Inputs; 4], kept: &mut LayerState, progress: &dyn Progress) -> Result<()> {
    for ((name, _), inputs) in LINEARS.iter().zip(inputs) {
        let (spec, source) = job.find(&format!("language.layers.{layer}.{name}"))?;
        let Stored { planes, nmse, .. } = job.pack(spec, source, &inputs, progress)?;
        kept.planes.extend(spec.layouts(&job.recipe).into_iter().map(|l| l.name).zip(planes));
        kept.notes.nmse.insert((*name).to_owned(), nmse);
    }
    Ok(())
}

/// Compares the predictions at the end of what was held back.
fn judge_words(
    sides: [&dyn Side; 2],
    mut models: [&mut Layerwise; 2],
    set: &Set,
    streams: [&Vec<Vec<f32>>; 2],
    progress: &dyn Progress,
) -> Result<Option<Figures>> {
    let header = models[0].header().clone();
    let config = &header.config;
    let mut judge = Judge::default();
    for task in tasks(config) {
        let own: Vec<usize> = (0..set.sequences.len())
            .filter(|i| set.sequences[*i].task == task && set.sequences[*i].held_back)
            .collect();
        if own.is_empty() {
            continue;
        }
        let mut heads = Vec::new();
        for (side, model) in sides.iter().zip(&mut models) {
            let config = model.header().config.clone();
            let wanted = specs(&config, &[format!("{}.head", task.name())]);
            let norm = config.tensors().into_iter().filter(|s| s.name == "language.norm");
            let planes = side.planes(&wanted.into_iter().chain(norm).collect::<Vec<_>>(), &Stopping(progress))?;
            heads.push(model.head(&planes, task)?);
        }
        for i in own {
            let width = config.language.hidden;
            let ids = &set.sequences[i].ids;
            // What follows a token counts; what follows a row of a picture was never learnt.
            let judged = |at: usize| ids.get(at + 1).is_some_and(|next| (ids[at] | next) & PICTURE_ROW == 0);
            for first in (0..ids.len()).step_by(CHUNK) {
                go_on(progress)?;
                let chunk = first..(first + CHUNK).min(ids.len());
                let mut both = [Vec::new(), Vec::new()];
                for (side, found) in both.iter_mut().enumerate() {
                    let stream = &streams[side][i];
                    let rows: Vec<f32> = chunk
                        .clone()
                        .filter(|at| judged(*at))
                        .flat_map(|at| &stream[at * width..][..width])
                        .copied()
                        .collect();
                    models[side].logits(&mut heads[side], &rows, |logits| found.push(logits))?;
                }
                let next = chunk.filter(|at| judged(*at)).map(|at| ids[at + 1]);
                let [before, after] = &both;
                before.iter().zip(after).zip(next).for_each(|((b, a), n)| judge.add(b, a, n));
            }
        }
    }
    Ok(judge.figures())
}

/// How far a file is from the unquantised model, stage by stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stages {
    /// Where the data came from.
    pub data: String,
    /// Its SHA-256.
    pub data_sha256: String,
    /// What the first layer sees (`embeds`), the residual stream after each layer (`layers.{i}.out`).
    pub stages: Vec<Stage>,
    /// Distance in words.
    pub figures: Option<Figures>,
}

/// Distance at one place of the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// As a trace names it.
    pub name: String,
    /// Mean over tokens of the cosine.
    pub cosine: f64,
    /// Mean square of the difference over mean square of the model's.
    pub nmse: f64,
}

impl Stages {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("\n{:<20} {:>10} {:>12}   on {}\n", "stage", "cosine", "NMSE", self.data);
        for s in &self.stages {
            put(&mut out, format!("{:<20} {:>10.6} {:>12.2e}", s.name, s.cosine, s.nmse));
        }
        if let Some(f) = &self.figures {
            put(&mut out, f.text());
        }
        out
    }
}

/// Runs a file beside the unquantised model over every sequence of the set, layer by layer.
///
/// *Errors*: a read fault, an interruption, those of the device.
pub fn judge_stages(
    reference: &dyn Side,
    file: &dyn Side,
    gpu: &Gpu,
    set: &Set,
    progress: &dyn Progress,
) -> Result<Stages> {
    let header = reference.header();
    let config = &header.config;
    let pictures = ready_pictures(config, set)?;
    let before = embedded(reference, gpu, set, &pictures, |_| true, progress)?;
    let after = embedded(file, gpu, set, &pictures, |_| true, progress)?;
    let mut streams = Streams { before, after, ..Default::default() };
    let mut plain = Layerwise::new(gpu, header.clone(), set.longest())?;
    let mut other = Layerwise::new(gpu, file.header(), set.longest())?;
    let tasks = tasks(config);
    let stage = |name: String, rows: Rows| Stage { name, cosine: rows.cosine(), nmse: rows.nmse() };
    let rows = compare_streams(config.language.hidden, file.rotation(), &streams.before, &streams.after);
    let mut stages = vec![stage("embeds".into(), rows)];
    for layer in 0..config.language.layers {
        for (side, model, all) in [(reference, &mut plain, &mut streams.before), (file, &mut other, &mut streams.after)]
        {
            let planes = side.planes(&layer_specs(&model.header().config, layer), progress)?;
            let mut loaded = model.load(layer, &planes, &tasks, false)?;
            run_all(model, &mut loaded, set, all, progress)?;
        }
        let rows = compare_streams(config.language.hidden, file.rotation(), &streams.before, &streams.after);
        stages.push(stage(format!("layers.{layer}.out"), rows));
    }
    let figures =
        judge_words([reference, file], [&mut plain, &mut other], set, [&streams.before, &streams.after], progress)?;
    Ok(Stages { data: set.source.clone(), data_sha256: set.sha256.clone(), stages, figures })
}

/// Compares streams in the published basis; sequences that only one side has do not count.
fn compare_streams(width: usize, rotation: Option<&Rotation>, before: &[Vec<f32>], after: &[Vec<f32>]) -> Rows {
    let mut rows = Rows::default();
    for (before, after) in before.iter().zip(after).filter(|(_, after)| !after.is_empty()) {
        let mut back = after.clone();
        if let Some(rotation) = rotation {
            back.chunks_exact_mut(width).for_each(|row| rotation.undo(row, 1));
        }
        rows.add(before, &back, width);
    }
    rows
}

fn ready_pictures(config: &Config, set: &Set) -> Result<Vec<Picture>> {
    set.pictures.iter().map(|picture| Ok(ready_picture(config, picture)?)).collect()
}

/// Tells one run of calibration from another: whatever changes a byte of what is kept.
pub fn key(job: &Job, set: &Set, gpu: &Gpu) -> String {
    let mut hash = Sha256::new();
    let facts = gpu.facts();
    let described = serde_json::json!([
        env!("CARGO_PKG_VERSION"),
        job.config,
        job.recipe,
        set.sha256,
        set.tokens(),
        facts.name,
        facts.driver,
    ]);
    hash.update(described.to_string());
    for file in job.files() {
        hash.update(describe(file));
    }
    // Another build of this program may compute otherwise.
    hash.update(std::env::current_exe().map(|p| describe(&p)).unwrap_or_default());
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// A source file is known by its path, size and time.
fn describe(file: &Path) -> String {
    let info = std::fs::metadata(file).ok();
    let time = info.as_ref().and_then(|i| i.modified().ok());
    format!("{} {:?} {time:?}\n", file.display(), info.map(|i| i.len()))
}

//! Distance of a model file to the checkpoint that it was made from: tensor by tensor, and by what comes out of each layer and
//! in the end.

use crate::assemble::{Source, shape_of};
use crate::calibrate::{Purpose, Side, Stages, folds_of, judge_stages};
use crate::config::{Choices, describe};
use crate::model::{ModelFile, Values, format_name};
use crate::parallel::for_rows;
use crate::report::{put, worst_table};
use crate::source::{Given, Parts, discover};
use crate::transform::Transform;
use crate::write::{Job, squares};
use crate::{Error, Progress, Result};
use runtime::gpu::Gpu;
use runtime::model::{Header, LINEARS, Origin, Planes, Recipe, Rotation, Spec, Task, channel_scale};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Distance of one tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Distance {
    /// Its name.
    pub name: String,
    /// Its format in words.
    pub format: String,
    /// Mean square of the difference over mean square of the source, in the file's basis.
    pub nmse: f64,
    /// Largest difference.
    pub largest: f64,
}

/// Distances of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The file.
    pub file: PathBuf,
    /// The checkpoint.
    pub source: PathBuf,
    /// Dimensions in which file and checkpoint differ though every tensor fits: scales, stop ids and the like.
    pub differences: Vec<String>,
    /// Every tensor in the order of the file.
    pub tensors: Vec<Distance>,
    /// What comes out of each layer and in the end, if it was run.
    pub stages: Option<Stages>,
}

/// What to run file and checkpoint on.
pub struct RunOn<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Text or pictures with questions; what is built in if nothing is given.
    pub data: Option<&'a Path>,
    /// Positions of it.
    pub tokens: usize,
}

/// Compares every tensor of the file with the checkpoint in `source`; with `run`, also what both compute.
///
/// *Errors*: a part or tensor that is missing or has another shape; a damaged file; those of the device.
pub fn compare(
    file: &Path,
    source: &Path,
    given: &Given,
    run: Option<&RunOn>,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let model = ModelFile::open(file)?;
    let parts = discover(source, given)?;
    let alpha = |task: Task| {
        let a = &model.config.task(task)?.adapter;
        Some(f64::from(a.scale) * a.rank as f64 / a.experts as f64)
    };
    let tasks = Task::ALL.into_iter().filter(|t| model.config.task(*t).is_some()).collect();
    // What the command line said when the file was made is not known; the file's alpha stands for it.
    let folded = model.config.ask.iter().chain(&model.config.generate).any(|t| t.adapter.folded);
    let choices =
        Choices { tasks: Some(tasks), alpha_ask: alpha(Task::Ask), alpha_generate: alpha(Task::Generate), folded };
    let mut comparison = compare_tensors(&model, source, &parts, &choices, progress)?;
    if let Some(run) = run {
        let choices = Choices { folded: false, ..choices };
        let reference = Job::new(&parts, &choices, Recipe::named("f16", 32).map_err(Error::Usage)?)?;
        let set = reference.calibration_set(run.data, Purpose::Judge, run.tokens)?;
        comparison.stages = Some(judge_stages(&reference, &FileSide::new(&model), run.gpu, &set, progress)?);
    }
    Ok(comparison)
}

fn compare_tensors(
    model: &ModelFile,
    root: &Path,
    parts: &Parts,
    choices: &Choices,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let mut theirs = describe(parts, choices)?.config;
    theirs.basis = model.config.basis;
    let differences = differences(&serde_json::json!(model.config), &serde_json::json!(theirs));
    let mut transform = transform(model, parts)?;
    let f16 = || Recipe::named("f16", 32).map_err(Error::Usage);
    let folded = choices.folded.then(|| Job::new(parts, choices, f16()?)).transpose()?;
    let gates = model.card()?.map(|c| c.gates).unwrap_or_default();
    let mut tensors = Vec::new();
    // What tells the basis was not published.
    for spec in model.specs.iter().filter(|s| s.origin != Origin::Basis) {
        if let (Some(job), Some(layer)) = (&folded, spec.name.strip_suffix(".qkv").and_then(layer_of)) {
            let gates = gates.get(layer).ok_or_else(|| model.container.wrong("has no gates in its `card`"))?;
            transform.set_fold(layer, folds_of(job, layer, gates)?);
        }
        let source = Source::find(parts, &model.config, spec)?;
        let values = model.values(spec)?;
        let [rows, cols] = shape_of(spec);
        let whole = match transform.is_by_row(spec) {
            true => None,
            false => Some(transform.read(spec, &source, 0..rows)?),
        };
        let mut sums: BTreeMap<usize, ([f64; 2], f64)> = BTreeMap::new();
        let work = |range: std::ops::Range<usize>| -> Result<([f64; 2], f64)> {
            let published = match &whole {
                Some(whole) => whole[range.start * cols..range.end * cols].to_vec(),
                None => transform.read(spec, &source, range.clone())?,
            };
            let stored = values.rows(range);
            let largest = published.iter().zip(&stored).fold(0.0_f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
            Ok((squares(&published, stored.into_iter()), largest))
        };
        for_rows([rows, cols], progress, work, |i, _, sum| {
            sums.insert(i, sum);
        })?;
        let [wrong, all] = sums.values().fold([0.0; 2], |s, (e, _)| [s[0] + e[0], s[1] + e[1]]);
        tensors.push(Distance {
            name: spec.name.clone(),
            format: format_name(&spec.kind, spec.format(&model.recipe)),
            nmse: if wrong == 0.0 { 0.0 } else { wrong / all },
            largest: sums.values().fold(0.0, |m, s| m.max(s.1)),
        });
    }
    let (file, source) = (model.container.path().into(), root.into());
    Ok(Comparison { file, source, differences, tensors, stages: None })
}

/// The layer of a linear of the base.
fn layer_of(stem: &str) -> Option<usize> {
    stem.strip_prefix("language.layers.")?.parse().ok()
}

/// From the published basis to the file's.
fn transform(model: &ModelFile, parts: &Parts) -> Result<Transform> {
    let config = &model.config;
    let mut transform = Transform::new(config, false, |name| {
        let spec = model.specs.iter().find(|s| s.name == name);
        let spec = spec.ok_or_else(|| Error::Usage(format!("`{name}` is in no table of tensors")))?;
        Source::find(parts, config, spec)?.rows(0..1)
    })?;
    for layer in 0..if config.basis.scaled { config.language.layers } else { 0 } {
        let factors = |linear: &str| -> Result<Vec<f32>> {
            let bytes = model.container.read(&channel_scale(layer, linear))?;
            Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let [a, b, c, d] = LINEARS.map(|(linear, _)| factors(linear));
        transform.set_scales(layer, [a?, b?, c?, d?]);
    }
    Ok(transform)
}

/// A finished file, to be run.
struct FileSide<'a> {
    model: &'a ModelFile,
    rotation: Option<Rotation>,
    tables: Mutex<BTreeMap<Task, Values>>,
}

impl<'a> FileSide<'a> {
    fn new(model: &'a ModelFile) -> Self {
        let rotation = model.config.basis.rotation.map(|seed| Rotation::new(model.config.language.hidden, seed));
        FileSide { model, rotation, tables: Mutex::default() }
    }
}

impl Side for FileSide<'_> {
    fn header(&self) -> Header {
        Header { config: self.model.config.clone(), recipe: self.model.recipe.clone() }
    }

    fn planes(&self, specs: &[Spec], progress: &dyn Progress) -> Result<Planes> {
        let mut planes = Planes::new();
        for layout in specs.iter().flat_map(|s| s.layouts(&self.model.recipe)) {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let bytes = self.model.container.read(&layout.name)?;
            planes.insert(layout.name, bytes);
        }
        Ok(planes)
    }

    fn embedding(&self, task: Task, row: usize) -> Result<Vec<f32>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::btree_map::Entry::Vacant(entry) = tables.entry(task) {
            let name = format!("{}.embed", task.name());
            let spec = self.model.specs.iter().find(|s| s.name == name);
            let spec = spec.ok_or_else(|| Error::Usage(format!("`{name}` is in no table of tensors")))?;
            entry.insert(self.model.values(spec)?);
        }
        Ok(tables[&task].rows(row..row + 1))
    }

    fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }
}

/// Leaves in which two configurations differ.
fn differences(ours: &serde_json::Value, theirs: &serde_json::Value) -> Vec<String> {
    fn walk(at: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
        match (a.as_object(), b.as_object()) {
            (Some(x), Some(y)) => {
                let keys: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
                for key in keys {
                    let null = &serde_json::Value::Null;
                    let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    walk(&name, x.get(key).unwrap_or(null), y.get(key).unwrap_or(null), out);
                }
            }
            _ if a != b => out.push(format!("{at} is {a} in the file, {b} by the checkpoint")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", ours, theirs, &mut out);
    out
}

impl Comparison {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for d in &self.differences {
            put(&mut out, format!("differs: {d}"));
        }
        out += &worst_table(self.tensors.iter().map(|t| (t.name.as_str(), t.format.as_str(), t.nmse)));
        put(&mut out, format!("{} tensors compared", self.tensors.len()));
        if let Some(stages) = &self.stages {
            out += &stages.text();
        }
        out
    }

    /// For programs.
    ///
    /// *Errors*: none that depends on data.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::file(&self.file, e.to_string()))
    }
}

//! Distance of a model file to the checkpoint that it was made from, tensor by tensor.
//!
//! Per stage of the network needs the runtime's forward pass and is not done here.

use crate::assemble::{Source, shape_of};
use crate::config::{Choices, describe};
use crate::model::{ModelFile, format_name};
use crate::parallel::for_rows;
use crate::report::{put, worst_table};
use crate::source::{Given, Parts, discover};
use crate::write::squares;
use crate::{Error, Progress, Result};
use runtime::model::Task;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Distance of one tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Distance {
    /// Its name.
    pub name: String,
    /// Its format in words.
    pub format: String,
    /// Mean square of the difference over mean square of the source.
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
}

/// Compares every tensor of the file with the checkpoint in `source`.
///
/// *Errors*: a part or tensor that is missing or has another shape; a damaged file.
pub fn compare(file: &Path, source: &Path, given: &Given, progress: &dyn Progress) -> Result<Comparison> {
    let model = ModelFile::open(file)?;
    compare_parts(&model, source, &discover(source, given)?, progress)
}

fn compare_parts(model: &ModelFile, root: &Path, parts: &Parts, progress: &dyn Progress) -> Result<Comparison> {
    let alpha = |task: Task| {
        let a = &model.config.task(task)?.adapter;
        Some(f64::from(a.scale) * a.rank as f64 / a.experts as f64)
    };
    let tasks = Task::ALL.into_iter().filter(|t| model.config.task(*t).is_some()).collect();
    // What the command line said when the file was made is not known; the file's alpha stands for it.
    let choices = Choices { tasks: Some(tasks), alpha_ask: alpha(Task::Ask), alpha_generate: alpha(Task::Generate) };
    let theirs = describe(parts, &choices)?.config;
    let differences = differences(&serde_json::json!(model.config), &serde_json::json!(theirs));
    let mut tensors = Vec::new();
    for spec in &model.specs {
        let source = Source::find(parts, &model.config, spec)?;
        let values = model.values(spec)?;
        let [rows, cols] = shape_of(spec);
        let mut sums: BTreeMap<usize, ([f64; 2], f64)> = BTreeMap::new();
        let work = |range: std::ops::Range<usize>| -> Result<([f64; 2], f64)> {
            let (published, stored) = (source.rows(range.clone())?, values.rows(range));
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
    Ok(Comparison { file: model.container.path().into(), source: root.into(), differences, tensors })
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
        out
    }

    /// For programs.
    ///
    /// *Errors*: none that depends on data.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::file(&self.file, e.to_string()))
    }
}

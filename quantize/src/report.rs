//! What was written and how far it is from its source, as text, JSON and CSV.

use crate::model::owner;
use crate::write::Job;
use crate::{Error, Result};
use runtime::file::Container;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Rows of the table of worst tensors.
const WORST: usize = 10;

/// One tensor of the file.
#[derive(Debug, Clone, Serialize)]
pub struct TensorReport {
    /// Name.
    pub name: String,
    /// Class in the recipe, `table` or `plain`.
    pub class: &'static str,
    /// Format in words.
    pub format: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Size in the file.
    pub bytes: u64,
    /// Mean square of the error over mean square of the values.
    pub nmse: f64,
    /// What it was made from, as `file: tensor`.
    pub sources: Vec<String>,
}

/// A part of the checkpoint that was used.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// In words.
    pub part: &'static str,
    /// What was opened.
    pub path: PathBuf,
    /// Tensors in it that the model does not need.
    pub surplus: usize,
}

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file.
    pub output: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Identity of the model: SHA-256 of the header.
    pub sha256: String,
    /// Name of the recipe.
    pub recipe: String,
    /// What had to be assumed.
    pub notes: Vec<String>,
    /// Parts used.
    pub parts: Vec<PartReport>,
    /// Every tensor in the order of the file.
    pub tensors: Vec<TensorReport>,
}

/// The parts of a job.
pub fn parts(job: &Job) -> Vec<PartReport> {
    let surplus = job.surplus();
    let pairs = job.parts.iter().zip(surplus);
    pairs.map(|((part, c), (_, surplus))| PartReport { part, path: c.path().into(), surplus }).collect()
}

impl Report {
    pub(crate) fn new(output: &Path, bytes: u64, job: &Job, tensors: Vec<TensorReport>) -> Self {
        let sha256 = Container::open(output).map(|c| c.sha256().to_owned()).unwrap_or_default();
        let (recipe, notes) = (job.recipe.name.clone(), job.notes.clone());
        Report { output: output.into(), bytes, sha256, recipe, notes, parts: parts(job), tensors }
    }

    /// For people: sizes, the worst tensors, what was assumed.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let line = &mut out;
        for p in &self.parts {
            let surplus = if p.surplus > 0 { format!(" ({} tensors not needed)", p.surplus) } else { String::new() };
            put(line, format!("{:<22} {}{surplus}", p.part, p.path.display()));
        }
        for note in &self.notes {
            put(line, format!("note: {note}"));
        }
        let sizes = self.tensors.iter().map(|t| (owner(&t.name), t.class, t.format.as_str(), t.bytes));
        put(line, format!("\n{}", size_table(sizes)));
        put(line, worst_table(self.tensors.iter().map(|t| (t.name.as_str(), t.format.as_str(), t.nmse))));
        put(
            line,
            format!("{}: {}, recipe {}, sha256 {}", self.output.display(), size(self.bytes), self.recipe, self.sha256),
        );
        out
    }

    /// Writes the report; the ending decides the form.
    ///
    /// *Errors*: an unknown ending, a write fault.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = match ending(path)? {
            Ending::Json => format!("{:#}\n", serde_json::json!(self)),
            Ending::Csv => self.csv(),
        };
        std::fs::write(path, text).map_err(Error::write(path))
    }

    fn csv(&self) -> String {
        let mut out = String::from("name,class,format,rows,cols,bytes,nmse,sources\n");
        for t in &self.tensors {
            let quoted = t.sources.join("; ").replace('"', "\"\"");
            let [rows, cols] = t.shape;
            put(
                &mut out,
                format!("{},{},{},{rows},{cols},{},{:e},\"{quoted}\"", t.name, t.class, t.format, t.bytes, t.nmse),
            );
        }
        out
    }
}

enum Ending {
    Json,
    Csv,
}

fn ending(path: &Path) -> Result<Ending> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => Ok(Ending::Json),
        Some("csv") => Ok(Ending::Csv),
        _ => Err(Error::Usage(format!("--report {}: .json or .csv is expected", path.display()))),
    }
}

/// Whether a report can have this name.
///
/// *Errors*: an unknown ending.
pub fn check_name(path: &Path) -> Result<()> {
    ending(path).map(|_| ())
}

pub(crate) fn put(out: &mut String, line: String) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Sizes by owner, class and format.
pub fn size_table<'a>(tensors: impl Iterator<Item = (&'a str, &'a str, &'a str, u64)>) -> String {
    let mut sums: BTreeMap<(&str, &str, &str), (usize, u64)> = BTreeMap::new();
    for (owner, class, format, bytes) in tensors {
        let sum = sums.entry((owner, class, format)).or_default();
        *sum = (sum.0 + 1, sum.1 + bytes);
    }
    let mut out = format!("{:<10} {:<10} {:<18} {:>8} {:>12}\n", "for", "class", "format", "tensors", "size");
    for ((owner, class, format), (count, bytes)) in sums {
        put(&mut out, format!("{owner:<10} {class:<10} {format:<18} {count:>8} {:>12}", size(bytes)));
    }
    out
}

/// The tensors furthest from their source.
pub fn worst_table<'a>(tensors: impl Iterator<Item = (&'a str, &'a str, f64)>) -> String {
    let mut all: Vec<_> = tensors.filter(|t| t.2 != 0.0).collect();
    all.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(b.0)));
    if all.is_empty() {
        return "every tensor is exact\n".into();
    }
    let mut out = format!("{:<36} {:<18} {:>12}\n", "worst tensors", "format", "NMSE");
    for (name, format, nmse) in all.into_iter().take(WORST) {
        put(&mut out, format!("{name:<36} {format:<18} {nmse:>12.2e}"));
    }
    out
}

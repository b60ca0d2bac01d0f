//! What was written and how far it is from its source, as text, JSON and CSV.

use crate::calibrate::Figures;
use crate::model::owner;
use crate::write::Job;
use crate::{Error, Result};
use runtime::file::Container;
use serde::{Deserialize, Serialize};
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

/// What a calibrated file says of how it was made and how far it is from the unquantised model. Nothing in it depends on when
/// or how fast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The recipe's method.
    pub method: String,
    /// Where the calibration data came from.
    pub calibration: String,
    /// Its SHA-256.
    pub calibration_sha256: String,
    /// Positions that were learnt from.
    pub calibration_tokens: usize,
    /// Distance in words on data that was held back; nothing if there was none.
    pub figures: Option<Figures>,
    /// The same of folding the adapters alone, without rounding anything; nothing if they were not folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folding: Option<Figures>,
    /// By layer and linear: the gates at which adapters were folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<BTreeMap<String, Vec<f64>>>,
    /// By layer: mean cosine between the residual streams of the file and of the unquantised model after it.
    pub layer_cosines: Vec<f64>,
}

impl Card {
    /// Refuses a file that is too far from the unquantised model.
    ///
    /// *Errors*: the distance with its limit.
    pub fn check(&self, max_kl: f64, output: &Path) -> Result<()> {
        let Some(f) = self.figures.filter(|f| f.kl.is_nan() || f.kl > max_kl) else { return Ok(()) };
        let advice =
            "--force writes it all the same, without computing it again; a smaller --group or other data may help";
        let problem = format!("is not written: its KL is {:.4} where --max-kl {max_kl} is allowed; {advice}", f.kl);
        Err(Error::Output { path: output.into(), problem })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let line = &mut out;
        let hash = self.calibration_sha256.get(..16).unwrap_or_default();
        let tokens = self.calibration_tokens;
        put(line, format!("calibrated  {}: {} ({tokens} tokens, sha256 {hash}…)", self.method, self.calibration));
        let worst = self.layer_cosines.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        if let (Some((layer, cosine)), Some(last)) = (worst, self.layer_cosines.last()) {
            put(
                line,
                format!(
                    "            residual stream: cosine {last:.5} at the end, least {cosine:.5} after layer {layer}"
                ),
            );
        }
        if let Some(f) = &self.figures {
            put(line, format!("            held back: {}", f.text()));
        }
        if let Some(f) = &self.folding {
            put(line, format!("            adapters folded, nothing rounded: {}", f.text()));
        }
        out
    }
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
    /// How it was calibrated, if it was.
    pub card: Option<Card>,
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
    pub(crate) fn new(output: &Path, bytes: u64, job: &Job, tensors: Vec<TensorReport>, card: Option<Card>) -> Self {
        let sha256 = Container::open(output).map(|c| c.sha256().to_owned()).unwrap_or_default();
        let (recipe, notes) = (job.recipe.name.clone(), job.notes.clone());
        Report { output: output.into(), bytes, sha256, recipe, notes, parts: parts(job), card, tensors }
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
        out += &self.card.as_ref().map_or_else(String::new, |c| c.text() + "\n");
        let line = &mut out;
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

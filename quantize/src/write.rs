//! From parts to a model file: packs every tensor by the recipe and streams it to disk.

use crate::assemble::{Source, shape_of};
use crate::calibrate::{LayerState, State};
use crate::config::{Choices, Described, adapter, describe};
use crate::methods::{Inputs, Methods, Rounding};
use crate::model::{class_name, format_name};
use crate::parallel::for_rows;
use crate::report::{Card, Report, TensorReport};
use crate::source::{Checkpoint, Parts};
use crate::transform::{Transform, read_norm};
use crate::{Error, Progress, Result};
use half::f16;
use runtime::file::{Layout, Writer};
use runtime::model::{Class, Config, Kind, LINEARS, Recipe, Spec, Task};
use safetensors::Dtype;
use serde_json::json;
use shaders::Packed;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Tokenizer files are a few megabytes.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// Everything that will be written, with every source found and its shape checked.
#[derive(Debug)]
pub struct Job<'a> {
    /// Dimensions.
    pub config: Config,
    /// Formats.
    pub recipe: Recipe,
    /// Tensors in the order of the file, each with what it is made from.
    pub tensors: Vec<(Spec, Source<'a>)>,
    /// The tokenizer's files, as they are.
    pub tokenizer: Vec<(&'static str, PathBuf)>,
    /// What had to be assumed.
    pub notes: Vec<String>,
    /// Parts that are used, in words, with what was opened.
    pub parts: Vec<(&'static str, &'a Checkpoint)>,
    /// What the recipe's method asks for.
    pub methods: Methods,
    /// From the published basis to the file's.
    pub transform: Transform,
    /// Adapters that are put into the base weights and are no tensors of the file.
    pub folded: Vec<(Spec, Source<'a>)>,
}

/// A tensor as it is stored.
pub struct Stored {
    /// Its planes.
    pub planes: Vec<Vec<u8>>,
    /// Mean square of the error over mean square of the values.
    pub nmse: f64,
    /// Sum of the squares of the error of the outputs, in mean over the inputs, where these are known.
    pub lost: Option<f64>,
}

impl<'a> Job<'a> {
    /// Describes the model and finds every tensor.
    ///
    /// *Errors*: whatever is missing, contradictory or wrongly shaped.
    pub fn new(parts: &'a Parts, choices: &Choices, recipe: Recipe) -> Result<Self> {
        let Described { mut config, mut notes } = describe(parts, choices)?;
        let methods = Methods::parse(&recipe.method).map_err(Error::Usage)?;
        config.basis.rotation = methods.rotate.then_some(recipe.seed);
        config.basis.scaled = methods.awq;
        if methods.rotate && methods.rounding != Rounding::Gptq && recipe.has_q4() {
            notes.push("rotated but not rounded with gptq: in int4 that is worse than not to rotate".into());
        }
        let mut tensors = Vec::new();
        for spec in config.tensors() {
            let source = Source::find(parts, &config, &spec)?;
            tensors.push((spec, source));
        }
        let mut folded = Vec::new();
        if choices.folded {
            let mut beside = config.clone();
            let tasks = beside.ask.iter_mut().chain(&mut beside.generate);
            tasks.for_each(|t| t.adapter.folded = false);
            for spec in beside.tensors().into_iter().filter(|s| s.class() == Some(Class::Adapter)) {
                let source = Source::find(parts, &beside, &spec)?;
                folded.push((spec, source));
            }
        }
        let mut tokenizer = vec![("tokenizer.json", parts.language.tokenizer_json.clone())];
        tokenizer.extend(parts.language.tokenizer_config.iter().map(|p| ("tokenizer_config.json", p.clone())));
        let with = |task: Task| config.task(task).is_some();
        let used: [(&'static str, Option<&Checkpoint>); 6] = [
            ("language model", Some(&parts.language.weights)),
            ("vision tower", parts.vision.as_ref().map(|v| &v.weights)),
            ("comprehension adapter", adapter(parts, Task::Ask).filter(|_| with(Task::Ask))),
            ("generation adapter", adapter(parts, Task::Generate).filter(|_| with(Task::Generate))),
            ("fusion layer", parts.fusion.as_ref().filter(|_| with(Task::Generate))),
            ("image decoder", parts.vqgan.as_ref().map(|v| &v.weights).filter(|_| with(Task::Generate))),
        ];
        let parts = used.into_iter().filter_map(|(name, c)| Some((name, c?))).collect();
        let calibrates = methods.needs_calibration() || choices.folded;
        let transform = Transform::new(&config, calibrates, |name| read_norm(&tensors, name))?;
        Ok(Job { config, recipe, tensors, tokenizer, notes, parts, methods, transform, folded })
    }

    /// Whether it has to be known what goes into the linears.
    pub fn needs_calibration(&self) -> bool {
        self.methods.needs_calibration() || !self.folded.is_empty()
    }

    /// Number of weights.
    pub fn values(&self) -> u64 {
        self.tensors.iter().map(|(s, _)| shape_of(s).iter().product::<usize>() as u64).sum()
    }

    /// Bytes of a tensor in the file.
    pub fn bytes(&self, spec: &Spec) -> u64 {
        spec.layouts(&self.recipe).iter().map(Layout::bytes).sum()
    }

    /// Tensors of each used part that no tensor of the file is made from.
    pub fn surplus(&self) -> Vec<(&'static str, usize)> {
        let used: BTreeSet<(&Path, &str)> =
            self.tensors.iter().chain(&self.folded).flat_map(|(_, s)| s.tensors()).collect();
        let count = |c: &Checkpoint| {
            c.names().filter(|name| c.file_of(name).is_none_or(|file| !used.contains(&(file, *name)))).count()
        };
        self.parts.iter().map(|(name, c)| (*name, count(c))).collect()
    }

    /// Every file that is read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let weights = self.parts.iter().flat_map(|(_, c)| c.files().chain([c.path()]));
        weights.chain(self.tokenizer.iter().map(|(_, p)| p.as_path()))
    }

    /// Refuses an output that is a source, or that exists and may not be replaced.
    ///
    /// *Errors*: naming the file.
    pub fn check_output(&self, output: &Path, force: bool) -> Result<()> {
        let refuse = |problem: &str| Err(Error::Output { path: output.into(), problem: problem.into() });
        if output.file_name().is_none() || output.is_dir() {
            return refuse("is a folder; name the file to write");
        }
        if let Ok(real) = fs::canonicalize(output) {
            if self.files().any(|f| fs::canonicalize(f).is_ok_and(|f| f == real)) {
                return refuse("is one of the source files; choose another output with -o");
            }
            if !force {
                return refuse("is there already; --force replaces it");
            }
        }
        match output.parent() {
            Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => refuse("its folder does not exist"),
            _ => Ok(()),
        }
    }

    /// Writes the file. `root` is what the names of source files are given relative to.
    ///
    /// *Errors*: a method that needs calibration; a read or write fault, a value that a format cannot hold, an interruption.
    /// Nothing is left behind.
    pub fn write(&self, output: &Path, root: &Path, progress: &dyn Progress) -> Result<Report> {
        if self.needs_calibration() {
            return Err(Error::Usage(format!("method `{}` needs calibration", self.recipe.method)));
        }
        self.write_with(output, root, None, progress)
    }

    /// Writes the file with the linears that calibrating left in `state`; the card says how that went.
    ///
    /// *Errors*: as [`Job::write`].
    pub fn write_calibrated(
        &self,
        output: &Path,
        root: &Path,
        state: &State,
        card: Card,
        progress: &dyn Progress,
    ) -> Result<Report> {
        self.write_with(output, root, Some((state, card)), progress)
    }

    fn write_with(
        &self,
        output: &Path,
        root: &Path,
        calibrated: Option<(&State, Card)>,
        progress: &dyn Progress,
    ) -> Result<Report> {
        let mut layouts: Vec<Layout> = self.tensors.iter().flat_map(|(s, _)| s.layouts(&self.recipe)).collect();
        let mut files = Vec::new();
        for (name, path) in &self.tokenizer {
            let bytes = read_tokenizer(path)?;
            layouts.push(Layout { name: (*name).into(), dtype: Dtype::U8, shape: vec![bytes.len()] });
            files.push(bytes);
        }
        let mut names = Names::new(root);
        let sources: BTreeMap<&str, Vec<String>> = self
            .tensors
            .iter()
            .map(|(spec, s)| {
                (spec.name.as_str(), s.tensors().map(|(f, key)| format!("{}: {key}", names.get(f))).collect())
            })
            .collect();
        let (state, card) = calibrated.unzip();
        let mut metadata = vec![
            ("config", json!(self.config).to_string()),
            ("recipe", json!(self.recipe).to_string()),
            ("sources", json!(sources).to_string()),
            ("producer", format!("quantize {}", env!("CARGO_PKG_VERSION"))),
        ];
        metadata.extend(card.iter().map(|card| ("card", json!(card).to_string())));
        let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let failed = Error::write(output);
        let mut writer = Writer::create(output, layouts, metadata, 0).map_err(&failed)?;
        let mut reports = Vec::new();
        let mut layers = Layers { state, current: None };
        for (spec, source) in &self.tensors {
            let stored = match layers.take(spec, &self.recipe)? {
                Some(stored) => stored,
                None => self.pack(spec, source, &Inputs::Unknown, progress)?,
            };
            for plane in &stored.planes {
                writer.write(plane).map_err(&failed)?;
            }
            reports.push(TensorReport {
                name: spec.name.clone(),
                class: class_name(&spec.kind),
                format: format_name(&spec.kind, spec.format(&self.recipe)),
                shape: source.shape(),
                bytes: self.bytes(spec),
                nmse: stored.nmse,
                sources: sources.get(spec.name.as_str()).cloned().unwrap_or_default(),
            });
        }
        for bytes in &files {
            writer.write(bytes).map_err(&failed)?;
        }
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        writer.finish().map_err(&failed)?;
        let bytes = fs::metadata(output).map_err(&failed)?.len();
        Ok(Report::new(output, bytes, self, reports, card))
    }

    /// A tensor as it is stored.
    ///
    /// *Errors*: a read fault, a value that the format cannot hold, an interruption.
    pub fn pack(&self, spec: &Spec, source: &Source, inputs: &Inputs, progress: &dyn Progress) -> Result<Stored> {
        let [rows, cols] = source.shape();
        let layouts = spec.layouts(&self.recipe);
        let mut planes: Vec<Vec<u8>> = layouts.iter().map(|l| vec![0; l.bytes() as usize]).collect();
        let format = spec.format(&self.recipe);
        // Summed in the order of the rows, whatever the order of the threads.
        let mut errors: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
        let whole = match self.transform.is_by_row(spec) {
            true => None,
            false => Some(self.transform.read(spec, source, 0..rows)?),
        };
        let work = |range: std::ops::Range<usize>| -> Result<(Piece, [f64; 3])> {
            let own;
            let values = match &whole {
                Some(whole) => &whole[range.start * cols..range.end * cols],
                None => {
                    own = self.transform.read(spec, source, range.clone())?;
                    own.as_slice()
                }
            };
            let at = |i: usize| (range.start + i / cols, i % cols);
            match spec.kind {
                Kind::Plain { .. } => {
                    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                        return Err(source.wrong_value(spec, at(i).0, at(i).1, values[i], "is not finite"));
                    }
                    Ok((Piece::Bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect()), [0.0; 3]))
                }
                Kind::Table { .. } => {
                    let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                    if let Some(i) = halves.iter().position(|h| !h.is_finite()) {
                        return Err(source.wrong_value(spec, at(i).0, at(i).1, values[i], F16_LIMIT));
                    }
                    let [wrong, all] = squares(values, halves.iter().map(|h| h.to_f32()));
                    Ok((Piece::Bytes(halves.iter().flat_map(|h| h.to_le_bytes()).collect()), [wrong, all, 0.0]))
                }
                Kind::Matrix { .. } => {
                    let (packed, lost) = inputs
                        .pack(format, range.len(), cols, values)
                        .map_err(|e| source.wrong_value(spec, range.start + e.row, e.col, e.value, F16_LIMIT))?;
                    let stored = (0..range.len()).flat_map(|r| (0..cols).map(move |k| (r, k)));
                    let [wrong, all] = squares(values, stored.map(|(r, k)| packed.value(r, k)));
                    Ok((Piece::Packed(packed), [wrong, all, lost.unwrap_or(f64::NAN)]))
                }
            }
        };
        for_rows([rows, cols], progress, work, |i, range, (piece, error)| {
            errors.insert(i, error);
            match piece {
                Piece::Bytes(bytes) => {
                    let at = range.start * (bytes.len() / range.len().max(1));
                    planes[0][at..at + bytes.len()].copy_from_slice(&bytes);
                }
                Piece::Packed(packed) => {
                    let words = [&packed.quants, &packed.scales, &packed.zero_points];
                    for ((plane, words), per_row) in planes.iter_mut().zip(words).zip(format.words_per_row()) {
                        put_lines(plane, words, rows, range.clone(), per_row);
                    }
                }
            }
        })?;
        let [wrong, all, lost] = errors.values().fold([0.0; 3], |sum, e| std::array::from_fn(|i| sum[i] + e[i]));
        let nmse = if all == 0.0 { 0.0 } else { wrong / all };
        Ok(Stored { planes, nmse, lost: Some(lost).filter(|l| !l.is_nan()) })
    }
}

/// The layers that calibrating left behind, one at a time.
struct Layers<'a> {
    state: Option<&'a State>,
    current: Option<(usize, LayerState)>,
}

impl Layers<'_> {
    /// A linear of the language model as calibrating rounded it.
    fn take(&mut self, spec: &Spec, recipe: &Recipe) -> Result<Option<Stored>> {
        let Some(state) = self.state else { return Ok(None) };
        let parts = spec.name.strip_prefix("language.layers.").and_then(|rest| rest.split_once('.'));
        let Some((layer, linear)) = parts.and_then(|(i, l)| Some((i.parse().ok()?, l))) else { return Ok(None) };
        if !LINEARS.iter().any(|(name, _)| *name == linear) {
            return Ok(None);
        }
        if self.current.as_ref().is_none_or(|(at, _)| *at != layer) {
            self.current = Some((layer, state.layer(layer)?));
        }
        let Some((_, kept)) = &mut self.current else { return Ok(None) };
        let planes = spec.layouts(recipe).iter().filter_map(|l| kept.planes.remove(&l.name)).collect();
        let nmse = kept.notes.nmse.get(linear).copied().unwrap_or_default();
        Ok(Some(Stored { planes, nmse, lost: None }))
    }
}

const F16_LIMIT: &str = "cannot be stored in f16, whose largest is 65504";

/// Some rows of a tensor, ready to be stored.
enum Piece {
    Bytes(Vec<u8>),
    Packed(Packed),
}

/// Puts a plane of some rows, `[lines][range][per_row]` words, into the plane of all, `[lines][rows][per_row]`.
fn put_lines(plane: &mut [u8], words: &[u32], rows: usize, range: std::ops::Range<usize>, per_row: usize) {
    for (line, words) in words.chunks_exact(range.len() * per_row).enumerate() {
        let at = (line * rows + range.start) * per_row * 4;
        let (target, _) = plane[at..at + words.len() * 4].as_chunks_mut::<4>();
        target.iter_mut().zip(words).for_each(|(t, w)| *t = w.to_le_bytes());
    }
}

/// Sums of the squares of the error and of the values.
pub(crate) fn squares(values: &[f32], stored: impl Iterator<Item = f32>) -> [f64; 2] {
    let (mut wrong, mut all) = (0.0, 0.0);
    for (v, u) in values.iter().zip(stored) {
        wrong += f64::from(v - u).powi(2);
        all += f64::from(*v).powi(2);
    }
    [wrong, all]
}

fn read_tokenizer(path: &Path) -> Result<Vec<u8>> {
    let wrong = |e: std::io::Error| Error::file(path, e.to_string());
    let bytes = fs::metadata(path).map_err(wrong)?.len();
    if bytes > MAX_TOKENIZER_BYTES {
        return Err(Error::file(path, format!("is {bytes} bytes long; at most {MAX_TOKENIZER_BYTES} are expected")));
    }
    fs::read(path).map_err(wrong)
}

/// Names of source files that do not depend on where the checkpoint lies: relative to the root, else folder and name.
struct Names {
    root: Option<PathBuf>,
    known: BTreeMap<PathBuf, String>,
}

impl Names {
    fn new(root: &Path) -> Self {
        Names { root: fs::canonicalize(root).ok(), known: BTreeMap::new() }
    }

    fn get(&mut self, path: &Path) -> &str {
        let root = self.root.as_deref();
        self.known.entry(path.into()).or_insert_with(|| {
            let name = path.file_name().unwrap_or_default();
            // Not the file itself: in a hub's cache it is a link to a hash.
            let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
            let folder = folder.and_then(|p| fs::canonicalize(p).ok()).unwrap_or_default();
            let inside = root.and_then(|r| folder.strip_prefix(r).ok().map(Path::to_owned));
            let near = inside.unwrap_or_else(|| folder.file_name().map(PathBuf::from).unwrap_or_default());
            let parts: Vec<_> = near.iter().chain([name]).map(|p| p.to_string_lossy()).collect();
            parts.join("/")
        })
    }
}

/// Where the file goes if nothing is said: beside an input file under its name, in the current folder for a folder.
pub fn default_output(input: &Path, recipe: &Recipe) -> PathBuf {
    let name = input.file_name().filter(|_| !input.is_dir()).map(|n| n.to_string_lossy().into_owned());
    let mut stem = name.unwrap_or_else(|| "model".into());
    for suffix in [".index.json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt"] {
        stem.truncate(stem.strip_suffix(suffix).map_or(stem.len(), str::len));
    }
    // A shard stands for its set: model-00001-of-00002.
    if let Some((front, total)) = stem.rsplit_once("-of-")
        && let Some((base, number)) = front.rsplit_once('-')
        && [number, total].iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    {
        let length = base.len();
        stem.truncate(length);
    }
    let file = format!("{stem}-{}.safetensors", recipe.name);
    if input.is_dir() { file.into() } else { input.with_file_name(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_named_after_input_and_recipe() {
        let recipe = Recipe::named("q4", 32).unwrap();
        for (input, output) in [
            ("a/model.safetensors", "a/model-q4.safetensors"),
            ("model-00001-of-00002.safetensors", "model-q4.safetensors"),
            ("x/model.safetensors.index.json", "x/model-q4.safetensors"),
            ("/tmp", "model-q4.safetensors"),
        ] {
            assert_eq!(default_output(Path::new(input), &recipe), Path::new(output), "{input}");
        }
    }
}

//! Which file is which part of the model: by content first, by name where content cannot tell.
//!
//! Published parts come under many names and depths, as plain folders or as a hub cache full of links, beside files
//! that are no part of the model, and sometimes broken. A file whose name says that it is a part but that cannot be
//! read is an error, never skipped.

use super::safetensors::read_index;
use super::{Checkpoint, Error, bare_name, plain, plain_path};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Configurations are a few kilobytes.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Folders below the given one that are entered.
const MAX_DEPTH: usize = 16;
/// Files looked at before giving up: someone named their home folder.
const MAX_FILES: usize = 200_000;

/// The two tasks, each with its own adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Answering a question about a picture: the published "comprehension".
    Ask,
    /// Making a picture.
    Generate,
}

impl Task {
    const fn settings_key(self) -> &'static str {
        match self {
            Self::Ask => "comprehension",
            Self::Generate => "generation",
        }
    }
}

/// Paths the user gave by flag; each overrides discovery. A folder stands for the checkpoint in it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--vit`: folder or weights of the vision tower.
    pub vit: Option<PathBuf>,
    /// `--hlora-ask`.
    pub hlora_ask: Option<PathBuf>,
    /// `--hlora-generate`.
    pub hlora_generate: Option<PathBuf>,
    /// `--fusion`.
    pub fusion: Option<PathBuf>,
    /// `--vqgan`: folder or checkpoint of the image decoder.
    pub vqgan: Option<PathBuf>,
}

/// The language model.
#[derive(Debug)]
pub struct LanguagePart {
    /// Folder of the configuration and tokenizer.
    pub dir: PathBuf,
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// `tokenizer.json`, which is there.
    pub tokenizer_json: PathBuf,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<PathBuf>,
    /// Its tensors.
    pub weights: Checkpoint,
}

/// The vision tower.
#[derive(Debug)]
pub struct VisionPart {
    /// `config.json`: of a whole CLIP (sizes under `vision_config`) or of the tower alone (sizes at the top).
    pub config: Value,
    /// `preprocessor_config.json`.
    pub preprocessor: Option<Value>,
    /// Its tensors; those outside `vision_model.` are not needed.
    pub weights: Checkpoint,
}

impl VisionPart {
    /// The object that holds the tower's sizes, whichever form the configuration has.
    pub fn tower_config(&self) -> &Value {
        self.config.get("vision_config").unwrap_or(&self.config)
    }
}

/// The image decoder.
#[derive(Debug)]
pub struct VqganPart {
    /// `n_embed`, `embed_dim`, `z_channels`, `out_ch`, `num_res_blocks`, `level_channels` (a list, largest picture first) and
    /// `attn_levels` as the tensors have them, with `ch`, `ch_mult`, `resolution` and `attn_resolutions` where a `.yaml`
    /// beside the weights says so. `resolution` is in no tensor.
    pub config: Value,
    /// The `.yaml` that was read.
    pub yaml: Option<PathBuf>,
    /// Its tensors; `encoder.*`, `loss.*` and others may be among them.
    pub weights: Checkpoint,
}

/// Every part that was found.
#[derive(Debug)]
pub struct Parts {
    /// The language model; without it there is nothing to do.
    pub language: LanguagePart,
    /// The vision tower.
    pub vision: Option<VisionPart>,
    /// The comprehension adapter and projector.
    pub hlora_ask: Option<Checkpoint>,
    /// The generation adapter and projector.
    pub hlora_generate: Option<Checkpoint>,
    /// The resized tables of generation.
    pub fusion: Option<Checkpoint>,
    /// The image decoder.
    pub vqgan: Option<VqganPart>,
    /// Accompanying JSON with `hlora_alpha` and the like, at the top or under `comprehension` and `generation`.
    pub settings: Option<Value>,
    /// Every folder looked in, in order.
    pub looked_in: Vec<PathBuf>,
    /// Files with a checkpoint's extension that could not be read and whose names say nothing, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl Parts {
    /// One line per part that the given tasks need and that is not there, naming the flag; empty if all is well.
    pub fn missing(&self, ask: bool, generate: bool) -> Vec<String> {
        let mut out = Vec::new();
        let mut need = |there: bool, what: &str| {
            if !there {
                out.push(what.to_owned());
            }
        };
        if ask || generate {
            need(self.vision.is_some(), "no vision tower (a CLIP with its config.json; --vit PATH)");
        }
        if ask {
            need(self.hlora_ask.is_some(), "no comprehension adapter (com_hlora_weights.bin; --hlora-ask FILE)");
        }
        if generate {
            need(self.hlora_generate.is_some(), "no generation adapter (gen_hlora_weights.bin; --hlora-generate FILE)");
            need(self.fusion.is_some(), "no fusion layer (fusion_layer_weights.bin; --fusion FILE)");
            need(self.vqgan.is_some(), "no image decoder (last.ckpt and model.yaml; --vqgan FILE)");
        }
        if !out.is_empty() {
            out.extend(unreadable_lines(&self.unreadable));
        }
        out
    }

    /// The whole of [`Parts::missing`] as one error that also lists the folders looked in.
    ///
    /// *Errors*: [`Error::Missing`] if anything is missing.
    pub fn require(&self, ask: bool, generate: bool) -> Result<(), Error> {
        let missing = self.missing(ask, generate);
        if missing.is_empty() { Ok(()) } else { Err(Error::Missing { missing, looked_in: self.looked_in.clone() }) }
    }

    /// What the settings say about this very task.
    pub fn said(&self, task: Task, key: &str) -> Option<f64> {
        self.settings.as_ref()?.get(task.settings_key())?.get(key)?.as_f64()
    }

    /// `hlora_alpha` of a task from the accompanying settings, for an adapter of this rank; `None` if they do not say.
    ///
    /// A value at the top that comes with another rank belongs to the other task's adapter.
    pub fn alpha(&self, task: Task, rank: usize) -> Option<f64> {
        let settings = self.settings.as_ref()?;
        let of = |v: &Value| {
            let same = v.get("hlora_r").is_none_or(|r| r.as_u64() == Some(rank as u64));
            v.get("hlora_alpha").filter(|_| same).and_then(Value::as_f64)
        };
        settings.get(task.settings_key()).and_then(of).or_else(|| of(settings))
    }
}

fn unreadable_lines(unreadable: &[(PathBuf, String)]) -> impl Iterator<Item = String> + '_ {
    unreadable.iter().take(4).map(|(_, why)| format!("could not be read: {why}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Language,
    Vision,
    Adapter,
    Fusion,
    Vqgan,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Language, Self::Vision, Self::Adapter, Self::Fusion, Self::Vqgan];

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Language => ("language model", "the path of its weights in place of the folder"),
            Self::Vision => ("vision tower", "--vit"),
            Self::Adapter => ("adapter", "--hlora-ask and --hlora-generate"),
            Self::Fusion => ("fusion layer", "--fusion"),
            Self::Vqgan => ("image decoder", "--vqgan"),
        }
    }
}

/// What a checkpoint is, by its tensors.
fn kind_of(c: &Checkpoint) -> Option<Kind> {
    // Our own output and the golden traces lie beside the source and must not be taken for it.
    let ours = |t: &str| t.to_ascii_lowercase().starts_with("healthgpt");
    if c.metadata().iter().any(|(k, v)| ours(k) || ours(v)) {
        return None;
    }
    let any = |f: &dyn Fn(&str) -> bool| c.names().any(f);
    if any(&|n| n.contains(".lora_A.") || n.contains(".lora_route.")) {
        return Some(Kind::Adapter);
    }
    if any(&|n| n.ends_with("self_attn.qkv_proj.weight")) {
        return Some(Kind::Language);
    }
    if any(&|n| bare_name(n).starts_with("vision_model.")) {
        return Some(Kind::Vision);
    }
    if c.names().any(|n| bare_name(n) == "decoder.conv_in.weight")
        && c.names().any(|n| CODEBOOK.contains(&bare_name(n)))
    {
        return Some(Kind::Vqgan);
    }
    // Of some other language model the same two tables are only the ends.
    let tables = c.names().filter(|n| matches!(bare_name(n), "embed_tokens.weight" | "lm_head.weight")).count();
    if tables > 0 && (tables == c.len() || tables == 2 && !any(&|n| bare_name(n).starts_with("layers."))) {
        return Some(Kind::Fusion);
    }
    None
}

const CODEBOOK: [&str; 2] = ["quantize.embed.weight", "quantize.embedding.weight"];

/// A checkpoint found by the walk: one file, an index, or shards without an index.
#[derive(Clone, Debug)]
struct Candidate {
    /// What to open, and what errors name.
    path: PathBuf,
    /// More than one only for shards without an index.
    shards: Vec<PathBuf>,
}

struct Found {
    candidate: Candidate,
    weights: Checkpoint,
}

/// What the walk saw.
#[derive(Default)]
struct Walk {
    dirs: Vec<PathBuf>,
    /// Files by folder, sorted.
    files: BTreeMap<PathBuf, Vec<PathBuf>>,
    entered: HashSet<PathBuf>,
    count: usize,
}

impl Walk {
    /// Enters `dir` and folders below it down to `depth`. Links are followed, each real folder is seen once.
    fn enter(&mut self, dir: &Path, depth: usize) -> Result<(), Error> {
        let mut todo = vec![(dir.to_owned(), depth)];
        while let Some((dir, depth)) = todo.pop() {
            let real = fs::canonicalize(&dir).map_err(Error::io(&dir))?;
            if !self.entered.insert(real) {
                continue;
            }
            let mut entries: Vec<PathBuf> = match fs::read_dir(&dir) {
                Ok(list) => list.filter_map(|e| Some(e.ok()?.path())).collect(),
                Err(e) if self.dirs.is_empty() => return Err(Error::io(&dir)(e)),
                Err(e) => {
                    log::warn!("folder left out: {}: {e}", plain_path(&dir));
                    continue;
                }
            };
            entries.sort();
            self.dirs.push(dir.clone());
            let mut below = Vec::new();
            for path in entries {
                self.count += 1;
                if self.count > MAX_FILES {
                    return Err(Error::format(
                        &dir,
                        format!("more than {MAX_FILES} files below the given folder; name the folder of the model"),
                    ));
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with('.') || name == "__MACOSX" {
                    continue;
                }
                // Follows links; a dangling one is no file.
                let Ok(meta) = fs::metadata(&path) else { continue };
                if meta.is_dir() {
                    if depth > 0 {
                        below.push((path, depth - 1));
                    }
                } else if meta.is_file() {
                    self.files.entry(dir.clone()).or_default().push(path);
                }
            }
            todo.extend(below.into_iter().rev());
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

const EXTENSIONS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// Splits `model-00001-of-00002.safetensors` into `model`, 2 and `safetensors`.
fn shard_of(name: &str) -> Option<(&str, usize, &str)> {
    let (stem, ext) = name.rsplit_once('.')?;
    let (front, total) = stem.rsplit_once("-of-")?;
    let (base, number) = front.rsplit_once('-')?;
    number.parse::<usize>().ok()?;
    Some((base, total.parse().ok()?, ext))
}

/// The checkpoints in one folder. Shards that an index lists belong to it and are no candidates by themselves.
fn candidates(files: &[PathBuf]) -> Result<Vec<Candidate>, Error> {
    let (mut out, mut claimed, mut loose) = (Vec::new(), BTreeSet::new(), BTreeMap::<_, Vec<PathBuf>>::new());
    for path in files.iter().filter(|p| is_index(&file_name(p))) {
        // Some other index is left out; one that names a kind of weights must be good.
        let name = file_name(path);
        let ours = EXTENSIONS.iter().any(|e| name.ends_with(&format!(".{e}.index.json")));
        match read_index(path) {
            Ok(shards) => {
                claimed.extend(shards.into_keys());
                out.push(Candidate { path: path.clone(), shards: Vec::new() });
            }
            Err(e) if ours => return Err(e),
            Err(_) => {}
        }
    }
    for path in files {
        let name = file_name(path);
        let known = path.extension().and_then(OsStr::to_str).is_some_and(|e| EXTENSIONS.contains(&e));
        if !known || claimed.contains(&name) || is_trainers_own(&name) {
            continue;
        }
        match shard_of(&name) {
            Some((base, total, ext)) if total > 1 => {
                loose.entry((base.to_owned(), total, ext.to_owned())).or_default().push(path.clone())
            }
            _ => out.push(Candidate { path: path.clone(), shards: Vec::new() }),
        }
    }
    for ((base, total, ext), shards) in loose {
        let Some(first) = shards.first() else { continue };
        if shards.len() != total {
            return Err(Error::format(
                first,
                format!(
                    "is one of {total} shards, but {} of {base}-*.{ext} are here and no index lists them",
                    shards.len()
                ),
            ));
        }
        out.push(Candidate { path: first.clone(), shards });
    }
    Ok(out)
}

/// Files that a trainer leaves beside the weights; they may hold anything and are never a part.
fn is_trainers_own(name: &str) -> bool {
    ["optimizer", "scheduler", "training_args", "rng_state", "scaler"].iter().any(|p| name.starts_with(p))
}

/// The parts that a file may be by its name; empty if the name says nothing. What is named may not be skipped when it
/// is damaged.
fn named_kinds(path: &Path) -> &'static [Kind] {
    let name = file_name(path).to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    let begins = |words: &[&str]| words.iter().any(|w| name.starts_with(w));
    if has(&["lora"]) {
        &[Kind::Adapter]
    } else if has(&["fusion"]) {
        &[Kind::Fusion]
    } else if has(&["vqgan"]) || begins(&["last."]) {
        &[Kind::Vqgan]
    } else if has(&["clip"]) || begins(&["vit"]) {
        &[Kind::Vision]
    } else if begins(&["model", "pytorch_model", "phi"]) {
        &[Kind::Language, Kind::Vision]
    } else {
        &[]
    }
}

/// How much the place of a file tells: links to one file are one candidate, seen where most is known about it.
fn told_by_place(path: &Path) -> usize {
    let beside = path.parent().is_some_and(|d| d.join("config.json").is_file());
    usize::from(beside)
        + usize::from(!named_kinds(path).is_empty())
        + usize::from(task_by_name(&file_name(path)).is_some())
}

fn words_of(name: &str) -> Vec<String> {
    name.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect()
}

/// The task a name says, if it says exactly one.
fn task_by_name(name: &str) -> Option<Task> {
    let words = words_of(name);
    let says = |list: &[&str], stems: &[&str]| {
        words.iter().any(|w| list.contains(&w.as_str()) || stems.iter().any(|s| w.starts_with(s)))
    };
    let ask = says(&["com", "comp", "ask", "und", "qa", "vqa"], &["comprehen", "understand"]);
    let generate = says(&["gen"], &["generat"]);
    match (ask, generate) {
        (true, false) => Some(Task::Ask),
        (false, true) => Some(Task::Generate),
        _ => None,
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_JSON_BYTES + 1).read_to_end(&mut text).map_err(Error::io(path))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::format(path, format!("is larger than {MAX_JSON_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("is not JSON: {}", plain(&e.to_string()))))
}

fn read_json_if_there(path: &Path) -> Result<Option<Value>, Error> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut walk = Walk::default();
    walk.enter(dir, 0)?;
    Ok(walk.files.into_values().flatten().collect())
}

/// The one checkpoint that a folder holds.
///
/// *Errors*: none or several.
pub(super) fn weights_in(dir: &Path) -> Result<PathBuf, Error> {
    let all = candidates(&files_in(dir)?)?.into_iter().map(|c| c.path).collect();
    let mut best = preferred(all);
    match (best.pop(), best.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Error::format(dir, "holds no checkpoint (.safetensors, .bin, .pt, .pth, .ckpt)")),
        (Some(last), false) => {
            best.push(last);
            Err(Error::Several {
                part: "checkpoint of the folder",
                found: best,
                flag: "the path of the file in place of the folder",
            })
        }
    }
}

/// Leaves one of each set of files that are the same weights in other formats: one folder and one stem
/// (`model` and `pytorch_model` are one), safetensors before torch, a single file before an index.
fn preferred(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_by_key(|p| format_rank(p));
    paths.dedup_by(|later, first| {
        let same = is_twin(later, first);
        if same {
            log::info!("{} is used, {} is left out", plain_path(first), plain_path(later));
        }
        same
    });
    paths
}

/// Folder, stem, and place among the formats.
fn format_rank(path: &Path) -> (PathBuf, String, usize) {
    let name = file_name(path);
    let index = is_index(&name);
    let name = name.strip_suffix(".index.json").unwrap_or(&name);
    let (stem, ext) = name.rsplit_once('.').unwrap_or((name, ""));
    let stem = shard_of(name).map_or(stem, |(base, ..)| base);
    let stem = if stem == "pytorch_model" { "model" } else { stem };
    let place = EXTENSIONS.iter().position(|e| *e == ext).unwrap_or(EXTENSIONS.len());
    (path.parent().unwrap_or(Path::new("")).to_owned(), stem.to_owned(), 2 * place + usize::from(index))
}

/// Whether two paths are one stem in two formats.
fn is_twin(a: &Path, b: &Path) -> bool {
    let (a, b) = (format_rank(a), format_rank(b));
    a.0 == b.0 && a.1 == b.1
}

/// Finds every part: in `input` and below if it is a folder; if it is a file, in its folder and below, and what is still
/// missing then beside that folder.
///
/// *Errors*: no language model; several candidates for one part; a damaged file that is a part by name; a given path that
/// is not what its flag says. Other missing parts are `None`: see [`Parts::missing`].
pub fn discover(input: &Path, given: &Given) -> Result<Parts, Error> {
    let meta = fs::metadata(input).map_err(Error::io(input))?;
    let mut search =
        Search { given, walk: Walk::default(), found: BTreeMap::new(), unreadable: Vec::new(), pinned: None };
    if meta.is_dir() {
        search.walk.enter(input, MAX_DEPTH)?;
        search.classify(None)?;
    } else {
        let input = if input.parent().is_some_and(|p| p.as_os_str().is_empty()) {
            Path::new(".").join(input)
        } else {
            input.to_owned()
        };
        search.pin(&input)?;
        let dir = input.parent().unwrap_or(Path::new(".")).to_owned();
        search.walk.enter(&dir, MAX_DEPTH)?;
        search.classify(None)?;
        let lacking: Vec<Kind> = Kind::ALL.into_iter().filter(|k| search.lacks(*k)).collect();
        if !lacking.is_empty()
            && let Some(parent) = fs::canonicalize(&dir).ok().as_deref().and_then(Path::parent)
        {
            // Only its files and the folders beside ours: what lies further off belongs to something else.
            search.walk.files.clear();
            search.walk.enter(parent, 1)?;
            search.classify(Some(&lacking))?;
        }
    }
    search.finish()
}

struct Search<'a> {
    given: &'a Given,
    walk: Walk,
    found: BTreeMap<Kind, Vec<Found>>,
    unreadable: Vec<(PathBuf, String)>,
    /// The kind of the file that was the input: it is that part, whatever else is there.
    pinned: Option<Kind>,
}

impl Search<'_> {
    /// Whether flags or the input name the part, so that discovery does not matter.
    fn is_given(&self, kind: Kind) -> bool {
        let given = self.given;
        match kind {
            Kind::Adapter => given.hlora_ask.is_some() && given.hlora_generate.is_some(),
            Kind::Vision => given.vit.is_some(),
            Kind::Fusion => given.fusion.is_some(),
            Kind::Vqgan => given.vqgan.is_some(),
            Kind::Language => self.pinned == Some(Kind::Language),
        }
    }

    fn lacks(&self, kind: Kind) -> bool {
        let found = self.found.get(&kind).map_or(0, Vec::len);
        let half = kind == Kind::Adapter
            && found + usize::from(self.given.hlora_ask.is_some()) + usize::from(self.given.hlora_generate.is_some())
                < 2;
        !self.is_given(kind) && (found == 0 || half)
    }

    /// Takes the file that was given as input for what it is.
    fn pin(&mut self, input: &Path) -> Result<(), Error> {
        let candidate = whole(input)?;
        let weights = open(&candidate)?;
        let kind = kind_of(&weights).ok_or_else(|| {
            Error::format(
                input,
                "is none of the parts: no language model, vision tower, adapter, fusion layer or image decoder",
            )
        })?;
        self.pinned = Some(kind);
        self.found.entry(kind).or_default().push(Found { candidate, weights });
        Ok(())
    }

    /// Opens every checkpoint the walk saw and sorts it by kind. With `only`, files that are none of these kinds are
    /// none of our business, damaged or not.
    fn classify(&mut self, only: Option<&[Kind]>) -> Result<(), Error> {
        let given: Vec<&PathBuf> =
            [&self.given.vit, &self.given.hlora_ask, &self.given.hlora_generate, &self.given.fusion, &self.given.vqgan]
                .into_iter()
                .flatten()
                .collect();
        let needed: Vec<Kind> =
            Kind::ALL.into_iter().filter(|k| only.is_none_or(|o| o.contains(k)) && !self.is_given(*k)).collect();
        for files in self.walk.files.values() {
            let mut list = match candidates(files) {
                Ok(list) => list,
                Err(e) if only.is_some() => {
                    log::warn!("left out: {e}");
                    self.unreadable.extend(files.first().map(|f| (f.clone(), e.to_string())));
                    continue;
                }
                Err(e) => return Err(e),
            };
            list.sort_by_key(|c| format_rank(&c.path));
            for candidate in list {
                let path = &candidate.path;
                if given.iter().any(|g| same_file(g, path)) {
                    continue;
                }
                let twin = self
                    .found
                    .iter_mut()
                    .flat_map(|(k, list)| list.iter_mut().map(move |f| (*k, f)))
                    .find(|(_, f)| same_file(&f.candidate.path, path));
                if let Some((kind, twin)) = twin {
                    if self.pinned != Some(kind) && told_by_place(path) > told_by_place(&twin.candidate.path) {
                        *twin = Found { weights: open(&candidate)?, candidate };
                    }
                    continue;
                }
                match open(&candidate) {
                    Ok(weights) => match kind_of(&weights) {
                        Some(kind)
                            if only.is_none_or(|k| k.contains(&kind))
                                && (self.pinned != Some(kind) || kind == Kind::Adapter) =>
                        {
                            self.found.entry(kind).or_default().push(Found { candidate, weights });
                        }
                        Some(kind) => log::info!("{} is another {}, left out", plain_path(path), kind.words().0),
                        None => log::info!("{} is no part of the model, left out", plain_path(path)),
                    },
                    Err(e) => {
                        let named = named_kinds(path);
                        // Broken, but the same weights were read from a better format; or, beside our folder, of a name that any model has.
                        let spared = self.found.values().flatten().any(|f| is_twin(&f.candidate.path, path))
                            || only.is_some() && named.len() > 1;
                        if !spared && named.iter().any(|k| needed.contains(k)) {
                            return Err(e);
                        }
                        log::warn!("left out: {e}");
                        self.unreadable.push((path.clone(), e.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The one candidate of a kind.
    fn one(&mut self, kind: Kind) -> Result<Option<Checkpoint>, Error> {
        let mut found = self.found.remove(&kind).unwrap_or_default();
        let best = preferred(found.iter().map(|f| f.candidate.path.clone()).collect());
        found.retain(|f| best.contains(&f.candidate.path));
        if found.len() > 1 {
            let (part, flag) = kind.words();
            return Err(Error::Several { part, found: best, flag });
        }
        Ok(found.pop().map(|f| f.weights))
    }

    fn one_or_given(&mut self, kind: Kind, given: Option<&PathBuf>) -> Result<Option<Checkpoint>, Error> {
        match given {
            Some(path) => self.open_given(kind, path).map(Some),
            None => self.one(kind),
        }
    }

    fn open_given(&self, kind: Kind, path: &Path) -> Result<Checkpoint, Error> {
        let (part, flag) = kind.words();
        if !path.is_dir() {
            let weights = open(&whole(path)?)?;
            let is = kind_of(&weights);
            if is == Some(kind) {
                return Ok(weights);
            }
            let found = is.map_or_else(|| "none of the parts".to_owned(), |k| format!("the {}", k.words().0));
            return Err(Error::format(path, format!("is {found} by its tensors, expected the {part} ({flag})")));
        }
        let nothing = Given::default();
        let mut inside = Search {
            given: &nothing,
            walk: Walk::default(),
            found: BTreeMap::new(),
            unreadable: Vec::new(),
            pinned: None,
        };
        inside.walk.enter(path, MAX_DEPTH)?;
        inside.classify(Some(&[kind]))?;
        let why = inside.unreadable.first().map(|(_, why)| format!("; {why}")).unwrap_or_default();
        inside.one(kind)?.ok_or_else(|| Error::format(path, format!("holds no {part} ({flag}){why}")))
    }

    fn finish(mut self) -> Result<Parts, Error> {
        let given = self.given;
        let settings = self.settings()?;
        let language = self.one(Kind::Language)?.map(language).transpose()?;
        let vision = self.one_or_given(Kind::Vision, given.vit.as_ref())?.map(vision).transpose()?;
        let (hlora_ask, hlora_generate) = self.adapters(settings.as_ref())?;
        let fusion = self.one_or_given(Kind::Fusion, given.fusion.as_ref())?;
        let vqgan = self.one_or_given(Kind::Vqgan, given.vqgan.as_ref())?.map(vqgan).transpose()?;
        let (looked_in, unreadable) = (self.walk.dirs, self.unreadable);
        let Some(language) = language else {
            // Everything that is missing is said at once.
            let mut missing =
                vec!["no language model (config.json, tokenizer.json and weights with qkv_proj)".to_owned()];
            if vision.is_none() {
                missing.push("no vision tower".into());
            }
            if hlora_ask.is_none() {
                missing.push("no comprehension adapter".into());
            }
            if hlora_generate.is_none() {
                missing.push("no generation adapter".into());
            }
            if fusion.is_none() {
                missing.push("no fusion layer".into());
            }
            if vqgan.is_none() {
                missing.push("no image decoder".into());
            }
            missing.extend(unreadable_lines(&unreadable));
            return Err(Error::Missing { missing, looked_in });
        };
        Ok(Parts { language, vision, hlora_ask, hlora_generate, fusion, vqgan, settings, looked_in, unreadable })
    }

    /// Gives each adapter its task: by flag, by file name, by folder name, by the settings' ranks, by elimination, by rank.
    fn adapters(&mut self, settings: Option<&Value>) -> Result<(Option<Checkpoint>, Option<Checkpoint>), Error> {
        let given = self.given;
        let mut found = self.found.remove(&Kind::Adapter).unwrap_or_default();
        let best = preferred(found.iter().map(|f| f.candidate.path.clone()).collect());
        found.retain(|f| best.contains(&f.candidate.path));
        let mut ask = given.hlora_ask.as_ref().map(|p| self.open_given(Kind::Adapter, p)).transpose()?;
        let mut generate = given.hlora_generate.as_ref().map(|p| self.open_given(Kind::Adapter, p)).transpose()?;

        // A folder given by flag may lie where was searched.
        let used: Vec<PathBuf> = [&ask, &generate].into_iter().flatten().map(|c| c.path().to_owned()).collect();
        found.retain(|f| !used.iter().any(|u| same_file(u, &f.candidate.path)));

        let (mut asks, mut generates, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for f in found {
            let folder = f.candidate.path.parent().map(file_name).unwrap_or_default();
            match task_by_name(&file_name(&f.candidate.path))
                .or_else(|| task_by_name(&folder))
                .or_else(|| task_by_rank(&f.weights, settings))
            {
                Some(Task::Ask) => asks.push(f),
                Some(Task::Generate) => generates.push(f),
                None => open.push(f),
            }
        }
        let several = |list: &[Found], part, flag| Error::Several {
            part,
            found: list.iter().map(|f| f.candidate.path.clone()).collect(),
            flag,
        };
        if ask.is_none() && asks.len() > 1 {
            return Err(several(&asks, "comprehension adapter", "--hlora-ask"));
        }
        if generate.is_none() && generates.len() > 1 {
            return Err(several(&generates, "generation adapter", "--hlora-generate"));
        }
        ask = ask.or_else(|| asks.pop().map(|f| f.weights));
        generate = generate.or_else(|| generates.pop().map(|f| f.weights));
        if ask.is_some() && generate.is_some() {
            return Ok((ask, generate));
        }
        let undecided = several(&open, "comprehension or the generation adapter", "--hlora-ask and --hlora-generate");
        match (open.len(), ask.is_some(), generate.is_some()) {
            (0, ..) => {}
            (1, true, false) => generate = open.pop().map(|f| f.weights),
            (1, false, true) => ask = open.pop().map(|f| f.weights),
            (2, false, false) => {
                open.sort_by_key(|f| (rank_of(&f.weights), has_tables(&f.weights)));
                let key = |f: &Found| (rank_of(&f.weights), has_tables(&f.weights));
                let (Some(large), Some(small)) = (open.pop(), open.pop()) else { return Err(undecided) };
                if key(&large) == key(&small) {
                    return Err(undecided);
                }
                (ask, generate) = (Some(small.weights), Some(large.weights));
            }
            _ => return Err(undecided),
        }
        Ok((ask, generate))
    }

    /// The accompanying JSON, told by its keys: in the folders looked in, else in the one above them all. Those nearest
    /// to the top win; several at one depth are put together.
    fn settings(&self) -> Result<Option<Value>, Error> {
        let real = self.walk.dirs.iter().filter_map(|d| fs::canonicalize(d).ok());
        let mut dirs: Vec<(usize, PathBuf)> = real.map(|d| (d.components().count(), d)).collect();
        dirs.sort();
        let above = dirs.first().and_then(|(_, d)| d.parent()).map(Path::to_owned);
        dirs.extend(above.map(|d| (usize::MAX, d)));
        let mut best: Option<(usize, PathBuf, Map<String, Value>)> = None;
        for (depth, dir) in dirs {
            if best.as_ref().is_some_and(|b| b.0 != depth) {
                break;
            }
            for path in files_in(&dir).unwrap_or_default() {
                let json = path.extension().is_some_and(|e| e == "json")
                    && fs::metadata(&path).is_ok_and(|m| m.len() < 1 << 18);
                let read = json.then(|| read_json(&path));
                // By these names the published script's options go; silence about a damaged one would cost the right alpha.
                let named = ["settings.json", "healthgpt.json"].contains(&file_name(&path).as_str());
                let read = match read {
                    Some(Err(error)) if named => return Err(error),
                    Some(Ok(value)) if named && !value.is_object() => {
                        return Err(Error::format(&path, "holds no settings: an object is expected"));
                    }
                    other => other.and_then(Result::ok),
                };
                if let Some(problem) = read.as_ref().and_then(settings_fault) {
                    return Err(Error::format(&path, problem));
                }
                let Some(mut value) = read.filter(is_settings) else { continue };
                // One file per task, told by its name.
                if says_settings(&value)
                    && let Some(task) = task_by_name(&file_name(&path))
                {
                    value = json!({ task.settings_key(): value });
                }
                let Value::Object(mut value) = value else { continue };
                value.retain(|_, v| says_settings(v) || v.is_number());
                let Some((_, first, all)) = &mut best else {
                    best = Some((depth, path, value));
                    continue;
                };
                if value.iter().any(|(k, v)| all.get(k).is_some_and(|known| known != v)) {
                    return Err(Error::Several {
                        part: "settings of the adapters",
                        found: vec![first.clone(), path],
                        flag: "--alpha-ask and --alpha-generate, after moving one away",
                    });
                }
                all.extend(value);
            }
        }
        Ok(best.map(|b| Value::Object(b.2)))
    }
}

/// A setting that is there and no number.
fn settings_fault(v: &Value) -> Option<String> {
    let blocks = [Some(v), v.get(Task::Ask.settings_key()), v.get(Task::Generate.settings_key())];
    let of = |block: &Value| {
        let wrong = |key: &&&str| block.get(**key).is_some_and(|v| !v.is_number());
        SETTINGS.iter().find(wrong).map(|key| format!("`{key}` is {}, not a number", block[*key]))
    };
    blocks.into_iter().flatten().find_map(of)
}

const SETTINGS: [&str; 3] = ["hlora_alpha", "hlora_r", "hlora_nums"];

fn says_settings(v: &Value) -> bool {
    SETTINGS.iter().any(|k| v.get(k).is_some_and(Value::is_number))
}

fn is_settings(v: &Value) -> bool {
    says_settings(v) || [Task::Ask, Task::Generate].iter().any(|t| v.get(t.settings_key()).is_some_and(says_settings))
}

/// A path as a candidate. A shard stands for its whole set.
fn whole(path: &Path) -> Result<Candidate, Error> {
    let alone = Candidate { path: path.to_owned(), shards: Vec::new() };
    let name = file_name(path);
    if is_index(&name) {
        return Ok(alone);
    }
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (files, sharded) = (files_in(dir)?, shard_of(&name).is_some());
    // A file that stands for itself must not fail for what lies beside it.
    let listed = |p: &&PathBuf| {
        is_index(&file_name(p)) && read_index(p).is_ok_and(|s| s.contains_key(&name) && (sharded || s.len() > 1))
    };
    if let Some(index) = files.iter().find(listed) {
        return Ok(Candidate { path: index.clone(), shards: Vec::new() });
    }
    if !sharded {
        return Ok(alone);
    }
    Ok(candidates(&files)?.into_iter().find(|c| c.shards.iter().any(|s| same_file(s, path))).unwrap_or(alone))
}

fn open(c: &Candidate) -> Result<Checkpoint, Error> {
    if c.shards.is_empty() { Checkpoint::open(&c.path) } else { Checkpoint::open_shards(&c.path, &c.shards) }
}

/// Rank of an adapter: rows of its first `lora_A`.
fn rank_of(c: &Checkpoint) -> usize {
    c.tensors().find(|t| t.name.contains(".lora_A.")).and_then(|t| t.shape.first().copied()).unwrap_or(0)
}

fn has_tables(c: &Checkpoint) -> bool {
    c.names().any(|n| bare_name(n) == "embed_tokens.weight")
}

fn task_by_rank(c: &Checkpoint, settings: Option<&Value>) -> Option<Task> {
    let rank = rank_of(c) as u64;
    let says = |t: Task| settings?.get(t.settings_key())?.get("hlora_r")?.as_u64();
    match (says(Task::Ask) == Some(rank), says(Task::Generate) == Some(rank)) {
        (true, false) => Some(Task::Ask),
        (false, true) => Some(Task::Generate),
        _ => None,
    }
}

fn folder_of(c: &Checkpoint) -> PathBuf {
    c.path().parent().unwrap_or(Path::new("")).to_owned()
}

/// The configuration beside weights: `config.json`, or where parts share a folder another JSON that fits.
fn config_beside(dir: &Path, fits: impl Fn(&Value) -> bool) -> Result<Option<Value>, Error> {
    if let Some(v) = read_json_if_there(&dir.join("config.json"))?
        && fits(&v)
    {
        return Ok(Some(v));
    }
    let others = files_in(dir)?
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "json") && file_name(p).contains("config"));
    Ok(others.filter_map(|p| read_json(&p).ok()).find(fits))
}

fn language(weights: Checkpoint) -> Result<LanguagePart, Error> {
    let dir = folder_of(&weights);
    // Sizes at the top and no vision tower: a fine-tuned model may call its type otherwise, so that decides nothing.
    let config = config_beside(&dir, |v| {
        v.get("hidden_size").is_some() && v.get("vision_config").is_none() && v.get("patch_size").is_none()
    })?
    .ok_or_else(|| Error::format(&dir, "no config.json of a language model beside its weights"))?;
    let tokenizer_json = dir.join("tokenizer.json");
    if !tokenizer_json.is_file() {
        return Err(Error::format(&dir, "no tokenizer.json beside the language model's weights"));
    }
    let generation_config = read_json_if_there(&dir.join("generation_config.json"))?;
    let tokenizer_config = Some(dir.join("tokenizer_config.json")).filter(|p| p.is_file());
    Ok(LanguagePart { config, generation_config, tokenizer_json, tokenizer_config, weights, dir })
}

fn vision(weights: Checkpoint) -> Result<VisionPart, Error> {
    let dir = folder_of(&weights);
    let config = config_beside(&dir, |v| v.get("vision_config").is_some() || v.get("patch_size").is_some())?
        .ok_or_else(|| Error::format(&dir, "no config.json with the vision tower's sizes beside its weights"))?;
    let preprocessor = read_json_if_there(&dir.join("preprocessor_config.json"))?;
    Ok(VisionPart { config, preprocessor, weights })
}

/// Reads the decoder's shape from its tensors, and from the `.yaml` what no tensor holds.
fn vqgan(weights: Checkpoint) -> Result<VqganPart, Error> {
    let shape = |name: &str, dims: usize| -> Result<Vec<usize>, Error> {
        let t = weights.lookup(name)?;
        if t.shape.len() == dims {
            return Ok(t.shape.clone());
        }
        Err(weights.tensor_error(&t.name, format!("shape {:?}", t.shape), format!("{dims} dimensions")))
    };
    let codebook = CODEBOOK.into_iter().find(|n| weights.find(n).is_ok_and(|t| t.is_some())).unwrap_or(CODEBOOK[0]);
    let (codes, z) = (shape(codebook, 2)?, shape("decoder.conv_in.weight", 4)?);
    let mut level_channels = Vec::new();
    let mut attn_levels = Vec::new();
    let there = |name: String| weights.find(&name).map(|t| t.is_some());
    while there(format!("decoder.up.{}.block.0.conv1.weight", level_channels.len()))? {
        let l = level_channels.len();
        level_channels.push(shape(&format!("decoder.up.{l}.block.0.conv1.weight"), 4)?[0]);
        if there(format!("decoder.up.{l}.attn.0.q.weight"))? {
            attn_levels.push(l);
        }
    }
    let mut blocks = 0;
    while there(format!("decoder.up.0.block.{blocks}.conv1.weight"))? {
        blocks += 1;
    }
    let mut config = Map::new();
    for (key, value) in [
        ("n_embed", json!(codes[0])),
        ("embed_dim", json!(codes[1])),
        ("z_channels", json!(z[1])),
        ("out_ch", json!(shape("decoder.conv_out.weight", 4)?[0])),
        ("num_res_blocks", json!(blocks.max(1) - 1)),
        ("level_channels", json!(level_channels)),
        ("attn_levels", json!(attn_levels)),
    ] {
        config.insert(key.to_owned(), value);
    }
    let yaml = yaml_beside(&weights)?;
    if let Some((path, said)) = &yaml {
        for (key, value) in said {
            match config.get(key) {
                Some(have) if have != value => {
                    return Err(Error::format(
                        path,
                        format!(
                            "{key} is {}, but by the tensors of {} it is {have}",
                            plain(&value.to_string()),
                            file_name(weights.path())
                        ),
                    ));
                }
                Some(_) => {}
                None => drop(config.insert(key.clone(), value.clone())),
            }
        }
    }
    check_levels(&config, yaml.as_ref().map_or(weights.path(), |y| &y.0))?;
    Ok(VqganPart { config: Value::Object(config), yaml: yaml.map(|y| y.0), weights })
}

/// A description and what it says.
type Described = (PathBuf, Map<String, Value>);

/// Holds what a description says about the levels against the tensors.
fn check_levels(config: &Map<String, Value>, path: &Path) -> Result<(), Error> {
    let list = |key: &str| {
        config.get(key).and_then(Value::as_array).map(|a| a.iter().filter_map(Value::as_u64).collect::<Vec<u64>>())
    };
    let channels = list("level_channels").unwrap_or_default();
    if channels.is_empty() {
        return Err(Error::format(path, "the image decoder has no tensors decoder.up.*"));
    }
    if let (Some(ch), Some(mult)) = (config.get("ch").and_then(Value::as_u64), list("ch_mult")) {
        let expected: Vec<u64> = mult.iter().map(|m| m.saturating_mul(ch)).collect();
        if expected != channels {
            return Err(Error::format(
                path,
                format!(
                    "ch {ch} and ch_mult {mult:?} mean levels of {expected:?} channels, but the tensors have {channels:?}"
                ),
            ));
        }
    }
    if let Some(resolution) = config.get("resolution").and_then(Value::as_u64) {
        let halvings = u32::try_from(channels.len() - 1).unwrap_or(u32::MAX);
        let step = 1u64.checked_shl(halvings).unwrap_or(0);
        if resolution == 0 || step == 0 || resolution % step != 0 {
            return Err(Error::format(
                path,
                format!("resolution {resolution} cannot be halved {halvings} times, as the tensors have it"),
            ));
        }
    }
    Ok(())
}

/// The `.yaml` in the weights' folder that describes a decoder; `model.yaml` before others.
fn yaml_beside(weights: &Checkpoint) -> Result<Option<Described>, Error> {
    let mut found = Vec::new();
    for path in files_in(&folder_of(weights))? {
        if !path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            continue;
        }
        let mut text = Vec::new();
        File::open(&path).map_err(Error::io(&path))?.take(1 << 20).read_to_end(&mut text).map_err(Error::io(&path))?;
        let said = ddconfig(&String::from_utf8_lossy(&text));
        if said.contains_key("resolution") {
            found.push((path, said));
        }
    }
    found.sort_by_key(|(p, _)| (!file_name(p).starts_with("model."), p.clone()));
    let first = found.first();
    if let (Some(a), Some(b)) = (first, found.get(1))
        && !file_name(&a.0).starts_with("model.")
        && a.1 != b.1
    {
        return Err(Error::Several {
            part: "description of the image decoder",
            found: found.into_iter().map(|f| f.0).collect(),
            flag: "the name model.yaml",
        });
    }
    Ok(found.into_iter().next())
}

/// Reads the few numbers of a VQGAN's description that matter. Not a YAML reader: those files are written by one
/// program, nest nothing under these keys, and use each key once.
fn ddconfig(text: &str) -> Map<String, Value> {
    const NUMBERS: [&str; 7] = ["embed_dim", "n_embed", "z_channels", "resolution", "out_ch", "ch", "num_res_blocks"];
    const LISTS: [&str; 2] = ["ch_mult", "attn_resolutions"];
    let mut out = Map::new();
    let mut list: Option<&str> = None;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let (Some(key), Some(item)) = (list, line.strip_prefix("- ")) {
            if let (Some(Value::Array(items)), Ok(n)) = (out.get_mut(key), item.trim().parse::<u32>()) {
                items.push(n.into());
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        list = None;
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim().trim_matches(['"', '\'']), value.trim());
        if let (Some(key), Ok(n)) =
            (NUMBERS.iter().find(|k| **k == key), value.trim_matches(['"', '\'']).parse::<u32>())
        {
            out.entry(*key).or_insert_with(|| n.into());
        } else if let Some(key) = LISTS.iter().find(|k| **k == key)
            && !out.contains_key(*key)
        {
            let items = value
                .trim_matches(['[', ']'])
                .split(',')
                .filter_map(|n| n.trim().parse::<u32>().ok())
                .map(Value::from)
                .collect();
            out.insert((*key).to_owned(), Value::Array(items));
            list = Some(key);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_task_only_if_they_say_one() {
        assert_eq!(task_by_name("com_hlora_weights.bin"), Some(Task::Ask));
        assert_eq!(task_by_name("gen_hlora_weights.bin"), Some(Task::Generate));
        assert_eq!(task_by_name("hlora-comprehension.safetensors"), Some(Task::Ask));
        assert_eq!(task_by_name("Generation.pt"), Some(Task::Generate));
        assert_eq!(task_by_name("hlora_weights.bin"), None);
        assert_eq!(task_by_name("com_gen.bin"), None);
        assert_eq!(task_by_name("commit.bin"), None);
    }

    #[test]
    fn descriptions_are_read_in_both_list_styles() {
        let block = ddconfig(
            "model:\n  params:\n    embed_dim: 64 # width\n    ddconfig:\n      resolution: 64\n      ch_mult:\n      - 1\n      - 2\n      num_res_blocks: 2\n      attn_resolutions: []\n      dropout: 0.0\n",
        );
        assert_eq!(
            Value::Object(block),
            json!({"embed_dim": 64, "resolution": 64, "ch_mult": [1, 2], "num_res_blocks": 2, "attn_resolutions": []})
        );
        let flow = ddconfig("ddconfig:\n  ch_mult: [1, 1, 2, 4]\n  attn_resolutions: [32]\n  resolution: '256'\n");
        assert_eq!(Value::Object(flow), json!({"ch_mult": [1, 1, 2, 4], "attn_resolutions": [32], "resolution": 256}));
    }

    #[test]
    fn one_stem_in_two_formats_is_one_part() {
        let paths = ["a/model.safetensors", "a/pytorch_model.bin", "a/other.bin", "b/model.safetensors.index.json"]
            .map(PathBuf::from);
        let kept = preferred(paths.to_vec());
        assert_eq!(kept, ["a/model.safetensors", "a/other.bin", "b/model.safetensors.index.json"].map(PathBuf::from));
    }

    #[test]
    fn shard_names_are_taken_apart() {
        assert_eq!(shard_of("model-00001-of-00002.safetensors"), Some(("model", 2, "safetensors")));
        assert_eq!(shard_of("clip-vit-large.safetensors"), None);
        assert_eq!(shard_of("com_hlora_weights.bin"), None);
    }
}

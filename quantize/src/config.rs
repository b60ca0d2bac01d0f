//! Which model the parts make: every dimension, read from configurations, tensor shapes and accompanying settings.
//!
//! Nothing is built in but what the published formats leave out by convention; each such choice is a note of the report.

use crate::source::{self, Checkpoint, Parts, VqganPart};
use crate::{Error, Result};
use runtime::model::{Adapter, Config, Language, Task, TaskConfig, Vision, Vocabulary, Vqgan};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Codes of the published model, where no part says a number: a file for answers alone still reserves their ids.
const PUBLISHED_CODES: usize = 8192;

/// What the command line says about the model.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Tasks to include; ask, and generate if any part of it is there, if absent.
    pub tasks: Option<Vec<Task>>,
    /// alpha of the comprehension adapter.
    pub alpha_ask: Option<f64>,
    /// alpha of the generation adapter.
    pub alpha_generate: Option<f64>,
    /// Put the adapter into the base weights, its gates fixed at their means over calibration data.
    pub folded: bool,
}

/// A model and what had to be assumed about it.
#[derive(Debug)]
pub struct Described {
    /// Its dimensions.
    pub config: Config,
    /// One line for each thing that no file said.
    pub notes: Vec<String>,
}

/// The task's adapter.
pub fn adapter(parts: &Parts, task: Task) -> Option<&Checkpoint> {
    match task {
        Task::Ask => parts.hlora_ask.as_ref(),
        Task::Generate => parts.hlora_generate.as_ref(),
    }
}

/// The task's own table `name`: the adapter file's if it has one, else for generation the fusion file's.
///
/// *Errors*: two keys that mean the table.
pub fn own_table<'a>(parts: &'a Parts, task: Task, name: &str) -> Result<Option<&'a Checkpoint>> {
    let fusion = parts.fusion.as_ref().filter(|_| task == Task::Generate);
    for checkpoint in adapter(parts, task).into_iter().chain(fusion) {
        if checkpoint.find(name)?.is_some() {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// Name of the checkpoint's two tables.
const TABLES: [&str; 2] = ["embed_tokens.weight", "lm_head.weight"];

/// The tasks to include.
///
/// *Errors*: a part that a task needs is missing; everything missing is listed, with the folders looked in.
pub fn tasks(parts: &Parts, choices: &Choices) -> Result<Vec<Task>> {
    let any_generate = parts.hlora_generate.is_some() || parts.fusion.is_some() || parts.vqgan.is_some();
    let tasks = match &choices.tasks {
        Some(tasks) => Task::ALL.into_iter().filter(|t| tasks.contains(t)).collect(),
        None if any_generate => Task::ALL.to_vec(),
        None => vec![Task::Ask],
    };
    if tasks.is_empty() {
        return Err(Error::Usage("--tasks names no task; ask, generate or both are possible".into()));
    }
    let has = |task| tasks.contains(&task);
    let mut missing = parts.missing(has(Task::Ask), has(Task::Generate));
    // An adapter file may bring the tables itself.
    if parts.fusion.is_none() && parts.hlora_generate.is_some() {
        let mut both = true;
        for name in TABLES {
            both &= own_table(parts, Task::Generate, name)?.is_some();
        }
        if both {
            missing.retain(|line| !line.starts_with("no fusion layer"));
        }
    }
    // Lines about unreadable files matter only beside a missing part.
    if missing.iter().any(|line| line.starts_with("no ")) {
        if choices.tasks.is_none() && any_generate && parts.missing(true, false).is_empty() {
            missing.push("or leave pictures out with --tasks ask".into());
        }
        return Err(source::Error::Missing { missing, looked_in: parts.looked_in.clone() }.into());
    }
    Ok(tasks)
}

/// Reads the model's dimensions.
///
/// *Errors*: a missing part; a value that is missing, contradicts another or is not supported, named with its file.
pub fn describe(parts: &Parts, choices: &Choices) -> Result<Described> {
    let tasks = tasks(parts, choices)?;
    let mut notes = Vec::new();
    let vocabulary = vocabulary(parts, &mut notes)?;
    let language = language(parts)?;
    let mut vision = vision(parts, &mut notes)?;
    let mut of = |task: Task| -> Result<Option<TaskConfig>> {
        if !tasks.contains(&task) {
            return Ok(None);
        }
        let flag = if task == Task::Ask { choices.alpha_ask } else { choices.alpha_generate };
        let mut of_task = task_config(parts, task, flag, &vocabulary, vision.layers, &mut notes)?;
        of_task.adapter.folded = choices.folded;
        Ok(Some(of_task))
    };
    if choices.folded && tasks.len() > 1 {
        let problem = "each task's adapter needs a copy of the base weights of its own";
        let advice = "make two files, with --tasks ask and with --tasks generate";
        return Err(Error::Usage(format!("--adapters folded: {problem}; {advice}")));
    }
    let (ask, generate) = (of(Task::Ask)?, of(Task::Generate)?);
    vision.layers = ask.iter().chain(&generate).map(|t| t.vision_layers).max().unwrap_or(0);
    let vqgan = match (&generate, &parts.vqgan) {
        (Some(_), Some(part)) => Some(vqgan(part)?),
        _ => None,
    };
    let config = Config { language, vocabulary, vision: Some(vision), ask, generate, vqgan, basis: Default::default() };
    config.check().map_err(|problem| Error::file(&parts.language.dir, problem))?;
    Ok(Described { config, notes })
}

/// A JSON object and the file it came from.
struct Object<'a> {
    path: PathBuf,
    value: &'a Value,
}

impl Object<'_> {
    /// The value, unless it is absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(format!("`{key}` is {}; {what} is expected", short(value))))
    }

    fn maybe_count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.maybe_count(key)?.ok_or_else(|| self.wrong(format!("`{key}` is missing")))
    }

    fn maybe_number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A value that must be the only one supported if it is there.
    fn only(&self, key: &str, supported: &Value) -> Result<()> {
        let same = |v: &Value| v == supported || v.as_f64().is_some_and(|n| Some(n) == supported.as_f64());
        match self.get(key).filter(|v| !same(v)) {
            Some(found) => Err(self.wrong(format!("`{key}` is {}; only {supported} is supported", short(found)))),
            None => Ok(()),
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { format!("{}…", text.chars().take(80).collect::<String>()) }
}

/// Source: reference.md §1; transformers' Phi3Config.
fn language(parts: &Parts) -> Result<Language> {
    let c = Object { path: parts.language.dir.join("config.json"), value: &parts.language.config };
    if let Some(kind) = c.typed("model_type", "a word", |v| v.as_str().map(str::to_lowercase))?
        && !kind.contains("phi")
    {
        return Err(c.wrong(format!("`model_type` is \"{}\"; a Phi-3 is expected", kind.escape_debug())));
    }
    c.only("attention_bias", &json!(false))?;
    c.only("hidden_act", &json!("silu"))?;
    c.only("partial_rotary_factor", &json!(1.0))?;
    // Newer configurations gather everything about rotation in one object.
    let rotation = Object { path: c.path.clone(), value: c.get("rope_parameters").unwrap_or(&Value::Null) };
    rotation.only("partial_rotary_factor", &json!(1.0))?;
    for key in ["type", "rope_type"] {
        rotation.only(key, &json!("default"))?;
    }
    if let Some(scaling) = c.get("rope_scaling") {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        if kind != Some(&json!("default")) {
            return Err(c.wrong(format!("`rope_scaling` is {}; only models without it are supported", short(scaling))));
        }
    }
    let rope_theta = match c.maybe_number("rope_theta")? {
        Some(theta) => theta,
        None => rotation.maybe_number("rope_theta")?.ok_or_else(|| c.wrong("`rope_theta` is missing"))?,
    };
    let (hidden, heads) = (c.count("hidden_size")?, c.count("num_attention_heads")?);
    let head_dim = match c.maybe_count("head_dim")? {
        Some(width) => width,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(c.wrong(format!("`hidden_size` {hidden} is no multiple of `num_attention_heads` {heads}"))),
    };
    let uses_window = c.typed("use_sliding_window", "true or false", Value::as_bool)?.unwrap_or(true);
    Ok(Language {
        layers: c.count("num_hidden_layers")?,
        hidden,
        heads,
        kv_heads: c.maybe_count("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        intermediate: c.count("intermediate_size")?,
        rms_norm_eps: c.maybe_number("rms_norm_eps")?.ok_or_else(|| c.wrong("`rms_norm_eps` is missing"))? as f32,
        rope_theta,
        sliding_window: c.maybe_count("sliding_window")?.filter(|_| uses_window),
        max_positions: c.count("max_position_embeddings")?,
        stop_ids: stop_ids(parts, &c)?,
    })
}

fn stop_ids(parts: &Parts, config: &Object) -> Result<Vec<u32>> {
    let null = Value::Null;
    let generation = Object {
        path: parts.language.dir.join("generation_config.json"),
        value: parts.language.generation_config.as_ref().unwrap_or(&null),
    };
    let ids = |v: &Value| -> Option<Vec<u32>> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        v.as_array().map_or_else(|| one(v).map(|id| vec![id]), |list| list.iter().map(one).collect())
    };
    for object in [&generation, config] {
        if let Some(found) = object.typed("eos_token_id", "an id or a list of ids", ids)?
            && !found.is_empty()
        {
            return Ok(found);
        }
    }
    Err(config.wrong("`eos_token_id` is missing here and in generation_config.json: no answer would end"))
}

/// Number of tokens and codes. The number of codes may be said in several places, which must agree.
fn vocabulary(parts: &Parts, notes: &mut Vec<String>) -> Result<Vocabulary> {
    let tokens = Tokens::read(&parts.language.tokenizer_json)?;
    let mut said: Vec<(usize, String)> = Vec::new();
    if let Some(value) = parts.settings.as_ref().and_then(|s| s.get("vq_idx_nums")) {
        let codes = value.as_u64().and_then(|n| usize::try_from(n).ok());
        let codes = codes.ok_or_else(|| {
            Error::file(&parts.language.dir, format!("`vq_idx_nums` of the settings is {}", short(value)))
        })?;
        said.push((codes, "`vq_idx_nums` of the settings".into()));
    }
    if let Some(part) = &parts.vqgan {
        let path = part.weights.path();
        said.push((
            Object { path: path.into(), value: &part.config }.count("n_embed")?,
            format!("the codebook of {}", path.display()),
        ));
    }
    if let Some(codes) = tokens.saved_codes {
        said.push((codes, format!("the code tokens of {}", parts.language.tokenizer_json.display())));
    }
    let before = tokens.count();
    if let Some(fusion) = &parts.fusion
        && let Some(table) = fusion.find(TABLES[0])?
    {
        let rows = table.shape.first().copied().unwrap_or(0);
        let codes = rows.checked_sub(before + 3).ok_or_else(|| {
            let problem =
                format!("tensor {} has {rows} rows; {before} tokens and at least 3 more are expected", table.name);
            Error::file(fusion.path(), problem)
        })?;
        said.push((codes, format!("{rows} rows of {} less {before} tokens and 3", fusion.path().display())));
    }
    let Some((codes, first)) = said.first() else {
        notes.push(format!("number of picture codes: no file says it, {PUBLISHED_CODES} as published"));
        return Ok(Vocabulary { tokens: before, codes: PUBLISHED_CODES });
    };
    if let Some((other, second)) = said.iter().find(|(n, _)| n != codes) {
        let problem = format!("the number of picture codes is {codes} by {first}, but {other} by {second}");
        return Err(Error::file(&parts.language.dir, problem));
    }
    Ok(Vocabulary { tokens: before, codes: *codes })
}

/// What `tokenizer.json` counts.
struct Tokens {
    all: usize,
    /// Codes among them, if it was saved with the codes and the three tokens around them at its end.
    saved_codes: Option<usize>,
}

impl Tokens {
    /// `len(tokenizer)` before codes were added.
    fn count(&self) -> usize {
        self.all - self.saved_codes.map_or(0, |n| n + 3)
    }

    /// Counts distinct ids: the base vocabulary and added tokens, which may repeat some of it.
    ///
    /// *Errors*: a file that is no tokenizer; ids that leave a gap, as embedding rows and tokens would not match.
    fn read(path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::file(path, problem);
        let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let file: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
        let mut ids = BTreeSet::new();
        let (mut start, mut newline) = (None, None);
        let mut put = |content: Option<&str>, id: &Value| {
            let id = id.as_u64().ok_or_else(|| wrong("a token's id is no whole number".into()))?;
            ids.insert(id);
            match content {
                Some("<start_index>") => start = Some(id),
                Some("<pixel_newline>") => newline = Some(id),
                _ => {}
            }
            Ok::<_, Error>(())
        };
        let model = file.get("model").and_then(|m| m.get("vocab"));
        let vocab = model.and_then(Value::as_object).ok_or_else(|| wrong("has no `model.vocab`".into()))?;
        for (content, id) in vocab {
            put(Some(content), id)?;
        }
        for token in file.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            put(token.get("content").and_then(Value::as_str), token.get("id").unwrap_or(&Value::Null))?;
        }
        let all = ids.len();
        match ids.last() {
            None => return Err(wrong("holds no tokens".into())),
            Some(last) if *last != all as u64 - 1 => {
                return Err(wrong(format!(
                    "has {all} tokens, but the largest id is {last}; ids without gaps are expected"
                )));
            }
            Some(_) => {}
        }
        let saved_codes = match (start, newline) {
            (Some(start), Some(newline)) if newline + 1 == all as u64 && newline >= start + 2 => {
                Some((newline - start - 2) as usize)
            }
            _ => None,
        };
        Ok(Tokens { all, saved_codes })
    }
}

/// The vision tower with all its layers. The tasks decide how many are stored.
fn vision(parts: &Parts, notes: &mut Vec<String>) -> Result<Vision> {
    let Some(part) = &parts.vision else {
        return Err(Error::file(&parts.language.dir, "no vision tower was found"));
    };
    let dir = part.weights.path().parent().unwrap_or(Path::new(""));
    let c = Object { path: dir.join("config.json"), value: part.tower_config() };
    c.only("num_channels", &json!(3))?;
    let image = c.count("image_size")?;
    let activation = c.typed("hidden_act", "a word", |v| v.as_str().map(str::to_owned))?;
    let preprocessor = part.preprocessor.clone().unwrap_or_else(|| {
        notes.push(format!(
            "no preprocessor_config.json in {}: CLIP's published values for {image} pixels",
            dir.display()
        ));
        published_preprocessor(image)
    });
    let file = Object { path: dir.join("preprocessor_config.json"), value: &preprocessor };
    let read = runtime::image::Preprocess::new(preprocessor.to_string().as_bytes());
    let side = read.map_err(|problem| file.wrong(problem))?.crop as usize;
    if side != image {
        return Err(file.wrong(format!("its pictures are {side} x {side}, the vision tower takes {image} x {image}")));
    }
    Ok(Vision {
        layers: c.count("num_hidden_layers")?,
        hidden: c.count("hidden_size")?,
        heads: c.count("num_attention_heads")?,
        intermediate: c.count("intermediate_size")?,
        image,
        patch: c.count("patch_size")?,
        layer_norm_eps: c.maybe_number("layer_norm_eps")?.unwrap_or(1e-5) as f32,
        activation: activation.unwrap_or_else(|| "quick_gelu".into()),
        preprocessor,
    })
}

/// `preprocessor_config.json` of openai/clip-vit-large-patch14-336, for pictures of another size.
fn published_preprocessor(image: usize) -> Value {
    json!({
        "crop_size": image, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "size": image,
    })
}

fn task_config(
    parts: &Parts,
    task: Task,
    flag: Option<f64>,
    vocabulary: &Vocabulary,
    tower_layers: usize,
    notes: &mut Vec<String>,
) -> Result<TaskConfig> {
    let Some(adapter) = adapter(parts, task) else {
        return Err(Error::file(&parts.language.dir, format!("no adapter for {} was found", task.name())));
    };
    let rows_of = |name: &str| -> Result<usize> { Ok(adapter.lookup(name)?.shape.first().copied().unwrap_or(0)) };
    let rank = rows_of("layers.0.self_attn.qkv_proj.lora_A.weight")?;
    let experts = rows_of("layers.0.self_attn.qkv_proj.lora_route.weight")?;
    if rank == 0 || experts == 0 {
        return Err(Error::file(
            adapter.path(),
            format!("the adapter has rank {rank} and {experts} experts; at least 1 is expected"),
        ));
    }
    let source_task = match task {
        Task::Ask => source::Task::Ask,
        Task::Generate => source::Task::Generate,
    };
    for (key, found) in [("hlora_r", rank), ("hlora_nums", experts)] {
        if let Some(said) = parts.said(source_task, key).filter(|said| *said != found as f64) {
            let problem = format!("the adapter has {key} {found}, the accompanying settings say {said}");
            return Err(Error::file(adapter.path(), problem));
        }
    }
    let alpha = flag.or_else(|| parts.alpha(source_task, rank)).unwrap_or_else(|| {
        notes.push(format!(
            "alpha of {}: no file says it, {} as twice the rank (--alpha-{})",
            task.name(),
            2 * rank,
            task.name()
        ));
        2.0 * rank as f64
    });
    if !alpha.is_finite() || alpha <= 0.0 {
        return Err(Error::Usage(format!("alpha of {} is {alpha}; a positive number is expected", task.name())));
    }
    let mut rows = [0; 2];
    for (count, name) in rows.iter_mut().zip(TABLES) {
        *count = match own_table(parts, task, name)? {
            Some(_) => vocabulary.rows(),
            // Codes would all have one row and could not be told apart.
            None if task == Task::Generate => {
                let path = parts.fusion.as_ref().map_or(adapter.path(), Checkpoint::path);
                return Err(source::Error::Absent { path: path.into(), tensor: name.into() }.into());
            }
            None => vocabulary.tokens + 1,
        };
    }
    Ok(TaskConfig {
        vision_layers: vision_layers(parts, task, rank, tower_layers)?,
        embed_rows: rows[0],
        head_rows: rows[1],
        adapter: Adapter { rank, experts, scale: (alpha / rank as f64 * experts as f64) as f32, folded: false },
    })
}

/// Which of the tower's `layers + 1` hidden states the task takes: what the settings say, else as published.
///
/// Source: reference.md §5.
fn vision_layers(parts: &Parts, task: Task, rank: usize, layers: usize) -> Result<usize> {
    const KEY: &str = "vision_select_layer";
    let (section, published) = match task {
        Task::Ask => ("comprehension", -2),
        Task::Generate => ("generation", 1),
    };
    let settings = parts.settings.as_ref();
    // As for alpha: a value at the top that comes with another rank belongs to the other task.
    let top =
        settings.filter(|s| s.get("hlora_r").is_some_and(|r| r.as_u64() == Some(rank as u64))).and_then(|s| s.get(KEY));
    let said = settings.and_then(|s| s.get(section)).and_then(|s| s.get(KEY)).or(top);
    let wrong = |what: String| Error::file(&parts.language.dir, format!("{KEY} of {} {what}", task.name()));
    let index = match said {
        Some(value) => {
            value.as_i64().ok_or_else(|| wrong(format!("is {}; a whole number is expected", short(value))))?
        }
        None => published,
    };
    let states = layers as i64 + 1;
    let k = if index < 0 { index.saturating_add(states) } else { index };
    if !(0..states).contains(&k) {
        return Err(wrong(format!("is {index}, but the vision tower has {layers} layers")));
    }
    Ok(k as usize)
}

fn vqgan(part: &VqganPart) -> Result<Vqgan> {
    let c = Object { path: part.yaml.clone().unwrap_or_else(|| part.weights.path().into()), value: &part.config };
    let list = |key: &str| -> Result<Vec<usize>> {
        let read = |v: &Value| v.as_array()?.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect();
        c.typed(key, "a list of whole numbers", read)?.ok_or_else(|| c.wrong(format!("`{key}` is missing")))
    };
    let widths = list("level_channels")?;
    let common = widths.iter().copied().fold(0, gcd);
    let channels = c.maybe_count("ch")?.unwrap_or(common);
    if channels == 0 || widths.iter().any(|w| !w.is_multiple_of(channels)) {
        return Err(c.wrong(format!("level widths {widths:?} are no multiples of {channels}")));
    }
    let Some(resolution) = c.maybe_count("resolution")? else {
        return Err(c.wrong(
            "the picture's side is in no tensor: put model.yaml, which has `resolution`, beside the image decoder",
        ));
    };
    Ok(Vqgan {
        codes: c.count("n_embed")?,
        embed: c.count("embed_dim")?,
        z: c.count("z_channels")?,
        channels,
        multiples: widths.iter().map(|w| w / channels).collect(),
        blocks: c.count("num_res_blocks")? + 1,
        attention_levels: list("attn_levels")?,
        grid: resolution >> (widths.len() - 1).min(63),
        out_channels: c.count("out_ch")?,
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

//! The weights that a model file really computes with, back in the published layout.
//!
//! What the file does not hold cannot come back: vision layers that no task needs, padding rows of the base tables,
//! the class embedding apart from the first position, and CLIP's last norm.

use crate::assemble::{channels_first, kernel_side, shape_of, stacked_shapes};
use crate::model::{ModelFile, Values};
use crate::{Error, Progress, Result};
use half::bf16;
use runtime::model::{Config, Kind, Origin, Part, Spec, Task};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Values converted at a time.
const PIECE_VALUES: usize = 1 << 20;

/// Element type of exported matrices and tables. What is f32 in the file stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportType {
    /// Exact.
    F32,
    /// As the language model is published; rounds what is not exact in it.
    Bf16,
}

/// Where an exported tensor's values come from.
#[derive(Debug)]
enum Taken<'a> {
    /// Elements of a tensor of the file, row-major.
    Spec(&'a Spec, Range<usize>),
    /// A convolution, channels last in the file.
    Convolution(&'a Spec),
    /// The class embedding, which is in the first position.
    Zeros,
}

#[derive(Debug)]
struct Item<'a> {
    name: String,
    shape: Vec<usize>,
    from: Taken<'a>,
}

impl Item<'_> {
    fn keeps_f32(&self) -> bool {
        match self.from {
            Taken::Spec(spec, _) | Taken::Convolution(spec) => matches!(spec.kind, Kind::Plain { .. }),
            Taken::Zeros => true,
        }
    }
}

/// Writes everything below `dir` and returns the files. Existing ones are replaced only with `force`.
///
/// *Errors*: a damaged model file; a target that exists; a write fault.
pub fn export(
    model: &ModelFile,
    dir: &Path,
    kind: ExportType,
    force: bool,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let weights = weights(model);
    let mut texts = texts(&model.config, kind);
    for (name, bytes) in tokenizer(model)? {
        texts.insert(format!("phi3/{name}"), bytes);
    }
    let own = fs::canonicalize(model.container.path()).ok();
    for name in weights.keys().copied().chain(texts.keys().map(String::as_str)) {
        let path = dir.join(name);
        if path.exists() {
            let problem = match fs::canonicalize(&path).ok() == own {
                true => "is the model file itself",
                false if force => continue,
                false => "is there already; --force replaces it",
            };
            return Err(Error::Output { path, problem: problem.into() });
        }
    }
    let mut written = Vec::new();
    for (name, items) in &weights {
        let path = dir.join(name);
        let temporary = Temporary::create(&path)?;
        write_safetensors(model, &path, &temporary, items, kind, progress)?;
        temporary.keep(&path)?;
        written.push(path);
    }
    for (name, bytes) in &texts {
        let path = dir.join(name);
        let temporary = Temporary::create(&path)?;
        fs::write(&temporary.path, bytes).map_err(Error::write(&path))?;
        temporary.keep(&path)?;
        written.push(path);
    }
    Ok(written)
}

/// A file that disappears unless it is kept.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn create(target: &Path) -> Result<Self> {
        let dir = target.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(dir).map_err(Error::write(dir))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        Ok(Temporary { path: dir.join(format!(".{name}.{}.partial", std::process::id())) })
    }

    fn keep(self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(Error::write(target))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `keep` there is nothing of this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Every published tensor, by the file that it goes to.
fn weights(model: &ModelFile) -> BTreeMap<&'static str, Vec<Item<'_>>> {
    let mut files: BTreeMap<&'static str, Vec<Item<'_>>> = BTreeMap::new();
    let config = &model.config;
    for spec in &model.specs {
        let [rows, cols] = shape_of(spec);
        let all = || Taken::Spec(spec, 0..rows * cols);
        let mut put = |part: Part, name: &str, shape: Vec<usize>, from| {
            let (file, name) = published(part, name);
            files.entry(file).or_default().push(Item { name, shape, from });
        };
        match &spec.origin {
            Origin::Stack(part, names) => {
                let mut at = 0;
                for (name, shape) in names.iter().zip(stacked_shapes(config, spec, *part, names.len())) {
                    let end = at + shape.iter().product::<usize>();
                    put(*part, name, shape, Taken::Spec(spec, at..end));
                    at = end;
                }
            }
            Origin::Convolution(part, name) => {
                let side = kernel_side(&spec.name);
                put(*part, name, vec![rows, cols / (side * side), side, side], Taken::Convolution(spec));
            }
            Origin::Flatten(part, name) => {
                let side = config.vision.as_ref().map_or(0, |v| v.patch);
                put(*part, name, vec![rows, 3, side, side], all());
            }
            Origin::ClassAndPosition(part, class, position) => {
                put(*part, class, vec![cols], Taken::Zeros);
                put(*part, position, vec![rows, cols], all());
            }
            Origin::BaseWithMean(part, name) | Origin::OwnTable(part, name) => {
                put(*part, name, vec![rows, cols], all())
            }
            // The export is in the file's basis: the same function by other weights.
            Origin::Basis => {}
        }
    }
    // Each table comes once into the language model: the base's, else the first task's.
    let language = files.entry(LANGUAGE).or_default();
    for (suffix, name) in [("embed", "embed_tokens.weight"), ("head", "lm_head.weight")] {
        let (_, name) = published(Part::Language, name);
        let mut tables =
            model.specs.iter().filter(|s| Task::ALL.iter().any(|t| s.name == format!("{}.{suffix}", t.name())));
        if language.iter().all(|item| item.name != name)
            && let Some(spec) = tables.next()
        {
            let [rows, cols] = shape_of(spec);
            language.push(Item { name, shape: vec![rows, cols], from: Taken::Spec(spec, 0..rows * cols) });
        }
    }
    files
}

const LANGUAGE: &str = "phi3/model.safetensors";

/// File and key of a published tensor.
fn published(part: Part, name: &str) -> (&'static str, String) {
    let head = name.starts_with("lm_head.");
    match part {
        Part::Language if head => (LANGUAGE, name.into()),
        Part::Language => (LANGUAGE, format!("model.{name}")),
        Part::Vision => ("clip/model.safetensors", name.into()),
        Part::Vqgan => ("vqgan/last.safetensors", name.into()),
        Part::Adapter(task) | Part::Tables(task) => {
            let file = match (part, task) {
                (Part::Tables(Task::Generate), _) => "fusion_layer_weights.safetensors",
                (_, Task::Ask) => "com_hlora_weights.safetensors",
                (_, Task::Generate) => "gen_hlora_weights.safetensors",
            };
            (file, if head { format!("base_model.model.{name}") } else { format!("base_model.model.model.{name}") })
        }
    }
}

fn write_safetensors(
    model: &ModelFile,
    target: &Path,
    temporary: &Temporary,
    items: &[Item],
    kind: ExportType,
    progress: &dyn Progress,
) -> Result<()> {
    let failed = Error::write(target);
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for item in items {
        let single = kind == ExportType::F32 || item.keeps_f32();
        let (dtype, width) = if single { ("F32", 4) } else { ("BF16", 2) };
        let end = at + width * item.shape.iter().product::<usize>();
        header.insert(item.name.clone(), json!({"dtype": dtype, "shape": item.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary.path).map_err(&failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(&failed)?;
    file.write_all(header.as_bytes()).map_err(&failed)?;
    for item in items {
        let single = kind == ExportType::F32 || item.keeps_f32();
        for_values(model, item, progress, |values| {
            let bytes: Vec<u8> = match single {
                true => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                false => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            };
            file.write_all(&bytes).map_err(&failed)
        })?;
    }
    file.flush().map_err(&failed)
}

/// Hands out an item's values in order, some rows at a time.
fn for_values(
    model: &ModelFile,
    item: &Item,
    progress: &dyn Progress,
    mut take: impl FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let (spec, range, convolution) = match &item.from {
        Taken::Zeros => return take(&vec![0.0; item.shape.iter().product()]),
        Taken::Spec(spec, range) => (spec, range.clone(), false),
        Taken::Convolution(spec) => (spec, 0..shape_of(spec).iter().product(), true),
    };
    let [rows, cols] = shape_of(spec);
    let values: Values = model.values(spec)?;
    let step = (PIECE_VALUES / cols).max(1);
    let (first, last) = (range.start / cols, range.end.div_ceil(cols).min(rows));
    for start in (first..last).step_by(step) {
        if progress.interrupted() {
            return Err(Error::Interrupted);
        }
        let piece = start..(start + step).min(last);
        let mut values = values.rows(piece.clone());
        if convolution {
            channels_first(&mut values, item.shape[1], cols);
        }
        // Parts of a line may begin and end inside a row.
        let (from, to) = (range.start.max(piece.start * cols), range.end.min(piece.end * cols));
        take(values.get(from - piece.start * cols..to - piece.start * cols).unwrap_or_default())?;
        progress.advance((to - from) as u64);
    }
    Ok(())
}

fn tokenizer(model: &ModelFile) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut out = Vec::new();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        if model.container.tensors().contains_key(name) {
            out.push((name, model.container.read(name)?));
        }
    }
    Ok(out)
}

/// The shortest decimal that is this f32.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |v| json!(v))
}

/// Configurations, by path.
fn texts(config: &Config, kind: ExportType) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), format!("{value:#}\n").into_bytes()));
    let l = &config.language;
    let dtype = if kind == ExportType::F32 { "float32" } else { "bfloat16" };
    let first = config.ask.as_ref().or(config.generate.as_ref());
    put(
        "phi3/config.json",
        json!({
            "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": null, "eos_token_id": l.stop_ids.first(), "pad_token_id": l.stop_ids.first(), "embd_pdrop": 0.0,
            "resid_pdrop": 0.0, "hidden_act": "silu", "hidden_size": l.hidden, "intermediate_size": l.intermediate,
            "initializer_range": 0.02, "max_position_embeddings": l.max_positions,
            "original_max_position_embeddings": l.max_positions, "num_attention_heads": l.heads, "head_dim": l.head_dim,
            "num_hidden_layers": l.layers, "num_key_value_heads": l.kv_heads, "rms_norm_eps": decimal(l.rms_norm_eps),
            "rope_scaling": null, "rope_theta": l.rope_theta, "sliding_window": l.sliding_window,
            "tie_word_embeddings": false, "torch_dtype": dtype, "use_cache": true,
            "vocab_size": first.map_or(config.vocabulary.tokens, |t| t.embed_rows),
        }),
    );
    put("phi3/generation_config.json", json!({"eos_token_id": l.stop_ids, "pad_token_id": l.stop_ids.first()}));
    if let Some(v) = &config.vision {
        put(
            "clip/config.json",
            json!({
                "architectures": ["CLIPVisionModel"], "model_type": "clip", "torch_dtype": dtype,
                "comment": "only the layers that the model file holds; settings.json says which one each task takes",
                "vision_config": {
                    "attention_dropout": 0.0, "hidden_act": v.activation, "hidden_size": v.hidden, "image_size": v.image,
                    "intermediate_size": v.intermediate, "layer_norm_eps": decimal(v.layer_norm_eps),
                    "model_type": "clip_vision_model", "num_attention_heads": v.heads, "num_channels": 3,
                    "num_hidden_layers": v.layers, "patch_size": v.patch, "projection_dim": v.hidden,
                },
            }),
        );
        put("clip/preprocessor_config.json", v.preprocessor.clone());
    }
    let mut settings = json!({"comment": "what is in no weight file", "vq_idx_nums": config.vocabulary.codes});
    for (task, section) in [(Task::Ask, "comprehension"), (Task::Generate, "generation")] {
        let Some(t) = config.task(task) else { continue };
        let a = &t.adapter;
        let alpha = f64::from(a.scale) * a.rank as f64 / a.experts as f64;
        // From the front: -2 means another layer in a tower that has fewer.
        settings[section] = json!({
            "hlora_r": a.rank, "hlora_alpha": alpha, "hlora_nums": a.experts, "vision_select_layer": t.vision_layers,
            "fusion_layer": task == Task::Generate,
        });
    }
    put("settings.json", settings);
    if let Some(q) = &config.vqgan {
        let list = |items: Vec<usize>| items.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let resolution = q.grid << (q.multiples.len() - 1);
        let attention = q.attention_levels.iter().map(|l| resolution >> l).collect();
        let yaml = format!(
            "model:\n  target: taming.models.vqgan.GumbelVQ\n  params:\n    embed_dim: {}\n    n_embed: {}\n    ddconfig:\n      \
             double_z: false\n      z_channels: {}\n      resolution: {resolution}\n      in_channels: 3\n      out_ch: {}\n      \
             ch: {}\n      ch_mult: [{}]\n      num_res_blocks: {}\n      attn_resolutions: [{}]\n      dropout: 0.0\n",
            q.embed,
            q.codes,
            q.z,
            q.out_channels,
            q.channels,
            list(q.multiples.clone()),
            q.blocks - 1,
            list(attention),
        );
        out.insert("vqgan/model.yaml".to_owned(), yaml.into_bytes());
    }
    out
}

//! What is written can be read back, exported, and made again to the byte.

mod common;

use common::{Folder, edit_safetensors, golden, quantize, recipe};
use half::{bf16, f16};
use quantize::Quiet;
use quantize::assemble::{Source, shape_of};
use quantize::compare::compare;
use quantize::config::{Choices, describe};
use quantize::export::{ExportType, export};
use quantize::model::ModelFile;
use quantize::source::{Checkpoint, Given, discover};
use runtime::model::{Kind, Recipe, StoredFormat, Task};
use serde_json::json;
use shaders::Format;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn hashes(file: &Path) -> BTreeMap<String, String> {
    let model = ModelFile::open(file).unwrap();
    model.container.tensors().iter().map(|(name, t)| (name.clone(), t.sha256.clone())).collect()
}

#[test]
fn the_golden_model_is_described_as_its_files_say() {
    let parts = discover(&golden(), &Given::default()).unwrap();
    let described = describe(&parts, &Choices::default()).unwrap();
    let c = &described.config;
    assert!(described.notes.is_empty(), "{:?}", described.notes);
    assert_eq!((c.language.layers, c.language.hidden, c.language.head_dim, c.language.kv_heads), (3, 192, 32, 6));
    assert_eq!((c.language.sliding_window, c.language.stop_ids.as_slice()), (Some(2047), [512, 513, 519].as_slice()));
    assert_eq!((c.vocabulary.tokens, c.vocabulary.codes, c.vocabulary.rows()), (523, 64, 590));
    let (ask, generate) = (c.ask.as_ref().unwrap(), c.generate.as_ref().unwrap());
    assert_eq!((ask.vision_layers, ask.embed_rows, ask.head_rows), (4, 524, 524));
    assert_eq!((generate.vision_layers, generate.embed_rows, generate.head_rows), (1, 590, 590));
    assert_eq!(c.vision.as_ref().unwrap().layers, 4);
    assert_eq!((ask.adapter.rank, ask.adapter.experts, ask.adapter.scale), (16, 4, 8.0));
    assert_eq!((generate.adapter.rank, generate.adapter.experts, generate.adapter.scale), (64, 4, 8.0));
    let q = c.vqgan.as_ref().unwrap();
    assert_eq!((q.codes, q.embed, q.z, q.channels, q.grid, q.blocks), (64, 64, 64, 32, 8, 3));
    assert_eq!((q.multiples.as_slice(), q.attention_levels.as_slice()), ([1, 1, 2, 4].as_slice(), [3].as_slice()));
}

#[test]
fn f16_goes_out_and_comes_back_to_the_byte() {
    let folder = Folder::new("round-trip");
    let (first, second) = (folder.at("first.safetensors"), folder.at("second.safetensors"));
    let report = quantize(&golden(), &first, recipe("f16"), &Choices::default()).unwrap();
    // Golden values are exact in f16; only the mean rows are not.
    for t in report.tensors.iter().filter(|t| t.nmse != 0.0) {
        assert!(["ask.embed", "ask.head"].contains(&t.name.as_str()) && t.nmse < 1e-9, "{t:?}");
    }
    let written = export(&ModelFile::open(&first).unwrap(), &folder.at("out"), ExportType::F32, false, &Quiet).unwrap();
    assert!(written.iter().all(|p| p.is_file()));
    quantize(&folder.at("out"), &second, recipe("f16"), &Choices::default()).unwrap();
    assert_eq!(hashes(&first), hashes(&second));
    assert_eq!(ModelFile::open(&first).unwrap().config, ModelFile::open(&second).unwrap().config);
}

#[test]
fn compare_finds_an_exact_file_exact_and_names_what_differs() {
    let folder = Folder::with_golden("compare");
    let file = folder.at("f16.safetensors");
    quantize(&folder.at("checkpoint"), &file, recipe("f16"), &Choices::default()).unwrap();
    let same = compare(&file, &golden(), &Given::default(), None, &Quiet).unwrap();
    assert!(same.differences.is_empty(), "{:?}", same.differences);
    assert!(same.tensors.iter().all(|t| t.nmse < 1e-9));
    let config = folder.at("checkpoint/phi3/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("10000.0", "20000.0")).unwrap();
    let other = compare(&file, &folder.at("checkpoint"), &Given::default(), None, &Quiet).unwrap();
    assert_eq!(other.differences, ["language.rope_theta is 10000.0 in the file, 20000.0 by the checkpoint"]);
}

#[test]
fn export_gives_the_values_that_kernels_compute_with() {
    let folder = Folder::new("export");
    let symmetric = Recipe {
        name: "all".into(),
        method: "nearest".into(),
        seed: 0,
        classes: ["language", "adapter", "head", "vision", "projector", "vqgan"]
            .map(|c| (c.to_owned(), StoredFormat::Q4 { group: 64, zero_points: false }))
            .into(),
    };
    let parts = discover(&golden(), &Given::default()).unwrap();
    for recipe in [recipe("q4"), recipe("q8"), symmetric] {
        let file = folder.at(&format!("{}.safetensors", recipe.name));
        let dir = folder.at(&recipe.name);
        quantize(&golden(), &file, recipe.clone(), &Choices::default()).unwrap();
        let model = ModelFile::open(&file).unwrap();
        export(&model, &dir, ExportType::F32, false, &Quiet).unwrap();
        let exported = discover(&dir, &Given::default()).unwrap();
        let mut seen = [false; 3];
        for spec in &model.specs {
            let [rows, cols] = shape_of(spec);
            let Kind::Matrix { .. } = spec.kind else { continue };
            let published = Source::find(&parts, &model.config, spec).unwrap().rows(0..rows).unwrap();
            let format = spec.format(&recipe);
            seen[match format {
                Format::F16 => 0,
                Format::Q8 => 1,
                Format::Q4 { .. } => 2,
            }] = true;
            let expected = format.pack(rows, cols, &published).unwrap().unpack();
            // Reading the export undoes stacking and the order of channels once more.
            let source = Source::find(&exported, &model.config, spec).unwrap();
            // The last row of a base table is the mean, which is formed again.
            let rows = if spec.name == "ask.head" { rows - 1 } else { rows };
            assert_eq!(source.rows(0..rows).unwrap(), expected[..rows * cols], "{} of {}", spec.name, recipe.name);
        }
        assert!(seen[2] || recipe.name != "q4");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_wherever_it_lies() {
    let folder = Folder::with_golden("same");
    let files = ["a", "b", "c"].map(|n| folder.at(n));
    for (file, dir) in files.iter().zip([golden(), golden(), folder.at("checkpoint")]) {
        quantize(&dir, file, recipe("q4"), &Choices::default()).unwrap();
    }
    let bytes = files.map(|f| fs::read(f).unwrap());
    assert!(bytes[0] == bytes[1], "two runs differ");
    assert!(bytes[0] == bytes[2], "another place makes a difference");
}

#[test]
fn sources_are_named_for_every_tensor() {
    let folder = Folder::new("sources");
    let file = folder.at("m.safetensors");
    quantize(&golden(), &file, recipe("q8"), &Choices::default()).unwrap();
    let model = ModelFile::open(&file).unwrap();
    assert!(model.specs.iter().all(|s| model.sources.contains_key(&s.name)));
    assert_eq!(
        model.sources["ask.layers.0.o.down"],
        ["lora_A", "lora_route"]
            .map(|n| format!("com_hlora_weights.bin: base_model.model.model.layers.0.self_attn.o_proj.{n}.weight"))
    );
    assert!(model.sources["language.norm"][0].starts_with("phi3/model-0000"), "{:?}", model.sources["language.norm"]);
    assert_eq!(model.container.metadata("producer").unwrap(), concat!("quantize ", env!("CARGO_PKG_VERSION")));
    let tokenizer = model.container.read("tokenizer.json").unwrap();
    assert_eq!(tokenizer, fs::read(golden().join("phi3/tokenizer.json")).unwrap());
}

/// Rewrites every f32 tensor of a file in another type.
fn retype(path: &Path, dtype: &str, convert: impl Fn(f32) -> [u8; 2]) {
    edit_safetensors(path, |header, data| {
        let old = std::mem::take(data);
        for (name, t) in header.as_object_mut().unwrap() {
            if name == "__metadata__" {
                continue;
            }
            assert_eq!(t["dtype"], "F32");
            let at = [0, 1].map(|i| t["data_offsets"][i].as_u64().unwrap() as usize);
            let start = data.len();
            let (words, _) = old[at[0]..at[1]].as_chunks::<4>();
            data.extend(words.iter().flat_map(|w| convert(f32::from_le_bytes(*w))));
            t["dtype"] = json!(dtype);
            t["data_offsets"] = json!([start, data.len()]);
        }
    });
}

#[test]
fn the_type_of_the_source_does_not_matter() {
    let folder = Folder::new("types");
    let first = folder.at("first.safetensors");
    quantize(&golden(), &first, recipe("q4"), &Choices::default()).unwrap();
    let exact = folder.at("exact.safetensors");
    quantize(&golden(), &exact, recipe("f16"), &Choices::default()).unwrap();
    let (f32s, f16s) = (folder.at("f32"), folder.at("f16"));
    export(&ModelFile::open(&exact).unwrap(), &f32s, ExportType::F32, false, &Quiet).unwrap();
    // The language model is bf16 in the golden checkpoint; here it is f32, then f16 beside a bf16 adapter.
    common::copy(&f32s, &f16s);
    retype(&f16s.join("phi3/model.safetensors"), "F16", |v| f16::from_f32(v).to_le_bytes());
    retype(&f16s.join("com_hlora_weights.safetensors"), "BF16", |v| bf16::from_f32(v).to_le_bytes());
    for dir in [f32s, f16s] {
        let second = folder.at("second.safetensors");
        quantize(&dir, &second, recipe("q4"), &Choices::default()).unwrap();
        assert_eq!(hashes(&first), hashes(&second), "{}", dir.display());
    }
}

#[test]
fn bf16_export_is_bf16_and_loads() {
    let folder = Folder::new("bf16");
    let (file, again) = (folder.at("a.safetensors"), folder.at("b.safetensors"));
    quantize(&golden(), &file, recipe("f16"), &Choices::default()).unwrap();
    export(&ModelFile::open(&file).unwrap(), &folder.at("out"), ExportType::Bf16, false, &Quiet).unwrap();
    let language = Checkpoint::open(folder.at("out/phi3/model.safetensors")).unwrap();
    assert_eq!(language.lookup("layers.0.mlp.down_proj.weight").unwrap().dtype, quantize::source::Dtype::Bf16);
    assert_eq!(language.lookup("norm.weight").unwrap().dtype, quantize::source::Dtype::F32);
    quantize(&folder.at("out"), &again, recipe("f16"), &Choices::default()).unwrap();
    assert_eq!(hashes(&file), hashes(&again));
}

#[test]
fn adapters_alone_in_their_tables_win() {
    let folder = Folder::new("tables");
    let file = folder.at("a.safetensors");
    quantize(&golden(), &file, recipe("f16"), &Choices::default()).unwrap();
    let dir = folder.at("out");
    export(&ModelFile::open(&file).unwrap(), &dir, ExportType::F32, false, &Quiet).unwrap();
    // The comprehension adapter gets a head of its own, all ones.
    edit_safetensors(&dir.join("com_hlora_weights.safetensors"), |header, data| {
        let start = data.len();
        data.extend((0..590 * 192).flat_map(|_| 1.0_f32.to_le_bytes()));
        header["base_model.model.lm_head.weight"] =
            json!({"dtype": "F32", "shape": [590, 192], "data_offsets": [start, data.len()]});
    });
    let own = folder.at("own.safetensors");
    quantize(&dir, &own, recipe("f16"), &Choices::default()).unwrap();
    let model = ModelFile::open(&own).unwrap();
    let ask = model.config.task(Task::Ask).unwrap();
    assert_eq!((ask.embed_rows, ask.head_rows), (524, 590));
    let head = model.specs.iter().find(|s| s.name == "ask.head").unwrap();
    assert!(model.values(head).unwrap().rows(0..590).iter().all(|v| *v == 1.0));
    // And it comes out again.
    let out = folder.at("again");
    export(&model, &out, ExportType::F32, false, &Quiet).unwrap();
    let third = folder.at("third.safetensors");
    quantize(&out, &third, recipe("f16"), &Choices::default()).unwrap();
    assert_eq!(hashes(&own), hashes(&third));
}

#[test]
fn tokens_are_counted_as_the_runtime_counts_them() {
    let parts = discover(&golden(), &Given::default()).unwrap();
    let c = describe(&parts, &Choices::default()).unwrap().config;
    let json = fs::read(&parts.language.tokenizer_json).unwrap();
    let config = fs::read(parts.language.tokenizer_config.as_ref().unwrap()).unwrap();
    let tokenizer = runtime::text::Tokenizer::new(&json, Some(&config)).unwrap().with_codes(c.vocabulary.codes);
    assert_eq!((tokenizer.len(), tokenizer.len_with_codes()), (c.vocabulary.tokens, c.vocabulary.rows()));
}

/// Stops in the middle, as Ctrl-C does.
struct Impatient(std::sync::atomic::AtomicU64);

impl quantize::Progress for Impatient {
    fn advance(&self, values: u64) {
        self.0.fetch_add(values, std::sync::atomic::Ordering::Relaxed);
    }

    fn interrupted(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) > 500_000
    }
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let folder = Folder::new("interrupted");
    let parts = discover(&golden(), &Given::default()).unwrap();
    let job = quantize::write::Job::new(&parts, &Choices::default(), recipe("q4")).unwrap();
    let error = job.write(&folder.at("x"), &golden(), &Impatient(0.into())).unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(folder.names().is_empty());
}

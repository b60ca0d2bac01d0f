//! The program as people and scripts meet it: exit codes, one-line errors, nothing left behind.

mod common;

use common::{Folder, edit_safetensors, golden};
use quantize::Quiet;
use quantize::export::{ExportType, export};
use quantize::model::ModelFile;
use runtime::model::Task;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quantize")).args(args).output().unwrap()
}

/// Rounded to nearest, which needs no device and no time.
fn arguments<'a>(first: &'a Path, rest: &[&'a str]) -> Vec<&'a OsStr> {
    let nearest = ["--method", "nearest"];
    std::iter::once(first.as_os_str()).chain(nearest.iter().chain(rest).map(|s| OsStr::new(*s))).collect()
}

/// Runs, expects the exit code, and gives the one line of the error.
fn fails<S: AsRef<OsStr>>(code: i32, args: impl IntoIterator<Item = S>) -> String {
    let out = run(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{text}");
    let errors: Vec<&str> = text.lines().filter(|l| !l.starts_with("warning: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(errors[0].starts_with("error: "), "{text}");
    assert!(out.stdout.is_empty());
    errors[0].to_owned()
}

fn succeeds<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let out = run(args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A folder with an exact export of the golden model, whose headers can be changed.
fn exported(name: &str) -> Folder {
    let folder = Folder::new(name);
    let file = folder.at("f16.safetensors");
    common::quantize(&golden(), &file, common::recipe("f16"), &Default::default()).unwrap();
    export(&ModelFile::open(&file).unwrap(), &folder.at("in"), ExportType::F32, false, &Quiet).unwrap();
    fs::remove_file(file).unwrap();
    folder
}

#[test]
fn a_file_in_a_file_out_beside_it() {
    let folder = Folder::with_golden("beside");
    let input = folder.at("checkpoint/phi3/model-00001-of-00002.safetensors");
    let text = succeeds(arguments(&input, &[]));
    assert!(text.contains("worst tensors") && text.contains("recipe q4"), "{text}");
    let output = folder.at("checkpoint/phi3/model-q4.safetensors");
    assert!(output.is_file());
    // Again: the output is no part of the checkpoint, and it is not replaced unasked.
    assert!(fails(1, arguments(&input, &[])).contains("is there already; --force replaces it"));
    let before = fs::read(&output).unwrap();
    succeeds(arguments(&input, &["--force"]));
    assert!(before == fs::read(&output).unwrap());
    let shown = succeeds([OsStr::new("inspect"), output.as_os_str()]);
    assert!(shown.contains("recipe      q4") && shown.contains("523 tokens, 64 codes, 590 rows"), "{shown}");
}

#[test]
fn a_dry_run_shows_all_and_writes_nothing() {
    let folder = Folder::with_golden("dry");
    let output = folder.at("x.safetensors");
    let text = succeeds(arguments(&folder.at("checkpoint"), &["--dry-run", "-o", output.to_str().unwrap()]));
    for part in ["com_hlora_weights.bin", "last.ckpt", "tokenizer.json", "pytorch_model.bin", "nothing was written"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(folder.names(), ["checkpoint", "settings.json"]);
}

#[test]
fn sources_are_never_overwritten() {
    let folder = Folder::with_golden("source");
    let input = folder.at("checkpoint");
    for source in ["com_hlora_weights.bin", "phi3/tokenizer.json", "phi3/model-00002-of-00002.safetensors"] {
        let target = input.join(source);
        let before = fs::read(&target).unwrap();
        let error = fails(1, arguments(&input, &["--force", "-o", target.to_str().unwrap()]));
        assert!(error.contains("is one of the source files"), "{error}");
        assert!(before == fs::read(&target).unwrap());
    }
}

#[test]
fn missing_parts_are_listed_with_advice() {
    let folder = Folder::with_golden("missing");
    let input = folder.at("checkpoint");
    let output = folder.at("x.safetensors");
    let to = ["-o", output.to_str().unwrap()];
    fs::remove_file(input.join("fusion_layer_weights.bin")).unwrap();
    let error = fails(4, arguments(&input, &to));
    for word in ["no fusion layer", "--fusion", "looked in", "--tasks ask"] {
        assert!(error.contains(word), "{error}");
    }
    succeeds(arguments(&input, &["--tasks", "ask", to[0], to[1]]));
    assert!(ModelFile::open(&output).unwrap().config.generate.is_none());
    fs::remove_file(input.join("com_hlora_weights.bin")).unwrap();
    fs::remove_dir_all(input.join("clip")).unwrap();
    let error = fails(4, arguments(&input, &["--tasks", "ask", "--force", to[0], to[1]]));
    assert!(error.contains("no comprehension adapter") && error.contains("no vision tower"), "{error}");
    // Without the language model there is nothing to begin with.
    fs::remove_dir_all(input.join("phi3")).unwrap();
    assert!(fails(4, arguments(&input, &to)).contains("no language model"));
    assert!(fails(4, arguments(&folder.at("nowhere"), &to)).contains("nowhere"));
}

#[test]
fn a_generation_without_its_tables_names_the_one_that_is_missing() {
    let folder = exported("half-fusion");
    edit_safetensors(&folder.at("in/fusion_layer_weights.safetensors"), |header, data| {
        let head = header.as_object_mut().unwrap().remove("base_model.model.lm_head.weight").unwrap();
        let at = [0, 1].map(|i| head["data_offsets"][i].as_u64().unwrap() as usize);
        assert_eq!(at[1], data.len(), "it is the last one");
        data.truncate(at[0]);
    });
    let error = fails(4, arguments(&folder.at("in"), &["-o", folder.at("x").to_str().unwrap()]));
    assert!(error.contains("fusion_layer_weights.safetensors: tensor lm_head.weight is missing"), "{error}");
}

#[test]
fn wrong_shapes_name_file_tensor_found_and_expected() {
    let folder = exported("shapes");
    let to = folder.at("x.safetensors");
    let path = folder.at("in/com_hlora_weights.safetensors");
    let key = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight";
    let good = fs::read(&path).unwrap();
    edit_safetensors(&path, |header, _| {
        assert_eq!(header[key]["shape"], json!([16, 320]));
        header[key]["shape"] = json!([320, 16]);
    });
    let error = fails(4, arguments(&folder.at("in"), &["-o", to.to_str().unwrap()]));
    for word in ["com_hlora_weights.safetensors", key, "found shape [320, 16]", "expected [16, 320]"] {
        assert!(error.contains(word), "{error}");
    }
    fs::write(&path, good).unwrap();
    // A kernel laid out flat has the right number of values and is wrong all the same.
    edit_safetensors(&folder.at("in/vqgan/last.safetensors"), |header, _| {
        header["decoder.mid.block_1.conv1.weight"]["shape"] = json!([128, 1152, 1, 1]);
    });
    let error = fails(4, arguments(&folder.at("in"), &["-o", to.to_str().unwrap()]));
    assert!(error.contains("found shape [128, 1152, 1, 1], expected [128, 128, 3, 3]"), "{error}");
    assert_eq!(folder.names(), ["in"]);
}

#[test]
fn values_that_do_not_fit_are_named_and_leave_no_file() {
    let folder = exported("values");
    for (file, key, row, col, value) in [
        (
            "com_hlora_weights.safetensors",
            "base_model.model.model.layers.2.self_attn.o_proj.lora_route.weight",
            3,
            7,
            7e4_f32,
        ),
        ("phi3/model.safetensors", "model.layers.0.self_attn.qkv_proj.weight", 500, 191, f32::NAN),
        ("phi3/model.safetensors", "model.norm.weight", 0, 5, f32::INFINITY),
        ("fusion_layer_weights.safetensors", "base_model.model.model.embed_tokens.weight", 589, 0, -1e6),
    ] {
        let path = folder.at("in").join(file);
        let good = fs::read(&path).unwrap();
        edit_safetensors(&path, |header, data| {
            let t = &header[key];
            let width = t["shape"].as_array().unwrap().last().unwrap().as_u64().unwrap() as usize;
            let at = t["data_offsets"][0].as_u64().unwrap() as usize + 4 * (row * width + col);
            data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
        let error = fails(4, arguments(&folder.at("in"), &["-o", folder.at("x.safetensors").to_str().unwrap()]));
        for word in [file, key, &format!("value {value} at row {row}, column {col}")] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(folder.names(), ["in"]);
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn alpha_comes_from_flag_then_settings_then_rank() {
    let folder = Folder::with_golden("alpha");
    let output = folder.at("x.safetensors");
    let input = folder.at("checkpoint");
    let scales = |flags: &[&str]| {
        let mut all = vec!["--force", "-o", output.to_str().unwrap()];
        all.extend(flags);
        let text = succeeds(arguments(&input, &all));
        let config = ModelFile::open(&output).unwrap().config;
        (Task::ALL.map(|t| config.task(t).unwrap().adapter.scale), text)
    };
    assert_eq!(scales(&[]).0, [8.0, 8.0]);
    assert_eq!(scales(&["--alpha-ask", "24"]).0, [6.0, 8.0]);
    assert_eq!(scales(&["--alpha-generate", "100", "--alpha-ask", "16"]).0, [4.0, 6.25]);
    let path = folder.at("settings.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings["comprehension"]["hlora_alpha"] = json!(48);
    fs::write(&path, settings.to_string()).unwrap();
    assert_eq!(scales(&[]).0, [12.0, 8.0]);
    fs::remove_file(&path).unwrap();
    let (found, text) = scales(&[]);
    assert_eq!(found, [8.0, 8.0]);
    assert!(text.contains("note: alpha of ask: no file says it, 32 as twice the rank (--alpha-ask)"), "{text}");
    fails(2, arguments(&input, &["--alpha-ask", "0", "--force", "-o", output.to_str().unwrap()]));
}

#[test]
fn damaged_or_contradictory_settings_are_refused_and_never_guessed_around() {
    let dir = Folder::with_golden("settings");
    let checkpoint = dir.at("checkpoint");
    let try_with = |settings: &str| {
        fs::write(dir.at("settings.json"), settings).unwrap();
        fails(4, arguments(&checkpoint, &["--dry-run"]))
    };
    assert!(try_with("{").contains("settings.json"));
    assert!(try_with("[]").contains("settings.json"));
    assert!(try_with(r#"{"comprehension": {"hlora_alpha": "32"}}"#).contains("hlora_alpha"));
    let said = try_with(r#"{"comprehension": {"hlora_alpha": 32, "hlora_r": 7}}"#);
    assert!(said.contains("hlora_r 16") && said.contains('7'), "{said}");
    assert!(try_with(r#"{"generation": {"hlora_alpha": 32, "hlora_nums": 2}}"#).contains("hlora_nums 4"));
}

#[test]
fn a_preprocessor_that_the_runtime_would_refuse_is_refused_before_the_work() {
    let dir = Folder::with_golden("preprocessor");
    let file = dir.at("checkpoint/clip/preprocessor_config.json");
    let before = fs::read_to_string(&file).unwrap();
    for (from, to, word) in [("\"resample\": 3", "\"resample\": 2", "resample"), ("112", "98", "98 x 98")] {
        fs::write(&file, before.replace(from, to)).unwrap();
        let said = fails(4, arguments(&dir.at("checkpoint"), &["--dry-run"]));
        assert!(said.contains("preprocessor_config.json") && said.contains(word), "{said}");
    }
}

#[test]
fn configurations_that_cannot_be_computed_are_refused_by_name() {
    let folder = Folder::with_golden("config");
    let path = folder.at("checkpoint/phi3/config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in [
        ("rope_scaling", json!({"type": "longrope", "long_factor": [1.0]})),
        ("partial_rotary_factor", json!(0.75)),
        ("attention_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("model_type", json!("llama")),
        ("hidden_size", json!("wide")),
        ("num_attention_heads", json!(7)),
        ("rms_norm_eps", json!(null)),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        fs::write(&path, bad.to_string()).unwrap();
        let error = fails(4, arguments(&folder.at("checkpoint"), &["--dry-run"]));
        assert!(error.contains("config.json") && error.contains(&format!("`{key}`")), "{error}");
    }
    let mut wide = good.clone();
    (wide["sliding_window"], wide["use_sliding_window"]) = (json!(2047), json!(false));
    (wide["partial_rotary_factor"], wide["num_key_value_heads"]) = (json!(1), json!(null));
    fs::write(&path, wide.to_string()).unwrap();
    succeeds(arguments(&folder.at("checkpoint"), &["--dry-run"]));
}

#[test]
fn counts_of_codes_that_contradict_each_other_are_refused() {
    let folder = Folder::with_golden("codes");
    let path = folder.at("settings.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings["vq_idx_nums"] = json!(65);
    fs::write(&path, settings.to_string()).unwrap();
    let error = fails(4, arguments(&folder.at("checkpoint"), &["--dry-run"]));
    assert!(error.contains("65 by `vq_idx_nums`") && error.contains("64 by the codebook"), "{error}");
}

#[test]
fn tied_heads_are_read_from_the_embedding() {
    let folder = exported("tied");
    edit_safetensors(&folder.at("in/phi3/model.safetensors"), |header, _| {
        let head = header.as_object_mut().unwrap().remove("lm_head.weight").unwrap();
        // Kept under a name that means nothing, as every byte must belong to a tensor.
        header["unused.weight"] = head;
    });
    let to = folder.at("x.safetensors");
    let error = fails(4, arguments(&folder.at("in"), &["-o", to.to_str().unwrap()]));
    assert!(error.contains("tensor lm_head.weight is missing"), "{error}");
    let path = folder.at("in/phi3/config.json");
    fs::write(
        &path,
        fs::read_to_string(&path).unwrap().replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"),
    )
    .unwrap();
    let text = succeeds(arguments(&folder.at("in"), &["--recipe", "f16", "-o", to.to_str().unwrap()]));
    assert!(text.contains("(1 tensors not needed)"), "{text}");
    let model = ModelFile::open(&to).unwrap();
    let rows = |name: &str| model.values(model.specs.iter().find(|s| s.name == name).unwrap()).unwrap().rows(0..524);
    assert_eq!(rows("ask.head"), rows("ask.embed"));
}

#[test]
fn reports_are_json_or_csv() {
    let folder = Folder::new("report");
    let input = golden();
    let to = folder.at("x.safetensors");
    let (json, csv) = (folder.at("r.json"), folder.at("r.csv"));
    for report in [&json, &csv] {
        succeeds(arguments(&input, &["--force", "-o", to.to_str().unwrap(), "--report", report.to_str().unwrap()]));
    }
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(report["sha256"], ModelFile::open(&to).unwrap().container.sha256());
    let qkv = tensors.iter().find(|t| t["name"] == "language.layers.0.qkv").unwrap();
    let error = qkv["nmse"].as_f64().unwrap();
    assert!(qkv["format"] == "q4 g32" && error > 1e-3 && error < 2e-2, "{qkv}");
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), tensors.len() + 1);
    fails(2, arguments(&input, &["--report", "r.txt"]));
}

#[test]
fn usage_errors_exit_with_two() {
    let input = golden();
    for flags in [
        &["--adapters", "folded"][..],
        &["--calibrate", "texts"],
        &["--recipe", "q5"],
        &["--group", "48"],
        &["--recipe", "f16", "--group", "64"],
        &["--recipe", "q8", "--symmetric"],
    ] {
        fails(2, arguments(&input, flags));
    }
    for flags in [&["--tasks", "dance"][..], &["--no-such-flag"], &["--adapters", "perhaps"]] {
        assert_eq!(run(arguments(&input, flags)).status.code(), Some(2));
    }
    assert_eq!(run::<&str>([]).status.code(), Some(2));
    fails(4, arguments(&input, &["--recipe", "nowhere.toml"]));
}

#[test]
fn inspect_and_export_refuse_what_is_no_model_and_what_is_damaged() {
    let folder = Folder::new("damaged");
    let file = folder.at("x.safetensors");
    common::quantize(&golden(), &file, common::recipe("q4"), &Default::default()).unwrap();
    let shown: Value = serde_json::from_str(&succeeds([
        OsStr::new("inspect"),
        file.as_os_str(),
        OsStr::new("--json"),
        OsStr::new("--tensors"),
    ]))
    .unwrap();
    assert_eq!(shown["config"]["vocabulary"], json!({"tokens": 523, "codes": 64}));
    assert!(shown["tensors"][0]["planes"][0]["sha256"].as_str().unwrap().len() == 64);
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&file, &bad).unwrap();
    let out = folder.at("out");
    let export = [OsStr::new("export"), file.as_os_str(), OsStr::new("-o"), out.as_os_str()];
    assert!(fails(4, export).contains("is damaged: its SHA-256 differs"));
    for length in [0, 7, 100, good.len() - 1] {
        fs::write(&file, &good[..length]).unwrap();
        fails(4, [OsStr::new("inspect"), file.as_os_str()]);
    }
    let adapter = golden().join("com_hlora_weights.bin");
    fails(4, [OsStr::new("inspect"), adapter.as_os_str()]);
    fs::write(&file, &good).unwrap();
    let compared: Value = serde_json::from_str(&succeeds([
        OsStr::new("compare"),
        file.as_os_str(),
        golden().as_os_str(),
        OsStr::new("--tensors-only"),
        OsStr::new("--json"),
    ]))
    .unwrap();
    assert_eq!(compared["tensors"].as_array().unwrap().len(), shown["tensors"].as_array().unwrap().len());
    // What is there is not replaced.
    fs::remove_dir_all(&out).unwrap();
    succeeds(export);
    assert!(fails(1, export).contains("is there already; --force replaces it"));
}

/// Needs a device, as calibrating does.
#[test]
fn a_file_beyond_max_kl_is_not_written_unless_forced() {
    let folder = Folder::new("max-kl");
    let (texts, output) = (folder.at("texts.jsonl"), folder.at("x.safetensors"));
    let lines = (0..4).map(|i| json!({"text": format!("Kidney of {i} cm with smooth margins, no stone. ").repeat(3)}));
    fs::write(&texts, lines.map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let input = golden();
    let call = |rest: &[&str]| {
        let mut all = vec![input.to_str().unwrap(), "--tasks", "ask", "-o", output.to_str().unwrap()];
        all.extend(["--calibrate", texts.to_str().unwrap()]);
        all.extend(rest);
        run(all)
    };
    let refused = call(&["--max-kl", "1e-9"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("is not written: its KL is") && said.contains("--max-kl 0.000000001"), "{said}");
    // What was computed is kept.
    assert_eq!(folder.names(), [".x.safetensors.calibration", "texts.jsonl"]);
    let forced = call(&["--max-kl", "1e-9", "--force"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    let text = String::from_utf8(forced.stdout).unwrap();
    assert!(text.contains("calibrated  rotate+gptq: texts.jsonl (") && text.contains("held back: KL"), "{text}");
    assert_eq!(folder.names(), ["texts.jsonl", "x.safetensors"]);
    let shown: Value =
        serde_json::from_str(&succeeds([OsStr::new("inspect"), output.as_os_str(), OsStr::new("--json")])).unwrap();
    assert_eq!(shown["card"]["calibration"], "texts.jsonl");
    assert!(shown["card"]["figures"]["kl"].as_f64().unwrap() > 1e-9);
    assert_eq!(
        (&shown["recipe"]["method"], &shown["config"]["basis"]),
        (&json!("rotate+gptq"), &json!({"rotation": 0}))
    );
}

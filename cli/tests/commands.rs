//! The program as scripts see it: results, exit codes, one line of complaint.

use quantize::config::Choices;
use quantize::source::{Given, discover};
use quantize::write::Job;
use runtime::model::{Adapter, Header, Task, TaskConfig};
use runtime::text::Turn;
use runtime::{Model, OpenOptions, Request, Session, SessionOptions, Workload};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(path)
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The golden checkpoint with the f16 recipe.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let checkpoint = data("tiny/checkpoint");
        let parts = discover(&checkpoint, &Given::default()).unwrap();
        let recipe = runtime::model::Recipe::named("f16", 32).unwrap();
        let job = Job::new(&parts, &Choices::default(), recipe).unwrap();
        let output = scratch("commands-f16.safetensors");
        job.write(&output, &checkpoint, &quantize::Quiet).unwrap();
        output
    })
}

fn healthgpt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthgpt"));
    // A layer of Mesa's prints about Wayland where there is no desktop.
    command.args(args).env("NODEVICE_SELECT", "1").stdin(Stdio::null());
    command.env("HEALTHGPT_NO_CACHE", "1");
    for name in ["HEALTHGPT_MODEL", "HEALTHGPT_PROFILE", "HEALTHGPT_VARIANT"] {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    healthgpt(args).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The exit code, and stderr as one line that holds all of `words`.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn golden(case: &str) -> Value {
    serde_json::from_slice(&std::fs::read(data(&format!("tiny/{case}.json"))).unwrap()).unwrap()
}

const QUESTION: &str = "What abnormality is shown in this ultrasound image?";

#[test]
fn ask_streams_the_reference_answer() {
    let picture = data("tiny/input.png");
    let output = run(&["ask", "-m", path(model()), "-i", path(&picture), QUESTION]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = golden("comprehension")["text"].as_str().unwrap().to_string() + "\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn ask_as_json_has_every_promised_field() {
    let output = run(&["ask", "-m", path(model()), "-i", path(&data("tiny/input.png")), QUESTION, "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let case = golden("comprehension");
    assert_eq!(found["answer"], case["text"]);
    assert_eq!(found["tokens"], case["generated_ids"]);
    assert_eq!(found["prompt_tokens"], case["sequence_length"]);
    assert_eq!(found["finish"], "stop");
    assert!(found["logprob_mean"].as_f64().unwrap() < 0.0);
    for timing in ["load_ms", "image_ms", "prefill_ms", "first_token_ms", "decode_tokens_per_s"] {
        assert!(found["timings"][timing].as_f64().unwrap() > 0.0, "{timing}");
    }
    assert_eq!(found["model"]["recipe"], "f16");
    assert_eq!(found["model"]["sha256"].as_str().unwrap().len(), 64);
    assert!(found["device"].is_string() && found["profile"].is_string() && found["choices"].is_object());
}

#[test]
fn a_picture_may_come_from_stdin_and_a_history_from_a_file() {
    let history = scratch("history.json");
    let case = golden("two_turn");
    let turns = json!([{"question": case["turns"][0], "answer": case["turns"][1]}]);
    std::fs::write(&history, turns.to_string()).unwrap();
    let question = case["turns"][2].as_str().unwrap();
    let picture = std::fs::File::open(data("tiny/input.png")).unwrap();
    let mut command =
        healthgpt(&["ask", "-m", path(model()), "-i", "-", "--history", path(&history), question, "--json"]);
    let output = command.stdin(picture).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["tokens"], case["generated_ids"]);
}

#[test]
fn choices_are_ranked_with_probabilities_that_sum_to_one() {
    let output = run(&["ask", "-m", path(model()), "Is it?", "--choices", "yes,no", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let p = |c: &str| found["choices"][c].as_f64().unwrap();
    assert!((p("yes") + p("no") - 1.0).abs() < 1e-6);
    assert_eq!(found["answer"], if p("yes") > p("no") { "yes" } else { "no" });
}

#[test]
fn trace_prints_the_ids_and_writes_the_stages() {
    let file = scratch("trace.safetensors");
    let picture = data("tiny/input.png");
    let output = run(&["trace", "-m", path(model()), "-i", path(&picture), QUESTION, "--kv", "f32", "-o", path(&file)]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let case = golden("comprehension");
    for key in ["prompt", "input_ids", "generated_ids", "text"] {
        assert_eq!(found[key], case[key], "{key}");
    }
    let bytes = std::fs::read(file).unwrap();
    let stages = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(stages.tensor("layers.0.gates.qkv").is_ok() && stages.tensor("pixel_values").is_ok());
}

#[test]
fn a_traced_picture_has_its_codes() {
    let file = scratch("trace-generate.safetensors");
    let case = golden("generation");
    let instruction = case["turns"][0].as_str().unwrap();
    let picture = data("tiny/input.png");
    let args =
        ["trace", "-m", path(model()), "-i", path(&picture), instruction, "--task", "generate", "-o", path(&file)];
    let found: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
    for key in ["prompt", "input_ids", "generated_ids", "codes"] {
        assert_eq!(found[key], case[key], "{key}");
    }
}

/// A file of questions whose answers are known: two of three closed ones right, an open one half said.
fn questions(name: &str, pictures: &str) -> PathBuf {
    let folder = scratch(name);
    std::fs::create_dir_all(folder.join("imgs")).unwrap();
    std::fs::copy(data("tiny/input.png"), folder.join("imgs/a.png")).unwrap();
    std::fs::write(folder.join("imgs/broken.png"), b"no picture").unwrap();
    let said = golden("comprehension")["text"].as_str().unwrap().to_string();
    let words = said.split_whitespace().count();
    let unsaid = "zzz ".repeat(words);
    let record = |image: &str, kind: &str, answer: &str| json!({"img_name": image, "question": QUESTION, "answer": answer, "answer_type": kind, "content_type": "T"});
    let mut records = vec![
        record("a.png", "CLOSED", &said),
        record("a", "CLOSED", &said),
        record("a.png", "CLOSED", "something else"),
        record("a.png", "OPEN", &format!("{said} {unsaid}")),
        record(pictures, "OPEN", "-"),
    ];
    records[3]["q_lang"] = json!("en");
    records.push(json!({"question": "¿Qué?", "answer": "-", "q_lang": "es"}));
    let file = folder.join("questions.json");
    std::fs::write(&file, Value::Array(records).to_string()).unwrap();
    file
}

#[test]
fn eval_counts_as_the_paper_does_and_survives_a_broken_picture() {
    let file = questions("eval", "broken.png");
    let answers = scratch("eval/answers.jsonl");
    let output = run(&["eval", "-m", path(model()), path(&file), "--json", "-o", path(&answers)]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("record 5") && stderr.contains("broken.png"), "{stderr}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = |kind: &str| (found[kind]["questions"].as_u64().unwrap(), found[kind]["score"].as_f64().unwrap());
    assert_eq!(said("closed"), (3, 2.0 / 3.0));
    let (open, all) = (said("open"), said("all"));
    assert!(open.0 == 1 && (open.1 - 0.5).abs() < 0.05, "{open:?}");
    assert!(all.0 == 4 && (all.1 - (2.0 + open.1) / 4.0).abs() < 1e-9, "{all:?}");
    assert_eq!(found["skipped"], json!({"other_language": 1, "picture_unreadable": [5]}));
    assert_eq!(std::fs::read_to_string(answers).unwrap().lines().count(), 4);
    // The table says the same.
    let output = run(&["eval", "-m", path(model()), path(&file), "--limit", "4"]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("66.7 %"), "{table}");
}

#[test]
fn eval_looks_for_every_picture_before_it_asks_anything() {
    let file = questions("eval-missing", "nowhere.png");
    fails(&run(&["eval", "-m", path(model()), path(&file)]), 6, &["record 5", "nowhere.png"]);
    let file = scratch("eval-missing/bad.jsonl");
    std::fs::write(&file, "{\"question\": \"?\", \"answer\": \"x\"}\n{\"question\": \"?\"}\n").unwrap();
    fails(&run(&["eval", "-m", path(model()), path(&file)]), 1, &["record 2", "answer"]);
}

#[test]
fn perplexity_counts_tokens_and_sums_their_surprise() {
    let file = scratch("text.txt");
    // A text in which no token has more than a byte is longer in tokens than in bytes.
    std::fs::write(&file, "é").unwrap();
    assert!(run(&["perplexity", "-m", path(model()), path(&file)]).status.success());
    std::fs::write(&file, "The liver is of normal size. No stone is seen in the gallbladder.").unwrap();
    let output = run(&["perplexity", "-m", path(model()), path(&file), "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (tokens, nll) = (found["tokens"].as_f64().unwrap(), found["nll"].as_f64().unwrap());
    assert!(tokens > 10.0 && nll > 0.0);
    assert!((found["perplexity"].as_f64().unwrap() - (nll / (tokens - 1.0)).exp()).abs() < 1e-6);
}

/// What `bench` says of the golden model, small enough for a test.
fn bench(more: &[&str]) -> Value {
    let args =
        ["bench", "-m", path(model()), "--prompt", "5", "--gen", "2", "--reps", "2", "--context", "64", "--json"];
    let output = run(&[&args[..], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn is_measured(found: &Value, what: &str) {
    let (median, spread) = (found[what]["median"].as_f64(), found[what]["spread"].as_f64());
    assert!(median.is_some_and(|m| m > 0.0) && spread.is_some_and(|s| s >= 0.0), "{what}: {}", found[what]);
}

const ALWAYS_MEASURED: [&str; 6] = [
    "image_ms",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "encode_us",
    "copy_bandwidth_gb_s",
    "share_of_bandwidth",
];

#[test]
fn bench_as_json_has_every_promised_field() {
    let found = bench(&[]);
    for what in ALWAYS_MEASURED {
        is_measured(&found, what);
    }
    for what in ["device", "driver", "profile"] {
        assert!(found[what].as_str().is_some_and(|s| !s.is_empty()), "{what}");
    }
    for what in ["load_ms", "device_bytes", "bytes_per_token"] {
        assert!(found[what].as_f64().is_some_and(|v| v > 0.0), "{what}");
    }
    assert_eq!((&found["task"], &found["adapter"]), (&json!("ask"), &json!(true)));
    assert_eq!(found["model"]["sha256"].as_str().unwrap().len(), 64);
    assert!(found["kernels"].is_null() && found["codes_per_s"].is_null());
    // The plan says the same.
    let model = Model::open(model(), &OpenOptions::default()).unwrap();
    let session = Session::new(&model, SessionOptions { context: Some(64), ..Default::default() }).unwrap();
    assert_eq!(found["dispatches_per_token"], session.dispatches_per_token());
}

#[test]
fn bench_without_the_adapter_dispatches_and_reads_less() {
    let (with, without) = (bench(&["--no-pictures"]), bench(&["--no-pictures", "--adapter", "off"]));
    assert!(with["image_ms"].is_null());
    for what in ["dispatches_per_token", "bytes_per_token"] {
        let (with, without) = (with[what].as_u64().unwrap(), without[what].as_u64().unwrap());
        assert!(with > without, "{what}: {with} and {without}");
    }
}

#[test]
fn bench_of_pictures_out_tells_codes_and_kernels() {
    let found = bench(&["--task", "generate", "--kernels"]);
    for what in ALWAYS_MEASURED.iter().chain(&["codes_per_s", "decoder_ms"]) {
        is_measured(&found, what);
    }
    assert!(["timestamps", "waiting"].contains(&found["kernels_timed_by"].as_str().unwrap()));
    let kernels = found["kernels"].as_array().unwrap();
    for run in ["decode", "prefill"] {
        let of =
            |what: &str| kernels.iter().filter(|k| k["run"] == run).map(|k| k[what].as_f64().unwrap()).sum::<f64>();
        assert!((of("share") - 1.0).abs() < 1e-6, "{run}: {}", of("share"));
        if run == "decode" {
            assert_eq!(Some(of("dispatches")), found["dispatches_per_token"].as_f64());
        }
    }
    let gemv = kernels.iter().find(|k| k["kernel"] == "gemv").unwrap();
    assert!(
        gemv["variant"].is_string() && gemv["ms"]["median"].is_number() && gemv["weights_gb_s"].as_f64() > Some(0.0)
    );
    let argmax = kernels.iter().find(|k| k["kernel"] == "argmax").unwrap();
    assert!(argmax["weights_gb_s"].is_null());
}

#[test]
fn bench_prints_tables_for_people() {
    let args =
        ["bench", "-m", path(model()), "--prompt", "3", "--gen", "1", "--reps", "1", "--no-pictures", "--kernels"];
    let output = run(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for words in
        ["decode of 1 tokens", "copy bandwidth", "dispatches", "one decoded token", "a chunk of 3 tokens", "gemv"]
    {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
}

#[test]
fn bench_needs_one_model_and_something_to_measure() {
    fails(&run(&["bench"]), 2, &["--model", "--synthetic"]);
    fails(&run(&["bench", "-m", path(model()), "--synthetic", "m3"]), 2, &["--model", "--synthetic"]);
    fails(&run(&["bench", "--layers", "1"]), 2, &["--synthetic"]);
    fails(&run(&["bench", "--synthetic", "m4"]), 2, &["m4", "m3"]);
    fails(&run(&["bench", "-m", path(model()), "--layers", "1"]), 2, &["--layers", "--model"]);
    fails(&run(&["bench", "--synthetic", "m3", "--layers", "0"]), 2, &["layers is 0"]);
    fails(&run(&["bench", "-m", path(model()), "--reps", "0"]), 2, &["--reps"]);
    fails(
        &run(&["bench", "-m", path(model()), "--prompt", "60", "--gen", "4", "--context", "64"]),
        1,
        &["context full"],
    );
    // A model that is named in the environment stands back behind a synthetic one.
    let mut command = healthgpt(&["bench", "--synthetic", "m3", "--layers", "0"]);
    fails(&command.env("HEALTHGPT_MODEL", "no.safetensors").output().unwrap(), 2, &["layers is 0"]);
}

/// HealthGPT-M3 with everything made small.
fn small() -> Header {
    let mut header = Header::m3(2, 32).unwrap();
    let config = &mut header.config;
    (config.language.hidden, config.language.heads, config.language.kv_heads) = (192, 2, 2);
    (config.language.intermediate, config.vocabulary.tokens, config.vocabulary.codes) = (256, 300, 64);
    let task = |rows, rank| TaskConfig {
        vision_layers: 1,
        embed_rows: rows,
        head_rows: rows,
        adapter: Adapter { rank, experts: 4, scale: 8.0, folded: false },
    };
    config.ask = Some(task(301, 16));
    config.generate = Some(task(367, 32));
    if let Some(vision) = &mut config.vision {
        (vision.layers, vision.hidden, vision.heads, vision.intermediate) = (1, 64, 2, 128);
        (vision.image, vision.preprocessor["size"], vision.preprocessor["crop_size"]) = (28, json!(28), json!(28));
    }
    if let Some(vqgan) = &mut config.vqgan {
        (vqgan.codes, vqgan.embed, vqgan.z, vqgan.channels, vqgan.grid) = (64, 32, 32, 32, 2);
    }
    header
}

#[test]
fn a_synthetic_model_is_measured_and_answers_without_a_file() {
    let tasks = Task::ALL.to_vec();
    let model = Model::synthetic(small(), &OpenOptions { tasks, ..Default::default() }).unwrap();
    for task in Task::ALL {
        let mut session = Session::new(&model, SessionOptions { task, ..Default::default() }).unwrap();
        let workload = Workload { prompt: 4, tokens: 2, reps: 1, pictures: true };
        let speed = session.measure(&workload).unwrap();
        assert!(speed.decode_tokens_per_s.median > 0.0 && speed.image_ms.is_some());
        assert_eq!(speed.decoder_ms.is_some(), task == Task::Generate);
    }
    // What is made up stays finite all the way.
    let mut session = Session::new(&model, SessionOptions::default()).unwrap();
    let turns = [Turn { question: "Why?".into(), answer: None }];
    let request = Request { max_tokens: 3, probabilities: true, ..Request::new(&turns) };
    let answer = session.ask(&request, |_| ControlFlow::Continue(())).unwrap();
    assert!(answer.logprob_mean.unwrap().is_finite());
}

#[test]
fn a_token_reads_its_weights_once_and_one_row_of_the_table() {
    let header = small();
    let read: u64 = header
        .config
        .tensors()
        .iter()
        .filter(|t| t.name.starts_with("language.") || t.name.starts_with("ask."))
        .filter(|t| !t.name.contains("projector") && t.name != "ask.embed")
        .flat_map(|t| t.layouts(&header.recipe))
        .map(|l| l.bytes())
        .sum();
    let l = &header.config.language;
    let position = (l.layers * 2 * l.hidden * 2) as u64;
    // A head's mean row is not loaded.
    let mean_row = (l.hidden + l.hidden.div_ceil(64) * 4) as u64;
    let expected = read - mean_row + 2 * l.hidden as u64 + 7 * position;
    let model = Model::synthetic(header, &OpenOptions::default()).unwrap();
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    // The tokens at 5 and 6 and 7 see 6, 7 and 8 positions.
    let workload = Workload { prompt: 4, tokens: 3, reps: 1, pictures: false };
    let found = session.bytes_per_token(&workload).unwrap();
    // Buffers are rounded up to 16 bytes.
    assert!(found >= expected && found < expected + 16 * 100, "{found} and {expected}");
}

#[test]
fn generate_draws_the_reference_picture_and_says_that_it_is_synthetic() {
    let (picture, codes) = (scratch("drawn.png"), scratch("codes.json"));
    let case = golden("generation");
    let instruction = case["turns"][0].as_str().unwrap();
    let input = data("tiny/input.png");
    let args = ["generate", "-m", path(model()), "-i", path(&input), instruction, "-o", path(&picture)];
    let output = run(&[&args[..], &["--codes-out", path(&codes), "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["codes"], case["codes"]);
    let written: Value = serde_json::from_slice(&std::fs::read(&codes).unwrap()).unwrap();
    assert_eq!(written, case["codes"]);
    let bytes = std::fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"));
    let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("Synthetic") && holds(found["model"]["sha256"].as_str().unwrap()));
    assert!(
        holds("healthgpt-instruction-sha256") && !holds(instruction),
        "the instruction itself is never in the file"
    );
}

#[test]
fn generate_never_replaces_what_it_reads() {
    let input = scratch("own-input.png");
    std::fs::copy(data("tiny/input.png"), &input).unwrap();
    let before = std::fs::read(&input).unwrap();
    let output = run(&["generate", "-m", path(model()), "-i", path(&input), "Draw.", "-o", path(&input)]);
    fails(&output, 2, &["own-input.png", "is an input"]);
    let output = run(&["generate", "-m", path(model()), "Draw.", "-o", path(model())]);
    fails(&output, 2, &[".png"]);
    assert_eq!(std::fs::read(&input).unwrap(), before);
}

#[test]
fn trace_never_replaces_what_it_reads_and_ends_when_asked_for_nothing() {
    let output = run(&["trace", "-m", path(model()), "Why?", "-o", path(model())]);
    fails(&output, 2, &["is an input"]);
    let output = run(&["trace", "-m", path(model()), "Why?", "-n", "0", "-o", path(&scratch("never.safetensors"))]);
    fails(&output, 2, &["-n"]);
}

#[test]
fn a_file_without_a_task_refuses_it() {
    let checkpoint = data("tiny/checkpoint");
    let parts = discover(&checkpoint, &Given::default()).unwrap();
    let recipe = runtime::model::Recipe::named("q8", 32).unwrap();
    let choices = Choices { tasks: Some(vec![Task::Ask]), ..Default::default() };
    let file = scratch("ask-only.safetensors");
    let job = Job::new(&parts, &choices, recipe).unwrap();
    job.write(&file, &checkpoint, &quantize::Quiet).unwrap();
    let output = run(&["generate", "-m", path(&file), "Draw.", "-o", path(&scratch("never.png"))]);
    fails(&output, 4, &["ask-only", "--tasks generate"]);
    assert!(ask(&file).status.success());
}

#[test]
fn inspect_verify_and_devices_answer() {
    let found: Value = serde_json::from_slice(&run(&["inspect", path(model()), "--json"]).stdout).unwrap();
    assert_eq!(found["config"]["language"]["hidden"], 192);
    assert!(run(&["verify", path(model())]).status.success());
    let found: Value = serde_json::from_slice(&run(&["devices", "--json"]).stdout).unwrap();
    assert!(found[0]["name"].is_string() && found[0]["profile"].is_string());
}

/// The model with its header changed.
fn with_header(name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let bytes = std::fs::read(model()).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string().into_bytes();
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend(header);
    changed.extend(&bytes[8 + length..]);
    let path = scratch(name);
    std::fs::write(&path, changed).unwrap();
    path
}

fn ask(model: &Path) -> Output {
    run(&["ask", "-m", path(model), "Why?", "-n", "1"])
}

#[test]
fn a_missing_or_strange_model_is_exit_4() {
    fails(&ask(Path::new("/no/such/model.safetensors")), 4, &["/no/such/model.safetensors", "no such file"]);
    fails(&ask(&data("tiny")), 4, &["directory"]);
    fails(&ask(&data("tiny/input.png")), 4, &["input.png"]);
    fails(&ask(&data("tiny/comprehension.safetensors")), 4, &["no HealthGPT model"]);
    let empty = scratch("empty.safetensors");
    std::fs::write(&empty, []).unwrap();
    fails(&ask(&empty), 4, &["empty.safetensors"]);
}

#[test]
fn a_truncated_model_is_exit_4_wherever_it_is_cut() {
    let bytes = std::fs::read(model()).unwrap();
    for (i, keep) in [5, 100, bytes.len() / 2, bytes.len() - 1].into_iter().enumerate() {
        let cut = scratch(&format!("cut-{i}.safetensors"));
        std::fs::write(&cut, &bytes[..keep]).unwrap();
        fails(&ask(&cut), 4, &[path(&cut)]);
        fails(&run(&["verify", path(&cut)]), 4, &[path(&cut)]);
    }
}

#[test]
fn a_flipped_bit_is_exit_4_in_any_tensor() {
    let bytes = std::fs::read(model()).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let data_bytes = bytes.len() - header;
    for part in 0..5 {
        let mut flipped = bytes.clone();
        flipped[header + data_bytes * part / 5 + 17] ^= 0x10;
        let file = scratch(&format!("flipped-{part}.safetensors"));
        std::fs::write(&file, flipped).unwrap();
        fails(&ask(&file), 4, &["is damaged", "SHA-256"]);
    }
}

#[test]
fn another_version_a_missing_tensor_and_a_wrong_shape_are_exit_4() {
    let file = with_header("version.safetensors", |h| h["__metadata__"]["version"] = json!("99"));
    fails(&ask(&file), 4, &["version 99"]);
    let file = with_header("missing.safetensors", |h| {
        let norm = h.as_object_mut().unwrap().remove("language.norm").unwrap();
        h["language.other"] = norm;
        let hashes = h["__metadata__"]["sha256"].as_str().unwrap().replace("language.norm", "language.other");
        h["__metadata__"]["sha256"] = json!(hashes);
    });
    fails(&ask(&file), 4, &["lacks tensor `language.norm`"]);
    let file = with_header("shape.safetensors", |h| h["language.norm"]["shape"] = json!([96, 2]));
    fails(&ask(&file), 4, &["language.norm", "[96, 2]", "[192]"]);
    let file = with_header("config.safetensors", |h| {
        let config = h["__metadata__"]["config"].as_str().unwrap().replace("\"heads\":6", "\"heads\":0");
        h["__metadata__"]["config"] = json!(config);
    });
    fails(&ask(&file), 4, &["heads is 0"]);
}

#[test]
fn an_unreadable_picture_is_exit_6() {
    let ask = |picture: &Path| run(&["ask", "-m", path(model()), "-i", path(picture), "Why?"]);
    fails(&ask(Path::new("/no/such/picture.png")), 6, &["/no/such/picture.png"]);
    fails(&ask(&data("tiny/settings.json")), 6, &["settings.json"]);
    let bytes = std::fs::read(data("tiny/input.png")).unwrap();
    let cut = scratch("cut.png");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fails(&ask(&cut), 6, &["cut.png"]);
}

#[test]
fn no_device_is_exit_3() {
    let output = run(&["ask", "-m", path(model()), "Why?", "--device", "abacus"]);
    fails(&output, 3, &["abacus"]);
    let mut command = healthgpt(&["ask", "-m", path(model()), "Why?"]);
    let nothing = "/no/such/driver.json";
    let command = command.env("VK_DRIVER_FILES", nothing).env("VK_ICD_FILENAMES", nothing);
    let output = command.env("__EGL_VENDOR_LIBRARY_FILENAMES", nothing).output().unwrap();
    fails(&output, 3, &["no usable device", "mesa-vulkan-drivers"]);
}

#[test]
fn too_little_memory_is_exit_5_and_wrong_usage_exit_2() {
    fails(&run(&["ask", "-m", path(model()), "Why?", "--memory", "1MiB"]), 5, &["--memory"]);
    fails(&run(&["ask"]), 2, &["--model", "--help"]);
    fails(&run(&["ask", "-m", path(model())]), 2, &["QUESTION"]);
    fails(&run(&["ask", "-m", path(model()), "Why?", "--kv", "q2"]), 2, &["q2", "f16"]);
    fails(&run(&["ask", "-m", path(model()), "Why?", "--temperature", "-1"]), 2, &["--temperature"]);
    fails(&run(&["ask", "-m", path(model()), "Why?", "--context", "999999"]), 2, &["4096"]);
    fails(&run(&["ask", "-m", path(model()), "Why?", "--profile", "abacus"]), 2, &["abacus", "generic"]);
}

#[test]
fn a_question_too_long_for_the_context_is_an_error_and_not_a_cut() {
    let long = "liver ".repeat(400);
    fails(&run(&["ask", "-m", path(model()), &long, "--context", "300"]), 1, &["context full", "300"]);
}

#[test]
fn the_log_never_holds_what_was_asked_or_answered() {
    let log = scratch("log.txt");
    let marker = "xyzzymarker";
    let args = ["-vvv", "--log-file", path(&log), "ask", "-m", path(model()), marker, "-n", "8"];
    let output = run(&args);
    assert!(output.status.success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("device"), "the log says something");
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(marker));
    assert!(answer.trim().len() < 4 || !text.contains(answer.trim()));
}

#[test]
fn compiled_kernels_are_kept_for_the_next_time_unless_told_not_to() {
    let cache = scratch("kept");
    // Mesa keeps its own things beside it.
    let ours = cache.join("healthgpt");
    let _ = std::fs::remove_dir_all(&cache);
    let ask = |more: &[&str]| {
        let mut command = healthgpt(&[&["ask", "-m", path(model()), "-n", "1", "Why?"], more].concat());
        let output = command.env_remove("HEALTHGPT_NO_CACHE").env("XDG_CACHE_HOME", &cache).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    ask(&["--no-cache"]);
    assert!(!ours.exists());
    ask(&[]);
    // Only Vulkan hands pipelines out, and other systems have other folders.
    let vulkan = runtime::gpu::list().first().is_some_and(|d| format!("{:?}", d.facts.backend) == "Vulkan");
    assert_eq!(ours.exists(), vulkan && cfg!(target_os = "linux"));
}

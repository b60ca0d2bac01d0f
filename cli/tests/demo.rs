//! The int4 demonstration model on phantoms that it was not trained on, beside what PyTorch says in f32.

use quantize::config::Choices;
use quantize::source::{Given, discover};
use quantize::write::Job;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(path)
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn eval(model: &Path, questions: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthgpt"));
    command.args(["eval", "--json", "-m"]).arg(model).arg(questions).arg("--images").arg(demo("held-out"));
    let output = command.env("NODEVICE_SELECT", "1").env("HEALTHGPT_NO_CACHE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn int4_answers_held_out_phantoms_as_pytorch_does() {
    let checkpoint = demo("checkpoint");
    let parts = discover(&checkpoint, &Given::default()).unwrap();
    let job = Job::new(&parts, &Choices::default(), runtime::model::Recipe::named("q4", 32).unwrap()).unwrap();
    let model = scratch("demo-q4.safetensors");
    job.write(&model, &checkpoint, &quantize::Quiet).unwrap();

    // PyTorch's whole answers as the truth: each is the same or it is not.
    let text = std::fs::read_to_string(demo("held-out/questions.jsonl")).unwrap();
    let records = text.lines().map(|line| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["answer"] = record["pytorch"].take();
        record["type"] = json!("closed");
        record.to_string() + "\n"
    });
    let same = scratch("as-pytorch.jsonl");
    std::fs::write(&same, records.collect::<String>()).unwrap();
    let found = eval(&model, &same);
    assert!(found["all"]["questions"].as_u64().unwrap() >= 100);
    // Rounding to int4 may tip what was on the edge.
    assert!(found["all"]["score"].as_f64().unwrap() >= 0.9, "{found}");

    let found = eval(&model, &demo("held-out/questions.jsonl"));
    let score = |kind: &str| found[kind]["score"].as_f64().unwrap();
    assert!(score("closed") >= 0.95 && score("open") >= 0.9, "{found}");
}

//! The int4 demonstration model answers phantoms that it was not trained on as well as PyTorch's f32 does.

use quantize::config::Choices;
use quantize::source::{Given, discover};
use quantize::write::Job;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn int4_answers_held_out_phantoms() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let checkpoint = demo.join("checkpoint");
    let parts = discover(&checkpoint, &Given::default()).unwrap();
    let job = Job::new(&parts, &Choices::default(), quantize::recipe::load("q4", None, false).unwrap()).unwrap();
    let model = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-q4.safetensors");
    job.write(&model, &checkpoint, &quantize::Quiet).unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_healthgpt"));
    command.args(["eval", "--json", "-m"]).arg(&model).arg(demo.join("held-out/questions.jsonl"));
    let output = command.env("NODEVICE_SELECT", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let score = |kind: &str| found[kind]["score"].as_f64().unwrap();
    assert!(found["all"]["questions"].as_u64().unwrap() >= 100);
    assert!(score("closed") >= 0.95 && score("open") >= 0.90, "{found}");
}

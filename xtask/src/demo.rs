//! `cargo xtask demo`: from a clone to streamed answers about a picture, beside the truth.

use crate::{Result, cargo, device, quiet, root, run as step, scratch};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Held-out phantom that is shown.
const PICTURE: &str = "1000000003.png";
/// How many of its questions are asked.
const QUESTIONS: usize = 3;
/// What is drawn from it.
const TASK: &str = "remove";

pub fn run() -> Result {
    device::ensure()?;
    let build = ["build", "--release", "-p", "quantize", "-p", "cli"];
    step("building (5 minutes the first time)", &mut cargo(&build))?;
    let programs = root().join("target").join("release");
    let demo = root().join("demo");
    let (model, picture, drawn) = (scratch("demo-q4.safetensors"), scratch("phantom.png"), scratch("drawn.png"));
    std::fs::create_dir_all(scratch("")).map_err(|e| e.to_string())?;

    println!();
    println!(
        "The demonstration model is a tiny HealthGPT that was trained on ultrasound phantoms (demo/README.md). It is"
    );
    println!("no medical model; that its answers are right is the point.");
    println!();
    let mut quantize = Command::new(programs.join("quantize"));
    quantize.arg(demo.join("checkpoint")).args(["--recipe", "q4", "--force", "-o"]).arg(&model);
    step("quantize: the published layout becomes one int4 file", &mut quantize)?;

    let held_out = demo.join("held-out");
    std::fs::copy(held_out.join(PICTURE), &picture).map_err(|e| format!("{PICTURE}: {e}"))?;
    println!();
    println!("picture      {} (a phantom that was not trained on)", picture.display());
    let questions = records(&held_out.join("questions.jsonl"))?;
    for record in questions.iter().filter(|r| r["image"] == PICTURE).take(QUESTIONS) {
        let (question, truth) = (text(record, "question")?, text(record, "answer")?);
        println!();
        println!("question     {question}");
        let mut ask = Command::new(programs.join("healthgpt"));
        ask.args(["ask", "--stats", "-i"]).arg(&picture).arg("-m").arg(&model).arg(question);
        quiet(&mut ask);
        step("healthgpt ask", &mut ask)?;
        println!("truth        {truth}");
    }
    let drawings = records(&held_out.join("drawings.jsonl"))?;
    let drawing = drawings.iter().find(|r| r["image"] == PICTURE && r["task"] == TASK);
    let instruction = text(drawing.ok_or(format!("no drawing of {PICTURE}"))?, "instruction")?;
    println!();
    println!("instruction  {instruction}");
    let mut generate = Command::new(programs.join("healthgpt"));
    generate.args(["generate", "--stats", "-i"]).arg(&picture).arg("-m").arg(&model).arg("-o").arg(&drawn);
    generate.arg(instruction);
    quiet(&mut generate);
    step("healthgpt generate", &mut generate)?;
    println!();
    println!("Try it yourself: target/release/healthgpt ask -m {} -i PICTURE \"question\"", model.display());
    println!(
        "All held-out phantoms: target/release/healthgpt eval -m {} demo/held-out/questions.jsonl",
        model.display()
    );
    Ok(())
}

fn records(path: &Path) -> Result<Vec<Value>> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    text.lines().map(|line| serde_json::from_str(line).map_err(|e| wrong(&e))).collect()
}

fn text<'a>(record: &'a Value, field: &str) -> Result<&'a str> {
    record[field].as_str().ok_or_else(|| format!("a record of {PICTURE} has no {field}"))
}

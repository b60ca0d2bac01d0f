//! `cargo xtask demo`: from a clone to a streamed answer about a picture.

use crate::{Result, cargo, device, quiet, root, run as step, scratch};
use std::process::Command;

pub fn run() -> Result {
    device::ensure()?;
    let build = ["build", "--release", "-p", "quantize", "-p", "cli"];
    step("building (5 minutes the first time)", &mut cargo(&build))?;
    let programs = root().join("target").join("release");
    let model = scratch("demo-q4.safetensors");
    let data = root().join("tests").join("data");
    std::fs::create_dir_all(scratch("")).map_err(|e| e.to_string())?;

    println!();
    println!("The demonstration model is `tiny`: HealthGPT's architecture with RANDOM weights, for the tests. What it");
    println!("says means nothing; that it says it is the point: published files -> int4 -> GPU -> streamed answer.");
    println!();
    let mut quantize = Command::new(programs.join("quantize"));
    quantize.arg(data.join("tiny").join("checkpoint")).args(["--recipe", "q4", "--force", "-o"]).arg(&model);
    step("quantize: the published checkpoint becomes one int4 file", &mut quantize)?;

    let picture = data.join("pictures").join("examples_rgb_color.png");
    let question = "What abnormality is shown in this ultrasound image?";
    println!();
    println!("picture   {} (ultrasound, lymph node with power Doppler)", picture.display());
    println!("question  {question}");
    println!();
    let mut ask = Command::new(programs.join("healthgpt"));
    ask.args(["-v", "ask", "-n", "48", "-i"]).arg(&picture).arg("-m").arg(&model).arg(question);
    quiet(&mut ask);
    step("healthgpt ask", &mut ask)?;
    let drawn = scratch("drawn.png");
    println!();
    println!("instruction  Reconstruct the image.");
    let mut generate = Command::new(programs.join("healthgpt"));
    generate.args(["-v", "generate", "-i"]).arg(&picture).arg("-m").arg(&model).arg("-o").arg(&drawn);
    generate.arg("Reconstruct the image.");
    quiet(&mut generate);
    step("healthgpt generate", &mut generate)?;
    println!();
    println!("Try it yourself: target/release/healthgpt ask -m {} -i PICTURE \"question\"", model.display());
    Ok(())
}

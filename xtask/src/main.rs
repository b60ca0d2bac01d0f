//! `cargo xtask demo | test | static | bench-pace | check-targets | device-table`: the commands of the README. The first two
//! and `bench-pace` make sure of a Vulkan device. Next to no dependencies, so that it starts at once.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the person at the terminal is its job")]

mod demo;
mod device;
mod dist;
mod gate;
mod package;
mod targets;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What went wrong, in one line.
type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["demo"] => demo::run(),
        ["test"] => test::run(),
        ["static"] => gate::run(false),
        ["static", "--update"] => gate::run(true),
        ["check-targets"] => targets::run(),
        ["device-table"] => run(
            "docs/devices.md is written anew",
            cargo(&["run", "-q", "-p", "tests", "--bin", "device-table"]).arg(root().join("docs").join("devices.md")),
        ),
        ["bench-pace"] => bench_pace(),
        ["dist"] => dist::run(),
        ["header"] => dist::header(),
        _ => {
            eprintln!(
                "usage: cargo xtask demo   build, prepare the demonstration model, answer a question about a picture"
            );
            eprintln!("       cargo xtask test   fmt, clippy, every test, on every software driver that can be had");
            eprintln!("       cargo xtask static [--update]   kernels and model on nine GPUs' drivers, without them");
            eprintln!("       cargo xtask check-targets       the product type-checked for Arm, Windows and macOS");
            eprintln!("       cargo xtask device-table        docs/devices.md: what fits on which device, how fast");
            eprintln!(
                "       cargo xtask bench-pace   length of submissions, and how soon cancel and pause are obeyed"
            );
            eprintln!("       cargo xtask dist   the C library as it is handed out, in target/dist");
            eprintln!("       cargo xtask header the C library's header anew, from its doc comments");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// How long submissions are, and what follows from it.
fn bench_pace() -> Result {
    device::ensure()?;
    run("submissions at several paces", &mut cargo(&["bench", "-q", "-p", "tests", "--bench", "pace"]))
}

/// Root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where xtask keeps what it makes.
fn scratch(name: &str) -> PathBuf {
    root().join("target").join("xtask").join(name)
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    quiet(&mut command);
    command
}

/// Mesa's device-select layer prints an error about Wayland wherever there is no desktop.
fn quiet(command: &mut Command) {
    command.env("NODEVICE_SELECT", "1");
}

/// Runs a command to its end, announced.
fn run(what: &str, command: &mut Command) -> Result {
    println!("==> {what}");
    let status = command.status().map_err(|e| format!("{what}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed")) }
}

//! `cargo xtask static`: every kernel through real drivers' compilers, without their hardware.

use crate::{Result, cargo, device, root, run as step, scratch};
use std::path::Path;
use std::process::Command;

/// The whole command.
///
/// *Errors*: also where the gate cannot run.
pub fn run(update: bool) -> Result {
    needs()?;
    check(update)
}

/// Makes sure of two Mesas and a C compiler.
///
/// *Errors*: what cannot be had here.
pub fn needs() -> Result {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the drivers come from Debian's packages for x86-64".into());
    }
    for (version, icd) in [("25", "radv.json"), ("26", "nouveau.json")] {
        device::drivers(version, icd).ok_or("Mesa 25 and 26 cannot be had here (Debian 12 with apt only)")?;
    }
    if Path::new("/usr/bin/cc").exists() && Path::new("/usr/include/vulkan/vulkan.h").exists() {
        return Ok(());
    }
    device::install(&["gcc", "libc6-dev", "libvulkan-dev"])
}

/// Checks the kernels, or writes their table anew; what it [`needs`] is there.
pub fn check(update: bool) -> Result {
    let (sources, tools) = (root().join("tests").join("static"), scratch("static"));
    std::fs::create_dir_all(&tools).map_err(|e| format!("{}: {e}", tools.display()))?;
    let compile = |source: &str, output: &str, options: &[&str]| {
        let mut cc = Command::new("cc");
        cc.arg("-O1").arg(sources.join(source)).arg("-o").arg(tools.join(output)).args(options);
        step(&format!("cc {source}"), &mut cc)
    };
    compile("gpu_shim.c", "gpu_shim.so", &["-shared", "-fPIC"])?;
    compile("kernel_stats.c", "kernel_stats", &["-lvulkan"])?;
    let mut gate = cargo(&["run", "-q", "-p", "tests", "--bin", "static-gate", "--"]);
    gate.arg(scratch("")).args(update.then_some("--update"));
    step("every kernel through the compilers of nine GPUs", &mut gate)?;
    let mut opened = cargo(&["run", "-q", "-p", "tests", "--bin", "opened", "--"]);
    step("a model is opened on the drivers of GPUs that are not there", opened.arg(scratch("")))
}

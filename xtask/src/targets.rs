//! `cargo xtask check-targets`: the product type-checked for the systems that it is built for.

use crate::{Result, cargo};
use std::process::Command;

/// Target, and for whom.
const TARGETS: [(&str, &str); 4] = [
    ("x86_64-unknown-linux-gnu", "carts, workstations"),
    ("aarch64-unknown-linux-gnu", "Jetson, Arm boards"),
    ("x86_64-pc-windows-gnu", "Windows"),
    ("aarch64-apple-darwin", "macOS"),
];

/// Checks every target that this toolchain has or can get, and says which it cannot.
///
/// *Errors*: the targets that do not check.
pub fn run() -> Result {
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    for (target, whom) in TARGETS {
        if !is_installed(target) {
            skipped.push(target);
            continue;
        }
        println!("==> cargo check --target {target} ({whom})");
        let mut check = cargo(&["check", "--target", target, "-p", "quantize", "-p", "cli"]);
        // For the toolchain's own and for foreign targets alike in a folder of their own.
        check.args(["--target-dir", "target/check-targets"]);
        if !check.status().is_ok_and(|s| s.success()) {
            failed.push(target);
        }
    }
    for target in skipped {
        println!("==> SKIPPED: {target}: rustup target add {target} does not work here");
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("cargo check fails for {}", failed.join(", "))) }
}

/// Whether the toolchain has the target's standard library, after trying to get it.
fn is_installed(target: &str) -> bool {
    let add = Command::new("rustup").args(["target", "add", target]).output();
    let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = listed.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).lines().any(|line| line == target));
    add.is_ok_and(|o| o.status.success()) || installed
}

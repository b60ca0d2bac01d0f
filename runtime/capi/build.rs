//! What only the linker and the build know: the library's soname, and what it was built from.

use std::path::Path;
use std::process::Command;

/// Follows `HGPT_ABI_VERSION`.
const ABI: u32 = 1;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux" | "android" | "freebsd") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libhealthgpt.so.{ABI}");
        }
        Ok("macos") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libhealthgpt.{ABI}.dylib");
        }
        _ => {}
    }
    println!("cargo::rustc-env=HEALTHGPT_TOOLCHAIN={}", toolchain().unwrap_or_else(|| "unknown".into()));
    println!("cargo::rustc-env=HEALTHGPT_WGPU={}", wgpu().unwrap_or_else(|| "unknown".into()));
}

/// `rustc 1.95.0 (…)`.
fn toolchain() -> Option<String> {
    let output = Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

/// Version of wgpu in the workspace's lock file.
fn wgpu() -> Option<String> {
    let lock = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(lock).ok()?;
    let package = text.split("[[package]]").find(|p| p.lines().any(|l| l == "name = \"wgpu\""))?;
    let version = package.lines().find_map(|l| l.strip_prefix("version = "))?;
    Some(version.trim_matches('"').to_string())
}

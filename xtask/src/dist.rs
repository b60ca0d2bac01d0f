//! `cargo xtask dist`: the C library as it is handed out, in `target/dist`. `cargo xtask header`: its header anew.

use crate::package::{Parts, host, lay_out};
use crate::{Result, cargo, root, run as step};
use std::process::Command;

pub fn run() -> Result {
    let commit = Command::new("git").current_dir(root()).args(["rev-parse", "HEAD"]).output();
    let commit = commit.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    let mut build = cargo(&["build", "--profile", "product", "-p", "healthgpt-capi"]);
    build.env("HEALTHGPT_COMMIT", commit.as_deref().unwrap_or("unknown").trim());
    step("building the library (5 minutes the first time)", &mut build)?;
    let to = root().join("target").join("dist");
    let _ = std::fs::remove_dir_all(&to);
    let parts = Parts::read(root(), &mut cargo(&[]), &host()?)?;
    lay_out(root(), &root().join("target").join("product"), &to, parts.version())?;
    let doc = to.join("share/doc/healthgpt");
    let write = |name: &str, text: String| {
        std::fs::write(doc.join(name), text).map_err(|e| format!("{}: {e}", doc.join(name).display()))
    };
    write("THIRD-PARTY.txt", parts.licences()?)?;
    write("healthgpt.cdx.json", parts.bill())?;
    println!("==> {}", to.display());
    if let Some(oldest) = oldest_glibc(&to.join("lib/libhealthgpt.so.1")) {
        println!("    needs glibc {oldest} or later, and a Vulkan loader when it runs");
    }
    Ok(())
}

/// Writes the header from the doc comments.
pub fn header() -> Result {
    let mut test = cargo(&["test", "-q", "-p", "tests", "--test", "capi", "the_header_is"]);
    step("include/healthgpt.h", test.env("UPDATE_HEADER", "1"))
}

/// The latest version of the C library that a symbol asks for: the oldest system that will do.
fn oldest_glibc(library: &std::path::Path) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let bytes = std::fs::read(library).ok()?;
    let minor = |at: usize| {
        let digits = bytes[at + MARK.len()..].iter().take_while(|b| b.is_ascii_digit());
        String::from_utf8(digits.copied().collect()).ok()?.parse::<u32>().ok()
    };
    let found = bytes.windows(MARK.len()).enumerate().filter(|(_, w)| *w == MARK).filter_map(|(at, _)| minor(at));
    found.max().map(|minor| format!("2.{minor}"))
}

//! Who may use whom: crates leftwards along the chain, modules of the runtime likewise.

use std::path::{Path, PathBuf};

const CHAIN: [&str; 6] = ["shaders", "devices", "runtime", "quantize", "cli", "tests"];

/// Module of the runtime, and the modules that it may name.
const MODULES: [(&str, &[&str]); 7] = [
    ("gpu", &[]),
    ("file", &[]),
    ("text", &[]),
    ("image", &[]),
    ("plan", &["gpu"]),
    ("model", &["gpu", "plan", "file"]),
    ("session", &["gpu", "plan", "file", "model", "text", "image"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn crates_use_only_those_to_their_left() {
    for (i, name) in CHAIN.iter().enumerate() {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("dependencies");
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for right in &CHAIN[i + 1..] {
            let named = dependencies.lines().any(|l| l.split(['.', ' ', '=']).next() == Some(right));
            assert!(!named, "{name} uses {right}");
        }
    }
}

#[test]
fn nothing_uses_the_c_library_and_it_only_the_runtime_and_below() {
    for name in CHAIN.iter().filter(|n| **n != "tests") {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest");
        assert!(!manifest.contains("healthgpt-capi"), "{name} uses the C library");
    }
    let manifest = std::fs::read_to_string(root().join("runtime/capi/Cargo.toml")).expect("manifest");
    let dependencies =
        manifest.split("[dependencies]").nth(1).and_then(|d| d.split("\n[").next()).expect("dependencies");
    for right in ["quantize", "cli", "tests", "wgpu"] {
        assert!(!dependencies.lines().any(|l| l.starts_with(right)), "the C library uses {right}");
    }
}

/// Everything else in the workspace is safe Rust: its lints deny the rest.
#[test]
fn unsafe_code_is_expected_in_two_places() {
    let crates = CHAIN.iter().map(|name| root().join(name).join("src")).chain([root().join("runtime/capi/src")]);
    let expecting =
        |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains("expect(unsafe_code"));
    let found: Vec<PathBuf> = crates.flat_map(|folder| rust_files(&folder)).filter(expecting).collect();
    let names: Vec<_> =
        found.iter().filter_map(|f| Some(f.strip_prefix(root()).ok()?.to_string_lossy().into_owned())).collect();
    assert_eq!(names, ["runtime/src/gpu/trusted.rs", "runtime/capi/src/lib.rs"]);
}

#[test]
fn only_the_runtime_names_wgpu() {
    for name in CHAIN.iter().filter(|n| **n != "runtime") {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest");
        assert!(!manifest.lines().any(|l| l.starts_with("wgpu")), "{name} names wgpu");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// What follows each `crate::`, the members of `crate::{…}` included.
fn modules_named(text: &str) -> Vec<String> {
    let word = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = Vec::new();
    for after in text.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(group) => named.extend(group.split('}').next().unwrap_or_default().split(',').map(word)),
            None => named.push(word(after)),
        }
    }
    named
}

#[test]
fn modules_of_the_runtime_use_only_those_below_them() {
    for (module, allowed) in MODULES {
        for file in rust_files(&root().join("runtime/src").join(module)) {
            let text = std::fs::read_to_string(&file).expect("source");
            for named in modules_named(&text) {
                let known = MODULES.iter().any(|(other, _)| *other == named);
                let fine = named == module || !known || allowed.contains(&named.as_str());
                assert!(fine, "{} names crate::{named}", file.display());
            }
            assert!(!text.contains("super::super"), "{} climbs out of its module", file.display());
        }
    }
}

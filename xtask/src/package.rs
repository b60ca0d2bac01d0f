//! The C library as it is handed out: where each file goes, whose licences it carries, and what it is made of.
//!
//! The tests of the C library lay it out by the same code (`tests/capi`).

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the interface, as in the soname.
const ABI: u32 = 1;

fn at<E: Display>(path: &Path) -> impl Fn(E) -> String {
    move |e| format!("{}: {e}", path.display())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    std::fs::copy(from, to).map(|_| ()).map_err(at(from))
}

fn write(to: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    std::fs::write(to, text).map_err(at(to))
}

#[cfg(unix)]
fn link(target: &str, at_path: &Path) -> Result<(), String> {
    let _ = std::fs::remove_file(at_path);
    std::os::unix::fs::symlink(target, at_path).map_err(at(at_path))
}

#[cfg(not(unix))]
fn link(target: &str, at_path: &Path) -> Result<(), String> {
    copy(&at_path.with_file_name(target), at_path)
}

/// Header, libraries, pkg-config, CMake and examples of the checkout at `root`, from the libraries in `built`, to `to`.
pub fn lay_out(root: &Path, built: &Path, to: &Path, version: &str) -> Result<(), String> {
    let capi = root.join("runtime").join("capi");
    copy(&capi.join("include/healthgpt.h"), &to.join("include/healthgpt.h"))?;
    let lib = to.join("lib");
    if cfg!(windows) {
        copy(&built.join("healthgpt.dll"), &to.join("bin/healthgpt.dll"))?;
        copy(&built.join("healthgpt.dll.lib"), &lib.join("healthgpt.dll.lib"))?;
        copy(&built.join("healthgpt.lib"), &lib.join("healthgpt.lib"))?;
    } else if cfg!(target_os = "macos") {
        let real = format!("libhealthgpt.{ABI}.dylib");
        copy(&built.join("libhealthgpt.dylib"), &lib.join(&real))?;
        link(&real, &lib.join("libhealthgpt.dylib"))?;
        copy(&built.join("libhealthgpt.a"), &lib.join("libhealthgpt.a"))?;
    } else {
        let real = format!("libhealthgpt.so.{ABI}.{version}");
        let soname = format!("libhealthgpt.so.{ABI}");
        copy(&built.join("libhealthgpt.so"), &lib.join(&real))?;
        link(&real, &lib.join(&soname))?;
        link(&soname, &lib.join("libhealthgpt.so"))?;
        copy(&built.join("libhealthgpt.a"), &lib.join("libhealthgpt.a"))?;
    }
    let filled = |from: &str, to: PathBuf| {
        let from = capi.join(from);
        let text = std::fs::read_to_string(&from).map_err(at(&from))?;
        write(&to, &text.replace("@VERSION@", version))
    };
    filled("healthgpt.pc.in", lib.join("pkgconfig/healthgpt.pc"))?;
    let cmake = lib.join("cmake/healthgpt");
    filled("cmake/healthgpt-config.cmake", cmake.join("healthgpt-config.cmake"))?;
    filled("cmake/healthgpt-config-version.cmake.in", cmake.join("healthgpt-config-version.cmake"))?;
    let examples = capi.join("examples");
    for entry in std::fs::read_dir(&examples).map_err(at(&examples))? {
        let path = entry.map_err(at(&examples))?.path();
        if !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        copy(&path, &to.join("share/healthgpt/examples").join(name))?;
    }
    let doc = to.join("share/doc/healthgpt");
    copy(&root.join("LICENSE"), &doc.join("LICENSE"))?;
    copy(&root.join("docs/c-library.md"), &doc.join("c-library.md"))
}

/// The target that cargo builds for by itself.
pub fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix("host: "));
    line.map(str::to_string).ok_or_else(|| "rustc names no host".into())
}

/// A crate that the library is made of.
struct Part {
    id: String,
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
    /// From a registry, or the workspace.
    registry: bool,
    uses: Vec<String>,
}

/// What the library is made of, by cargo's own account: crates that are linked, not those that only build or test it.
pub struct Parts {
    parts: Vec<Part>,
    checksums: BTreeMap<(String, String), String>,
    version: String,
}

const LIBRARY: &str = "healthgpt-capi";

impl Parts {
    /// For the target that this program was built for.
    pub fn read(root: &Path, cargo: &mut Command, target: &str) -> Result<Self, String> {
        let output = cargo
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
            .current_dir(root)
            .output()
            .map_err(|e| format!("cargo metadata: {e}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
        let lock = root.join("Cargo.lock");
        let lock = std::fs::read_to_string(&lock).map_err(at(&lock))?;
        Self::of(&metadata, &lock).ok_or_else(|| "cargo metadata: is of another form than expected".into())
    }

    fn of(metadata: &Value, lock: &str) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let packages: BTreeMap<&str, &Value> =
            metadata["packages"].as_array()?.iter().filter_map(|p| Some((p["id"].as_str()?, p))).collect();
        let nodes: BTreeMap<&str, &Value> =
            metadata["resolve"]["nodes"].as_array()?.iter().filter_map(|n| Some((n["id"].as_str()?, n))).collect();
        let linked = |id: &str| -> Vec<String> {
            let is_linked =
                |d: &&Value| d["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k["kind"].is_null()));
            // A macro runs in the compiler; nothing of it is in the library.
            let is_macro = |id: &str| {
                let kinds = packages.get(id).and_then(|p| p["targets"].as_array());
                kinds.is_some_and(|t| t.iter().any(|t| t["kind"][0] == "proc-macro"))
            };
            let dependencies = nodes.get(id).and_then(|n| n["deps"].as_array());
            let found = dependencies.into_iter().flatten().filter(is_linked).filter_map(|d| text(&d["pkg"]));
            found.filter(|id| !is_macro(id)).collect()
        };
        let first = packages.iter().find(|(_, p)| p["name"] == LIBRARY)?.0.to_string();
        let (mut seen, mut waiting) = (BTreeSet::from([first.clone()]), vec![first.clone()]);
        let mut parts = Vec::new();
        while let Some(id) = waiting.pop() {
            let package = packages.get(id.as_str())?;
            let uses = linked(&id);
            waiting.extend(uses.iter().filter(|u| seen.insert((*u).clone())).cloned());
            parts.push(Part {
                name: text(&package["name"])?,
                version: text(&package["version"])?,
                licence: text(&package["license"]).unwrap_or_default(),
                folder: Path::new(package["manifest_path"].as_str()?).parent()?.into(),
                registry: !package["source"].is_null(),
                id,
                uses,
            });
        }
        parts.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let version = parts.iter().find(|p| p.name == LIBRARY)?.version.clone();
        Some(Parts { parts, checksums: checksums(lock), version })
    }

    /// Version of the library.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bill of materials, CycloneDX 1.5. Neither time nor place gets in: the same input, the same text.
    pub fn bill(&self) -> String {
        let reference = |p: &Part| format!("pkg:cargo/{}@{}", p.name, p.version);
        let by_id: BTreeMap<&str, &Part> = self.parts.iter().map(|p| (p.id.as_str(), p)).collect();
        let component = |p: &Part| {
            let kind = if p.name == LIBRARY { "application" } else { "library" };
            let mut component = json!({
                "type": kind,
                "bom-ref": reference(p),
                "name": p.name,
                "version": p.version,
                "purl": reference(p),
            });
            if !p.licence.is_empty() {
                // Cargo still takes the old way to say "or".
                component["licenses"] = json!([{"expression": p.licence.replace('/', " OR ")}]);
            }
            if let Some(sum) = self.checksums.get(&(p.name.clone(), p.version.clone())) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
            }
            component
        };
        let depends = |p: &Part| {
            let on: BTreeSet<String> =
                p.uses.iter().filter_map(|id| by_id.get(id.as_str())).map(|p| reference(p)).collect();
            json!({"ref": reference(p), "dependsOn": on})
        };
        let (library, others): (Vec<_>, Vec<_>) = self.parts.iter().partition(|p| p.name == LIBRARY);
        let bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": library.first().map(|p| component(p))},
            "components": others.iter().map(|p| component(p)).collect::<Vec<_>>(),
            "dependencies": self.parts.iter().map(depends).collect::<Vec<_>>(),
        });
        format!("{bill:#}\n")
    }

    /// Names, licences and licence texts of all that others wrote.
    ///
    /// *Errors*: a part without a licence.
    pub fn licences(&self) -> Result<String, String> {
        let mut text = String::from(
            "libhealthgpt is licensed under the Apache License 2.0 (LICENSE). It holds the work of others, listed here with\n\
             the licence of each and the texts that come with it; where a part offers a choice, any will do.\n",
        );
        for part in self.parts.iter().filter(|p| p.registry) {
            if part.licence.is_empty() {
                return Err(format!("{} {} names no licence", part.name, part.version));
            }
            text += &format!("\n{}\n{} {}: {}\n", "=".repeat(100), part.name, part.version, part.licence);
            for (file, words) in licence_texts(&part.folder)? {
                text += &format!("\n---- {file}\n\n{}\n", words.trim_end());
            }
        }
        Ok(text)
    }
}

/// Files of a crate's folder that are its licence.
fn licence_texts(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let is_licence = |name: &str| {
        let upper = name.to_uppercase();
        ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"].iter().any(|word| upper.starts_with(word))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && is_licence(&name) {
            let bytes = std::fs::read(&path).map_err(at(&path))?;
            found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 of the registry's packages, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = \""));
            line.map(|l| l.trim_end_matches('"').to_string())
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            sums.insert((name, version), sum);
        }
    }
    sums
}

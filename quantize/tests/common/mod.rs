//! The golden checkpoint, folders that disappear, and safetensors files to be changed.
#![allow(dead_code, reason = "not every test file uses all of it")]

use quantize::config::Choices;
use quantize::report::Report;
use quantize::source::{Given, discover};
use quantize::write::Job;
use quantize::{Quiet, Result};
use runtime::model::Recipe;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The golden checkpoint; its settings lie one folder up.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny/checkpoint")
}

/// A folder that is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quantize-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(fs::canonicalize(path).unwrap())
    }

    /// With a copy of the golden checkpoint as `checkpoint` and its settings.
    pub fn with_golden(name: &str) -> Self {
        let this = Self::new(name);
        copy(&golden(), &this.at("checkpoint"));
        fs::copy(golden().join("../settings.json"), this.at("settings.json")).unwrap();
        this
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names of everything in it, hidden files too.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

pub fn quantize(input: &Path, output: &Path, recipe: Recipe, choices: &Choices) -> Result<Report> {
    let parts = discover(input, &Given::default())?;
    Job::new(&parts, choices, recipe)?.write(output, input, &Quiet)
}

pub fn recipe(name: &str) -> Recipe {
    Recipe::named(name, 32).unwrap()
}

/// A safetensors file whose header is changed by `edit`; what it returns is appended to the data.
pub fn edit_safetensors(path: &Path, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    edit(&mut header, &mut data);
    let text = header.to_string();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out.extend(&data);
    fs::write(path, out).unwrap();
}

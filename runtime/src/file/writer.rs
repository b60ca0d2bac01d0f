//! Writing a model file: sizes are known beforehand, so data streams to disk; hashes are filled in at the end.

use super::{FORMAT, VERSION};
use crate::hex;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name, type and shape of a tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl Layout {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// A model file in the making. It appears under its name only when [`Writer::finish`] succeeds.
pub struct Writer {
    file: io::BufWriter<File>,
    target: PathBuf,
    temporary: PathBuf,
    metadata: BTreeMap<String, String>,
    layouts: Vec<Layout>,
    hashes: Vec<String>,
    header_bytes: usize,
    finished: bool,
}

impl Writer {
    /// Starts a file that will hold `layouts` in this order. `metadata` may be changed until the end as long as it
    /// does not grow by more than `reserve_bytes`.
    ///
    /// *Errors*: what the file system says.
    pub fn create(
        target: &Path,
        layouts: Vec<Layout>,
        metadata: BTreeMap<String, String>,
        reserve_bytes: usize,
    ) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the output has no file name"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let temporary = target.with_file_name(hidden);
        let file = io::BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        let placeholder = "0".repeat(64);
        let hashes = vec![placeholder; layouts.len()];
        let mut writer = Writer {
            file,
            target: target.into(),
            temporary,
            metadata,
            layouts,
            hashes,
            header_bytes: 0,
            finished: false,
        };
        let header = writer.header();
        writer.header_bytes = (header.len() + reserve_bytes).next_multiple_of(8);
        writer.write_header(header)?;
        writer.hashes.clear();
        Ok(writer)
    }

    fn header(&self) -> String {
        let mut metadata = Map::new();
        metadata.insert("format".into(), json!(FORMAT));
        metadata.insert("version".into(), json!(VERSION));
        let hashes: BTreeMap<_, _> = self.layouts.iter().map(|l| l.name.clone()).zip(&self.hashes).collect();
        metadata.insert("sha256".into(), json!(json!(hashes).to_string()));
        for (key, value) in &self.metadata {
            metadata.insert(key.clone(), json!(value));
        }
        let mut header = Map::new();
        header.insert("__metadata__".into(), Value::Object(metadata));
        let mut at = 0;
        for l in &self.layouts {
            let end = at + l.bytes();
            header.insert(l.name.clone(), json!({"dtype": l.dtype, "shape": l.shape, "data_offsets": [at, end]}));
            at = end;
        }
        Value::Object(header).to_string()
    }

    fn write_header(&mut self, mut header: String) -> io::Result<()> {
        if header.len() > self.header_bytes {
            return Err(io::Error::other("the header outgrew the space kept for it"));
        }
        header.push_str(&" ".repeat(self.header_bytes - header.len()));
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&(self.header_bytes as u64).to_le_bytes())?;
        self.file.write_all(header.as_bytes())
    }

    /// Writes the next tensor.
    ///
    /// *Errors*: what the file system says. *Panics* if the size is not the announced one.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let layout = &self.layouts[self.hashes.len()];
        assert_eq!(bytes.len() as u64, layout.bytes(), "size of {}", layout.name);
        self.hashes.push(hex(&Sha256::digest(bytes)));
        self.file.write_all(bytes)
    }

    /// Sets a metadata entry.
    pub fn set(&mut self, key: &str, value: String) {
        self.metadata.insert(key.into(), value);
    }

    /// Fills in the hashes and gives the file its name.
    ///
    /// *Errors*: what the file system says. *Panics* if tensors are missing.
    pub fn finish(mut self) -> io::Result<()> {
        assert_eq!(self.hashes.len(), self.layouts.len(), "every announced tensor is written");
        let header = self.header();
        self.write_header(header)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.temporary, &self.target)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done about a failure here, and the file bears a name that says what it is.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

//! Reading a model file.

use super::{FORMAT, VERSION};
use crate::{Error, Result, hex, thread};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

/// Headers beyond this are refused, as the safetensors format does.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Read and hashed at a time.
const PIECE_BYTES: usize = 4 << 20;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    start: u64,
}

/// An open model file whose header has been checked. Tensor data is checked when it is read.
#[derive(Debug)]
pub struct Container<'a> {
    path: PathBuf,
    store: Store<'a>,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Stored>,
    sha256: String,
    bytes: u64,
}

/// Where the bytes of a model file lie.
#[derive(Debug)]
enum Store<'a> {
    File(Mutex<File>),
    Memory(&'a [u8]),
}

impl Store<'_> {
    /// Fills `piece` with the bytes from `start` on.
    fn read(&self, start: u64, piece: &mut [u8]) -> std::io::Result<()> {
        match self {
            Store::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start))?;
                file.read_exact(piece)
            }
            Store::Memory(bytes) => {
                let from = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
                (&from[..]).read_exact(piece)
            }
        }
    }
}

impl Container<'static> {
    /// Opens a file and checks format, version, header and length.
    ///
    /// *Errors*: [`Error::Io`] if it cannot be read, [`Error::File`] if it is no model file, each with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let unread = |problem: String| Error::Io { path: path.into(), problem };
        let io = |e: std::io::Error| unread(e.to_string());
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => unread("no such file".into()),
            _ => io(e),
        })?;
        let info = file.metadata().map_err(io)?;
        if info.is_dir() {
            return Err(unread("is a directory; a model is one file, made by `quantize`".into()));
        }
        Self::of(path.into(), Store::File(Mutex::new(file)), info.len())
    }
}

impl<'a> Container<'a> {
    /// The same for a model file that is in memory already.
    ///
    /// *Errors*: as [`Container::open`]; the path is `(memory)`.
    pub fn in_memory(bytes: &'a [u8]) -> Result<Self> {
        Self::of("(memory)".into(), Store::Memory(bytes), bytes.len() as u64)
    }

    fn of(path: PathBuf, store: Store<'a>, bytes: u64) -> Result<Self> {
        let wrong = |problem: String| Error::File { path: path.clone(), problem };
        let mut length = [0; 8];
        store.read(0, &mut length).map_err(|_| wrong("is not a model file: shorter than a header".into()))?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(wrong("is not a model file: no safetensors header".into()));
        }
        if header_bytes + 8 > bytes {
            return Err(wrong(format!("is cut short: the header alone has {header_bytes} bytes, the file {bytes}")));
        }
        let mut header = vec![0; header_bytes as usize];
        store.read(8, &mut header).map_err(|e| Error::Io { path: path.clone(), problem: e.to_string() })?;
        let parsed: Metadata =
            serde_json::from_slice(&header).map_err(|e| wrong(format!("has a damaged header: {e}")))?;
        let metadata: BTreeMap<_, _> = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
        match (metadata.get("format").map(String::as_str), metadata.get("version").map(String::as_str)) {
            (Some(FORMAT), Some(VERSION)) => {}
            (Some(FORMAT), found) => {
                let found = found.unwrap_or("none");
                let problem =
                    format!("has format version {found}; this program reads version {VERSION}: quantize it again");
                return Err(Error::Version { path, problem });
            }
            _ => return Err(wrong("is a safetensors file but no HealthGPT model; prepare it with `quantize`".into())),
        }
        let data_start = header_bytes + 8;
        let expected = data_start + parsed.data_len() as u64;
        if expected != bytes {
            let how = if bytes < expected { "is cut short" } else { "has surplus data" };
            return Err(wrong(format!("{how}: {bytes} bytes, its header describes {expected}")));
        }
        let hashes: BTreeMap<String, String> =
            metadata.get("sha256").ok_or_else(|| wrong("has no table of hashes".into())).and_then(|json| {
                serde_json::from_str(json).map_err(|e| wrong(format!("has a damaged table of hashes: {e}")))
            })?;
        let mut tensors = BTreeMap::new();
        for (name, t) in parsed.tensors() {
            let sha256 = hashes.get(&name).ok_or_else(|| wrong(format!("has no hash for tensor `{name}`")))?.clone();
            let (start, end) = t.data_offsets;
            let stored = Stored {
                dtype: t.dtype,
                shape: t.shape.clone(),
                bytes: (end - start) as u64,
                sha256,
                start: data_start + start as u64,
            };
            tensors.insert(name, stored);
        }
        let sha256 = hex(&Sha256::digest(&header));
        Ok(Container { path, store, metadata, tensors, sha256, bytes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Identifies the model: SHA-256 of the header, which holds the hash of every tensor.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// A metadata entry.
    ///
    /// *Errors*: [`Error::File`] if it is missing.
    pub fn metadata(&self, key: &str) -> Result<&str> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| self.wrong(format!("has no `{key}` in its header")))
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> &BTreeMap<String, Stored> {
        &self.tensors
    }

    /// The tensor, checked against the type and shape that the model needs.
    ///
    /// *Errors*: [`Error::File`] names the tensor, what was found and what was expected.
    pub fn tensor(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&Stored> {
        let found = self.tensors.get(name).ok_or_else(|| self.wrong(format!("lacks tensor `{name}`")))?;
        if found.dtype != dtype || found.shape != shape {
            return Err(self.wrong(format!(
                "tensor `{name}` is {:?} {:?}; {dtype:?} {shape:?} is expected",
                found.dtype, found.shape
            )));
        }
        Ok(found)
    }

    /// An error about this file.
    pub fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), problem: problem.into() }
    }

    /// Hands a tensor's bytes to `take` piece by piece; each piece but the last has a multiple of `unit` bytes. The next
    /// piece is read and hashed meanwhile. The hash is compared at the end, so what was taken counts only after `Ok`.
    ///
    /// *Errors*: [`Error::Io`] on a read fault, [`Error::Integrity`] on another hash, and whatever `take` returns.
    pub fn stream(&self, name: &str, unit: usize, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let t = self.tensors.get(name).ok_or_else(|| self.wrong(format!("lacks tensor `{name}`")))?;
        let piece_bytes = (PIECE_BYTES / unit.max(1)).max(1) * unit.max(1);
        let mut hash = Sha256::new();
        if t.bytes <= piece_bytes as u64 {
            let mut piece = Vec::new();
            self.read_piece(name, t, 0, t.bytes as usize, &mut piece)?;
            hash.update(&piece);
            take(&piece)?;
        } else {
            // Two buffers go round: one is filled while the other is taken.
            let (full, filled) = mpsc::sync_channel(2);
            let (empty, emptied) = mpsc::sync_channel(2);
            let _ = (empty.send(Vec::new()), empty.send(Vec::new()));
            std::thread::scope(|scope| {
                let hash = &mut hash;
                let reader = thread::spawn(scope, move || {
                    let mut at = 0;
                    while at < t.bytes {
                        // The other side is gone if `take` failed.
                        let Ok(mut piece) = emptied.recv() else { return Ok(()) };
                        let count = piece_bytes.min((t.bytes - at) as usize);
                        self.read_piece(name, t, at, count, &mut piece)?;
                        hash.update(&piece);
                        at += count as u64;
                        if full.send(piece).is_err() {
                            return Ok(());
                        }
                    }
                    Ok(())
                });
                let taken = filled.into_iter().try_for_each(|piece| {
                    take(&piece)?;
                    // The reader may have ended.
                    let _ = empty.send(piece);
                    Ok(())
                });
                drop(empty);
                let read = reader.join().unwrap_or_else(|_| Err(self.wrong(format!("tensor `{name}` cannot be read"))));
                taken.and(read)
            })?;
        }
        if hex(&hash.finalize()) != t.sha256 {
            let problem = format!("tensor `{name}` is damaged: its SHA-256 differs from the header's");
            return Err(Error::Integrity { path: self.path.clone(), problem });
        }
        Ok(())
    }

    fn read_piece(&self, name: &str, t: &Stored, at: u64, count: usize, piece: &mut Vec<u8>) -> Result<()> {
        piece.resize(count, 0);
        self.store
            .read(t.start + at, piece)
            .map_err(|e| Error::Io { path: self.path.clone(), problem: format!("tensor `{name}` cannot be read: {e}") })
    }

    /// A tensor's bytes, checked. For small ones.
    ///
    /// *Errors*: as [`Container::stream`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.stream(name, 1, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    /// Checks the hashes of some tensors, on all cores. `checked` is called on this thread, with the bytes that have been
    /// checked since it was called before, and may end it.
    ///
    /// *Errors*: as [`Container::stream`], and those of `checked`.
    pub fn verify(&self, names: &[&str], mut checked: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        // Whether there was one left.
        let one = || -> Result<bool> {
            let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(false) };
            self.stream(name, 1, |piece| {
                bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(())
            })?;
            Ok(true)
        };
        let all = || {
            while one()? {}
            Ok(())
        };
        let here = |checked: &mut dyn FnMut(u64) -> Result<()>| {
            while one()? {
                checked(bytes.swap(0, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| thread::spawn(scope, all)).collect();
            let done = here(&mut checked);
            if done.is_err() {
                next.store(names.len(), Ordering::Relaxed);
            }
            let others = others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(self.wrong("cannot be verified"))));
            done.and(others.collect::<Result<()>>())
        })?;
        // What the others checked last.
        checked(bytes.swap(0, Ordering::Relaxed))
    }
}

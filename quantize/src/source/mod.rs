//! Reading the published checkpoint: named tensors from safetensors and torch files, and which file is which part.
//!
//! Everything here treats a file as untrusted: sizes are checked before they are used, nothing in a pickle is ever
//! called, and memory stays bounded by what is asked for (no file is read or mapped whole). This module must not know
//! what the tensors are for: recipes, adapters' arithmetic and the output file are elsewhere.

mod checkpoint;
mod layout;
mod safetensors;

pub use layout::{Given, LanguagePart, Parts, Task, VisionPart, VqganPart, discover};

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What can go wrong with a source file. Every message is one line and names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", plain_path(.path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged, of another format, or over a limit.
    #[error("{}: {what}", plain_path(.path))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with what was found and expected.
        what: String,
    },
    /// A pickle asks to call something that is not on the list of harmless constructors.
    #[error("{}: refused: the pickle calls {global}, and nothing in a checkpoint is ever run; save it again as a state dict or as safetensors", plain_path(.path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// The global, as `module.name`.
        global: String,
    },
    /// A tensor is not what it should be.
    #[error("{}: tensor {tensor}: found {found}, expected {expected}", plain_path(.path))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the file says.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// A tensor that is needed is not there.
    #[error("{}: tensor {tensor} is missing", plain_path(.path))]
    Absent {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name, without prefix.
        tensor: String,
    },
    /// Two keys of one checkpoint mean the same tensor.
    #[error("{}: tensor {tensor} is there twice, as {first} and as {second}", plain_path(.path))]
    Twice {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name, without prefix.
        tensor: String,
        /// One key.
        first: String,
        /// The other key.
        second: String,
    },
    /// Several files could be the same part.
    #[error("several files could be the {part}: {}; choose one with {flag}", plain_list(.found))]
    Several {
        /// The part, in words.
        part: &'static str,
        /// The candidates.
        found: Vec<PathBuf>,
        /// The flag that chooses.
        flag: &'static str,
    },
    /// Parts were not found.
    #[error("{}; looked in {}", .missing.join("; "), plain_list(.looked_in))]
    Missing {
        /// Every missing part, one entry each, with the flag that gives it.
        missing: Vec<String>,
        /// The folders looked in.
        looked_in: Vec<PathBuf>,
    },
}

impl Error {
    fn format(path: &Path, what: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), what: what.into() }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Text out of a file or a file name, made fit for one line: control characters escaped, cut at 160 characters.
fn plain(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(160)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(160).is_some() {
        out.push('…');
    }
    out
}

fn plain_path(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn plain_list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| plain_path(p)).collect::<Vec<_>>().join(", ")
}

/// Element types that a source file may hold; only the floating-point ones can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the format's own")]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    C64,
    C128,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether [`Checkpoint::read_f32`] can convert it.
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::C64 => "C64",
            Self::C128 => "C128",
        })
    }
}

/// A tensor as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The key in the file, with whatever prefix it carries.
    pub name: String,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Sizes, slowest dimension first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements. Checked when the file was opened, so it does not overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where a tensor's elements lie. The readers have checked every reachable byte against the file.
#[derive(Clone, Debug)]
struct Stored {
    info: TensorInfo,
    /// Index into [`Checkpoint::files`].
    file: usize,
    /// Of the first element, from the start of the file.
    offset_bytes: u64,
    /// Elements to step per dimension; always as long as the shape.
    strides: Vec<usize>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl OpenFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        // A poisoned lock only means that another reader panicked; every read seeks first.
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(buf)).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::format(
                &self.path,
                format!(
                    "ends before byte {}; was it changed while being read?",
                    offset.saturating_add(buf.len() as u64)
                ),
            ),
            _ => Error::io(&self.path)(e),
        })
    }
}

/// The prefixes a key may carry, longest first.
///
/// Source: reference.md §1.
const PREFIXES: [&str; 4] = ["base_model.model.model.", "base_model.model.", "model.model.", "model."];

/// A key without the prefix that training or wrapping left on it.
pub fn bare_name(key: &str) -> &str {
    PREFIXES.iter().find_map(|p| key.strip_prefix(p)).unwrap_or(key)
}

/// Bytes converted at a time; also the most that reading adds to what the caller gets.
const CHUNK_BYTES: usize = 1 << 20;

/// An opened set of named tensors, out of one file or several shards. Only headers are held in memory.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<OpenFile>,
    tensors: BTreeMap<String, Stored>,
    /// Bare name → keys.
    bare: BTreeMap<String, Vec<String>>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a safetensors file, a torch zip file, an index of shards (`*.index.json`), or a folder that holds one of these.
    ///
    /// *Errors*: unreadable or damaged files, missing shards, pickles that call anything, several candidates in a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open(layout::weights_in(path)?);
        }
        if path.to_string_lossy().ends_with(".index.json") {
            let (tensors, files) = safetensors::open_index(path)?;
            return Self::build(path, files, tensors, BTreeMap::new());
        }
        let (file, tensors, metadata) = open_file(path, 0)?;
        Self::build(path, vec![file], tensors, metadata)
    }

    /// Opens shards that came without an index. `path` is what errors name.
    fn open_shards(path: &Path, shards: &[PathBuf]) -> Result<Self, Error> {
        let (mut files, mut all) = (Vec::new(), Vec::new());
        for (i, shard) in shards.iter().enumerate() {
            let (file, tensors, _) = open_file(shard, i)?;
            files.push(file);
            all.extend(tensors);
        }
        Self::build(path, files, all, BTreeMap::new())
    }

    fn build(
        path: &Path,
        files: Vec<OpenFile>,
        tensors: Vec<Stored>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut out = Self { path: path.to_owned(), files, tensors: BTreeMap::new(), bare: BTreeMap::new(), metadata };
        for t in tensors {
            let key = t.info.name.clone();
            out.bare.entry(bare_name(&key).to_owned()).or_default().push(key.clone());
            if let Some(first) = out.tensors.insert(key.clone(), t) {
                let at = |i: usize| out.files.get(i).map(|f| plain_path(&f.path)).unwrap_or_default();
                let second = out.tensors.get(&key).map_or(0, |t| t.file);
                return Err(Error::format(
                    path,
                    format!("tensor {} is in two shards, {} and {}", plain(&key), at(first.file), at(second)),
                ));
            }
        }
        Ok(out)
    }

    /// What was opened: the file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that holds tensors of this set, in the order they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }

    /// The file that holds the tensor with this key.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).and_then(|t| self.files.get(t.file)).map(|f| f.path.as_path())
    }

    /// `__metadata__` of a safetensors file; empty for others.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Every key, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Every tensor, sorted by key.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values().map(|t| &t.info)
    }

    /// The tensor with exactly this key.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|t| &t.info)
    }

    /// The tensor that `known` means, whatever prefixes the file's keys carry; `None` if there is none.
    ///
    /// *Errors*: [`Error::Twice`] if two keys mean it.
    ///
    /// Source: reference.md §1.
    pub fn find(&self, known: &str) -> Result<Option<&TensorInfo>, Error> {
        let bare = bare_name(known);
        match self.bare.get(bare).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([key]) => Ok(self.get(key)),
            Some([first, second, ..]) => Err(Error::Twice {
                path: self.path.clone(),
                tensor: plain(bare),
                first: plain(first),
                second: plain(second),
            }),
        }
    }

    /// [`Checkpoint::find`] for a tensor that must be there.
    ///
    /// *Errors*: [`Error::Absent`], [`Error::Twice`].
    pub fn lookup(&self, known: &str) -> Result<&TensorInfo, Error> {
        self.find(known)?.ok_or_else(|| Error::Absent { path: self.path.clone(), tensor: plain(bare_name(known)) })
    }

    /// [`Checkpoint::lookup`] for a tensor that must have this shape and a readable type.
    ///
    /// *Errors*: as `lookup`; [`Error::Tensor`] with both shapes.
    pub fn lookup_shaped(&self, known: &str, shape: &[usize]) -> Result<&TensorInfo, Error> {
        let info = self.lookup(known)?;
        if info.shape != shape {
            return Err(self.tensor_error(&info.name, format!("shape {:?}", info.shape), format!("{shape:?}")));
        }
        self.check_readable(info)?;
        Ok(info)
    }

    /// All elements as f32, contiguous and row-major whatever the strides in the file.
    ///
    /// *Errors*: unknown key; a type that is no floating-point number; a file that ended or failed.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        let t = self.stored(name)?;
        self.read(t, &t.info.shape, t.offset_bytes)
    }

    /// Rows `rows` of dimension 0 as f32, row-major: `[rows.len(), shape[1..]]`, so that big tensors can stream.
    ///
    /// *Errors*: as [`Checkpoint::read_f32`]; rows past the end or of a scalar.
    pub fn read_rows_f32(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let t = self.stored(name)?;
        let (Some(&have), Some(&stride)) = (t.info.shape.first(), t.strides.first()) else {
            return Err(self.tensor_error(name, "a scalar".into(), format!("rows {rows:?}")));
        };
        if rows.start > rows.end || rows.end > have {
            return Err(self.tensor_error(name, format!("{have} rows"), format!("rows {rows:?}")));
        }
        let mut shape = t.info.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        // In range by the checks at opening, unless the slice is empty, when it is not used.
        let skip = (rows.start as u64).wrapping_mul(stride as u64).wrapping_mul(t.info.dtype.size_bytes() as u64);
        self.read(t, &shape, t.offset_bytes.wrapping_add(skip))
    }

    fn stored(&self, name: &str) -> Result<&Stored, Error> {
        let t = self.tensors.get(name).ok_or_else(|| Error::Absent { path: self.path.clone(), tensor: plain(name) })?;
        self.check_readable(&t.info)?;
        Ok(t)
    }

    fn check_readable(&self, info: &TensorInfo) -> Result<(), Error> {
        if info.dtype.is_readable() {
            return Ok(());
        }
        Err(self.tensor_error(&info.name, format!("type {}", info.dtype), "F64, F32, F16 or BF16".into()))
    }

    fn tensor_error(&self, name: &str, found: String, expected: String) -> Error {
        Error::Tensor {
            path: self.file_of(name).unwrap_or(&self.path).to_owned(),
            tensor: plain(name),
            found,
            expected,
        }
    }

    /// Reads a view in the order of the file, so that a transposed matrix costs one read per column, not per element.
    fn read(&self, t: &Stored, shape: &[usize], offset_bytes: u64) -> Result<Vec<f32>, Error> {
        let count: usize = shape.iter().product();
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| {
            self.tensor_error(&t.info.name, format!("{count} elements"), "a size that fits in memory".into())
        })?;
        out.resize(count, 0.0f32);
        if count == 0 {
            return Ok(out);
        }
        let file = self
            .files
            .get(t.file)
            .ok_or_else(|| Error::Absent { path: self.path.clone(), tensor: plain(&t.info.name) })?;
        let size = t.info.dtype.size_bytes();
        let mut buf = Vec::new();
        let mut outer = merged_dims(shape, &t.strides);
        let inner = outer.pop().unwrap_or(Dim { n: 1, from: 1, to: 1 });
        // Elements further apart than this are fetched one by one rather than with all that lies between.
        let single = inner.from.saturating_mul(size) > 4096;
        let per_read = if inner.from == 0 {
            inner.n
        } else if single {
            1
        } else {
            (CHUNK_BYTES / (inner.from * size)).max(1)
        };
        let mut index = vec![0usize; outer.len()];
        loop {
            let (mut from, mut to) = (0usize, 0usize);
            for (i, d) in index.iter().zip(&outer) {
                from += i * d.from;
                to += i * d.to;
            }
            let mut done = 0;
            while done < inner.n {
                let n = per_read.min(inner.n - done);
                buf.resize(((n - 1) * inner.from + 1) * size, 0);
                file.read_at(offset_bytes + ((from + done * inner.from) * size) as u64, &mut buf)?;
                convert(t.info.dtype, &buf, inner.from, &mut out, to + done * inner.to, inner.to, n);
                done += n;
            }
            // Odometer over the outer dimensions, last one fastest.
            let Some(turn) = (0..outer.len()).rev().find(|&k| index[k] + 1 < outer[k].n) else { return Ok(out) };
            index[turn] += 1;
            index[turn + 1..].fill(0);
        }
    }
}

/// One loop over elements: how many, how far apart in the file, how far apart in the result.
struct Dim {
    n: usize,
    from: usize,
    to: usize,
}

/// The loops that visit a view in the order of the file, outermost first, as few as possible.
fn merged_dims(shape: &[usize], strides: &[usize]) -> Vec<Dim> {
    let mut to = 1usize;
    let mut dims: Vec<Dim> = Vec::new();
    for (&n, &from) in shape.iter().zip(strides).rev() {
        if n != 1 {
            dims.push(Dim { n, from, to });
        }
        to *= n;
    }
    dims.reverse();
    dims.sort_by_key(|d| std::cmp::Reverse(d.from));
    let mut out: Vec<Dim> = Vec::new();
    for d in dims {
        match out.last_mut() {
            Some(last) if Some(last.from) == d.from.checked_mul(d.n) && last.to == d.to * d.n => {
                *last = Dim { n: last.n * d.n, ..d };
            }
            _ => out.push(d),
        }
    }
    out
}

/// Converts `n` elements that lie `from` apart in `raw` and puts them `step` apart into `out`, from `at` on.
fn convert(dtype: Dtype, raw: &[u8], from: usize, out: &mut [f32], at: usize, step: usize, n: usize) {
    fn each<const N: usize>(raw: &[u8], from: usize, out: &mut [f32], step: usize, f: impl Fn([u8; N]) -> f32) {
        let (elements, _) = raw.as_chunks::<N>();
        if from == 1 && step == 1 {
            out.iter_mut().zip(elements).for_each(|(o, &e)| *o = f(e));
        } else if from == 0 {
            let value = elements.first().map_or(0.0, |&e| f(e));
            out.iter_mut().step_by(step).for_each(|o| *o = value);
        } else {
            out.iter_mut().step_by(step).zip(elements.iter().step_by(from)).for_each(|(o, &e)| *o = f(e));
        }
    }
    // A single element may claim any step.
    let step = step.max(1);
    let end = (at + (n.max(1) - 1) * step + 1).min(out.len());
    let Some(out) = out.get_mut(at..end) else { return };
    match dtype {
        Dtype::F32 => each(raw, from, out, step, f32::from_le_bytes),
        #[allow(clippy::cast_possible_truncation, reason = "weights are used at f32 at most")]
        Dtype::F64 => each(raw, from, out, step, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(raw, from, out, step, |b| half::f16::from_le_bytes(b).to_f32()),
        // A shift, so that the compiler can do many at once.
        Dtype::Bf16 => each(raw, from, out, step, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        _ => {}
    }
}

type OpenedFile = (OpenFile, Vec<Stored>, BTreeMap<String, String>);

/// Opens one file by what it begins with, not by what it is called. `index` is the file's place in its checkpoint.
fn open_file(path: &Path, index: usize) -> Result<OpenedFile, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    if !meta.is_file() {
        return Err(Error::format(path, "is not a file"));
    }
    let mut head = Vec::with_capacity(512);
    (&mut file).take(512).read_to_end(&mut head).map_err(Error::io(path))?;
    let what = match head.as_slice() {
        [] => "is empty".to_owned(),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            let (file, tensors) = checkpoint::open(path, file, meta.len(), index)?;
            return Ok((OpenFile { path: path.to_owned(), file: Mutex::new(file) }, tensors, BTreeMap::new()));
        }
        // Before the guesses below: a header's length may begin with any byte.
        h if h.get(8) == Some(&b'{') => {
            let (tensors, metadata) = safetensors::open(path, &mut file, meta.len(), index)?;
            return Ok((OpenFile { path: path.to_owned(), file: Mutex::new(file) }, tensors, metadata));
        }
        h if h.starts_with(b"version https://git-lfs") => "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`".to_owned(),
        h if h.trim_ascii_start().starts_with(b"<") => "is a web page, not a checkpoint; was the download refused?".to_owned(),
        h if h.get(257..262) == Some(b"ustar") => "is a tar archive, the oldest torch format; load it with torch and save it again with torch.save".to_owned(),
        [0x80, 1..=5, ..] if path.extension().is_none_or(|e| e != "safetensors") => {
            "is a torch file of before version 1.6 (a bare pickle, not a zip archive); load it with torch and save it again with torch.save".to_owned()
        }
        // Not one by its first bytes; the reader says why.
        _ if path.extension().is_some_and(|e| e == "safetensors") => return Err(safetensors::open(path, &mut file, meta.len(), index).err().unwrap_or_else(|| Error::format(path, "is not a safetensors file"))),
        _ => "is neither a safetensors file nor a torch zip archive".to_owned(),
    };
    Err(Error::format(path, what))
}

/// Where elements of a view end, as an element count from its start; `None` if that overflows.
fn view_end(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).and_then(|n| {
        if n == 0 {
            return Some(0);
        }
        shape
            .iter()
            .zip(strides)
            .try_fold(1usize, |end, (&n, &s)| (n - 1).checked_mul(s).and_then(|x| end.checked_add(x)))
    })
}

/// Strides of a contiguous row-major tensor; `None` if the element count overflows.
fn contiguous(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (s, &n) in strides.iter_mut().zip(shape).rev() {
        *s = step;
        step = step.checked_mul(n.max(1))?;
    }
    Some(strides)
}

/// Dimensions a tensor may have; torch itself stops at 64, a checkpoint of this model at 4.
const MAX_DIMS: usize = 32;
/// Tensors a file may hold.
const MAX_TENSORS: usize = 1 << 18;

#[cfg(test)]
mod tests;

//! Safetensors headers, and the index files that tie shards together.
//!
//! The header is parsed here because the `safetensors` crate wants the whole file in one slice, which a run that must
//! stay small cannot give it without `unsafe` mapping. The rules are the crate's: every byte belongs to exactly one tensor.

use super::{Dtype, Error, MAX_DIMS, MAX_TENSORS, OpenFile, Stored, TensorInfo, contiguous, open_file, plain};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// An index lists names only.
const MAX_INDEX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Header;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut out, mut seen) = (Header::default(), BTreeSet::new());
                // A plain map would let the last of two equal names win silently.
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(format_args!("{} is listed twice", plain(&name))));
                    }
                    if name == "__metadata__" {
                        out.metadata = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
                    } else {
                        let entry = map
                            .next_value::<Entry>()
                            .map_err(|e| de::Error::custom(format_args!("tensor {}: {e}", plain(&name))))?;
                        out.entries.push((name, entry));
                    }
                    if out.entries.len() > MAX_TENSORS {
                        return Err(de::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                }
                Ok(out)
            }
        }
        d.deserialize_map(V)
    }
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "F8_E4M3" => Dtype::F8E4M3,
        "F8_E5M2" => Dtype::F8E5M2,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U64" => Dtype::U64,
        "U32" => Dtype::U32,
        "U16" => Dtype::U16,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        "C64" => Dtype::C64,
        _ => return None,
    })
}

/// Reads the header of one file of `file_bytes` bytes. `index` is the file's place in its checkpoint.
///
/// *Errors*: any byte of the header or of a tensor that is not where it should be.
pub(super) fn open(
    path: &Path,
    file: &mut File,
    file_bytes: u64,
    index: usize,
) -> Result<(Vec<Stored>, BTreeMap<String, String>), Error> {
    let bad = |what: String| Error::format(path, what);
    let mut len = [0u8; 8];
    if file_bytes < 8 {
        return Err(bad(format!(
            "is {file_bytes} bytes long, too short for a safetensors file; is the download complete?"
        )));
    }
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut len)).map_err(Error::io(path))?;
    let header_bytes = u64::from_le_bytes(len);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(bad(format!(
            "not a safetensors file: its header would be {header_bytes} bytes, the limit is {MAX_HEADER_BYTES}"
        )));
    }
    let data_at = 8 + header_bytes;
    if data_at > file_bytes {
        return Err(bad(format!(
            "ends inside its header: {file_bytes} bytes, header ends at {data_at}; is the download complete?"
        )));
    }
    let mut text = Vec::new();
    file.take(header_bytes).read_to_end(&mut text).map_err(Error::io(path))?;
    let header: Header =
        serde_json::from_slice(&text).map_err(|e| bad(format!("header: {}", plain(&e.to_string()))))?;
    drop(text);

    let data_bytes = file_bytes - data_at;
    let mut out = Vec::with_capacity(header.entries.len());
    let mut spans = Vec::with_capacity(header.entries.len());
    for (name, e) in header.entries {
        let wrong = |found: String, expected: String| Error::Tensor {
            path: path.to_owned(),
            tensor: plain(&name),
            found,
            expected,
        };
        let Some(dtype) = dtype(&e.dtype) else {
            return Err(wrong(format!("type {}", plain(&e.dtype)), "a type this version knows".into()));
        };
        if e.shape.len() > MAX_DIMS {
            return Err(wrong(format!("{} dimensions", e.shape.len()), format!("at most {MAX_DIMS}")));
        }
        let (start, end) = e.data_offsets;
        let bytes = contiguous(&e.shape)
            .and_then(|s| Some((e.shape.iter().try_fold(dtype.size_bytes(), |n, &d| n.checked_mul(d))?, s)));
        let Some((bytes, strides)) = bytes else {
            return Err(wrong(format!("shape {:?}", e.shape), "a size that fits in memory".into()));
        };
        if end < start || end - start != bytes as u64 {
            return Err(wrong(format!("bytes {start}..{end}"), format!("{bytes} bytes for {dtype} {:?}", e.shape)));
        }
        if end > data_bytes {
            return Err(wrong(
                format!("{data_bytes} bytes of data in the file"),
                format!("at least {end}; is the download complete?"),
            ));
        }
        spans.push((start, end, out.len()));
        out.push(Stored {
            info: TensorInfo { name, dtype, shape: e.shape },
            file: index,
            offset_bytes: data_at + start,
            strides,
        });
    }
    spans.sort_unstable();
    let mut at = 0;
    for &(start, end, i) in &spans {
        if start != at {
            let name = out.get(i).map(|t: &Stored| plain(&t.info.name)).unwrap_or_default();
            let what = if start < at { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(bad(format!("tensor {name} {what}: it begins at byte {start}, expected {at}")));
        }
        at = end;
    }
    if at != data_bytes {
        return Err(bad(format!("holds {data_bytes} bytes of data, its header accounts for {at}")));
    }
    Ok((out, header.metadata))
}

#[derive(Deserialize)]
struct Index {
    #[serde(default, rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    weight_map: BTreeMap<String, String>,
}

/// The shards an index names, as `shard → keys it should hold`.
///
/// *Errors*: an index that is no such JSON, or that names files outside its own folder.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_INDEX_BYTES + 1).read_to_end(&mut text).map_err(Error::io(path))?;
    if text.len() as u64 > MAX_INDEX_BYTES {
        return Err(Error::format(path, format!("is larger than {MAX_INDEX_BYTES} bytes, too large for an index")));
    }
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("index: {}", plain(&e.to_string()))))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, shard) in index.weight_map {
        let inside = Path::new(&shard).components().all(|c| matches!(c, Component::Normal(_))) && !shard.is_empty();
        if !inside {
            return Err(Error::format(
                path,
                format!("tensor {} is said to be in {}, outside the folder", plain(&key), plain(&shard)),
            ));
        }
        shards.entry(shard).or_default().insert(key);
    }
    if shards.is_empty() {
        return Err(Error::format(path, "lists no tensors"));
    }
    Ok(shards)
}

/// Opens every shard of an index and holds its tensors against the list.
///
/// *Errors*: a missing or damaged shard; a tensor that is listed but absent. A tensor present but not listed is left out.
pub(super) fn open_index(path: &Path) -> Result<(Vec<Stored>, Vec<OpenFile>), Error> {
    let shards = read_index(path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    if let Some(missing) = shards.keys().find(|s| !dir.join(s).is_file()) {
        return Err(Error::format(
            path,
            format!("shard {} is missing ({} shards are listed)", plain(missing), shards.len()),
        ));
    }
    let (mut files, mut out) = (Vec::new(), Vec::new());
    for (i, (shard, mut keys)) in shards.into_iter().enumerate() {
        let (file, tensors, _) = open_file(&dir.join(&shard), i)?;
        files.push(file);
        out.extend(tensors.into_iter().filter(|t| keys.remove(&t.info.name)));
        if let Some(absent) = keys.first() {
            return Err(Error::format(
                path,
                format!("tensor {} is not in {}, where the index says it is", plain(absent), plain(&shard)),
            ));
        }
    }
    Ok((out, files))
}

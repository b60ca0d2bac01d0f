//! Whole files: written here byte by byte, good and hostile, and the golden checkpoint.

use super::*;
use serde_json::json;
use std::fs;
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use zip::write::{SimpleFileOptions, ZipWriter};

/// A folder that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "healthgpt-source-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// F32 tensors whose elements count up from 0.
fn safetensors(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        (0..shape.iter().product::<usize>()).for_each(|i| data.extend((i as f32).to_le_bytes()));
        header.insert((*name).into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    raw_safetensors(&serde_json::Value::Object(header).to_string(), &data)
}

fn text(s: &str) -> Vec<u8> {
    [&b"X"[..], &u32::try_from(s.len()).expect("short").to_le_bytes(), s.as_bytes()].concat()
}

fn int(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

fn ints(list: &[i64]) -> Vec<u8> {
    [&b"("[..], &list.iter().flat_map(|&n| int(n)).collect::<Vec<u8>>(), b"t"].concat()
}

/// `torch._utils._rebuild_tensor_v2` of storage `key` with `claimed` elements.
fn view(class: &str, key: &str, claimed: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let id = [
        &b"("[..],
        &text("storage"),
        b"ctorch\n",
        class.as_bytes(),
        b"\n",
        &text(key),
        &text("cpu"),
        &int(claimed),
        b"tQ",
    ]
    .concat();
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n("[..],
        &id,
        &int(offset),
        &ints(shape),
        &ints(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    [&b"}("[..], &pairs.iter().flat_map(|(k, v)| [text(k), v.clone()].concat()).collect::<Vec<u8>>(), b"u"].concat()
}

fn pickle(value: &[u8]) -> Vec<u8> {
    [&[0x80, 2][..], value, b"."].concat()
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
            .expect("an entry");
        zip.write_all(bytes).expect("an entry");
    }
    zip.finish().expect("an archive").into_inner()
}

/// A torch file with this pickle and f32 storage `0` of 0, 1, 2, ...
fn torch(value: &[u8], elements: u16) -> Vec<u8> {
    let data: Vec<u8> = (0..elements).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    archive(&[("x/data.pkl", &pickle(value)), ("x/byteorder", b"little"), ("x/data/0", &data), ("x/version", b"3\n")])
}

/// A state dict of contiguous f32 tensors that share one storage.
fn state_dict(tensors: &[(&str, &[i64])]) -> Vec<u8> {
    let pairs: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| {
            let mut strides = vec![1; shape.len()];
            (1..shape.len()).rev().for_each(|i| strides[i - 1] = strides[i] * shape[i]);
            (*name, view("FloatStorage", "0", 64, 0, shape, &strides))
        })
        .collect();
    torch(&dict(&pairs), 64)
}

fn fails(path: &Path) -> String {
    let message = Checkpoint::open(path).expect_err("must be refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    assert!(message.contains(&plain_path(path)), "{message}");
    message
}

fn floats(list: impl IntoIterator<Item = u16>) -> Vec<f32> {
    list.into_iter().map(f32::from).collect()
}

#[test]
fn safetensors_are_read_whole_and_by_rows() {
    let d = Dir::new();
    let c = Checkpoint::open(d.put("a.safetensors", safetensors(&[("model.w", &[4, 3]), ("s", &[])]))).expect("opens");
    assert_eq!(c.get("model.w").map(|t| (t.dtype, t.shape.clone())), Some((Dtype::F32, vec![4, 3])));
    assert_eq!(c.read_f32("model.w").expect("reads"), floats(0..12));
    assert_eq!(c.read_rows_f32("model.w", 1..3).expect("reads"), floats(3..9));
    assert!(c.read_rows_f32("model.w", 4..4).expect("reads").is_empty());
    assert_eq!(c.read_f32("s").expect("reads"), [0.0]);
    assert!(c.read_rows_f32("model.w", 3..5).is_err());
    assert!(c.read_rows_f32("s", 0..1).is_err());
    assert!(matches!(c.read_f32("none"), Err(Error::Absent { .. })));
}

#[test]
fn sixteen_and_sixty_four_bit_floats_become_f32_and_integers_are_refused() {
    let data: Vec<u8> = [
        &half::f16::from_f32(-1.5).to_le_bytes()[..],
        &half::bf16::from_f32(0.375).to_le_bytes(),
        &2.25f64.to_le_bytes(),
        &7i64.to_le_bytes(),
        &half::f16::from_bits(1).to_le_bytes(),
    ]
    .concat();
    let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]},
        "c":{"dtype":"F64","shape":[1],"data_offsets":[4,12]},"i":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},
        "sub":{"dtype":"F16","shape":[1],"data_offsets":[20,22]},"__metadata__":{"format":"pt"}}"#;
    let d = Dir::new();
    let c = Checkpoint::open(d.put("a.safetensors", raw_safetensors(header, &data))).expect("opens");
    assert_eq!(c.read_f32("a").expect("reads"), [-1.5]);
    assert_eq!(c.read_f32("b").expect("reads"), [0.375]);
    assert_eq!(c.read_f32("c").expect("reads"), [2.25]);
    assert_eq!(c.read_f32("sub").expect("reads"), [2f32.powi(-24)]);
    assert_eq!(c.metadata().get("format").map(String::as_str), Some("pt"));
    let e = c.read_f32("i").expect_err("an integer").to_string();
    assert!(e.contains("tensor i: found type I64, expected F64, F32, F16 or BF16"), "{e}");
}

#[test]
fn hostile_safetensors_headers_are_refused_with_the_reason() {
    let d = Dir::new();
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (header, data, reason) in [
        (one("F32", "[2]", "[0,8]"), 4, "at least 8"),
        (one("F32", "[3]", "[0,8]"), 8, "12 bytes"),
        (one("F32", "[2]", "[8,0]"), 8, "found bytes 8..0"),
        (one("F32", "[2]", "[4,12]"), 12, "leaves a gap"),
        (one("F32", "[2]", "[0,8]"), 9, "accounts for 8"),
        (one("Q7", "[2]", "[0,8]"), 8, "found type Q7"),
        (one("F32", "[18446744073709551615,4]", "[0,8]"), 8, "fits in memory"),
        (one("F32", "[4294967296,4294967296]", "[0,0]"), 0, "fits in memory"),
        (one("F32", "[-1]", "[0,4]"), 4, "header: tensor t"),
        (one("F32", "[1e3]", "[0,4]"), 4, "header: tensor t"),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#.into(), 6, "overlaps"),
        (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#.into(), 2, "a is listed twice"),
        ("[1,2]".into(), 0, "header"),
        ("{".into(), 0, "header"),
        ("{\"a\\nb\":1}".into(), 0, "header: tensor a"),
    ] {
        let message = fails(&d.put("t.safetensors", raw_safetensors(&header, &vec![0; data])));
        assert!(message.contains(reason), "{header}: {message}");
    }
    for (bytes, reason) in [
        (u64::MAX.to_le_bytes().to_vec(), "the limit is 100000000"),
        (64u64.to_le_bytes().to_vec(), "ends inside its header"),
        (vec![1, 2, 3], "too short"),
        (vec![], "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(), "Git LFS pointer"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
    ] {
        let message = fails(&d.put("t.safetensors", &bytes));
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn a_header_whose_length_looks_like_other_formats_is_still_a_header() {
    let d = Dir::new();
    for len in [0x3c, 0x280] {
        let header = format!("{:len$}", r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
        assert!(Checkpoint::open(d.put("t.safetensors", raw_safetensors(&header, &[0]))).is_ok(), "{len}");
        assert!(Checkpoint::open(d.put("t.bin", raw_safetensors(&header, &[0]))).is_ok(), "{len}");
    }
}

#[test]
fn shards_are_held_against_their_index() {
    let d = Dir::new();
    d.put("m-1.safetensors", safetensors(&[("a", &[2]), ("unlisted", &[1])]));
    d.put("m-2.safetensors", safetensors(&[("b", &[3])]));
    let index = |map: serde_json::Value| {
        d.put("m.safetensors.index.json", json!({"metadata": {"total_size": 20}, "weight_map": map}).to_string())
    };
    let c = Checkpoint::open(index(json!({"a": "m-1.safetensors", "b": "m-2.safetensors"}))).expect("opens");
    assert_eq!(c.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(c.read_f32("b").expect("reads"), floats(0..3));
    assert_eq!(c.file_of("b"), Some(d.0.join("m-2.safetensors").as_path()));
    for (map, reason) in [
        (json!({"a": "m-1.safetensors", "b": "m-3.safetensors"}), "shard m-3.safetensors is missing"),
        (json!({"a": "m-1.safetensors", "c": "m-2.safetensors"}), "tensor c is not in m-2.safetensors"),
        (json!({"a": "../m-1.safetensors"}), "outside the folder"),
        (json!({"a": "/etc/passwd"}), "outside the folder"),
        (json!({"a": ""}), "outside the folder"),
        (json!({}), "lists no tensors"),
        (json!({"a": 1}), "index:"),
    ] {
        let message = fails(&index(map));
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn keys_match_under_every_prefix_and_two_for_one_name_are_an_error() {
    let d = Dir::new();
    let c = Checkpoint::open(d.put(
        "a.safetensors",
        safetensors(&[
            ("base_model.model.model.layers.0.w", &[1]),
            ("base_model.model.lm_head.weight", &[2]),
            ("model.norm.weight", &[3]),
            ("vision_model.x", &[1]),
            ("model.twice", &[1]),
            ("model.model.twice", &[1]),
        ]),
    ))
    .expect("opens");
    assert_eq!(c.lookup("model.layers.0.w").expect("found").name, "base_model.model.model.layers.0.w");
    assert_eq!(c.lookup("lm_head.weight").expect("found").shape, [2]);
    assert_eq!(c.lookup("base_model.model.model.norm.weight").expect("found").shape, [3]);
    assert_eq!(c.lookup("vision_model.x").expect("found").shape, [1]);
    assert!(matches!(c.lookup("rm.weight"), Err(Error::Absent { .. })));
    let e = c.lookup("twice").expect_err("ambiguous").to_string();
    assert!(e.contains("model.twice") && e.contains("model.model.twice"), "{e}");
    let e = c.lookup_shaped("norm.weight", &[4]).expect_err("wrong shape").to_string();
    assert!(e.contains("model.norm.weight: found shape [3], expected [4]"), "{e}");
}

#[test]
fn torch_views_are_read_row_major_whatever_their_strides() {
    let d = Dir::new();
    let value = dict(&[
        ("plain", view("FloatStorage", "0", 24, 2, &[2, 3], &[3, 1])),
        ("transposed", view("FloatStorage", "0", 24, 0, &[3, 4], &[1, 3])),
        ("permuted", view("FloatStorage", "0", 24, 0, &[2, 3, 4], &[1, 8, 2])),
        ("stepped", view("FloatStorage", "0", 24, 1, &[5], &[4])),
        ("repeated", view("FloatStorage", "0", 24, 5, &[2, 3], &[1, 0])),
        ("scalar", view("FloatStorage", "0", 24, 23, &[], &[])),
        ("empty", view("FloatStorage", "0", 24, 24, &[0, 7], &[7, 1])),
        ("not a tensor", int(1)),
    ]);
    let c = Checkpoint::open(d.put("a.bin", torch(&value, 24))).expect("opens");
    let permuted = (0..24).map(|i| i / 12 + i / 4 % 3 * 8 + i % 4 * 2);
    for (name, expected) in [
        ("plain", floats(2..8)),
        ("transposed", floats([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])),
        ("permuted", floats(permuted)),
        ("stepped", floats([1, 5, 9, 13, 17])),
        ("repeated", floats([5, 5, 5, 6, 6, 6])),
        ("scalar", floats([23])),
        ("empty", vec![]),
    ] {
        assert_eq!(c.read_f32(name).expect("reads"), expected, "{name}");
        let rows = c.get(name).and_then(|t| t.shape.first().copied()).unwrap_or(0);
        let by_row: Vec<f32> = (0..rows).flat_map(|r| c.read_rows_f32(name, r..r + 1).expect("reads")).collect();
        assert!(name == "scalar" || by_row == expected, "{name} by rows");
    }
    assert_eq!(c.len(), 7);
}

#[test]
fn tensors_longer_than_one_read_join_without_seam() {
    let d = Dir::new();
    let (rows, cols) = (3usize, 200_000usize);
    let data: Vec<u8> = (0..rows * cols).flat_map(|i| ((i % 8191) as f32).to_le_bytes()).collect();
    let header = json!({"t": {"dtype": "F32", "shape": [rows, cols], "data_offsets": [0, data.len()]}}).to_string();
    let c = Checkpoint::open(d.put("t.safetensors", raw_safetensors(&header, &data))).expect("opens");
    let all = c.read_f32("t").expect("reads");
    assert!(all.iter().enumerate().all(|(i, &x)| x == (i % 8191) as f32));
    assert_eq!(c.read_rows_f32("t", 1..2).expect("reads"), all[cols..2 * cols]);

    let n = i64::try_from(rows * cols).expect("fits");
    let (r, k) = (i64::try_from(rows).expect("fits"), i64::try_from(cols).expect("fits"));
    let value = dict(&[
        ("far", view("FloatStorage", "0", n, 1, &[r], &[k])),
        ("near", view("FloatStorage", "0", n, 0, &[k, r], &[1, k])),
    ]);
    let c = Checkpoint::open(d.put("t.bin", archive(&[("x/data.pkl", &pickle(&value)), ("x/data/0", &data)])))
        .expect("opens");
    assert_eq!(c.read_f32("far").expect("reads"), [all[1], all[cols + 1], all[2 * cols + 1]]);
    let near = c.read_f32("near").expect("reads");
    assert!(near.chunks(rows).enumerate().all(|(i, row)| (0..rows).all(|j| row[j] == all[j * cols + i])));
}

#[test]
fn state_dicts_are_found_where_trainers_put_them() {
    let d = Dir::new();
    let t = || view("FloatStorage", "0", 4, 0, &[4], &[1]);
    for (value, names) in [
        (dict(&[("w", t())]), vec!["w"]),
        (dict(&[("epoch", int(1)), ("state_dict", dict(&[("w", t())])), ("ema", t())]), vec!["w"]),
        (dict(&[("model", dict(&[("w", t())])), ("step", int(1))]), vec!["w"]),
        (dict(&[("module", dict(&[("state_dict", dict(&[("w", t())]))]))]), vec!["w"]),
        (dict(&[("model", dict(&[("w", t())])), ("direct", t())]), vec!["direct", "model.w"]),
        (dict(&[("a", dict(&[("b", dict(&[("w", t())]))]))]), vec!["a.b.w"]),
        // Lightning: a class that need not exist as a key, an OrderedDict with state, a parameter.
        (
            [
                &b"}("[..],
                &text("callbacks"),
                b"}cgone.callbacks\nCheckpoint\n}s",
                &text("state_dict"),
                b"ccollections\nOrderedDict\n)R",
                &text("w"),
                b"ctorch._utils\n_rebuild_parameter\n(",
                &t(),
                b"\x88NtRs}b",
                b"u",
            ]
            .concat(),
            vec!["w"],
        ),
    ] {
        let c = Checkpoint::open(d.put("a.ckpt", torch(&value, 4))).expect("opens");
        assert_eq!(c.names().collect::<Vec<_>>(), names);
    }
}

#[test]
fn views_past_their_storage_are_refused() {
    let d = Dir::new();
    for (v, reason) in [
        (view("FloatStorage", "0", 4, 1, &[4], &[1]), "a view inside its storage of 4 elements"),
        (view("FloatStorage", "0", 4, 0, &[2, 2], &[3, 1]), "a view inside"),
        (view("FloatStorage", "0", 5, 0, &[4], &[1]), "storage of 16 bytes"),
        (view("DoubleStorage", "0", 2, 0, &[3], &[1]), "a view inside its storage of 2 elements"),
        (view("FloatStorage", "0", 4, i64::MAX, &[4], &[1]), "a view inside"),
        (view("FloatStorage", "0", 4, 0, &[2, 2], &[i64::MAX, i64::MAX]), "a view inside"),
        (view("FloatStorage", "0", 4, 0, &[1 << 40, 1 << 40], &[0, 0]), "too large"),
        (view("FloatStorage", "0", 4, 0, &[1 << 40], &[0]), "repeated"),
        (view("FloatStorage", "0", i64::MAX, 0, &[4], &[1]), "storage of 16 bytes"),
        (view("FloatStorage", "0", -1, 0, &[4], &[1]), "storage of 16 bytes"),
        (view("FloatStorage", "0", 4, -1, &[4], &[1]), "size or offset of -1"),
        (view("FloatStorage", "0", 4, 0, &[-4], &[1]), "size or offset of -4"),
        (view("FloatStorage", "0", 4, 0, &[4], &[1, 1]), "1 dimensions with 2 strides"),
        (view("FloatStorage", "0", 4, 0, &[1; 40], &[1; 40]), "40 dimensions"),
        (view("FloatStorage", "../../../etc/passwd", 4, 0, &[4], &[1]), "no storage ../../../etc/passwd"),
        (view("QInt8Storage", "0", 4, 0, &[4], &[1]), "torch.QInt8Storage is not known"),
    ] {
        let message = fails(&d.put("a.bin", torch(&dict(&[("w", v)]), 4)));
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn damaged_and_foreign_archives_are_refused_with_the_reason() {
    let d = Dir::new();
    let good = torch(&dict(&[("w", view("FloatStorage", "0", 4, 0, &[4], &[1]))]), 4);
    for n in [4, 30, good.len() / 2, good.len() - 30, good.len() - 1] {
        let message = fails(&d.put("a.bin", &good[..n]));
        assert!(message.contains("damaged zip archive"), "{n}: {message}");
    }
    let ok = pickle(&dict(&[]));
    for (bytes, reason) in [
        (archive(&[("x/readme", b"hi")]), "no data.pkl"),
        (archive(&[("x/data.pkl", &ok)]), "holds no tensors"),
        (archive(&[("x/data.pkl", &ok), ("y/data.pkl", &ok)]), "two pickles"),
        (archive(&[("x/data.pkl", &ok), ("x/byteorder", b"big")]), "byte order is big, expected little"),
        (archive(&[("x/data.pkl", &ok), ("x/constants.pkl", b"")]), "TorchScript"),
        (archive(&[("x/data.pkl", &pickle(b"cposix\nsystem\nX\x02\0\0\0id\x85R"))]), "calls posix.system"),
        (archive(&[("x/data.pkl", &pickle(b"c__builtin__\neval\n)R"))]), "calls __builtin__.eval"),
        (archive(&[("x/data.pkl", &pickle(b"cevil\n\x1b[2Jf\n)R"))]), "calls evil."),
        (archive(&[("x/data.pkl", &pickle(b"\x82\x01"))]), "opcode 0x82 (EXT1)"),
        (archive(&[("x/data.pkl", b"\x80\x02X\xff\xff\xff\xff")]), "ends in the middle"),
        (archive(&[("x/data.pkl", b"garbage")]), "does not begin with a protocol"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "before version 1.6"),
        ([&[b'a'; 257][..], b"ustar\0", &[0; 200]].concat(), "tar archive"),
        (b"just some text".to_vec(), "neither a safetensors file nor a torch zip archive"),
    ] {
        let message = fails(&d.put("a.bin", &bytes));
        assert!(message.contains(reason), "{reason}: {message}");
    }
    // Two entries of one name: a writer refuses to make them, so the name is changed afterwards, in both headers.
    let mut twice = archive(&[("x/data.pkl", &ok), ("x/data/0", b""), ("x/data/1", b"")]);
    while let Some(at) = twice.windows(8).position(|w| w == b"x/data/1") {
        twice[at + 7] = b'0';
    }
    assert!(fails(&d.put("a.bin", &twice)).contains("two entries"));
    // A compressed entry: the method, patched in both headers.
    let mut packed = good.clone();
    for at in 0..packed.len() - 12 {
        if packed[at..].starts_with(b"PK\x03\x04") {
            packed[at + 8] = 8;
        } else if packed[at..].starts_with(b"PK\x01\x02") {
            packed[at + 10] = 8;
        }
    }
    assert!(fails(&d.put("a.bin", &packed)).contains("compressed"));
}

/// No single changed byte may panic, hang, or read past the file.
#[test]
fn every_single_byte_change_of_a_torch_file_ends_in_a_value_or_an_error() {
    let d = Dir::new();
    let good = torch(&dict(&[("w", view("FloatStorage", "0", 4, 0, &[2, 2], &[2, 1]))]), 4);
    for at in 0..good.len() {
        for change in [0x01, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            if let Ok(c) = Checkpoint::open(d.put("a.bin", &bytes)) {
                for name in c.names() {
                    let _ = c.read_f32(name);
                }
            }
        }
    }
}

// ---- which part is which ----

const ADAPTER: &[(&str, &[i64])] = &[("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", &[2, 4])];
const LARGE_ADAPTER: &[(&str, &[i64])] = &[("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", &[8, 4])];
const FUSION: &[(&str, &[i64])] =
    &[("base_model.model.model.embed_tokens.weight", &[8, 4]), ("base_model.model.lm_head.weight", &[8, 4])];
const VQGAN: &[(&str, &[i64])] = &[
    ("quantize.embed.weight", &[8, 4]),
    ("decoder.conv_in.weight", &[4, 4, 1, 1]),
    ("decoder.up.0.block.0.conv1.weight", &[2, 4, 1, 1]),
    ("decoder.up.0.block.1.conv1.weight", &[2, 2, 1, 1]),
    ("decoder.up.1.block.0.conv1.weight", &[4, 4, 1, 1]),
    ("decoder.up.1.attn.0.q.weight", &[4, 4, 1, 1]),
    ("decoder.conv_out.weight", &[3, 2, 1, 1]),
    ("encoder.conv_in.weight", &[4, 4, 1, 1]),
];
const YAML: &str = "model:\n  params:\n    ddconfig:\n      resolution: 16\n      ch: 2\n      ch_mult:\n      - 1\n      - 2\n      attn_resolutions:\n      - 8\n";

fn put_language(d: &Dir, dir: &str) {
    d.put(&format!("{dir}/config.json"), r#"{"model_type": "phi3", "hidden_size": 4}"#);
    d.put(&format!("{dir}/tokenizer.json"), "{}");
    d.put(&format!("{dir}/model.safetensors"), safetensors(&[("model.layers.0.self_attn.qkv_proj.weight", &[12, 4])]));
}

fn put_vision(d: &Dir, dir: &str) {
    d.put(&format!("{dir}/config.json"), r#"{"model_type": "clip", "vision_config": {"hidden_size": 4}}"#);
    d.put(&format!("{dir}/pytorch_model.bin"), state_dict(&[("vision_model.pre_layrnorm.weight", &[4])]));
}

fn put_all(d: &Dir) {
    put_language(d, "phi3");
    put_vision(d, "clip");
    d.put("com_hlora_weights.bin", state_dict(ADAPTER));
    d.put("gen_hlora_weights.bin", state_dict(LARGE_ADAPTER));
    d.put("fusion_layer_weights.bin", state_dict(FUSION));
    d.put("vqgan/last.ckpt", state_dict(VQGAN));
    d.put("vqgan/model.yaml", YAML);
}

fn found(d: &Dir) -> Parts {
    discover(&d.0, &Given::default()).expect("found")
}

fn not_found(input: &Path, given: &Given) -> String {
    let message = discover(input, given).expect_err("must fail").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn rank(c: Option<&Checkpoint>) -> Option<usize> {
    c?.tensors().next()?.shape.first().copied()
}

#[test]
fn published_parts_are_found_by_folder_and_from_any_file() {
    let d = Dir::new();
    put_all(&d);
    d.put("README.md", "text");
    d.put("clip/tf_model.h5", "other");
    d.put("phi3/training_args.bin", "other");
    d.put("notes.bin", "other");
    d.put(".cache/model.safetensors", "broken");
    d.put(".git/x.safetensors", "broken");
    for input in ["", "phi3/model.safetensors", "com_hlora_weights.bin", "vqgan/last.ckpt"] {
        let p = discover(&d.0.join(input), &Given::default()).expect("found");
        assert!(p.missing(true, true).is_empty(), "{input}: {:?}", p.missing(true, true));
        assert_eq!(rank(p.hlora_ask.as_ref()), Some(2));
        assert_eq!(rank(p.hlora_generate.as_ref()), Some(8));
        assert_eq!(p.language.config["model_type"], "phi3");
        assert_eq!(p.vision.as_ref().expect("found").tower_config()["hidden_size"], 4);
        let v = &p.vqgan.as_ref().expect("found").config;
        assert_eq!(
            *v,
            json!({"n_embed": 8, "embed_dim": 4, "z_channels": 4, "out_ch": 3, "num_res_blocks": 1, "level_channels": [2, 4], "attn_levels": [1],
                "ch": 2, "ch_mult": [1, 2], "resolution": 16, "attn_resolutions": [8]})
        );
    }
}

#[test]
fn other_names_depths_and_formats_are_found_by_content() {
    let d = Dir::new();
    put_language(&d, "a/b/c");
    fs::rename(d.0.join("a/b/c/model.safetensors"), d.0.join("a/b/c/weights.safetensors")).expect("renamed");
    put_vision(&d, "a/eyes");
    d.put("a/eyes/model.safetensors", safetensors(&[("vision_model.pre_layrnorm.weight", &[4])]));
    d.put("x/one.pt", state_dict(LARGE_ADAPTER));
    d.put("x/two.pth", state_dict(ADAPTER));
    d.put("y/tables.safetensors", safetensors(&[("model.embed_tokens.weight", &[2, 2]), ("lm_head.weight", &[2, 2])]));
    d.put("y/z/decoder.pt", state_dict(VQGAN));
    // Our own output and a trace are no parts.
    let header = r#"{"__metadata__":{"format":"healthgpt"},"layers.0.self_attn.qkv_proj.weight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    d.put("model-q4.safetensors", raw_safetensors(header, &[]));
    d.put("comprehension.safetensors", safetensors(&[("layers.0.qkv", &[1])]));
    let p = found(&d);
    assert!(p.missing(true, true).is_empty());
    assert_eq!((rank(p.hlora_ask.as_ref()), rank(p.hlora_generate.as_ref())), (Some(2), Some(8)));
    assert!(p.vision.expect("found").weights.path().ends_with("model.safetensors"));
    assert!(p.vqgan.expect("found").config.get("resolution").is_none());
}

#[test]
fn missing_parts_are_all_named_with_the_folders_looked_in() {
    let d = Dir::new();
    put_language(&d, "phi3");
    let p = found(&d);
    assert_eq!((p.missing(true, false).len(), p.missing(true, true).len(), p.missing(false, false).len()), (2, 5, 0));
    let message = p.require(true, true).expect_err("incomplete").to_string();
    for word in [
        "vision tower",
        "comprehension",
        "generation",
        "fusion",
        "image decoder",
        "--vqgan",
        &plain_path(&d.0.join("phi3")),
    ] {
        assert!(message.contains(word), "{message}");
    }
    let message = not_found(&Dir::new().0, &Given::default());
    assert!(
        message.contains("no language model") && message.contains("no fusion layer") && message.contains("looked in"),
        "{message}"
    );
}

#[test]
fn several_candidates_are_an_error_that_names_them_and_the_flag_settles_it() {
    let d = Dir::new();
    put_all(&d);
    put_vision(&d, "other-clip");
    let message = not_found(&d.0, &Given::default());
    assert!(
        message.contains("clip/pytorch_model.bin") && message.contains("other-clip") && message.contains("--vit"),
        "{message}"
    );
    for vit in ["clip", "clip/pytorch_model.bin"] {
        let p = discover(&d.0, &Given { vit: Some(d.0.join(vit)), ..Given::default() }).expect("settled");
        assert!(p.vision.expect("given").weights.path().starts_with(d.0.join("clip")));
    }
    let message = not_found(&d.0, &Given { vit: Some(d.0.join("com_hlora_weights.bin")), ..Given::default() });
    assert!(message.contains("is the adapter by its tensors, expected the vision tower (--vit)"), "{message}");
    let message = not_found(&d.0, &Given { vit: Some(d.0.join("phi3")), ..Given::default() });
    assert!(message.contains("holds no vision tower"), "{message}");
}

#[test]
fn adapters_that_nothing_tells_apart_ask_for_the_flags() {
    let d = Dir::new();
    put_language(&d, "phi3");
    let a = d.put("a.bin", state_dict(ADAPTER));
    let b = d.put("b.bin", state_dict(ADAPTER));
    let message = not_found(&d.0, &Given::default());
    assert!(message.contains("--hlora-ask and --hlora-generate") && message.contains("a.bin"), "{message}");
    let p = discover(&d.0, &Given { hlora_generate: Some(a.clone()), ..Given::default() }).expect("settled");
    assert_eq!(p.hlora_generate.as_ref().map(Checkpoint::path), Some(a.as_path()));
    assert_eq!(p.hlora_ask.as_ref().map(Checkpoint::path), Some(b.as_path()));
    // Settings tell by rank, and folders by name.
    fs::remove_file(&b).expect("removed");
    d.put(
        "settings.json",
        json!({"comprehension": {"hlora_r": 16, "hlora_alpha": 32}, "generation": {"hlora_r": 2, "hlora_alpha": 3}})
            .to_string(),
    );
    let p = found(&d);
    assert!(p.hlora_ask.is_none() && p.hlora_generate.is_some());
    assert_eq!(
        (p.alpha(Task::Generate, 2), p.alpha(Task::Generate, 4), p.alpha(Task::Ask, 16)),
        (Some(3.0), None, Some(32.0))
    );
    d.put("comprehension/w.bin", state_dict(ADAPTER));
    assert!(found(&d).hlora_ask.is_some());
}

#[test]
fn a_damaged_file_that_is_a_part_by_name_is_an_error() {
    for name in [
        "com_hlora_weights.bin",
        "fusion_layer_weights.bin",
        "vqgan/last.ckpt",
        "clip/pytorch_model.bin",
        "phi3/model.safetensors",
    ] {
        let d = Dir::new();
        put_all(&d);
        let bytes = fs::read(d.0.join(name)).expect("there");
        d.put(name, &bytes[..bytes.len() / 2]);
        let message = not_found(&d.0, &Given::default());
        assert!(message.contains(name), "{message}");
    }
    // By another name it is told where the part is missed.
    let d = Dir::new();
    put_all(&d);
    let bytes = fs::read(d.0.join("fusion_layer_weights.bin")).expect("there");
    fs::remove_file(d.0.join("fusion_layer_weights.bin")).expect("removed");
    d.put("tables.bin", &bytes[..bytes.len() / 2]);
    let message = found(&d).require(true, true).expect_err("incomplete").to_string();
    assert!(message.contains("no fusion layer") && message.contains("tables.bin"), "{message}");
    // A flag overrides a broken file.
    let d = Dir::new();
    put_all(&d);
    let good = d.0.join("fusion_layer_weights.bin");
    d.put("old/fusion.bin", "PK\x03\x04 broken");
    assert!(not_found(&d.0, &Given::default()).contains("old/fusion.bin"));
    assert!(discover(&d.0, &Given { fusion: Some(good), ..Given::default() }).is_ok());
}

#[test]
fn a_hostile_adapter_is_refused_by_the_name_of_what_it_calls() {
    let d = Dir::new();
    put_all(&d);
    d.put("gen_hlora_weights.bin", archive(&[("x/data.pkl", &pickle(b"cos\nsystem\nX\x02\0\0\0id\x85R"))]));
    let message = not_found(&d.0, &Given::default());
    assert!(message.contains("gen_hlora_weights.bin") && message.contains("os.system"), "{message}");
}

#[test]
fn incomplete_shards_and_folders_are_errors() {
    let d = Dir::new();
    put_all(&d);
    d.put("phi3/model.safetensors.index.json", r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#);
    assert_eq!(found(&d).language.weights.files().count(), 1, "the whole file stands for the shards");
    fs::remove_file(d.0.join("phi3/model.safetensors")).expect("removed");
    let message = not_found(&d.0, &Given::default());
    assert!(message.contains("shard model-00001-of-00002.safetensors is missing"), "{message}");

    let d = Dir::new();
    put_all(&d);
    fs::remove_file(d.0.join("phi3/model.safetensors")).expect("removed");
    d.put(
        "phi3/model-00001-of-00002.safetensors",
        safetensors(&[("model.layers.0.self_attn.qkv_proj.weight", &[12, 4])]),
    );
    assert!(not_found(&d.0, &Given::default()).contains("is one of 2 shards"));
    let second = d.put("phi3/model-00002-of-00002.safetensors", safetensors(&[("lm_head.weight", &[2, 2])]));
    assert_eq!(found(&d).language.weights.len(), 2);
    assert_eq!(discover(&second, &Given::default()).expect("found").language.weights.len(), 2);

    fs::remove_file(d.0.join("phi3/tokenizer.json")).expect("removed");
    assert!(not_found(&d.0, &Given::default()).contains("tokenizer.json"));
    put_language(&d, "phi3");
    fs::remove_file(d.0.join("clip/config.json")).expect("removed");
    assert!(not_found(&second, &Given::default()).contains("clip"));
}

#[test]
fn a_description_that_contradicts_the_tensors_is_an_error() {
    for (from, to, reason) in [
        ("ch: 2", "ch: 3", "ch 3 and ch_mult [1, 2]"),
        ("resolution: 16", "resolution: 15", "resolution 15"),
        ("ch: 2", "ch: 2\n      z_channels: 5", "z_channels is 5"),
    ] {
        let d = Dir::new();
        put_all(&d);
        d.put("vqgan/model.yaml", YAML.replace(from, to));
        let message = not_found(&d.0, &Given::default());
        assert!(message.contains(reason) && message.contains("model.yaml"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn hub_caches_of_links_are_followed_and_cycles_end() {
    use std::os::unix::fs::symlink;
    let d = Dir::new();
    put_language(&d, "models--phi/store");
    put_vision(&d, "models--clip/store");
    for (repo, files) in [
        ("models--phi", ["config.json", "tokenizer.json", "model.safetensors"]),
        ("models--clip", ["config.json", "pytorch_model.bin", "none"]),
    ] {
        let repo = d.0.join(repo);
        fs::create_dir_all(repo.join("blobs")).expect("a folder");
        for snapshot in ["aaa", "bbb"] {
            fs::create_dir_all(repo.join("snapshots").join(snapshot)).expect("a folder");
            for (i, name) in files.iter().enumerate().filter(|(_, n)| **n != "none") {
                let _ = fs::rename(repo.join("store").join(name), repo.join(format!("blobs/{i}")));
                symlink(format!("../../blobs/{i}"), repo.join("snapshots").join(snapshot).join(name)).expect("a link");
            }
        }
        fs::remove_dir(repo.join("store")).expect("empty");
    }
    symlink(&d.0, d.0.join("models--phi/again")).expect("a link");
    symlink("loop", d.0.join("loop")).expect("a link");
    symlink("nowhere.bin", d.0.join("com_hlora_weights.bin")).expect("a link");
    let p = found(&d);
    assert!(p.vision.is_some() && p.language.dir.ends_with("snapshots/aaa"));
}

// ---- the golden checkpoint ----

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny/checkpoint")
}

#[test]
fn the_golden_checkpoint_is_read_from_its_folder_and_from_one_shard() {
    let dir = golden();
    for input in
        [dir.clone(), dir.join("phi3/model-00002-of-00002.safetensors"), dir.parent().expect("a parent").to_owned()]
    {
        let p = discover(&input, &Given::default()).expect("found");
        assert!(p.missing(true, true).is_empty(), "{:?}", p.missing(true, true));
        let w = &p.language.weights;
        assert_eq!(w.files().count(), 2);
        let t = w.lookup_shaped("lm_head.weight", &[544, 192]).expect("there");
        assert_eq!(t.dtype, Dtype::Bf16);
        let all = w.read_f32("lm_head.weight").expect("reads");
        assert_eq!(w.read_rows_f32("lm_head.weight", 100..103).expect("reads"), all[100 * 192..103 * 192]);
        assert!(all.iter().all(|x| x.is_finite()) && all.iter().any(|x| *x != 0.0));
        w.lookup_shaped("layers.2.self_attn.qkv_proj.weight", &[576, 192]).expect("there");

        let vision = p.vision.as_ref().expect("found");
        assert_eq!(vision.tower_config()["num_hidden_layers"], 5);
        assert!(vision.preprocessor.as_ref().is_some_and(|p| p.get("crop_size").is_some()));
        vision
            .weights
            .lookup_shaped("vision_model.embeddings.patch_embedding.weight", &[128, 3, 14, 14])
            .expect("there");

        assert_eq!((rank(p.hlora_ask.as_ref()), rank(p.hlora_generate.as_ref())), (Some(16), Some(64)));
        assert_eq!((p.alpha(Task::Ask, 16), p.alpha(Task::Generate, 64)), (Some(32.0), Some(128.0)));
        let ask = p.hlora_ask.as_ref().expect("found");
        ask.lookup_shaped("layers.0.self_attn.qkv_proj.lora_route.weight", &[4, 192]).expect("there");
        ask.lookup_shaped("mm_projector.0.bias", &[192]).expect("there");
        p.fusion.as_ref().expect("found").lookup_shaped("embed_tokens.weight", &[590, 192]).expect("there");

        let vqgan = p.vqgan.as_ref().expect("found");
        assert_eq!(
            vqgan.config,
            json!({"n_embed": 64, "embed_dim": 64, "z_channels": 64, "out_ch": 3, "num_res_blocks": 2, "level_channels": [32, 32, 64, 128], "attn_levels": [3],
                "ch": 32, "ch_mult": [1, 1, 2, 4], "resolution": 64, "attn_resolutions": [8]})
        );
        let codes = vqgan.weights.read_f32("quantize.embed.weight").expect("reads");
        assert_eq!(codes.len(), 64 * 64);
    }
}

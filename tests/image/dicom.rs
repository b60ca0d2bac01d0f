//! DICOM files against what pydicom makes of them, and against damage.

use runtime::image::{Crop, Options, Rect, RgbPicture, decode};
use serde_json::Value;

fn read(path: &str) -> Vec<u8> {
    std::fs::read(tests::data("pictures").join(path)).unwrap()
}

fn load(path: &str) -> RgbPicture {
    decode(&read(path), path, Options::default()).unwrap()
}

#[test]
fn frames_are_shown_as_pydicom_shows_them() {
    let list: Value = serde_json::from_slice(&read("pictures.json")).unwrap();
    let mut worst = Vec::new();
    for (file, about) in list.as_object().unwrap() {
        let found = load(file);
        let expected = load(about["png"].as_str().unwrap());
        assert_eq!((found.width, found.height), (expected.width, expected.height), "{file}");
        let pairs = found.pixels.iter().zip(&expected.pixels);
        let most = pairs.clone().map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let differ = pairs.filter(|(a, b)| a != b).count();
        let syntax = about["transfer_syntax"].as_str().unwrap();
        let limit = match (about["lossy"].as_bool().unwrap(), syntax) {
            (false, _) => 0,
            (true, "1.2.840.10008.1.2.4.91") => 1,
            (true, _) => 3,
        };
        worst
            .push(format!("{file}: at most {most} levels, {differ} of {} differ, {limit} allowed", found.pixels.len()));
        if most > limit {
            worst.push(format!("{file} FAILS"));
        }
    }
    assert!(!worst.iter().any(|w| w.ends_with("FAILS")), "{worst:#?}");
    assert_eq!(worst.len(), 9);
}

#[test]
fn any_frame_can_be_chosen_but_none_past_the_end() {
    let file = read("examples_ybr_color.dcm");
    let frame = |frame| decode(&file, "x", Options { frame });
    let (first, last) = (frame(0).unwrap(), frame(29).unwrap());
    assert_eq!((last.width, last.height), (320, 240));
    assert_ne!(first.pixels, last.pixels);
    let error = frame(30).unwrap_err().to_string();
    assert_eq!(error, "picture x: there is no frame 30, the file has 30 (from 0)");
}

#[test]
fn the_ultrasound_region_is_found() {
    let whole = load("examples_palette.dcm");
    let region = whole.region.unwrap();
    assert_eq!(region, Rect { x: 120, y: 60, w: 680, h: 290 });
    assert!(region.w > 0 && region.x + region.w <= whole.width && region.y + region.h <= whole.height);
    let part = whole.crop(Crop::Region).unwrap();
    assert_eq!((part.width, part.height), (region.w, region.h));
    assert_eq!(load("CT_small.dcm").region, None);
}

/// A file of elements `(group, element, representation, value)`, little-endian.
fn file(syntax: &str, explicit: bool, elements: &[(u16, u16, &[u8; 2], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut put = |group: u16, element: u16, vr: &[u8; 2], mut value: Vec<u8>, explicit: bool| {
        if value.len() % 2 == 1 {
            value.push(0);
        }
        let undefined =
            value.starts_with(&[0xfe, 0xff, 0, 0xe0]) && value.ends_with(&[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        let len = if undefined { u32::MAX } else { value.len() as u32 };
        bytes.extend(group.to_le_bytes());
        bytes.extend(element.to_le_bytes());
        let long = [b"OB", b"OW", b"SQ"].contains(&vr);
        match (explicit, long) {
            (false, _) => bytes.extend(len.to_le_bytes()),
            (true, true) => bytes.extend(vr.iter().copied().chain([0, 0]).chain(len.to_le_bytes())),
            (true, false) => bytes.extend(vr.iter().copied().chain((len as u16).to_le_bytes())),
        }
        bytes.extend(value);
    };
    put(2, 0x10, b"UI", syntax.into(), true);
    for (group, element, vr, value) in elements {
        put(*group, *element, vr, value.clone(), explicit);
    }
    bytes
}

fn us(value: u16) -> Vec<u8> {
    value.to_le_bytes().into()
}

fn words(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

type Elements = Vec<(u16, u16, &'static [u8; 2], Vec<u8>)>;

/// Rows, columns, samples, bits and kind of a picture of 16-bit (12 stored) or 8-bit samples.
fn head(kind: &str, rows: u16, columns: u16, bits: u16, signed: u16) -> Elements {
    let channels = if kind.starts_with("RGB") || kind.starts_with("YBR") { 3 } else { 1 };
    let stored = if bits == 16 { 12 } else { bits };
    vec![
        (0x28, 0x02, b"US", us(channels)),
        (0x28, 0x04, b"CS", kind.into()),
        (0x28, 0x10, b"US", us(rows)),
        (0x28, 0x11, b"US", us(columns)),
        (0x28, 0x100, b"US", us(bits)),
        (0x28, 0x101, b"US", us(stored)),
        (0x28, 0x102, b"US", us(stored - 1)),
        (0x28, 0x103, b"US", us(signed)),
    ]
}

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const RLE: &str = "1.2.840.10008.1.2.5";

/// Shown levels of a grey file.
fn greys(bytes: &[u8]) -> Vec<u8> {
    let picture = decode(bytes, "x", Options::default()).unwrap();
    assert!(picture.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    picture.pixels.into_iter().step_by(3).collect()
}

#[test]
fn a_window_applies_to_rescaled_signed_values_and_monochrome1_is_inverted() {
    for (kind, inverted) in [("MONOCHROME2", false), ("MONOCHROME1", true)] {
        for (syntax, explicit) in [(EXPLICIT, true), (IMPLICIT, false)] {
            let mut elements = head(kind, 1, 5, 16, 1);
            elements.push((0x28, 0x1050, b"DS", "10\\99 ".into()));
            elements.push((0x28, 0x1051, b"DS", "101".into()));
            elements.push((0x28, 0x1052, b"DS", "10 ".into()));
            elements.push((0x28, 0x1053, b"DS", "2".into()));
            // The four bits above the stored twelve are noise, as overlays were once.
            elements.push((0x7fe0, 0x10, b"OW", words(&[-1024, -25, 0x0fff, 0x3000, 25])));
            // y = ((x - 9.5) / 100 + 0.5) * 255 with x = 2 stored + 10.
            let expected = [0, 1, 124, 129, 255].map(|y| if inverted { 255 - y } else { y });
            assert_eq!(greys(&file(syntax, explicit, &elements)), expected);
        }
    }
}

#[test]
fn without_a_window_eight_bits_stay_and_more_are_spread() {
    let mut elements = head("MONOCHROME2", 2, 2, 8, 0);
    elements.push((0x7fe0, 0x10, b"OB", vec![9, 8, 7, 200]));
    assert_eq!(greys(&file(EXPLICIT, true, &elements)), [9, 8, 7, 200]);
    let mut elements = head("MONOCHROME2", 1, 3, 16, 0);
    elements.push((0x7fe0, 0x10, b"OW", words(&[100, 200, 300])));
    assert_eq!(greys(&file(EXPLICIT, true, &elements)), [0, 128, 255]);
    let mut elements = head("MONOCHROME2", 1, 2, 16, 0);
    elements.push((0x7fe0, 0x10, b"OW", words(&[100, 100])));
    assert_eq!(greys(&file(EXPLICIT, true, &elements)), [0, 0]);
}

#[test]
fn a_voi_table_goes_before_the_window() {
    let mut item = Vec::new();
    item.extend([0x28, 0, 0x02, 0x30, b'U', b'S', 6, 0, 3, 0, 10, 0, 8, 0]);
    item.extend([0x28, 0, 0x06, 0x30, b'U', b'S', 6, 0, 50, 0, 60, 0, 255, 0]);
    for closed in [true, false] {
        // A sequence and an item of known length, or both closed by marks.
        let mut sequence = vec![0xfe, 0xff, 0, 0xe0];
        sequence.extend(if closed { (item.len() as u32).to_le_bytes() } else { u32::MAX.to_le_bytes() });
        sequence.extend(&item);
        if !closed {
            sequence.extend([0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        }
        let mut elements = head("MONOCHROME2", 1, 4, 16, 0);
        elements.push((0x28, 0x1050, b"DS", "10".into()));
        elements.push((0x28, 0x1051, b"DS", "2".into()));
        elements.push((0x28, 0x3010, b"SQ", sequence));
        elements.push((0x7fe0, 0x10, b"OW", words(&[0, 10, 11, 400])));
        assert_eq!(greys(&file(EXPLICIT, true, &elements)), [50, 50, 60, 255]);
    }
}

fn fragments(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [&[][..]].iter().chain(parts) {
        bytes.extend([0xfe, 0xff, 0, 0xe0]);
        bytes.extend((part.len().next_multiple_of(2) as u32).to_le_bytes());
        bytes.extend(*part);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
    }
    bytes.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    bytes
}

fn rle(segments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![segments.len() as u32];
    let mut at = 64;
    for segment in segments {
        bytes.push(at);
        at += segment.len() as u32;
    }
    bytes.resize(16, 0);
    let mut bytes: Vec<u8> = bytes.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend(segments.concat());
    bytes
}

#[test]
fn rle_runs_and_literals_are_unpacked_plane_by_plane() {
    // High bytes: four times 1; low bytes: 0, 10, then twice 20.
    let wide = rle(&[&[253, 1], &[1, 0, 10, 255, 20]]);
    let mut elements = head("MONOCHROME2", 2, 2, 16, 0);
    elements.push((0x7fe0, 0x10, b"OB", fragments(&[&wide])));
    assert_eq!(greys(&file(RLE, true, &elements)), [0, 128, 255, 255]);

    let red_then_green = [rle(&[&[255, 255], &[255, 0], &[128, 255, 0]]), rle(&[&[255, 0], &[255, 255], &[255, 0]])];
    let mut elements = head("RGB", 1, 2, 8, 0);
    elements.push((0x28, 0x08, b"IS", "2 ".into()));
    elements.push((0x7fe0, 0x10, b"OB", fragments(&[&red_then_green[0], &red_then_green[1]])));
    let bytes = file(RLE, true, &elements);
    for (frame, expected) in [(0, [255, 0, 0]), (1, [0, 255, 0])] {
        let picture = decode(&bytes, "x", Options { frame }).unwrap();
        assert_eq!(picture.pixels, expected.repeat(2));
    }

    let mut elements = head("MONOCHROME2", 2, 2, 8, 0);
    elements.push((0x7fe0, 0x10, b"OB", fragments(&[&rle(&[&[254, 1]])])));
    assert!(decode(&file(RLE, true, &elements), "x", Options::default()).is_err());
}

#[test]
fn ybr_becomes_rgb() {
    // White, and red as BT.601 has it.
    let mut elements = head("YBR_FULL", 1, 2, 8, 0);
    elements.push((0x7fe0, 0x10, b"OB", vec![255, 128, 128, 76, 85, 255]));
    let picture = decode(&file(EXPLICIT, true, &elements), "x", Options::default()).unwrap();
    assert_eq!(picture.pixels, [255, 255, 255, 254, 0, 0]);
    let mut elements = head("YBR_FULL_422", 1, 2, 8, 0);
    elements.push((0x7fe0, 0x10, b"OB", vec![10, 20, 128, 128]));
    let picture = decode(&file(EXPLICIT, true, &elements), "x", Options::default()).unwrap();
    assert_eq!(picture.pixels, [10, 10, 10, 20, 20, 20]);
}

#[test]
fn what_cannot_be_shown_is_named() {
    let refusal = |syntax, elements: &Elements| {
        let error = decode(&file(syntax, true, elements), "a.dcm", Options::default()).unwrap_err().to_string();
        assert!(error.starts_with("picture a.dcm: ") && !error.contains('\n'), "{error}");
        error
    };
    let with = |index: usize, value: Vec<u8>| {
        let mut elements = head("MONOCHROME2", 2, 2, 8, 0);
        elements[index].3 = value;
        elements.push((0x7fe0, 0x10, b"OB", vec![0; 4]));
        elements
    };
    let whole = with(2, us(2));
    assert!(refusal("1.2.840.10008.1.2.4.80", &whole).contains("transfer syntax 1.2.840.10008.1.2.4.80"));
    assert!(refusal(RLE, &whole).contains("fragments"));
    assert!(refusal(EXPLICIT, &with(2, us(0))).contains("empty"));
    assert!(refusal(EXPLICIT, &with(2, us(60_000))).contains("too many"));
    assert!(refusal(EXPLICIT, &with(2, us(3))).contains("cut short"));
    assert!(refusal(EXPLICIT, &with(1, "HSV ".into())).contains("HSV"));
    assert!(refusal(EXPLICIT, &with(1, "RGB ".into())).contains("1 samples"));
    assert!(refusal(EXPLICIT, &with(4, us(32))).contains("32 bits"));
    assert!(refusal(EXPLICIT, &with(6, us(30))).contains("HighBit"));
    assert!(refusal(EXPLICIT, &head("MONOCHROME2", 2, 2, 8, 0)).contains("no pixel data"));
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    let mut sequence = Vec::new();
    for _ in 0..100_000 {
        sequence.extend([
            0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff, 0x08, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff,
        ]);
    }
    sequence.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    let bytes = file(EXPLICIT, true, &[(0x08, 0x1140, b"SQ", sequence)]);
    assert!(decode(&bytes, "x", Options::default()).unwrap_err().to_string().contains("deeply"));
}

#[test]
fn a_codestream_of_countless_tiles_is_refused() {
    let mut file = read("examples_jpeg2k.dcm");
    let at = file.windows(4).position(|w| w == [0xff, 0x4f, 0xff, 0x51]).unwrap();
    file[at + 24..at + 32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    assert!(decode(&file, "x", Options::default()).unwrap_err().to_string().contains("tiles"));
}

#[test]
fn damage_never_panics() {
    let names = [
        "CT_small",
        "ExplVR_BigEnd",
        "examples_ybr_color",
        "examples_jpeg2k",
        "JPGLosslessP14SV1_1s_1f_8b",
        "examples_palette",
    ];
    let rounds: u32 = std::env::var("LEAF_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut state = 1u64;
    let mut next = move |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut failed = Vec::new();
    for name in names {
        let file = read(&format!("{name}.dcm"));
        // The first half of the rounds hits the elements and the codecs' headers, the rest anywhere.
        let head = file.len().min(4000);
        for round in 0..rounds {
            let mut bytes = file.clone();
            for _ in 0..=next(4) {
                let at = if round % 2 == 0 { 132 + next(head - 132) } else { 132 + next(bytes.len() - 132) };
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
            }
            if round % 5 == 0 {
                bytes.truncate(132 + next(file.len() - 132));
            }
            let kept = bytes.clone();
            let start = std::time::Instant::now();
            let result = std::panic::catch_unwind(move || {
                let _ = decode(&bytes, "x", Options { frame: 0 });
            });
            if result.is_err() || start.elapsed().as_secs() > 5 {
                std::fs::write(format!("/tmp/bad_{name}_{round}.dcm"), kept).unwrap();
                failed.push((name, round, start.elapsed()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

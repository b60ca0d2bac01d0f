//! Pictures in, against Pillow and the reference's pixel values.

mod dicom;

use std::path::Path;

use runtime::image::{Options, Preprocess, RgbPicture, decode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tests::data;

fn load(path: &Path) -> RgbPicture {
    let name = path.display().to_string();
    decode(&std::fs::read(path).unwrap(), &name, Options::default()).unwrap()
}

/// CLIP's numbers at a side of `size`.
fn clip(size: u64) -> Preprocess {
    let config = std::fs::read(data("tiny/checkpoint/clip/preprocessor_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["size"] = size.into();
    config["crop_size"] = size.into();
    Preprocess::new(config.to_string().as_bytes()).unwrap()
}

#[test]
fn pixel_values_of_the_golden_picture_are_equal_to_the_bit() {
    let config = std::fs::read(data("tiny/checkpoint/clip/preprocessor_config.json")).unwrap();
    let found = Preprocess::new(&config).unwrap().run(&load(&data("tiny/input.png")));
    let file = std::fs::read(data("tiny/comprehension.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    let expected = file.tensor("pixel_values").unwrap();
    assert_eq!(expected.shape(), [3, 112, 112]);
    let bytes: Vec<u8> = found.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(bytes == expected.data());
}

#[test]
fn resizing_is_equal_to_pillow() {
    let expected: Value = serde_json::from_slice(&std::fs::read(data("pictures/expected.json")).unwrap()).unwrap();
    let entries = expected["entries"].as_array().unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        let file = entry["file"].as_str().unwrap();
        let size = entry["size"].as_u64().unwrap();
        let rgb = clip(size).resize(&load(&data("pictures").join(file)));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        for (y, row) in entry["rows"].as_object().unwrap() {
            let row_bytes = 3 * size as usize;
            let at = y.parse::<usize>().unwrap() * row_bytes;
            assert_eq!(hex(&rgb[at..at + row_bytes]), row.as_str().unwrap(), "{file}, row {y}");
        }
        assert_eq!(hex(&Sha256::digest(&rgb)), entry["sha256"].as_str().unwrap(), "{file} at {size}");
    }
}

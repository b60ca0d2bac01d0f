//! Pipelines on disk: kept for the next time, and never a reason to fail.

use runtime::gpu::{Gpu, Options};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn open(folder: &Path) -> Gpu {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    Gpu::open(&Options { device, cache_dir: Some(folder.into()), ..Default::default() }).expect("a device")
}

/// Compiles and runs a kernel, and keeps its pipeline.
fn use_and_save(folder: &Path) {
    let gpu = open(folder);
    let kernel = &shaders::add::KERNEL;
    for case in (kernel.cases)() {
        let outcomes = gpu.probe(kernel, gpu.select(kernel, &case.imports, &case.constants), &case).expect("runs");
        assert!(outcomes.iter().zip(&case.outputs).all(|(o, e)| o.error <= e.bound), "{outcomes:?}");
    }
    gpu.save_pipelines();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map_or(vec![], |entries| entries.map(|e| e.expect("an entry").path()).collect())
}

/// A file of ours: the data behind its hash.
fn whole(data: &[u8]) -> Vec<u8> {
    [&Sha256::digest(data)[..], data].concat()
}

#[test]
fn a_cache_that_is_damaged_or_foreign_is_ignored_and_written_anew() {
    let folder = tests::scratch().join("pipelines");
    use_and_save(&folder);
    let [file] = &files(&folder)[..] else {
        // The driver keeps none, or the API has none.
        return;
    };
    let good = std::fs::read(file).expect("the cache");
    let data = &good[32..];
    assert_eq!(good, whole(data));
    let changed = |at: usize| {
        let mut data = data.to_vec();
        data[at] ^= 1;
        data
    };
    // wgpu's header: its magic, the device, and what the driver says of itself.
    let foreign = [0, 20, 36].map(|at| whole(&changed(at)));
    let cut = [vec![], good[..20].to_vec(), good[..good.len() - 1].to_vec(), whole(&data[..data.len() - 1])];
    let flipped = [&good[..32], &changed(data.len() - 1)].concat();
    for bytes in foreign.iter().chain(&cut).chain([&flipped, &b"nothing of the kind".to_vec()]) {
        std::fs::write(file, bytes).expect("written");
        use_and_save(&folder);
        assert_eq!(files(&folder).len(), 1, "one file a device, nothing left beside it");
        let again = std::fs::read(file).expect("the cache");
        assert_eq!(again, whole(&again[32..]), "it was written anew");
    }
}

#[test]
fn a_cache_with_nothing_new_is_not_written() {
    let folder = tests::scratch().join("pipelines-again");
    use_and_save(&folder);
    use_and_save(&folder);
    for file in files(&folder) {
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::options().append(true).open(&file).and_then(|f| f.set_modified(past)).expect("a time");
        let before = std::fs::read(&file).expect("the cache");
        let gpu = open(&folder);
        gpu.save_pipelines();
        if std::fs::read(&file).expect("the cache") != before {
            eprintln!("SKIPPED: {} hands out something else every time", gpu.facts().name);
            continue;
        }
        assert_eq!(file.metadata().and_then(|m| m.modified()).expect("a time"), past);
    }
}

#[test]
fn a_folder_that_cannot_be_is_no_error() {
    let file = tests::scratch().join("a-file");
    std::fs::write(&file, "").expect("written");
    use_and_save(&file.join("below"));
}

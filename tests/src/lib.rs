//! What the test programs share: where the data is, and the device they run on.

mod golden;

pub use golden::{Golden, Stages, stages};

use devices::Facts;
use quantize::config::Choices;
use quantize::recipe::Asked;
use quantize::source::{Given, discover};
use quantize::write::Job;
use runtime::gpu::{Gpu, Options};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A file or folder of the test data.
pub fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

/// The device of this test run, opened once; `HEALTHGPT_DEVICE` chooses among several.
///
/// *Panics* without a device: `cargo xtask test` installs one.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| open(Options::default()))
}

/// The same device as if it had the WebGPU floor and nothing else: bindings of 128 MiB, 8 storage buffers, 16 KiB of
/// workgroup memory, no features.
pub fn gpu_at_the_floor() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| open(Options { no_more_than: Some(Facts::floor()), ..Default::default() }))
}

fn open(options: Options) -> Gpu {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    Gpu::open(&Options { device, ..options }).expect("a device; `cargo xtask test` installs a software one")
}

/// Quantises a checkpoint folder into a file of that name in this run's scratch folder.
///
/// *Panics* if it cannot.
pub fn quantized(checkpoint: &Path, recipe: &str, name: &str) -> PathBuf {
    let folder = scratch();
    let output = folder.join(format!("{name}-{recipe}.safetensors"));
    let parts = discover(checkpoint, &Given::default()).expect("the checkpoint's parts");
    let recipe =
        quantize::recipe::load(recipe, &Asked { method: Some("nearest"), ..Default::default() }).expect("recipe");
    let job = Job::new(&parts, &Choices::default(), recipe).expect("a complete checkpoint");
    job.write(&output, checkpoint, &quantize::Quiet).expect("quantised");
    output
}

/// A folder of this process's own, where `cargo clean` reaches it.
pub fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp").join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// The golden checkpoint, quantised once per recipe and process.
pub fn tiny(recipe: &'static str) -> &'static Path {
    static FILES: [OnceLock<PathBuf>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let slot = ["f16", "q8", "q4"].iter().position(|r| *r == recipe).expect("a recipe");
    FILES[slot].get_or_init(|| quantized(&data("tiny/checkpoint"), recipe, "tiny"))
}

//! From flags to an open model and a session.

use crate::args::{Kv, On, Open, Task};
use crate::failure::Result;
use crate::interrupt;
use crate::output;
use devices::{Kind, Profile};
use runtime::gpu::Options;
use runtime::model::Header;
use runtime::{Model, OpenOptions, Session, SessionOptions};
use serde_json::{Value, json};
use shaders::KvFormat;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

impl From<Task> for runtime::model::Task {
    fn from(task: Task) -> Self {
        match task {
            Task::Ask => runtime::model::Task::Ask,
            Task::Generate => runtime::model::Task::Generate,
        }
    }
}

/// Opens the model for one task.
pub fn model(open: &Open, task: Task) -> Result<Arc<Model>> {
    with_head(open, task, false)
}

/// The same with every row of the head, for comparisons.
pub fn model_to_trace(open: &Open, task: Task) -> Result<Arc<Model>> {
    with_head(open, task, true)
}

fn with_head(open: &Open, task: Task, whole_head: bool) -> Result<Arc<Model>> {
    let model = Model::open(&open.model, &OpenOptions { whole_head, ..options(&open.on, task) })?;
    let facts = model.gpu().facts();
    // Nobody should wait for minutes without knowing why; a script finds the device in what `--json` prints.
    if facts.kind == Kind::Cpu && open.on.device.is_none() && std::io::stderr().is_terminal() {
        output::note(format!("no GPU: running on {}, slowly; `healthgpt doctor` says why", facts.name));
    }
    Ok(model)
}

/// How a model is opened for one task.
pub fn options(on: &On, task: Task) -> OpenOptions {
    let gpu = Options {
        device: on.device.clone(),
        profile: on.profile.clone(),
        variants: on.variant.clone(),
        // To see what a poor device does.
        no_more_than: std::env::var_os("HEALTHGPT_FLOOR").map(|_| devices::Facts::floor()),
        memory_bytes: on.memory,
        cache_dir: if on.no_cache { None } else { cache_dir() },
        ..Default::default()
    };
    let progress = Arc::new(|_: f32, _: &'static str| match interrupt::happened() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    OpenOptions { tasks: vec![task.into()], gpu, progress: Some(progress), ..Default::default() }
}

/// Where programs keep what they can make again, for this user.
fn cache_dir() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = |below| named("HOME").map(|home| home.join(below));
    let folder = if cfg!(windows) {
        named("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Caches")
    } else {
        named("XDG_CACHE_HOME").or_else(|| home(".cache"))
    };
    Some(folder?.join("healthgpt"))
}

/// How the session is planned.
pub fn session(on: &On, task: Task, model: &Model) -> SessionOptions {
    SessionOptions { task: task.into(), context: on.context, kv: kv(on, model), ..Default::default() }
}

/// Format of the cache: the one asked for, or the profile's.
pub fn kv(on: &On, model: &Model) -> KvFormat {
    kv_for(on, model.header(), model.gpu().profile())
}

/// The same for a model that is not open.
pub fn kv_for(on: &On, header: &Header, profile: &Profile) -> KvFormat {
    match on.kv {
        Some(Kv::F16) => KvFormat::F16,
        Some(Kv::Q8) => KvFormat::Q8,
        Some(Kv::F32) => KvFormat::F32,
        None => header.kv_for(profile),
    }
}

/// Device, profile and model of a session, as they stand in JSON.
pub fn describe(session: &Session) -> (Value, Value, Value) {
    let model = session.model();
    let gpu = model.gpu();
    let recipe = &model.header().recipe.name;
    (json!(gpu.facts().name), json!(gpu.profile().name), json!({"sha256": model.sha256(), "recipe": recipe}))
}

/// What `--stats` says: the device and what lies on it, then `rest`.
pub fn stats(session: &Session, load_ms: f64, rest: &str) -> String {
    let gpu = session.model().gpu();
    let megabytes = gpu.allocated_bytes() as f64 / 1e6;
    format!("{}, {megabytes:.0} MB on it; loaded in {load_ms:.0} ms; {rest}", gpu.facts().name)
}

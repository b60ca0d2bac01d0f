//! From flags to an open model and a session.

use crate::args::{Kv, On, Open, Task};
use crate::failure::Result;
use runtime::gpu::Options;
use runtime::{Model, OpenOptions, Session, SessionOptions};
use serde_json::{Value, json};
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
    Ok(Model::open(&open.model, &OpenOptions { whole_head, ..options(&open.on, task) })?)
}

/// How a model is opened for one task.
pub fn options(on: &On, task: Task) -> OpenOptions {
    let gpu = Options {
        device: on.device.clone(),
        profile: on.profile.clone(),
        variants: on.variant.clone(),
        without_subgroups: std::env::var_os("HEALTHGPT_NO_SUBGROUPS").is_some(),
        memory_bytes: on.memory,
        cache_dir: if on.no_cache { None } else { cache_dir() },
        ..Default::default()
    };
    OpenOptions { tasks: vec![task.into()], gpu, ..Default::default() }
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
pub fn session(on: &On, task: Task) -> SessionOptions {
    let kv = match on.kv {
        Kv::F16 => shaders::KvFormat::F16,
        Kv::Q8 => shaders::KvFormat::Q8,
        Kv::F32 => shaders::KvFormat::F32,
    };
    SessionOptions { task: task.into(), context: on.context, kv, ..Default::default() }
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

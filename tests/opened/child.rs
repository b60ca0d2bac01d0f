//! What runs with the driver of one device: opens the model and says what it found.

use devices::Facts;
use runtime::gpu::{self, Options};
use runtime::model::Task;
use runtime::{Model, OpenOptions, Session, SessionOptions};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// A device as its driver reported it, and what a model took on it.
#[derive(Serialize, Deserialize)]
pub struct Opened {
    pub name: String,
    pub driver: String,
    pub profile: String,
    pub f16: bool,
    pub subgroup_size: [u32; 2],
    pub coop: Vec<u32>,
    pub binding_mib: u64,
    pub workgroup_kib: u32,
    /// On the device, once the model and a session for each task were open.
    pub bytes: u64,
    /// The same before anything was allocated.
    pub planned: u64,
    /// Of a token, by task.
    pub dispatches: Vec<usize>,
    /// Whether the self-test found out that nothing is computed there.
    pub found_out: bool,
}

impl Opened {
    /// Reads what [`run`] printed.
    ///
    /// *Errors*: one line, if it printed something else.
    pub fn parse(said: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(said).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(said)))
    }

    fn new(facts: &Facts, profile: &str) -> Self {
        Opened {
            name: facts.name.clone(),
            driver: format!("{} {}", facts.driver, facts.driver_info),
            profile: profile.into(),
            f16: facts.f16,
            subgroup_size: if facts.subgroups { facts.subgroup_size } else { [0, 0] },
            coop: facts.coop.clone(),
            binding_mib: facts.storage_binding_bytes >> 20,
            workgroup_kib: facts.workgroup_bytes >> 10,
            bytes: 0,
            planned: 0,
            dispatches: Vec::new(),
            found_out: false,
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened { name, driver, profile, subgroup_size, coop, binding_mib, workgroup_kib, bytes, .. } = self;
        write!(f, "{name} ({driver}): {profile}, subgroups {subgroup_size:?}, coop {coop:?}, f16 {}, ", self.f16)?;
        write!(f, "{binding_mib} MiB, {workgroup_kib} KiB; {bytes} bytes, {:?} dispatches", self.dispatches)
    }
}

/// Prints an [`Opened`]; without a model (`-`) only what the driver reports. Never returns to tear things down: some
/// drivers wait for a GPU there.
pub fn run(gigabytes: &str, model: &str) -> ExitCode {
    let code = match open(gigabytes, model) {
        Ok(opened) => {
            println!("{}", serde_json::to_string(&opened).unwrap_or_default());
            0
        }
        Err(why) => {
            eprintln!("{why}");
            1
        }
    };
    std::process::exit(code)
}

fn open(gigabytes: &str, model: &str) -> Result<Opened, String> {
    let bytes = gigabytes.parse::<u64>().map_err(|e| e.to_string())? * 1_000_000_000;
    let memory = Some(bytes);
    let most = Facts { memory_bytes: memory, system_bytes: memory, system_free_bytes: memory, ..Facts::plenty() };
    if model == "-" {
        let found = gpu::list().into_iter().next().ok_or("no adapter")?;
        let facts = found.facts.no_more_than(&most);
        let profile = devices::profile(&facts, None)?;
        return Ok(Opened::new(&facts, profile.name));
    }
    let gpu = Options { no_more_than: Some(most), ..Default::default() };
    // Nothing computes there.
    let options = OpenOptions { tasks: Task::ALL.to_vec(), gpu, skip_self_test: true, ..Default::default() };
    let model = Model::open(Path::new(model), &options).map_err(|e| e.to_string())?;
    let mut sessions = Vec::new();
    let mut planned = 0;
    for task in Task::ALL {
        let session = SessionOptions { task, ..Default::default() };
        let plan = Model::plan(model.header(), model.gpu().facts(), &options, &session).map_err(|e| e.to_string())?;
        // The weights once, a session for each task.
        planned += if planned == 0 { plan.total() } else { plan.kv + plan.scratch + plan.staging };
        sessions.push(Session::new(&model, session).map_err(|e| e.to_string())?);
    }
    let mut opened = Opened::new(model.gpu().facts(), model.gpu().profile().name);
    opened.bytes = model.gpu().allocated_bytes();
    opened.planned = planned;
    opened.dispatches = sessions.iter().map(Session::dispatches_per_token).collect();
    opened.found_out = matches!(model.self_test(), Err(runtime::Error::Faulty { .. }));
    std::mem::forget((sessions, model));
    Ok(opened)
}

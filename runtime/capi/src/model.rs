//! Models: weights on a device.

use crate::callback::{Progress, UserData};
use crate::entry;
use crate::error::{Failure, HGPT_ERROR_TASK, Result, hgpt_status};
use crate::handle::{self, Handle, Inner, Poison, Ref};
use crate::records::Sink;
use crate::runtime::{Runtime, hgpt_runtime, only};
use crate::strings::{Bytes, NUL_TERMINATED, Out, Text};
use crate::structs::{self, In, OutRecord, field, record};
use runtime::model::{Header, Task};
use runtime::{Footprint, ModelSummary, OpenOptions, gpu};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// A model on a device: the weights, shared by its sessions. It keeps its runtime alive, and lives itself until the last
/// of its sessions and images has ended.
pub struct hgpt_model {
    _opaque: [u8; 0],
}

/// Tasks: a question, and text as the answer.
pub const HGPT_TASK_ASK: u32 = 1;
/// An instruction, and a picture as the answer.
pub const HGPT_TASK_GENERATE: u32 = 2;

/// Ask the driver for a queue of low priority; hgpt_stats.low_priority_granted says whether there is one.
pub const HGPT_MODEL_LOW_PRIORITY: u32 = 1;
/// Trust the device: without this, opening has every kernel show a known answer, with hgpt_runtime_options.cache_dir once
/// a driver. A kernel that fails gives way to another, and the log says so.
pub const HGPT_MODEL_NO_SELF_TEST: u32 = 2;

/// Is told how far something is, from 0 to 1, and what is being done: `stage` is an English word or two, valid until the
/// callback returns. Runs on the thread that made the call. Not 0 stops.
pub type hgpt_progress_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, fraction: f32, stage: *const c_char) -> i32>;

/// How a model is opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_model_options {
    /// sizeof(hgpt_model_options).
    pub struct_size: u32,
    /// Index of the device, or HGPT_DEVICE_BEST, the default.
    pub device: u32,
    /// HGPT_TASK_* to load, together; 0 for all that the file has.
    pub tasks: u32,
    /// HGPT_MODEL_*.
    pub flags: u32,
    /// Most bytes on the device for the model and all its sessions; 0 for no limit of its own. What would go beyond it
    /// fails with HGPT_ERROR_OUT_OF_MEMORY instead of being tried.
    pub memory_budget: u64,
    /// 32 bytes that hgpt_model_info.sha256 must be, or NULL.
    pub expected_sha256: *const u8,
    /// Told while the file is read; may be NULL.
    pub progress: hgpt_progress_fn,
    /// Handed to `progress`.
    pub progress_user_data: *mut c_void,
}

record! {
    hgpt_model_options { device, tasks, flags, memory_budget, expected_sha256, progress, progress_user_data } =
        hgpt_model_options {
            struct_size: 0,
            device: crate::HGPT_DEVICE_BEST,
            tasks: 0,
            flags: 0,
            memory_budget: 0,
            expected_sha256: std::ptr::null(),
            progress: None,
            progress_user_data: std::ptr::null_mut(),
        }
}

/// Device memory in bytes, by what it is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_memory {
    /// sizeof(hgpt_memory).
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Language model with its tables.
    pub weights: u64,
    /// Adapters of the tasks.
    pub adapters: u64,
    /// Vision tower.
    pub vision: u64,
    /// Picture decoder.
    pub image_decoder: u64,
    /// Cache of one token of context, in the session's format.
    pub kv_per_token: u64,
    /// Cache of every token of context, of all sessions.
    pub kv_reserved: u64,
    /// Intermediate results, of all sessions.
    pub scratch: u64,
    /// Buffers through which results come back, of all sessions.
    pub staging: u64,
    /// All of it.
    pub total: u64,
    /// hgpt_model_options.memory_budget.
    pub budget: u64,
    /// Free on the device; 0 where the driver does not say.
    pub device_free: u64,
}

record! {
    hgpt_memory {
        reserved, weights, adapters, vision, image_decoder, kv_per_token, kv_reserved, scratch, staging, total, budget,
        device_free,
    } = hgpt_memory {
        struct_size: 0,
        reserved: 0,
        weights: 0,
        adapters: 0,
        vision: 0,
        image_decoder: 0,
        kv_per_token: 0,
        kv_reserved: 0,
        scratch: 0,
        staging: 0,
        total: 0,
        budget: 0,
        device_free: 0,
    }
}

/// What a model file says of itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_model_info {
    /// sizeof(hgpt_model_info).
    pub struct_size: u32,
    /// HGPT_TASK_* that the file has; of an open model those that it was opened for.
    pub tasks: u32,
    /// Most tokens of context that the model was made for.
    pub max_context: u32,
    /// Tokens that a picture takes of it; 0 if the model takes none.
    pub image_tokens: u32,
    /// Width of the pictures that hgpt_session_generate draws, in pixels; 0 if it draws none.
    pub output_width: u32,
    /// Their height.
    pub output_height: u32,
    /// Identifies the model: SHA-256 of the file's header, which holds the hash of every tensor.
    pub sha256: [u8; 32],
    /// Family and size: "HealthGPT 3072x32".
    pub name: [c_char; 64],
    /// Recipe: "q4".
    pub quantization: [c_char; 64],
    /// Which program wrote the file.
    pub source: [c_char; 128],
}

record! {
    hgpt_model_info {
        tasks, max_context, image_tokens, output_width, output_height, sha256, name, quantization, source,
    } = hgpt_model_info {
        struct_size: 0,
        tasks: 0,
        max_context: 0,
        image_tokens: 0,
        output_width: 0,
        output_height: 0,
        sha256: [0; 32],
        name: [0; 64],
        quantization: [0; 64],
        source: [0; 128],
    }
}

/// Compiled kernels that no session uses; they are compiled again when they are needed.
pub const HGPT_TRIM_KERNELS: u32 = 1;

/// Sets options to their defaults: the best device, all tasks of the file, no budget of its own, no callback.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_options_init(options: *mut hgpt_model_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_model_options_init", || unsafe { structs::init(options, size) });
}

/// What a model file says of itself, from its header alone: milliseconds, no device. `out->struct_size` must be set.
///
/// Thread: any.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_probe(path: *const c_char, out: *mut hgpt_model_info) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (path, out) = unsafe { (Text::new(path, NUL_TERMINATED), OutRecord::new(out)) };
    entry::call_alone("hgpt_model_probe", None, || {
        out.clear()?;
        out.set(&info(&runtime::Model::probe(&path.path("path")?)?))
    })
}

/// Opens a model file: checks its header, loads the weights of the tasks onto the device and checks the hash of every
/// tensor on the way. Takes as long as reading the file once. The file may be removed afterwards.
///
/// `options` may be NULL for the defaults. See hgpt_model_plan for what it will take.
///
/// Thread: any; several may open at once.
/// Stops for `progress`.
/// On failure: `*out` is NULL, and nothing stays on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_open(
    runtime: *mut hgpt_runtime,
    path: *const c_char,
    options: *const hgpt_model_options,
    out: *mut *mut hgpt_model,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (runtime, path, options, out) = unsafe {
        (Ref::new(runtime), Text::new(path, NUL_TERMINATED), In::new(options), Out::new(out, std::ptr::null_mut()))
    };
    entry::call("hgpt_model_open", runtime, |runtime| {
        out.require("out")?;
        let path = path.path("path")?;
        let options = options.read()?;
        let summary = runtime::Model::probe(&path)?;
        let open = open_options(runtime, &options, &summary.header)?;
        let model = runtime::Model::open(&path, &open)?;
        out.set(handle::create(Model::new(runtime, &options, &summary, model, open.tasks)));
        Ok(())
    })
}

/// The same for a model file that is in memory already: decrypted, or unpacked. The bytes are read during the call and
/// not kept.
///
/// Thread: any; several may open at once.
/// Stops for `progress`.
/// On failure: `*out` is NULL, and nothing stays on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_open_memory(
    runtime: *mut hgpt_runtime,
    data: *const c_void,
    size: usize,
    options: *const hgpt_model_options,
    out: *mut *mut hgpt_model,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (runtime, data, options, out) =
        unsafe { (Ref::new(runtime), Bytes::new(data, size), In::new(options), Out::new(out, std::ptr::null_mut())) };
    entry::call("hgpt_model_open_memory", runtime, |runtime| {
        out.require("out")?;
        let data = data.get("data")?;
        let options = options.read()?;
        let summary = runtime::Model::probe_in_memory(data)?;
        let open = open_options(runtime, &options, &summary.header)?;
        let model = runtime::Model::open_in_memory(data, &open)?;
        out.set(handle::create(Model::new(runtime, &options, &summary, model, open.tasks)));
        Ok(())
    })
}

/// What an open model says of itself. `out->struct_size` must be set.
///
/// Thread: any.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_info_get(model: *mut hgpt_model, out: *mut hgpt_model_info) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (model, out) = unsafe { (Ref::new(model), OutRecord::new(out)) };
    entry::call("hgpt_model_info_get", model, |model| {
        out.clear()?;
        out.set(&model.info)
    })
}

/// What the model and all its sessions hold of the device's memory now. `out->struct_size` must be set.
///
/// Thread: any, also while calls run on its sessions.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_memory(model: *mut hgpt_model, out: *mut hgpt_memory) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (model, out) = unsafe { (Ref::new(model), OutRecord::new(out)) };
    entry::call("hgpt_model_memory", model, |model| {
        out.clear()?;
        let total = model.model.gpu().allocated_bytes();
        out.set(&hgpt_memory { total, ..memory(&model.footprint(), model.budget) })
    })
}

/// Checks the device: runs every kernel that the model uses on an input whose answer is known. For the start of a shift,
/// or when an answer looks odd. Sessions may go on meanwhile. Needs a few megabytes of the device while it runs, beyond
/// hgpt_model_plan: within a tight memory_budget run it before the sessions are made.
///
/// Thread: any.
/// On failure: HGPT_ERROR_DEVICE_FAULTY names the kernel. The model is as before, and should not be used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_self_test(model: *mut hgpt_model) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let model = unsafe { Ref::new(model) };
    entry::call("hgpt_model_self_test", model, |model| Ok(model.model.self_test()?))
}

/// Gives back what can be made again: HGPT_TRIM_* together, or 0 for everything of the kind.
///
/// Thread: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_trim(model: *mut hgpt_model, what: u32) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let model = unsafe { Ref::new(model) };
    entry::call("hgpt_model_trim", model, |model| {
        only("what", what, HGPT_TRIM_KERNELS)?;
        Ok(model.model.trim()?)
    })
}

/// Ends a model; NULL is fine. Takes effect when the last of its sessions and images has ended.
///
/// Thread: any one, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_close(model: *mut hgpt_model) {
    // SAFETY: NULL or a handle that nobody uses any more.
    entry::quietly("hgpt_model_close", || drop(unsafe { handle::destroy(model) }));
}

/// Behind a `hgpt_model`.
pub(crate) struct Model {
    poison: Poison,
    runtime: Arc<Runtime>,
    pub model: Arc<runtime::Model>,
    tasks: Vec<Task>,
    info: hgpt_model_info,
    budget: u64,
    /// What sessions hold beside the model.
    sessions: Mutex<Footprint>,
}

impl Handle for hgpt_model {
    type Inner = Model;
    const MARK: u64 = u64::from_le_bytes(*b"hgpt_mod");
    const NAME: &'static str = "model";
}

impl Inner for Model {
    fn poison(&self) -> &Poison {
        &self.poison
    }

    fn sink(&self) -> Option<&Sink> {
        self.runtime.sink()
    }
}

impl Model {
    fn new(
        runtime: &Arc<Runtime>,
        options: &hgpt_model_options,
        summary: &ModelSummary,
        model: Arc<runtime::Model>,
        tasks: Vec<Task>,
    ) -> Arc<Self> {
        let info = hgpt_model_info { tasks: tasks.iter().map(|t| bit(*t)).sum(), ..info(summary) };
        Arc::new(Model {
            poison: Poison::default(),
            runtime: runtime.clone(),
            model,
            tasks,
            info,
            budget: options.memory_budget,
            sessions: Mutex::default(),
        })
    }

    /// What a session is for that does not say.
    pub fn first_task(&self) -> Task {
        self.tasks.first().copied().unwrap_or(Task::Ask)
    }

    /// Side of a picture that is drawn, in pixels.
    pub fn output_side(&self) -> u32 {
        self.model.header().config.vqgan.as_ref().map_or(0, |q| q.side() as u32)
    }

    /// The model and its sessions.
    fn footprint(&self) -> Footprint {
        let sessions = *self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Footprint { kv_per_token, kv, scratch, staging, .. } = sessions;
        let own = self.model.footprint();
        Footprint { kv_per_token, kv, scratch: own.scratch + scratch, staging: own.staging + staging, ..own }
    }

    /// A session came or went.
    pub fn count_session(&self, session: &Footprint, came: bool) {
        let own = self.model.footprint();
        let mut all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let change = |all: &mut u64, bytes: u64| *all = if came { *all + bytes } else { all.saturating_sub(bytes) };
        change(&mut all.kv, session.kv);
        change(&mut all.scratch, session.scratch.saturating_sub(own.scratch));
        change(&mut all.staging, session.staging.saturating_sub(own.staging));
        if came {
            all.kv_per_token = session.kv_per_token;
        }
    }
}

/// The account for C, without what only the device knows.
pub(crate) fn memory(footprint: &Footprint, budget: u64) -> hgpt_memory {
    hgpt_memory {
        struct_size: 0,
        reserved: 0,
        weights: footprint.weights,
        adapters: footprint.adapters,
        vision: footprint.vision,
        image_decoder: footprint.image_decoder,
        kv_per_token: footprint.kv_per_token,
        kv_reserved: footprint.kv,
        scratch: footprint.scratch,
        staging: footprint.staging,
        total: footprint.total(),
        budget,
        device_free: 0,
    }
}

fn tasks(bits: u32, header: &Header) -> Result<Vec<Task>> {
    only("tasks", bits, HGPT_TASK_ASK | HGPT_TASK_GENERATE)?;
    let has = |task: &Task| header.config.task(*task).is_some();
    if bits == 0 {
        return Ok(Task::ALL.into_iter().filter(has).collect());
    }
    let wanted: Vec<Task> = Task::ALL.into_iter().filter(|t| bits & bit(*t) != 0).collect();
    match wanted.iter().find(|t| !has(t)) {
        None => Ok(wanted),
        Some(task) => {
            Err(Failure::new(HGPT_ERROR_TASK, format!("the model file was made without the task to {}", task.name())))
        }
    }
}

fn bit(task: Task) -> u32 {
    match task {
        Task::Ask => HGPT_TASK_ASK,
        Task::Generate => HGPT_TASK_GENERATE,
    }
}

/// What the caller's options mean for this file.
pub(crate) fn open_options(runtime: &Runtime, options: &hgpt_model_options, header: &Header) -> Result<OpenOptions> {
    only("flags", options.flags, HGPT_MODEL_LOW_PRIORITY | HGPT_MODEL_NO_SELF_TEST)?;
    let tasks = tasks(options.tasks, header)?;
    let expected_sha256 = match options.expected_sha256.is_null() {
        true => None,
        // SAFETY: 32 bytes are there, the header says.
        false => Some(unsafe { options.expected_sha256.cast::<[u8; 32]>().read_unaligned() }),
    };
    let listener = Progress { function: options.progress, user_data: UserData(options.progress_user_data) };
    let progress = move |fraction: f32, stage: &'static str| match listener.tell(fraction, stage) {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let (device, _) = runtime.choose(options.device)?;
    Ok(OpenOptions {
        tasks,
        gpu: gpu::Options {
            device: Some(device.to_string()),
            memory_bytes: (options.memory_budget != 0).then_some(options.memory_budget),
            cache_dir: runtime.cache_dir.clone(),
            search: runtime.search.clone(),
            ..Default::default()
        },
        expected_sha256,
        skip_self_test: options.flags & HGPT_MODEL_NO_SELF_TEST != 0,
        progress: options.progress.is_some().then(|| Arc::new(progress) as runtime::Progress),
        ..Default::default()
    })
}

fn info(summary: &ModelSummary) -> hgpt_model_info {
    let ModelSummary { header, sha256, producer, .. } = summary;
    let config = &header.config;
    let side = config.vqgan.as_ref().map_or(0, |q| q.side() as u32);
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(sha256.as_bytes().chunks_exact(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()).unwrap_or(0);
    }
    hgpt_model_info {
        struct_size: 0,
        tasks: Task::ALL.into_iter().filter(|t| config.task(*t).is_some()).map(bit).sum(),
        max_context: config.language.max_positions as u32,
        image_tokens: config.vision.as_ref().map_or(0, |v| v.patches() as u32),
        output_width: side,
        output_height: side,
        sha256: hash,
        name: field(&format!("HealthGPT {}x{}", config.language.hidden, config.language.layers)),
        quantization: field(&header.recipe.name),
        source: field(producer),
    }
}

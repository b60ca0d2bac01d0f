//! The runtime: what in other libraries is global.

use crate::callback::UserData;
use crate::entry;
use crate::error::{Failure, HGPT_ERROR_ARGUMENT, HGPT_ERROR_VERSION, Result, hgpt_status};
use crate::handle::{self, Handle, Inner, Poison};
use crate::records::Sink;
use crate::strings::{NUL_TERMINATED, Out, Text};
use crate::structs::{self, In, record};
use devices::Backend;
use log::LevelFilter;
use runtime::gpu::{Found, Search};
use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A runtime: log, choice of devices, folder for compiled kernels. Nothing is shared between two of them.
pub struct hgpt_runtime {
    _opaque: [u8; 0],
}

/// Ignore the environment variables that are there for diagnosis (WGPU_*). None ever changes a result.
pub const HGPT_RUNTIME_IGNORE_ENV: u32 = 1;
/// HGPT_DEVICE_BEST may take a software device where there is no other: slow, but any machine will do.
pub const HGPT_RUNTIME_ALLOW_SOFTWARE: u32 = 2;

/// Bits of hgpt_runtime_options.backends, and the one bit of hgpt_device_info.backend.
pub const HGPT_BACKEND_VULKAN: u32 = 1;
/// Direct3D 12.
pub const HGPT_BACKEND_D3D12: u32 = 2;
/// Metal.
pub const HGPT_BACKEND_METAL: u32 = 4;
/// OpenGL and OpenGL ES: the last resort, asked only where no other answers.
pub const HGPT_BACKEND_GL: u32 = 8;

/// Levels of log lines: something failed.
pub const HGPT_LOG_ERROR: u32 = 1;
/// Something is not as it should be; all goes on.
pub const HGPT_LOG_WARN: u32 = 2;
/// What was opened, on which device, how large.
pub const HGPT_LOG_INFO: u32 = 3;
/// Which kernel variants were chosen.
pub const HGPT_LOG_DEBUG: u32 = 4;
/// Everything.
pub const HGPT_LOG_TRACE: u32 = 5;

/// Gets a log line: `text` is UTF-8 of `length` bytes with a NUL behind, valid until the callback returns. Lines of a call
/// come on the thread that made it, in order, before its other callbacks and before it returns. Never a question, an
/// answer or anything of a picture, at any level.
pub type hgpt_log_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, level: u32, text: *const c_char, length: usize)>;

/// How a runtime is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_runtime_options {
    /// sizeof(hgpt_runtime_options).
    pub struct_size: u32,
    /// HGPT_BACKEND_* to look at, or 0 for the best.
    pub backends: u32,
    /// HGPT_RUNTIME_*.
    pub flags: u32,
    /// HGPT_LOG_*: lines up to this level; 0 for none. HGPT_LOG_INFO by default.
    pub log_level: u32,
    /// Gets the lines; NULL for silence. Called by every thread that makes calls, several at once.
    pub log: hgpt_log_fn,
    /// Handed to `log`.
    pub log_user_data: *mut c_void,
    /// Folder in which compiled kernels are kept for the next start; NULL writes nothing anywhere.
    pub cache_dir: *const c_char,
}

record! {
    hgpt_runtime_options { backends, flags, log_level, log, log_user_data, cache_dir } = hgpt_runtime_options {
        struct_size: 0,
        backends: 0,
        flags: 0,
        log_level: HGPT_LOG_INFO,
        log: None,
        log_user_data: std::ptr::null_mut(),
        cache_dir: std::ptr::null(),
    }
}

/// Sets options to their defaults: hgpt_runtime_options_init(&options, sizeof options).
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_runtime_options_init(options: *mut hgpt_runtime_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_runtime_options_init", || unsafe { structs::init(options, size) });
}

/// Makes a runtime. Looks for no device yet, so it also succeeds where there is none.
///
/// `options` may be NULL for the defaults: silent, the best device, nothing written.
///
/// Thread: any.
/// On failure: `*out` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_runtime_create(
    options: *const hgpt_runtime_options,
    out: *mut *mut hgpt_runtime,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (options, out) = unsafe { (In::new(options), Out::new(out, std::ptr::null_mut())) };
    entry::call_alone("hgpt_runtime_create", None, || {
        out.require("out")?;
        out.set(handle::create(Arc::new(Runtime::new(&options.read()?)?)));
        Ok(())
    })
}

/// Ends a runtime; NULL is fine. Its models and what is made of them stay usable, and keep what they need of it until
/// they end: so `log` must stay callable until then.
///
/// Thread: any one, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_runtime_destroy(runtime: *mut hgpt_runtime) {
    // SAFETY: NULL or a handle that nobody uses any more.
    entry::quietly("hgpt_runtime_destroy", || drop(unsafe { handle::destroy(runtime) }));
}

/// Behind a `hgpt_runtime`.
pub(crate) struct Runtime {
    poison: Poison,
    sink: Option<Sink>,
    pub search: Search,
    pub allow_software: bool,
    pub cache_dir: Option<PathBuf>,
    /// Asked for once, so that an index means the same device each time.
    pub devices: OnceLock<Vec<Found>>,
}

impl Handle for hgpt_runtime {
    type Inner = Runtime;
    const MARK: u64 = u64::from_le_bytes(*b"hgpt_run");
    const NAME: &'static str = "runtime";
}

impl Inner for Runtime {
    fn poison(&self) -> &Poison {
        &self.poison
    }

    fn sink(&self) -> Option<&Sink> {
        self.sink.as_ref()
    }
}

impl Runtime {
    fn new(options: &hgpt_runtime_options) -> Result<Self> {
        let backends = [
            (Backend::Vulkan, HGPT_BACKEND_VULKAN),
            (Backend::D3d12, HGPT_BACKEND_D3D12),
            (Backend::Metal, HGPT_BACKEND_METAL),
            (Backend::Gl, HGPT_BACKEND_GL),
        ];
        only("backends", options.backends, backends.iter().map(|(_, bit)| bit).sum())?;
        only("flags", options.flags, HGPT_RUNTIME_IGNORE_ENV | HGPT_RUNTIME_ALLOW_SOFTWARE)?;
        let level = level(options.log_level)?;
        // SAFETY: NULL or a text with a NUL, the header says.
        let cache_dir = unsafe { Text::new(options.cache_dir, NUL_TERMINATED) };
        let sink = Sink { function: options.log, user_data: UserData(options.log_user_data), level };
        Ok(Runtime {
            poison: Poison::default(),
            sink: options.log.is_some().then_some(sink),
            search: Search {
                backends: backends.iter().filter(|(_, bit)| options.backends & bit != 0).map(|(b, _)| *b).collect(),
                ignore_env: options.flags & HGPT_RUNTIME_IGNORE_ENV != 0,
            },
            allow_software: options.flags & HGPT_RUNTIME_ALLOW_SOFTWARE != 0,
            cache_dir: cache_dir.optional("cache_dir")?.map(PathBuf::from),
            devices: OnceLock::new(),
        })
    }
}

fn level(level: u32) -> Result<LevelFilter> {
    let levels = [
        LevelFilter::Off,
        LevelFilter::Error,
        LevelFilter::Warn,
        LevelFilter::Info,
        LevelFilter::Debug,
        LevelFilter::Trace,
    ];
    let known = levels.get(level as usize).copied();
    known.ok_or_else(|| Failure::argument("log_level", format!("is {level}; 0 to {HGPT_LOG_TRACE} are known")))
}

/// *Errors*: a field that only a newer version has a use for.
pub(crate) fn unused(what: &str, value: u32) -> Result {
    match value {
        0 => Ok(()),
        _ => Err(Failure::new(HGPT_ERROR_VERSION, format!("{what} is {value}, which this version does not know"))),
    }
}

/// *Errors*: bits that this version does not know.
pub(crate) fn only(what: &str, bits: u32, known: u32) -> Result {
    match bits & !known {
        0 => Ok(()),
        unknown => Err(Failure::new(HGPT_ERROR_ARGUMENT, format!("{what} has unknown bits {unknown:#x}"))),
    }
}

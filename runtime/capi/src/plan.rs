//! Memory, before any of it is taken.

use crate::entry;
use crate::error::hgpt_status;
use crate::handle::Ref;
use crate::model::{hgpt_memory, hgpt_model_options, memory, open_options};
use crate::runtime::hgpt_runtime;
use crate::session::{hgpt_session_options, session_options as options_of_session};
use crate::strings::{NUL_TERMINATED, Text};
use crate::structs::{In, OutRecord};
use runtime::model::Task;
use std::ffi::c_char;

/// What hgpt_model_open and one hgpt_session_create with these options would take, to the byte, from the file's header
/// and what the device says of itself: nothing is allocated or loaded. `model_options` and `session_options` may be NULL
/// for the defaults; `out->struct_size` must be set. A plan beyond memory_budget is no failure of this function: compare
/// `total` with `budget`.
///
/// Thread: any.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_model_plan(
    runtime: *mut hgpt_runtime,
    path: *const c_char,
    model_options: *const hgpt_model_options,
    session_options: *const hgpt_session_options,
    out: *mut hgpt_memory,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (runtime, path, model_options, session, out) = unsafe {
        (
            Ref::new(runtime),
            Text::new(path, NUL_TERMINATED),
            In::new(model_options),
            In::new(session_options),
            OutRecord::new(out),
        )
    };
    entry::call("hgpt_model_plan", runtime, |runtime| {
        out.clear()?;
        let options = model_options.read()?;
        let summary = runtime::Model::probe(&path.path("path")?)?;
        let mut open = open_options(runtime, &options, &summary.header)?;
        // What is beyond the budget is to be seen, too.
        open.gpu.memory_bytes = None;
        let first = open.tasks.first().copied().unwrap_or(Task::Ask);
        let session = options_of_session(&session.read()?, first)?;
        let facts = &runtime.choose(options.device)?.1.facts;
        let footprint = runtime::Model::plan(&summary.header, facts, &open, &session)?;
        out.set(&memory(&footprint, options.memory_budget))
    })
}

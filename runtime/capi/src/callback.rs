//! Calling back into the program. What is called must return: an exception that comes out of it ends the process here,
//! before it could tear through the library's own frames.

use crate::ask::{hgpt_token, hgpt_token_fn};
use crate::model::hgpt_progress_fn;
use crate::records;
use std::ffi::{CString, c_void};

/// What the caller wants handed back. It is only ever handed back.
#[derive(Clone, Copy)]
pub(crate) struct UserData(pub *mut c_void);

// SAFETY: never dereferenced here; and it is handed back on the thread that made the call, but for the log's, of which the
// header says that any thread that calls may get it.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// Ends the process when an unwind passes by.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Runs a callback.
pub(crate) fn guarded<R>(callback: impl FnOnce() -> R) -> R {
    let end = End;
    let result = callback();
    std::mem::forget(end);
    result
}

/// Who is told of progress.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    pub function: hgpt_progress_fn,
    pub user_data: UserData,
}

impl Progress {
    /// Tells, and returns whether to go on.
    pub fn tell(&self, fraction: f32, stage: &str) -> bool {
        let Some(function) = self.function else { return true };
        records::hand_over();
        let stage = CString::new(stage).unwrap_or_default();
        // SAFETY: the caller gave a function of this type, to be called during its call.
        guarded(|| unsafe { function(self.user_data.0, fraction, stage.as_ptr()) }) == 0
    }
}

/// Who gets the tokens.
#[derive(Clone, Copy)]
pub(crate) struct Tokens {
    pub function: hgpt_token_fn,
    pub user_data: UserData,
}

impl Tokens {
    /// Hands a token over, and returns whether to go on.
    pub fn tell(&self, token: &hgpt_token) -> bool {
        let Some(function) = self.function else { return true };
        records::hand_over();
        // SAFETY: the caller gave a function of this type, to be called during its call.
        guarded(|| unsafe { function(self.user_data.0, token) }) == 0
    }
}

//! Ctrl-C.

use crate::failure::{FAILED, Failure, INTERRUPTED, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static CANCEL: AtomicBool = AtomicBool::new(false);
static WAITING: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C sets the flag, so that the work ends in good order; the second ends the program.
pub fn catch() -> Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if CANCEL.swap(true, Ordering::Relaxed) || WAITING.load(Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .map_err(|e| Failure::new(FAILED, format!("Ctrl-C cannot be caught: {e}")))?;
    Ok(&CANCEL)
}

/// Waits for the user, during which the first Ctrl-C ends the program: a read does not return for it.
pub fn while_waiting<T>(read: impl FnOnce() -> T) -> T {
    WAITING.store(true, Ordering::Relaxed);
    let result = read();
    WAITING.store(false, Ordering::Relaxed);
    result
}

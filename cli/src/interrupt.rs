//! Ctrl-C.

use crate::failure::{FAILED, Failure, INTERRUPTED, Result};
use runtime::Control;
use std::sync::atomic::{AtomicBool, Ordering};

static HAPPENED: AtomicBool = AtomicBool::new(false);
static WAITING: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C cancels through the control, so that the work ends in good order; the second ends the program.
pub fn catch() -> Result<Control> {
    let control = Control::new();
    let told = control.clone();
    ctrlc::set_handler(move || {
        if HAPPENED.swap(true, Ordering::Relaxed) || WAITING.load(Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        told.cancel();
    })
    .map_err(|e| Failure::new(FAILED, format!("Ctrl-C cannot be caught: {e}")))?;
    Ok(control)
}

/// Whether there was a Ctrl-C. A control forgets one that came before a call of the session.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// *Errors*: if there was a Ctrl-C.
pub fn check() -> runtime::Result<()> {
    if happened() { Err(runtime::Error::Cancelled) } else { Ok(()) }
}

/// Waits for the user, during which the first Ctrl-C ends the program: a read does not return for it.
pub fn while_waiting<T>(read: impl FnOnce() -> T) -> T {
    WAITING.store(true, Ordering::Relaxed);
    let result = read();
    WAITING.store(false, Ordering::Relaxed);
    result
}

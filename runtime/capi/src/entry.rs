//! The way in and out of every function: no panic leaves, the last error is kept, log lines are handed over.

use crate::error::{Failure, HGPT_ERROR_INTERNAL, HGPT_ERROR_POISONED, HGPT_OK, Result, hgpt_status};
use crate::handle::{Handle, Inner, Ref};
use crate::records::{self, Sink};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

#[cfg(not(panic = "unwind"))]
compile_error!("the library turns panics into statuses, so they must unwind");

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A function on a handle.
pub(crate) fn call<H: Handle>(
    name: &'static str,
    handle: Ref<'_, H>,
    work: impl FnOnce(&std::sync::Arc<H::Inner>) -> Result,
) -> hgpt_status {
    let inner = match handle.get() {
        Ok(inner) => inner,
        Err(failure) => return failure.report(),
    };
    let poison = inner.poison().clone();
    if poison.is_set() {
        let text = format!("the {} had an internal error in an earlier call; destroy it", H::NAME);
        return Failure::new(HGPT_ERROR_POISONED, text).report();
    }
    let sink = inner.sink().cloned();
    let done = guarded(name, sink.as_ref(), move || {
        let done = work(&inner);
        // Another thread may have destroyed the handle meanwhile: then its end is here.
        drop(inner);
        done
    });
    match done {
        Ok(Ok(())) => HGPT_OK,
        Ok(Err(failure)) => failure.report(),
        Err(panic) => {
            poison.set();
            panic.report()
        }
    }
}

/// A function without a handle.
pub(crate) fn call_alone(name: &'static str, sink: Option<&Sink>, work: impl FnOnce() -> Result) -> hgpt_status {
    match guarded(name, sink, work) {
        Ok(Ok(())) => HGPT_OK,
        Ok(Err(failure)) | Err(failure) => failure.report(),
    }
}

/// A function that has no status to return; `None` after a panic.
pub(crate) fn quietly<R>(name: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    guarded(name, None, work).ok()
}

/// Runs `work`; a panic becomes a failure.
fn guarded<R>(name: &'static str, sink: Option<&Sink>, work: impl FnOnce() -> R) -> Result<R> {
    keep_panics_quiet();
    let caught = records::during(sink, || {
        catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            injected::panic_if_told(name);
            work()
        }))
    });
    caught.map_err(|payload| {
        // A payload may itself panic when it goes.
        std::mem::forget(payload);
        let place = PLACE.take();
        let at = if place.is_empty() { String::new() } else { format!(" at {place}") };
        Failure::new(HGPT_ERROR_INTERNAL, format!("internal error in {name}{at}; please report it"))
    })
}

/// A library prints nothing. What a panic says is dropped: it may hold text of the user. This is the hook of the library's
/// own copy of Rust's standard library, which no program can reach.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(not(test))]
        std::panic::set_hook(Box::new(|info| {
            if let Some(location) = info.location() {
                let place = format!("{}:{}", location.file(), location.line());
                // During a thread's end there is no such place.
                let _ = PLACE.try_with(|p| p.replace(place));
            }
        }));
    });
}

/// Panics on demand.
#[cfg(test)]
pub(crate) mod injected {
    use std::cell::Cell;

    thread_local! {
        static IN: Cell<&'static str> = const { Cell::new("") };
    }

    /// The next call of this function on this thread panics.
    pub fn next(name: &'static str) {
        IN.set(name);
    }

    pub fn panic_if_told(name: &str) {
        if IN.get() == name {
            IN.set("");
            panic!("told to");
        }
    }
}

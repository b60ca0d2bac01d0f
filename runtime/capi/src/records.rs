//! Whose log lines go where, without a global logger of the caller's.
//!
//! The runtime logs through the `log` crate, which has one logger a copy; the library's copy is its own, and the logger in
//! it keeps nothing: it asks the thread for the call that is running. Each call lays out a tray there ([`during`]), threads
//! that work for it take the tray along (`runtime::thread`), and lines are collected in it. They are handed to the
//! runtime's sink by the thread that made the call, when no lock is held: before a callback and at the end of the call. So
//! two runtimes never see each other's lines, and a callback can do no harm.

use crate::callback::{UserData, guarded};
use crate::runtime::hgpt_log_fn;
use crate::strings::one_line;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// Lines that wait to be handed over; more are counted only.
const MOST: usize = 4096;

/// Where the lines of a runtime go.
#[derive(Clone, Copy)]
pub(crate) struct Sink {
    pub function: hgpt_log_fn,
    pub user_data: UserData,
    pub level: LevelFilter,
}

/// The lines of a call.
struct Tray {
    sink: Sink,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    waiting: Vec<(Level, String)>,
    dropped: usize,
}

/// The `log` crate's logger in this copy of it.
struct Dispatch;

impl Log for Dispatch {
    fn enabled(&self, metadata: &Metadata) -> bool {
        tray().is_some_and(|tray| tray.wants(metadata))
    }

    fn log(&self, record: &Record) {
        let Some(tray) = tray().filter(|tray| tray.wants(record.metadata())) else { return };
        let text = one_line(&record.args().to_string());
        let mut lines = tray.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.waiting.len() < MOST {
            lines.waiting.push((record.level(), text));
        } else {
            lines.dropped += 1;
        }
    }

    fn flush(&self) {}
}

impl Tray {
    /// Our own lines, and those of the graphics library that warn. Others may hold what nobody has checked.
    fn wants(&self, metadata: &Metadata) -> bool {
        let of = |names: &[&str]| names.iter().any(|name| metadata.target().starts_with(name));
        let level = metadata.level();
        level <= self.sink.level
            && (of(&["runtime", "devices", "shaders", "healthgpt"]) || (level <= Level::Warn && of(&["wgpu", "naga"])))
    }

    /// Calls back with every line that waits.
    fn empty(&self) {
        let Lines { waiting, dropped } =
            std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        for (level, text) in waiting {
            self.sink.tell(level, &text);
        }
        if dropped > 0 {
            self.sink.tell(Level::Warn, &format!("{dropped} more lines were dropped"));
        }
    }
}

impl Sink {
    fn tell(&self, level: Level, text: &str) {
        let Some(function) = self.function else { return };
        // With a NUL behind it, for those who do not look at the length.
        let text = text.replace('\0', " ") + "\0";
        // SAFETY: the caller gave a function of this type for as long as the runtime and its children are there.
        guarded(|| unsafe { function(self.user_data.0, level as u32, text.as_ptr().cast(), text.len() - 1) });
    }
}

/// The tray of the call that this thread works for.
fn tray() -> Option<Arc<Tray>> {
    runtime::thread::companion()?.downcast().ok()
}

/// Runs `work` as (part of) a call whose lines go to `sink`.
pub(crate) fn during<R>(sink: Option<&Sink>, work: impl FnOnce() -> R) -> R {
    let Some(sink) = sink.filter(|s| s.function.is_some() && s.level != LevelFilter::Off) else {
        return runtime::thread::accompanied(None, work);
    };
    static ONCE: Once = Once::new();
    // A program that links the Rust library and has a logger keeps it.
    ONCE.call_once(|| {
        if log::set_logger(&Dispatch).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
    });
    let tray = Arc::new(Tray { sink: *sink, lines: Mutex::default() });
    let result = runtime::thread::accompanied(Some(tray.clone()), work);
    tray.empty();
    result
}

/// Hands over what waits: a callback is about to be called, so no lock is held.
pub(crate) fn hand_over() {
    if let Some(tray) = tray() {
        tray.empty();
    }
}

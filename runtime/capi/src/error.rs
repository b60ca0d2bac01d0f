//! Versions, status values and the text of the last error.

use crate::entry;
use crate::strings::{TextOut, one_line};
use runtime::Error;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};

/// Result of nearly every function: 0 is success, below 10 is something that the caller asked for or can do at once, the
/// rest are errors. Values never change their meaning and are never used again; later versions may add some.
pub type hgpt_status = i32;

/// Done.
pub const HGPT_OK: hgpt_status = 0;
/// Stopped by hgpt_session_cancel, a callback or a time limit. Everything is as it was before the call.
pub const HGPT_CANCELLED: hgpt_status = 1;
/// The buffer is too small; the needed size has been written.
pub const HGPT_BUFFER_TOO_SMALL: hgpt_status = 2;
/// A NULL, a size, a value or a text that cannot be.
pub const HGPT_ERROR_ARGUMENT: hgpt_status = 10;
/// A struct or a model file is from a newer version than this library.
pub const HGPT_ERROR_VERSION: hgpt_status = 11;
/// Another call is running on this session. It was not disturbed.
pub const HGPT_ERROR_BUSY: hgpt_status = 12;
/// An internal error happened in an earlier call on this handle. Destroy it.
pub const HGPT_ERROR_POISONED: hgpt_status = 13;
/// There is no device, or none that may be taken.
pub const HGPT_ERROR_NO_DEVICE: hgpt_status = 20;
/// The device lacks a feature or a limit that the model needs.
pub const HGPT_ERROR_DEVICE_UNFIT: hgpt_status = 21;
/// The device was reset, unplugged, or its driver failed. It stays lost: close the model and open it again.
pub const HGPT_ERROR_DEVICE_LOST: hgpt_status = 22;
/// Device memory, or the given budget, does not suffice.
pub const HGPT_ERROR_OUT_OF_MEMORY: hgpt_status = 23;
/// The device computes wrongly: opening a model, or hgpt_model_self_test, found it out.
pub const HGPT_ERROR_DEVICE_FAULTY: hgpt_status = 24;
/// A file is not there or cannot be read.
pub const HGPT_ERROR_IO: hgpt_status = 30;
/// Not a HealthGPT model file, or a damaged one.
pub const HGPT_ERROR_FORMAT: hgpt_status = 31;
/// The bytes of a model file are not those that were written, or not those that were expected.
pub const HGPT_ERROR_INTEGRITY: hgpt_status = 32;
/// A picture is damaged, empty or too large.
pub const HGPT_ERROR_IMAGE: hgpt_status = 40;
/// A picture is of a format that this library does not read.
pub const HGPT_ERROR_IMAGE_UNSUPPORTED: hgpt_status = 41;
/// The conversation does not fit the planned context. The session is as before; reset it or ask less.
pub const HGPT_ERROR_CONTEXT_FULL: hgpt_status = 50;
/// The model file lacks this task, or model or session were not opened for it.
pub const HGPT_ERROR_TASK: hgpt_status = 51;
/// A fault in this library: please report hgpt_last_error. The handle is poisoned.
pub const HGPT_ERROR_INTERNAL: hgpt_status = 99;

/// Version of the interface: raised only by a change that breaks callers. Compare it with hgpt_abi_version().
pub const HGPT_ABI_VERSION: u32 = 1;

/// Interface version of the library that is loaded. Where it is not HGPT_ABI_VERSION, call nothing else.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn hgpt_abi_version() -> u32 {
    HGPT_ABI_VERSION
}

/// Version of the library, "1.2.3". A static string.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn hgpt_version() -> *const c_char {
    VERSION.as_ptr()
}

/// What the library was built from, as JSON: {"version", "commit", "toolchain", "wgpu"}. A static string.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn hgpt_build_info() -> *const c_char {
    BUILD_INFO.as_ptr()
}

/// Name of a status, "HGPT_ERROR_BUSY"; "HGPT_UNKNOWN" for a value that this version does not know. A static string.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn hgpt_status_name(status: hgpt_status) -> *const c_char {
    let found = NAMES.iter().find(|(value, _)| *value == status);
    found.map_or(c"HGPT_UNKNOWN", |(_, name)| *name).as_ptr()
}

/// Text of the last call that failed on this thread: English, one line, names the thing; never a question, an answer or
/// anything of a picture. Later calls that succeed leave it.
///
/// Writes at most `capacity` bytes, the final NUL included, cut between two characters; `text` may be NULL if `capacity`
/// is 0. Returns the length of the whole text in bytes, without NUL: it was cut if that is not below `capacity`.
///
/// Thread: any, at any time; each thread has its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_last_error(text: *mut c_char, capacity: usize) -> usize {
    // SAFETY: the caller gives `capacity` writable bytes, or NULL.
    let out = unsafe { TextOut::new(text, capacity) };
    entry::quietly("hgpt_last_error", || LAST.with_borrow(|last| out.write(last))).unwrap_or(0)
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("a version has no NUL"),
};

const COMMIT: &str = match option_env!("HEALTHGPT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const BUILD_INFO: &CStr = {
    const TEXT: &str = concat!(
        "{\"version\": \"",
        env!("CARGO_PKG_VERSION"),
        "\", \"toolchain\": \"",
        env!("HEALTHGPT_TOOLCHAIN"),
        "\", \"wgpu\": \"",
        env!("HEALTHGPT_WGPU"),
        "\", \"commit\": \""
    );
    const LENGTH: usize = TEXT.len() + COMMIT.len() + 3;
    const BYTES: [u8; LENGTH] = {
        let mut bytes = [0; LENGTH];
        let (text, rest) = bytes.split_at_mut(TEXT.len());
        text.copy_from_slice(TEXT.as_bytes());
        let (commit, end) = rest.split_at_mut(COMMIT.len());
        commit.copy_from_slice(COMMIT.as_bytes());
        end.copy_from_slice(b"\"}\0");
        bytes
    };
    match CStr::from_bytes_with_nul(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("the build's names have no NUL"),
    }
};

macro_rules! names {
    ($($status:ident),* $(,)?) => {
        /// Every status and its name.
        const NAMES: &[(hgpt_status, &CStr)] = &[$(($status, match CStr::from_bytes_with_nul(concat!(stringify!($status), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => panic!("a name has no NUL"),
        })),*];
    };
}

names![
    HGPT_OK,
    HGPT_CANCELLED,
    HGPT_BUFFER_TOO_SMALL,
    HGPT_ERROR_ARGUMENT,
    HGPT_ERROR_VERSION,
    HGPT_ERROR_BUSY,
    HGPT_ERROR_POISONED,
    HGPT_ERROR_NO_DEVICE,
    HGPT_ERROR_DEVICE_UNFIT,
    HGPT_ERROR_DEVICE_LOST,
    HGPT_ERROR_OUT_OF_MEMORY,
    HGPT_ERROR_DEVICE_FAULTY,
    HGPT_ERROR_IO,
    HGPT_ERROR_FORMAT,
    HGPT_ERROR_INTEGRITY,
    HGPT_ERROR_IMAGE,
    HGPT_ERROR_IMAGE_UNSUPPORTED,
    HGPT_ERROR_CONTEXT_FULL,
    HGPT_ERROR_TASK,
    HGPT_ERROR_INTERNAL,
];

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Why a call failed: what the caller gets, and the line that explains it.
pub(crate) struct Failure {
    pub status: hgpt_status,
    pub text: String,
}

/// Result inside the library.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(status: hgpt_status, text: impl Into<String>) -> Self {
        Failure { status, text: text.into() }
    }

    /// An argument that cannot be.
    pub fn argument(what: &str, problem: impl std::fmt::Display) -> Self {
        Failure::new(HGPT_ERROR_ARGUMENT, format!("{what} {problem}"))
    }

    /// Keeps the text for this thread and gives the status.
    pub fn report(self) -> hgpt_status {
        LAST.with_borrow_mut(|last| *last = one_line(&self.text));
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NoDevice(_) => HGPT_ERROR_NO_DEVICE,
            Error::Unfit { .. } => HGPT_ERROR_DEVICE_UNFIT,
            Error::DeviceLost(_) => HGPT_ERROR_DEVICE_LOST,
            Error::OutOfMemory { .. } => HGPT_ERROR_OUT_OF_MEMORY,
            Error::Faulty { .. } => HGPT_ERROR_DEVICE_FAULTY,
            Error::Io { .. } => HGPT_ERROR_IO,
            Error::File { .. } => HGPT_ERROR_FORMAT,
            Error::Version { .. } => HGPT_ERROR_VERSION,
            Error::Integrity { .. } => HGPT_ERROR_INTEGRITY,
            Error::Picture { unsupported: true, .. } => HGPT_ERROR_IMAGE_UNSUPPORTED,
            Error::Picture { .. } => HGPT_ERROR_IMAGE,
            Error::Task(_) => HGPT_ERROR_TASK,
            Error::Input { .. } => HGPT_ERROR_ARGUMENT,
            Error::ContextFull { .. } => HGPT_ERROR_CONTEXT_FULL,
            Error::Cancelled => HGPT_CANCELLED,
            _ => HGPT_ERROR_INTERNAL,
        };
        Failure::new(status, in_words_of_c(error.to_string()))
    }
}

/// What the command line calls by its flags.
const FLAGS: [(&str, &str); 6] = [
    ("--memory", "memory_budget"),
    ("--context", "context_tokens"),
    ("--temperature", "temperature"),
    ("--top-p", "top_p"),
    ("--choices", "choices"),
    ("--crop", "the crop"),
];

fn in_words_of_c(text: String) -> String {
    FLAGS.iter().fold(text, |text, (flag, field)| text.replace(flag, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_name_and_others_have_none() {
        let name = |status| unsafe { CStr::from_ptr(hgpt_status_name(status)) }.to_str().unwrap();
        assert_eq!(name(0), "HGPT_OK");
        assert_eq!(name(12), "HGPT_ERROR_BUSY");
        assert_eq!(name(-1), "HGPT_UNKNOWN");
        let mut values: Vec<_> = NAMES.iter().map(|(value, _)| *value).collect();
        values.dedup();
        assert_eq!(values.len(), NAMES.len());
    }

    #[test]
    fn build_info_is_json() {
        let text = unsafe { CStr::from_ptr(hgpt_build_info()) }.to_str().unwrap();
        let info: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        assert!(info["toolchain"].as_str().unwrap().starts_with("rustc 1."));
        assert!(info["wgpu"].as_str().unwrap().starts_with("30."));
    }

    #[test]
    fn flags_are_not_named_to_those_who_have_fields() {
        let full = Error::ContextFull { need: 3, have: 2 };
        assert!(Failure::from(full).text.contains("raise context_tokens"));
    }
}

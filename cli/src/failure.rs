//! Exit codes: the contract with scripts.

use runtime::Error;

/// Anything that went wrong and has no code of its own.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// No device, or one that does not fit.
pub const DEVICE: u8 = 3;
/// A file is damaged, wrong or missing, or its hash differs.
pub const FILE: u8 = 4;
/// Out of memory, or over the given budget.
pub const MEMORY: u8 = 5;
/// A picture cannot be read.
pub const PICTURE: u8 = 6;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// One line for stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Failure { message: message.into(), code }
    }

    /// What clap has to say, on one line.
    pub fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default();
        let text = text.split("\n\nFor more information").next().unwrap_or_default();
        let line = text.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
        Failure::new(USAGE, format!("{line} (see --help)"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NoDevice(_) | Error::Unfit { .. } | Error::Faulty { .. } => DEVICE,
            Error::OutOfMemory { .. } => MEMORY,
            Error::File { .. } | Error::Io { .. } | Error::Integrity { .. } | Error::Task(_) => FILE,
            Error::Picture { .. } => PICTURE,
            Error::Input { .. } => USAGE,
            Error::Cancelled => INTERRUPTED,
            _ => FAILED,
        };
        Failure::new(code, error.to_string())
    }
}

/// Result of a command.
pub type Result<T = ()> = std::result::Result<T, Failure>;

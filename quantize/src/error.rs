//! Why a run ended, grouped by exit code. Every message is one line that names the file and the tensor.

use crate::source;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that is not possible.
    #[error("{0}")]
    Usage(String),
    /// A source file is missing or damaged.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A model file is missing or damaged, or the runtime could not run it.
    #[error(transparent)]
    Model(#[from] runtime::Error),
    /// A file says something that cannot be used.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with what was found and expected.
        problem: String,
    },
    /// Writing failed.
    #[error("{}: cannot be written: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output may not be touched.
    #[error("{}: {problem}", .path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Interrupted from the keyboard.
    #[error("interrupted")]
    Interrupted,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A file that says something that cannot be used.
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Error::File { path: path.into(), problem: problem.into() }
    }

    /// A write that failed.
    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Error::Write { path: path.into(), source }
    }

    /// Exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Model(e) => match e {
                runtime::Error::NoDevice(_) | runtime::Error::Unfit { .. } | runtime::Error::DeviceLost(_) => 3,
                runtime::Error::OutOfMemory { .. } => 5,
                runtime::Error::Picture { .. } => 6,
                runtime::Error::Cancelled => 130,
                _ => 4,
            },
            Error::Source(_) | Error::File { .. } => 4,
            Error::Write { .. } | Error::Output { .. } => 1,
            Error::Interrupted => 130,
        }
    }
}

//! The one error type of the runtime, grouped by what the caller can do about it.

use std::path::PathBuf;

/// Why a request could not be carried out. Each message is one line that names the thing.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no device that can be used; install a driver or choose another.
    #[error("no usable device: {0}")]
    NoDevice(String),
    /// The device lacks something that this model needs.
    #[error("{device} does not fit: {what} needs {need}, the device has {have}")]
    Unfit {
        /// Device as its driver names it.
        device: String,
        /// What does not fit.
        what: String,
        /// Needed amount, with its unit.
        need: String,
        /// Available amount, with its unit.
        have: String,
    },
    /// The device was lost or its driver failed; open the model again.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// Device or host memory did not suffice.
    #[error("out of memory: {what} needs {need}, available {have}")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Needed amount, with its unit.
        need: String,
        /// Available amount, with its unit.
        have: String,
    },
    /// A model file is missing, damaged, of another version or inconsistent.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming tensor, found and expected.
        problem: String,
    },
    /// A file could not be read.
    #[error("{}: {problem}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// A model file is not the one that was expected, or not as it was written: a hash differs.
    #[error("{}: {problem}", path.display())]
    Integrity {
        /// The file.
        path: PathBuf,
        /// Whose hash.
        problem: String,
    },
    /// The model file, or the model as it was opened, lacks the part that a task needs.
    #[error("{0}")]
    Task(String),
    /// A picture cannot be read.
    #[error("picture {name}: {problem}")]
    Picture {
        /// File name, or `-` for standard input.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An argument is out of its range.
    #[error("{what}: {problem}")]
    Input {
        /// The argument.
        what: String,
        /// What is wrong, with the limit.
        problem: String,
    },
    /// The conversation is longer than the cache was planned for.
    #[error("context full: {need} positions needed, {have} planned; ask less or raise --context")]
    ContextFull {
        /// Positions that prompt and answer need.
        need: usize,
        /// Positions that the cache holds.
        have: usize,
    },
    /// The device computes wrongly.
    #[error("{device} gives a wrong answer in kernel {kernel}: {problem}")]
    Faulty {
        /// Device as its driver names it.
        device: String,
        /// Kernel and variant.
        kernel: String,
        /// How far off it is.
        problem: String,
    },
    /// The caller cancelled, or the time that a call was given is over.
    #[error("cancelled")]
    Cancelled,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! Runs HealthGPT model files on any GPU that wgpu reaches.

mod error;
pub mod file;
pub mod gpu;
mod hex;
pub mod image;
pub mod model;
mod plan;
mod session;
pub mod text;
pub mod thread;

pub use error::{Error, Result};
pub(crate) use hex::hex;
pub use plan::{Control, Pace, Submission, Submissions};
pub use session::{
    Answer, By, Draw, Finish, Footprint, Generated, Grid, Inside, Judged, KernelTime, Kernels, Layerwise, LoadedHead,
    LoadedLayer, Measured, Model, ModelSummary, OpenOptions, Perplexity, Picture, Progress, Request, Row, Session,
    SessionOptions, Speed, Tensor, Timings, Token, Trace, Use, Values, Workload, project, ready_picture,
};

//! Static plans: a model function runs once against a [`Builder`]; the result is a flat list of dispatches over planned
//! buffers that is encoded again for every run. Knows kernels and buffers, not networks.

mod builder;
mod control;
mod language;
mod linear;
mod pace;
mod run;
mod slots;

pub use builder::{Act, Builder};
pub use control::{Control, Pace};
pub use language::{Attention, Stream};
pub use linear::{Biased, HLora, Linear, Matrix, Norm, Shard, Vector};
pub(crate) use pace::{Ahead, Pacer};
pub use pace::{Submission, Submissions};
pub use run::{Plan, Timed, Traced};
pub use slots::Pool;

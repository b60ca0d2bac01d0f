//! Static plans: a model function runs once against a [`Builder`]; the result is a flat list of dispatches over planned
//! buffers that is encoded again for every run. Knows kernels and buffers, not networks.

mod builder;
mod language;
mod linear;
mod run;
mod slots;

pub use builder::{Act, Builder};
pub use language::{Attention, Stream};
pub use linear::{Biased, HLora, Linear, Matrix, Norm, Shard, Vector};
pub use run::{Plan, Timed, Traced};
pub use slots::Pool;

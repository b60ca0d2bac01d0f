//! Text to token ids and back: the tokenizer, the prompt of HealthGPT-M3, the choice of the next token.
//!
//! It knows nothing of the model, the device or files on disk, and it never logs text: that is patients' data.

mod prompt;
mod sampler;
mod tokenizer;

pub use prompt::{PICTURE_MARK, Prompt, SYSTEM, Slot, Turn, build};
pub use sampler::{Likely, Sampler, Sampling, log_softmax_at};
pub use tokenizer::{Piece, TextStream, Tokenizer};

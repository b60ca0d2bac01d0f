//! The C face of the runtime: what `include/healthgpt.h` declares, and nothing more.
//!
//! The header is made from the modules here, one section each (`tests/capi/header.rs`); their doc comments are its text,
//! so they speak to C programmers. The rest is the border itself, and the only place with raw pointers:
//!
//! | module | keeps |
//! | --- | --- |
//! | `entry` | no panic leaves, the last error is kept, log lines are handed over: every call passes here |
//! | `handle` | what a handle points to; children keep their parents |
//! | `structs` | structs of other sizes than ours |
//! | `strings` | text, bytes and buffers of the caller |
//! | `callback` | calling back; an exception that comes out of there ends the process |
//! | `records` | whose log lines go where |
#![expect(unsafe_code, reason = "pointers from C; each block says why it is sound")]
#![cfg_attr(test, expect(clippy::undocumented_unsafe_blocks, reason = "tests pass what they have just made"))]
#![expect(non_camel_case_types, reason = "the names of the header")]
#![expect(clippy::missing_safety_doc, reason = "the header's rules are the contract, and begin with pointers")]

mod callback;
mod entry;
mod handle;
mod records;
mod strings;
mod structs;

mod ask;
mod device;
mod error;
mod generate;
mod image;
mod model;
mod plan;
mod runtime;
mod session;

#[cfg(test)]
mod tests;

pub use self::runtime::*;
pub use ask::*;
pub use device::*;
pub use error::*;
pub use generate::*;
pub use image::*;
pub use model::*;
pub use plan::*;
pub use session::*;
pub use structs::{Field, Layout};

use structs::Record;

/// Every struct of the header.
pub const LAYOUTS: [Layout; 12] = [
    hgpt_runtime_options::LAYOUT,
    hgpt_device_info::LAYOUT,
    hgpt_model_options::LAYOUT,
    hgpt_memory::LAYOUT,
    hgpt_model_info::LAYOUT,
    hgpt_pixels::LAYOUT,
    hgpt_decode_options::LAYOUT,
    hgpt_session_options::LAYOUT,
    hgpt_stats::LAYOUT,
    hgpt_token::LAYOUT,
    hgpt_ask_options::LAYOUT,
    hgpt_generate_options::LAYOUT,
];

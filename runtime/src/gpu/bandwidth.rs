//! How fast a device moves bytes: what decoding is measured against.

use super::{Gpu, Usage};
use crate::Result;
use std::time::Instant;

/// Copied at once, where the device takes so much: more than any cache holds.
const COPY_BYTES: u64 = 256 << 20;
/// Copies are repeated within a submission until it lasts so long, so that submitting and waking up do not count.
const COPY_SECONDS: f64 = 0.02;
/// A device that reports no time must not hold us up.
const MOST_COPIES: usize = 1024;

impl Gpu {
    /// Bandwidth of copies from one buffer to another in 10^9 bytes per second, each byte counted as read and as written:
    /// `reps` times, after some that do not count.
    ///
    /// *Errors*: [`crate::Error::OutOfMemory`] if there is no room for the copies, those of the device.
    pub fn copy_gb_per_s(&self, reps: usize) -> Result<Vec<f64>> {
        let room = self.memory_bytes().map_or(u64::MAX, |most| most.saturating_sub(self.allocated_bytes()) / 2);
        let most = [self.facts().storage_binding_bytes, self.facts().buffer_bytes, room / 16 * 16];
        let bytes = most.into_iter().fold(COPY_BYTES, u64::min).max(16);
        let from = self.buffer("copied from", bytes, Usage::Activation)?;
        let to = self.buffer("copied to", bytes, Usage::Activation)?;
        let seconds = |copies: usize| -> Result<f64> {
            let mut encoder = self.device().create_command_encoder(&Default::default());
            for _ in 0..copies {
                encoder.copy_buffer_to_buffer(from.raw(), 0, to.raw(), 0, bytes);
            }
            let start = Instant::now();
            let submission = self.submit(encoder);
            self.wait(submission)?;
            Ok(start.elapsed().as_secs_f64())
        };
        let mut copies = 1;
        while seconds(copies)? < COPY_SECONDS && copies < MOST_COPIES {
            copies *= 2;
        }
        let moved = 2.0 * bytes as f64 * copies as f64;
        (0..reps).map(|_| Ok(moved / seconds(copies)? / 1e9)).collect()
    }
}

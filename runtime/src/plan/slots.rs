//! Buffers for activations: shared by everything whose lifetimes do not meet, across all plans of a model.
//!
//! A slot is a whole buffer, since wgpu refuses one buffer bound for reading and for writing in one dispatch even at
//! disjoint ranges.

use crate::Result;
use crate::gpu::{Buffer, Gpu, Usage};

/// Also what a uniform binding of an activation needs.
const LEAST_BYTES: u64 = shaders::gemv::UNIFORM_X_BYTES as u64;

/// The buffers that plans share. Plans of one pool must not run at the same time.
#[derive(Default)]
pub struct Pool {
    buffers: Vec<Buffer>,
}

/// First and last step of an activation, and its size.
pub(super) struct Lifetime {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

impl Pool {
    /// Sum of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.size()).sum()
    }

    /// A buffer for each lifetime; two that overlap never share one.
    pub(super) fn assign(&mut self, gpu: &Gpu, lifetimes: &[Lifetime]) -> Result<Vec<Buffer>> {
        let mut order: Vec<usize> = (0..lifetimes.len()).collect();
        order.sort_by_key(|i| lifetimes[*i].first);
        let mut busy_until: Vec<Option<usize>> = vec![None; self.buffers.len()];
        let mut assigned = vec![0; lifetimes.len()];
        for i in order {
            let Lifetime { first, last, bytes } = lifetimes[i];
            let bytes = bytes.max(LEAST_BYTES);
            let free = |b: &usize| busy_until[*b].is_none_or(|until| until < first) && self.buffers[*b].size() >= bytes;
            let best = (0..self.buffers.len()).filter(free).min_by_key(|b| self.buffers[*b].size());
            let slot = match best {
                Some(slot) => slot,
                None => {
                    self.buffers.push(gpu.buffer(&format!("slot {}", self.buffers.len()), bytes, Usage::Activation)?);
                    busy_until.push(None);
                    self.buffers.len() - 1
                }
            };
            busy_until[slot] = Some(last);
            assigned[i] = slot;
        }
        Ok(assigned.into_iter().map(|slot| self.buffers[slot].clone()).collect())
    }
}

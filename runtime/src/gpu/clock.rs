//! The device's own clock: when passes began and ended. Waiting on the host would count submission and waking up too.

use super::{Buffer, Gpu, Usage};
use crate::Result;

/// Bytes of the two times of a pass.
const PASS_BYTES: u64 = 16;

/// Times the passes of a submission.
pub(crate) struct Clock {
    /// `None` on an imagined device.
    queries: Option<wgpu::QuerySet>,
    times: Buffer,
    readback: Buffer,
    tick_s: f64,
}

impl Gpu {
    /// A clock for up to `passes` passes at once, if the device has one.
    ///
    /// *Errors*: those of an allocation.
    pub(crate) fn clock(&self, passes: usize) -> Result<Option<Clock>> {
        if !self.facts().timestamps {
            return Ok(None);
        }
        let times = self.buffer("times", passes as u64 * PASS_BYTES, Usage::Queries)?;
        let readback = self.buffer("times", passes as u64 * PASS_BYTES, Usage::Readback)?;
        if self.is_imagined() {
            return Ok(Some(Clock { queries: None, times, readback, tick_s: 0.0 }));
        }
        let queries = self.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * passes as u32,
        });
        let tick_s = f64::from(self.queue().get_timestamp_period()) / 1e9;
        Ok(Some(Clock { queries: Some(queries), times, readback, tick_s }))
    }
}

impl Clock {
    fn queries(&self) -> &wgpu::QuerySet {
        self.queries.as_ref().expect("a clock of a device that is open")
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.times.size() + self.readback.size()
    }

    /// To be handed to the beginning of pass `index`.
    pub fn pass(&self, index: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * index as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: self.queries(),
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Submits, and gives the seconds that each of the first `passes` passes took.
    ///
    /// *Errors*: those of the device.
    pub fn run(&self, gpu: &Gpu, mut encoder: wgpu::CommandEncoder, passes: usize) -> Result<Vec<f64>> {
        let bytes = passes as u64 * PASS_BYTES;
        encoder.resolve_query_set(self.queries(), 0..2 * passes as u32, self.times.raw(), 0);
        encoder.copy_buffer_to_buffer(self.times.raw(), 0, self.readback.raw(), 0, bytes);
        let submission = gpu.submit(encoder);
        let bytes = gpu.map(&self.readback, bytes, submission)?;
        let ticks: Vec<[u64; 2]> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(ticks.into_iter().map(|[began, ended]| ended.saturating_sub(began) as f64 * self.tick_s).collect())
    }
}

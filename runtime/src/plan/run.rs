//! A finished plan, and running it.

use crate::Result;
use crate::gpu::{Buffer, Gpu, Pipeline};
use std::fmt;
use std::sync::Arc;

pub(super) struct Step {
    pub pipeline: Arc<Pipeline>,
    pub group: wgpu::BindGroup,
    pub grid: [u32; 3],
    pub label: String,
}

pub(super) struct Tap {
    /// Steps before the tap.
    pub after: usize,
    pub name: String,
    pub buffer: Buffer,
    pub rows: usize,
    pub cols: usize,
}

/// A flat list of dispatches with everything bound.
pub struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) taps: Vec<Tap>,
}

/// An activation as a traced run left it.
pub struct Traced {
    /// Name that the model gave it.
    pub name: String,
    /// Row-major values of the rows that the run filled.
    pub values: Vec<f32>,
    /// Width.
    pub cols: usize,
}

impl Plan {
    /// Dispatches of a run.
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Encodes the whole plan.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.encode_steps(encoder, 0..self.steps.len());
    }

    fn encode_steps(&self, encoder: &mut wgpu::CommandEncoder, range: std::ops::Range<usize>) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for step in &self.steps[range] {
            let [x, y, z] = step.grid;
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Runs the plan in submissions of `steps`, waiting for each and asking `go_on` between them.
    ///
    /// *Errors*: [`crate::Error::Cancelled`] if not, those of the device.
    pub(crate) fn run_sliced(&self, gpu: &Gpu, steps: usize, go_on: impl Fn() -> bool) -> Result<()> {
        for first in (0..self.steps.len()).step_by(steps) {
            if !go_on() {
                return Err(crate::Error::Cancelled);
            }
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            self.encode_steps(&mut encoder, first..(first + steps).min(self.steps.len()));
            let submission = gpu.submit(encoder);
            gpu.wait(submission)?;
        }
        Ok(())
    }

    /// Runs the plan and hands over every tapped activation, its first `rows` rows or all of them if it has fewer.
    ///
    /// *Errors*: those of the device.
    pub(crate) fn run_traced(&self, gpu: &Gpu, rows: usize, mut take: impl FnMut(Traced)) -> Result<()> {
        let mut done = 0;
        for tap in &self.taps {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            self.encode_steps(&mut encoder, done..tap.after);
            gpu.submit(encoder);
            done = tap.after;
            let bytes = gpu.read(&tap.buffer, (tap.rows.min(rows) * tap.cols * 4) as u64)?;
            take(Traced { name: tap.name.clone(), values: bytemuck::pod_collect_to_vec(&bytes), cols: tap.cols });
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        self.encode_steps(&mut encoder, done..self.steps.len());
        gpu.submit(encoder);
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let [x, y, z] = step.grid;
            writeln!(f, "{} [{}] {x} x {y} x {z}", step.label, step.pipeline.variant)?;
        }
        Ok(())
    }
}

//! A finished plan, and running it.

use super::pace::Estimate;
use crate::Result;
use crate::gpu::{Buffer, Gpu, Pipeline};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Steps of a submission whose steps are timed.
const TIMED: usize = 64;

pub(super) struct Step {
    pub pipeline: Arc<Pipeline>,
    pub group: wgpu::BindGroup,
    pub grid: [u32; 3],
    pub label: String,
    /// Of the weights that are bound, but for tables of which only rows are read.
    pub weight_bytes: u64,
}

impl Step {
    fn encode(&self, pass: &mut wgpu::ComputePass) {
        let [x, y, z] = self.grid;
        pass.set_pipeline(&self.pipeline.compiled().0);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
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
    pub(super) estimate: Estimate,
    pub(super) params: Buffer,
}

/// A step that was timed.
pub struct Timed {
    /// Kernel's name.
    pub kernel: &'static str,
    /// Variant's name.
    pub variant: &'static str,
    /// Bytes of the weights that it binds.
    pub weight_bytes: u64,
    /// How long it took.
    pub seconds: f64,
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

    /// What it has on the device for itself alone.
    pub fn bytes(&self) -> u64 {
        self.params.size()
    }

    /// Bytes of the weights that a run reads, each as often as a step binds it; not those of tables of which it reads rows.
    pub fn weight_bytes(&self) -> u64 {
        self.steps.iter().map(|s| s.weight_bytes).sum()
    }

    /// Encodes some steps as a pass of their own.
    pub(super) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        range: Range<usize>,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites>,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        for step in &self.steps[range] {
            step.encode(&mut pass);
        }
    }

    /// Runs the plan and times every step: by the device's clock, or where it has none from submitting it alone to its
    /// end.
    ///
    /// *Errors*: those of the device.
    pub(crate) fn run_timed(&self, gpu: &Gpu) -> Result<Vec<Timed>> {
        let clock = gpu.clock(TIMED)?;
        let mut seconds = Vec::new();
        for first in (0..self.steps.len()).step_by(TIMED) {
            let range = first..(first + TIMED).min(self.steps.len());
            let Some(clock) = &clock else {
                for step in range {
                    let start = Instant::now();
                    let mut encoder = gpu.device().create_command_encoder(&Default::default());
                    self.encode(&mut encoder, step..step + 1, None);
                    let submission = gpu.submit(encoder);
                    gpu.wait(submission)?;
                    seconds.push(start.elapsed().as_secs_f64());
                }
                continue;
            };
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for (i, step) in self.steps[range.clone()].iter().enumerate() {
                let timestamp_writes = Some(clock.pass(i));
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                step.encode(&mut encoder.begin_compute_pass(&descriptor));
            }
            seconds.extend(clock.run(gpu, encoder, range.len())?);
        }
        let timed = |(step, seconds): (&Step, f64)| Timed {
            kernel: step.pipeline.kernel,
            variant: step.pipeline.variant,
            weight_bytes: step.weight_bytes,
            seconds,
        };
        Ok(self.steps.iter().zip(seconds).map(timed).collect())
    }

    /// Runs the plan and hands over every tapped activation, its first `rows` rows or all of them if it has fewer.
    ///
    /// *Errors*: those of the device.
    pub(crate) fn run_traced(&self, gpu: &Gpu, rows: usize, mut take: impl FnMut(Traced)) -> Result<()> {
        let mut done = 0;
        for tap in &self.taps {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            self.encode(&mut encoder, done..tap.after, None);
            gpu.submit(encoder);
            done = tap.after;
            let bytes = gpu.read(&tap.buffer, (tap.rows.min(rows) * tap.cols * 4) as u64)?;
            take(Traced { name: tap.name.clone(), values: bytemuck::pod_collect_to_vec(&bytes), cols: tap.cols });
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        self.encode(&mut encoder, done..self.steps.len(), None);
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

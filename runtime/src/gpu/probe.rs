//! One dispatch with a known answer: what kernel tests, and the self-test of a device, are made of.

use super::{Buffer, Gpu, Pipeline, Usage};
use crate::Result;
use shaders::{Access, Case, Expected, Kernel, Variant};
use std::sync::Arc;
use std::time::Instant;

/// What stands behind each output while the kernel runs.
const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 256;

/// What a kernel left in one of its outputs.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Binding name.
    pub name: &'static str,
    /// Normalised mean square error; for words the share of wrong ones.
    pub error: f64,
    /// Whether the bytes behind the output are as they were.
    pub in_bounds: bool,
}

/// A case with everything bound.
struct Bound {
    pipeline: Arc<Pipeline>,
    buffers: Vec<Buffer>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl Gpu {
    fn bind(&self, kernel: &Kernel, variant: &Variant, case: &Case) -> Result<Bound> {
        let pipeline = self.pipeline(kernel, variant, &case.imports, &case.constants)?;
        let mut buffers = Vec::new();
        for binding in &pipeline.bindings {
            let input = case.inputs.iter().find(|i| i.name == binding.name).map(|i| &i.bytes[..]);
            let output = case.outputs.iter().find(|o| o.name == binding.name).map(|o| &o.initial[..]);
            let content = match binding.name {
                "params" => &case.params[..],
                "step" => bytemuck::bytes_of(&case.step),
                _ => input.or(output).unwrap_or(&[0; 16]),
            };
            let mut bytes = content.to_vec();
            if output.is_some() {
                bytes.resize(content.len() + GUARD_BYTES, GUARD);
            }
            let buffer = self.buffer(binding.name, bytes.len() as u64, Usage::Activation)?;
            self.write(&buffer, 0, &bytes);
            buffers.push(buffer);
        }
        let entries: Vec<_> = pipeline
            .bindings
            .iter()
            .zip(&buffers)
            .map(|(binding, buffer)| {
                let whole = buffer.raw().as_entire_buffer_binding();
                let size =
                    (binding.access == Access::Uniform).then(|| wgpu::BufferSize::new(whole.buffer.size())).flatten();
                let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { size, ..whole });
                wgpu::BindGroupEntry { binding: binding.index, resource }
            })
            .collect();
        let group = self.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.compiled().1,
            entries: &entries,
        });
        let grid = (case.grid)(variant);
        Ok(Bound { pipeline, buffers, group, grid })
    }

    fn dispatch(&self, bound: &Bound) -> Result<()> {
        let mut encoder = self.device().create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let [x, y, z] = bound.grid;
            pass.set_pipeline(&bound.pipeline.compiled().0);
            pass.set_bind_group(0, &bound.group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        let submission = self.submit(encoder);
        self.wait(submission)
    }

    /// Seconds of each of `runs` dispatches of a case, submission and waiting included, after one that does not count.
    ///
    /// *Errors*: those of compiling and running.
    pub fn time(&self, kernel: &Kernel, variant: &Variant, case: &Case, runs: usize) -> Result<Vec<f64>> {
        let bound = self.bind(kernel, variant, case)?;
        self.dispatch(&bound)?;
        let mut seconds = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            self.dispatch(&bound)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// What a case shows to be wrong on this device, in a line.
    ///
    /// *Errors*: those of compiling and running.
    pub(super) fn fault(&self, kernel: &Kernel, variant: &Variant, case: &Case) -> Result<Option<String>> {
        let outcomes = self.probe(kernel, variant, case)?;
        let fault = |(outcome, output): (&Outcome, &shaders::Output)| {
            if outcome.error > output.bound_of(variant) {
                return Some(format!("{} of `{}` is off by NMSE {:e}", outcome.name, case.name, outcome.error));
            }
            (!outcome.in_bounds).then(|| format!("it writes behind {} of `{}`", outcome.name, case.name))
        };
        Ok(outcomes.iter().zip(&case.outputs).find_map(fault))
    }

    /// Runs a case on this device and compares.
    ///
    /// *Errors*: those of compiling and running.
    pub fn probe(&self, kernel: &Kernel, variant: &Variant, case: &Case) -> Result<Vec<Outcome>> {
        let bound = self.bind(kernel, variant, case)?;
        self.dispatch(&bound)?;
        let Bound { pipeline, buffers, .. } = bound;
        let mut outcomes = Vec::new();
        for output in &case.outputs {
            let position = pipeline.bindings.iter().position(|b| b.name == output.name);
            let Some(buffer) = position.map(|i| &buffers[i]) else { continue };
            let bytes = self.read(buffer, (output.initial.len() + GUARD_BYTES) as u64)?;
            let (content, guard) = bytes.split_at(output.initial.len());
            outcomes.push(Outcome {
                name: output.name,
                error: error(&output.expected, content),
                in_bounds: guard.iter().all(|b| *b == GUARD),
            });
        }
        Ok(outcomes)
    }
}

fn error(expected: &Expected, content: &[u8]) -> f64 {
    let floats: Vec<f32> = match expected {
        Expected::F32(_) => bytemuck::pod_collect_to_vec(content),
        Expected::F16(_) => {
            let halves: Vec<half::f16> = bytemuck::pod_collect_to_vec(content);
            halves.into_iter().map(half::f16::to_f32).collect()
        }
        Expected::KvQ8(_) => shaders::kv_q8_values(content),
        Expected::U32(words) => {
            let found: Vec<u32> = bytemuck::pod_collect_to_vec(content);
            return words.iter().zip(&found).filter(|(a, b)| a != b).count() as f64 / words.len().max(1) as f64;
        }
    };
    let (Expected::F32(wanted) | Expected::F16(wanted) | Expected::KvQ8(wanted)) = expected else { return f64::NAN };
    nmse(wanted, &floats)
}

/// Mean square of the difference over mean square of `wanted`; infinite if anything is not a number.
pub fn nmse(wanted: &[f32], found: &[f32]) -> f64 {
    let (mut wrong, mut all) = (0.0, 0.0);
    for (w, f) in wanted.iter().zip(found) {
        wrong += (f64::from(*w) - f64::from(*f)).powi(2);
        all += f64::from(*w).powi(2);
    }
    let ratio = wrong / f64::max(all, 1e-30);
    if ratio.is_nan() || wanted.len() != found.len() { f64::INFINITY } else { ratio }
}

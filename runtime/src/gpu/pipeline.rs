//! Pipelines: composed, compiled and checked once, then shared.

use super::cache::Cache;
use super::{Gpu, Place};
use crate::Result;
use shaders::{Access, Binding, Choice, Constant, Kernel, Variant};
use std::sync::{Arc, PoisonError};

/// What a pipeline is made of: a variant, with the imports and constants that the data decides.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub kernel: &'a Kernel,
    pub variant: &'a Variant,
    pub imports: &'a [Choice],
    pub constants: &'a [Constant],
}

impl Program<'_> {
    /// Begins with the names of kernel and variant.
    pub fn key(&self) -> String {
        format!("{} {} {:?} {:?}", self.kernel.name, self.variant.name, self.imports, self.constants)
    }
}

/// A compiled variant of a kernel.
pub struct Pipeline {
    /// Kernel's name.
    pub kernel: &'static str,
    /// Variant's name.
    pub variant: &'static str,
    /// All override constants it was made with.
    pub constants: Vec<Constant>,
    /// Which of its imports and constants the data decided.
    pub(super) data: (Vec<Choice>, Vec<Constant>),
    /// Whether it takes cooperative matrices.
    pub(super) coop: bool,
    /// Its bindings by index.
    pub bindings: Vec<Binding>,
    /// `None` on an imagined device.
    compiled: Option<(wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
}

impl Pipeline {
    /// What it was made of; `None` for a kernel that is not one of [`shaders::kernels`].
    pub(super) fn program(&self) -> Option<Program<'_>> {
        let kernel = shaders::kernels().iter().find(|k| k.name == self.kernel)?;
        let variant = kernel.variants.iter().find(|v| v.name == self.variant)?;
        let (imports, constants) = &self.data;
        Some(Program { kernel, variant, imports, constants })
    }

    /// Whether it is one of a device that is open.
    pub(super) fn is_compiled(&self) -> bool {
        self.compiled.is_some()
    }

    /// *Panics* on an imagined device.
    pub(crate) fn compiled(&self) -> &(wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        self.compiled.as_ref().expect("a pipeline of a device that is open")
    }
}

impl Gpu {
    /// The variant that selection takes for this device and these data, but none that is known to be wrong here. One with
    /// cooperative matrices must first give the right answers even without a self-test: wgpu calls them experimental, and
    /// what its compiler writes leaves open whether workgroup memory is seen across a barrier (gfx-rs/wgpu issue 8805). If
    /// it does not, the next best one is taken.
    pub fn select(&self, kernel: &Kernel, imports: &[Choice], constants: &[Constant]) -> &'static Variant {
        let sound = |variant: &Variant| !self.is_wrong(&Program { kernel, variant, imports, constants });
        loop {
            let variant = devices::select(kernel, imports, self.facts(), self.profile(), &self.inner.forced, sound);
            let program = Program { kernel, variant, imports, constants };
            if variant.needs.coop == 0 || self.is_imagined() || self.is_proven(&program) {
                return variant;
            }
        }
    }

    /// Every pipeline that has been asked for.
    pub(super) fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        let made = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let made: Vec<Place> = made.values().cloned().collect();
        made.iter().filter_map(|place| place.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Forgets compiled pipelines that nothing uses.
    ///
    /// *Errors*: [`crate::Error::DeviceLost`].
    pub(crate) fn trim(&self) -> Result<()> {
        let mut made = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, place| {
            // Somebody is compiling it, or holds it beside this table.
            Arc::strong_count(place) > 1
                || place.try_lock().is_ok_and(|p| p.as_ref().is_some_and(|p| Arc::strong_count(p) > 1))
        });
        drop(made);
        // What was dropped is destroyed when the device is polled.
        let _ = self.poll(wgpu::PollType::Poll);
        self.check()
    }

    /// Keeps what has been compiled for later processes, if the caller gave a folder for it.
    pub fn save_pipelines(&self) {
        if let Some(cache) = &self.inner.cache {
            cache.save();
        }
    }

    /// The pipeline of `variant`, with the imports and constants that the data decides.
    ///
    /// *Errors*: [`crate::Error::Unfit`] if the driver refuses it.
    pub fn pipeline(
        &self,
        kernel: &Kernel,
        variant: &Variant,
        imports: &[Choice],
        constants: &[Constant],
    ) -> Result<Arc<Pipeline>> {
        let program = Program { kernel, variant, imports, constants };
        let place = {
            let mut made = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
            made.entry(program.key()).or_default().clone()
        };
        // Held while compiling, so that nobody compiles it twice; others compile meanwhile.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = &*place {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.compile(&program)?);
        log::debug!("{}: variant {}, {imports:?} {constants:?}", kernel.name, variant.name);
        *place = Some(pipeline.clone());
        Ok(pipeline)
    }

    /// The text of a program.
    ///
    /// *Errors*: one line that says what does not compose.
    pub(super) fn source(&self, program: &Program) -> std::result::Result<String, String> {
        let source = shaders::compose(program.kernel, &[program.variant.imports, program.imports].concat())?;
        #[cfg(feature = "faults")]
        let source = self.with_fault(program, source);
        Ok(source)
    }

    fn compile(&self, program: &Program) -> Result<Pipeline> {
        let Program { kernel, variant, imports, constants } = *program;
        let data = (imports.to_vec(), constants.to_vec());
        let made = |constants, bindings, compiled| Pipeline {
            kernel: kernel.name,
            variant: variant.name,
            coop: variant.needs.coop > 0,
            constants,
            data,
            bindings,
            compiled,
        };
        let constants = [variant.constants, constants].concat();
        let label = format!("{} {}", kernel.name, variant.name);
        let unfit =
            |problem: String| self.unfit(&format!("kernel {label}"), "a driver that accepts it".into(), problem);
        let source = self.source(program).map_err(unfit)?;
        let imports = [variant.imports, imports].concat();
        let bindings = kernel.all_bindings(&imports);
        let storage = bindings.iter().filter(|b| b.access != Access::Uniform).count();
        if storage > self.facts().storage_buffers as usize {
            let have = self.facts().storage_buffers;
            return Err(self.unfit(&format!("kernel {label}"), format!("{storage} storage buffers"), have.to_string()));
        }
        if self.is_imagined() {
            return Ok(made(constants, bindings, None));
        }
        // A driver that cannot compile it is an internal error.
        let internal = self.device().push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let entries: Vec<_> = bindings.iter().map(layout_entry).collect();
        let layout = self
            .device()
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let pipeline_layout = self.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel writes workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.inner.cache.as_ref().map(Cache::pipelines),
        });
        let invalid = pollster::block_on(validation.pop());
        if let Some(error) = pollster::block_on(internal.pop()).or(invalid) {
            return Err(unfit(super::one_line(&error.to_string())));
        }
        self.check()?;
        Ok(made(constants, bindings, Some((pipeline, layout))))
    }
}

fn layout_entry(binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding: binding.index,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match binding.access {
                Access::Uniform => wgpu::BufferBindingType::Uniform,
                Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
            },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}

//! Pipelines: composed, compiled and checked once, then shared.

use super::Gpu;
use crate::Result;
use shaders::{Access, Binding, Choice, Constant, Kernel, Variant};
use std::sync::{Arc, PoisonError};

/// A compiled variant of a kernel.
pub struct Pipeline {
    /// Kernel's name.
    pub kernel: &'static str,
    /// Variant's name.
    pub variant: &'static str,
    /// All override constants it was made with.
    pub constants: Vec<Constant>,
    /// Its bindings by index.
    pub bindings: Vec<Binding>,
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl Gpu {
    /// The variant that selection takes for this device and what the data decides.
    pub fn select(&self, kernel: &Kernel, data: &[Choice]) -> &'static Variant {
        devices::select(kernel, data, self.facts(), self.profile(), &self.inner.forced)
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
        let key = format!("{} {} {imports:?} {constants:?}", kernel.name, variant.name);
        let place = {
            let mut made = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
            made.entry(key).or_default().clone()
        };
        // Held while compiling, so that nobody compiles it twice; others compile meanwhile.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = &*place {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.compile(kernel, variant, imports, constants)?);
        log::debug!("{}: variant {}, {imports:?} {constants:?}", kernel.name, variant.name);
        *place = Some(pipeline.clone());
        Ok(pipeline)
    }

    fn compile(
        &self,
        kernel: &Kernel,
        variant: &Variant,
        imports: &[Choice],
        constants: &[Constant],
    ) -> Result<Pipeline> {
        let imports = [variant.imports, imports].concat();
        let constants = [variant.constants, constants].concat();
        let label = format!("{} {}", kernel.name, variant.name);
        let unfit =
            |problem: String| self.unfit(&format!("kernel {label}"), "a driver that accepts it".into(), problem);
        let source = shaders::compose(kernel, &imports).map_err(unfit)?;
        let bindings = kernel.all_bindings(&imports);
        let storage = bindings.iter().filter(|b| b.access != Access::Uniform).count();
        if storage > self.facts().storage_buffers as usize {
            let have = self.facts().storage_buffers;
            return Err(self.unfit(&format!("kernel {label}"), format!("{storage} storage buffers"), have.to_string()));
        }
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
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
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(unfit(super::one_line(&error.to_string())));
        }
        self.check()?;
        Ok(Pipeline { kernel: kernel.name, variant: variant.name, constants, bindings, pipeline, layout })
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

//! Every kernel in every variant with every kind of data, as the SPIR-V that wgpu would give the driver.

use naga::back::pipeline_constants::process_overrides;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use shaders::{Access, Choice, Constant, Format, Kernel};
use std::fmt::Write;

const ENTRY: (naga::ShaderStage, &str) = (naga::ShaderStage::Compute, "main");

/// One compute pipeline.
pub struct Program {
    /// Kernel, variant and data, in the table's words.
    pub name: String,
    /// A letter a binding, as `kernel_stats` takes it.
    pub layout: String,
    /// Binding of the packed weights, if the kernel reads any.
    pub weights: Option<u32>,
    source: String,
    constants: Vec<Constant>,
    bindings: Vec<u32>,
}

/// What a workgroup takes.
#[derive(Debug, Clone, Copy)]
pub struct Workgroup {
    pub invocations: u64,
    /// Bytes of workgroup memory.
    pub bytes: u64,
}

/// The checks that naga writes into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Those of `Device::create_shader_module`, on a device with robustBufferAccess2.
    All,
    /// `ShaderRuntimeChecks::unchecked()`.
    None,
}

/// Ways of filling a kernel's data imports: the first of each, then each other file in its turn.
fn data_choices(kernel: &Kernel) -> Vec<Vec<Choice>> {
    let usual: Vec<Choice> = kernel.data_imports.iter().map(|(slot, files)| (*slot, files[0])).collect();
    let mut all = vec![usual.clone()];
    for (i, (slot, files)) in kernel.data_imports.iter().enumerate() {
        for file in &files[1..] {
            let mut other = usual.clone();
            other[i] = (*slot, *file);
            all.push(other);
        }
    }
    all
}

/// The constants that stand for a format: q4 as the recipe of that name writes it.
fn data_constants(choices: &[Choice]) -> Vec<Constant> {
    let q4 = Format::Q4 { group: 32, zero_points: true };
    let mut constants = Vec::new();
    if choices.contains(&q4.import()) {
        constants.extend(q4.constants());
    }
    if choices.contains(&q4.down_import()) {
        constants.extend(q4.down_constants());
    }
    constants
}

/// The sizes of HealthGPT-M3, for kernels that make room for a size.
const SIZES: [Constant; 3] = [("HEAD", 96.0), ("HEAD4", 24.0), ("RANK4", 16.0)];

/// Every program of the runtime.
///
/// *Errors*: a kernel that does not compose, in one line.
pub fn all() -> Result<Vec<Program>, String> {
    let mut programs = Vec::new();
    for kernel in shaders::kernels() {
        for variant in kernel.variants {
            for choices in data_choices(kernel).into_iter().filter(|choices| variant.takes(choices)) {
                let imports = [variant.imports, &choices].concat();
                let bindings = kernel.all_bindings(&imports);
                let short = |(slot, file): &Choice| {
                    // The way down of an adapter is filled by files of weights.
                    let rest = file.strip_prefix(slot).or(file.strip_prefix("weights")).unwrap_or(file);
                    rest.trim_start_matches('_').to_string()
                };
                let data: Vec<String> = choices.iter().map(short).collect();
                let data = if data.is_empty() { "-".into() } else { data.join("+") };
                let source = shaders::compose(kernel, &imports)?;
                let sizes = SIZES.iter().filter(|(name, _)| source.contains(&format!("override {name}:"))).copied();
                let constants =
                    variant.constants.iter().copied().chain(data_constants(&choices)).chain(sizes).collect();
                programs.push(Program {
                    name: format!("{} {} {data}", kernel.name, variant.name),
                    layout: bindings.iter().map(|b| if b.access == Access::Uniform { 'u' } else { 's' }).collect(),
                    weights: bindings.iter().position(|b| b.name == "quants").map(|at| at as u32),
                    source,
                    constants,
                    bindings: bindings.iter().map(|b| b.index).collect(),
                });
            }
        }
    }
    Ok(programs)
}

/// A kernel that no compiler can hold in registers: more values than any has live across a barrier.
pub fn spilling() -> Program {
    let mut source = "@group(0) @binding(0) var<storage, read_write> data: array<f32>;\n\
         @compute @workgroup_size(256) fn main(@builtin(local_invocation_index) i: u32) {\n"
        .to_string();
    let count = 320;
    for k in 0..count {
        let _ = writeln!(source, "let v{k} = data[i + {k}u * 256u];");
    }
    source.push_str("storageBarrier();\nvar sum = 1.0;\n");
    for k in 0..count {
        let _ = writeln!(source, "sum = sum * v{k} + v{}; data[i + {k}u * 512u] = sum;", count - 1 - k);
    }
    source.push('}');
    let name = "spilling example -".into();
    Program { name, layout: "s".into(), weights: None, source, constants: vec![], bindings: vec![0] }
}

impl Program {
    /// The module with its constants.
    fn module(&self) -> Result<(naga::Module, ModuleInfo), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", self.name);
        let module = naga::front::wgsl::parse_str(&self.source).map_err(|e| failed(&e))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .map_err(|e| failed(e.as_inner()))?;
        let constants = self.constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let (module, info) = process_overrides(&module, &info, Some(ENTRY), &constants).map_err(|e| failed(&e))?;
        Ok((module.into_owned(), info.into_owned()))
    }

    /// Size of a workgroup.
    ///
    /// *Errors*: what naga has against the program, in one line.
    pub fn workgroup(&self) -> Result<Workgroup, String> {
        let (module, _) = self.module()?;
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|e| format!("{}: {e}", self.name))?;
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        let invocations = module.entry_points.iter().map(|e| e.workgroup_size.iter().map(|n| u64::from(*n)).product());
        Ok(Workgroup {
            invocations: invocations.max().unwrap_or(1),
            bytes: shared.map(|(_, v)| u64::from(layouter[v.ty].size)).sum(),
        })
    }

    /// What wgpu-hal 30 makes of it for Vulkan 1.3 with robustBufferAccess2 (`vulkan/adapter.rs`, `device.rs`): there
    /// buffers are left to the driver, and indices, loops and divisions are checked in the kernel. Which capabilities
    /// a device has matters only to kernels that use them, so all are allowed; `kernel_stats` refuses the others.
    ///
    /// *Errors*: what naga has against it, in one line.
    pub fn spirv(&self, checks: Checks) -> Result<Vec<u32>, String> {
        let (module, info) = self.module()?;
        let checked = checks == Checks::All;
        let options = spv::Options {
            lang_version: (1, 6),
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            fake_missing_bindings: false,
            // wgpu numbers the bindings of a group anew.
            binding_map: (0..).zip(&self.bindings).map(|(at, index)| binding(*index, at)).collect(),
            bounds_check_policies: BoundsCheckPolicies {
                index: if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked },
                buffer: BoundsCheckPolicy::Unchecked,
                image_load: BoundsCheckPolicy::Unchecked,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: checked,
            emit_int_div_checks: checked,
            ..Default::default()
        };
        let stage = spv::PipelineOptions { shader_stage: ENTRY.0, entry_point: ENTRY.1.into() };
        spv::write_vec(&module, &info, &options, Some(&stage)).map_err(|e| format!("{}: {e}", self.name))
    }
}

fn binding(index: u32, at: u32) -> (naga::ResourceBinding, spv::BindingInfo) {
    let info = spv::BindingInfo { descriptor_set: 0, binding: at, binding_array_size: None };
    (naga::ResourceBinding { group: 0, binding: index }, info)
}

//! Which devices there are, what they can do, and which one is taken.

use super::cache::Cache;
use super::{memory, trusted};
use crate::{Error, Result};
use devices::{Backend, Facts, Forced, Kind, Profile};
use std::path::PathBuf;
use wgpu::{Backends, Features, Limits};

/// What the caller asks for; the default takes the best device as it is.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Index in the list, a part of the name, or a PCI bus id.
    pub device: Option<String>,
    /// Profile instead of the matching one.
    pub profile: Option<String>,
    /// Variants to force; see [`Forced::parse`].
    pub variants: Option<String>,
    /// Request no more than this, as if the device were so poor; see [`Facts::no_more_than`].
    pub no_more_than: Option<Facts>,
    /// Allocate no more than this on the device; by default what its profile allows.
    pub memory_bytes: Option<u64>,
    /// Folder to keep compiled pipelines in, for the next time; without it nothing is written.
    pub cache_dir: Option<PathBuf>,
    /// Which devices are looked for.
    pub search: Search,
}

/// Which devices are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Behind these APIs; empty: behind the best that answer.
    pub backends: Vec<Backend>,
    /// Without a look at wgpu's environment variables.
    pub ignore_env: bool,
}

impl Search {
    /// Groups of APIs to ask one after another, until one answers.
    fn groups(&self) -> Vec<Backends> {
        // OpenGL shows the same devices again, with less.
        let groups = [
            &[(Backend::Vulkan, Backends::VULKAN), (Backend::Metal, Backends::METAL), (Backend::D3d12, Backends::DX12)]
                [..],
            &[(Backend::Gl, Backends::GL)],
        ];
        let wanted = |(backend, _): &&(Backend, _)| self.backends.is_empty() || self.backends.contains(backend);
        let group = |all: &[(Backend, Backends)]| all.iter().filter(wanted).map(|(_, bit)| *bit).collect::<Backends>();
        groups.into_iter().map(group).filter(|group| !group.is_empty()).collect()
    }
}

/// A device of the list.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it has.
    pub facts: Facts,
    /// The profile it would get.
    pub profile: &'static Profile,
}

/// What cooperative matrices take.
const COOP: Features = Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

pub(super) struct Opened {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub facts: Facts,
    pub profile: &'static Profile,
    pub forced: Forced,
    pub cache: Option<Cache>,
}

/// Best first: real devices before software ones, and the API's own driver before OpenGL.
fn adapters(search: &Search) -> Vec<(wgpu::Adapter, Facts)> {
    let mut found = Vec::new();
    for backends in search.groups() {
        let mut descriptor = match search.ignore_env {
            true => wgpu::InstanceDescriptor::new_without_display_handle(),
            false => wgpu::InstanceDescriptor::new_without_display_handle_from_env(),
        };
        descriptor.backends = backends;
        // Running out of memory is then an error instead of a crash, where the driver tells its budget.
        descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
        let instance = wgpu::Instance::new(descriptor);
        for adapter in pollster::block_on(instance.enumerate_adapters(backends)) {
            let facts = facts(&adapter);
            if adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
                found.push((adapter, facts));
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    found.sort_by_key(|(_, facts)| match facts.kind {
        Kind::Discrete => 0,
        Kind::Integrated => 1,
        Kind::Virtual | Kind::Other => 2,
        Kind::Cpu => 3,
    });
    found
}

fn facts(adapter: &wgpu::Adapter) -> Facts {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
        wgpu::DeviceType::VirtualGpu => Kind::Virtual,
        wgpu::DeviceType::Cpu => Kind::Cpu,
        wgpu::DeviceType::Other => Kind::Other,
    };
    let system = memory::of_system();
    Facts {
        name: info.name,
        backend: match info.backend {
            wgpu::Backend::Vulkan => Backend::Vulkan,
            wgpu::Backend::Metal => Backend::Metal,
            wgpu::Backend::Dx12 => Backend::D3d12,
            wgpu::Backend::Gl => Backend::Gl,
            _ => Backend::Other,
        },
        kind,
        vendor: info.vendor,
        device: info.device,
        pci: info.device_pci_bus_id,
        driver: info.driver,
        driver_info: info.driver_info,
        memory_bytes: memory::of_device(adapter, kind),
        system_bytes: system.map(|[all, _]| all),
        system_free_bytes: system.map(|[_, free]| free),
        f16: features.contains(Features::SHADER_F16),
        coop: coop(adapter),
        subgroups: features.contains(Features::SUBGROUP),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
        subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
        storage_binding_bytes: limits.max_storage_buffer_binding_size,
        uniform_binding_bytes: limits.max_uniform_buffer_binding_size,
        buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        groups_per_axis: limits.max_compute_workgroups_per_dimension,
    }
}

/// Sides of the cooperative matrices that a kernel could use, largest first.
fn coop(adapter: &wgpu::Adapter) -> Vec<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    if !adapter.features().contains(COOP) {
        return Vec::new();
    }
    let all = adapter.cooperative_matrix_properties();
    let offers = |side: &u32| {
        all.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [*side; 3]
                && (p.ab_type, p.cr_type, p.saturating_accumulation) == (F16, F32, false)
        })
    };
    [16, 8].into_iter().filter(offers).collect()
}

/// Every device that could be opened, best first.
pub fn list() -> Vec<Found> {
    search(&Search::default())
}

/// The same, of those that are looked for. [`Options::device`] counts them so.
pub fn search(search: &Search) -> Vec<Found> {
    let with_profile =
        |(_, facts): (_, Facts)| Found { profile: devices::profile(&facts, None).unwrap_or(&devices::GENERIC), facts };
    adapters(search).into_iter().map(with_profile).collect()
}

fn choose(mut found: Vec<(wgpu::Adapter, Facts)>, asked: Option<&str>) -> Result<(wgpu::Adapter, Facts)> {
    if found.is_empty() {
        return Err(Error::NoDevice(
            "no Vulkan, Metal, Direct3D 12 or OpenGL driver answered; install one (Debian: apt-get install \
             mesa-vulkan-drivers libvulkan1)"
                .into(),
        ));
    }
    let Some(asked) = asked else { return Ok(found.swap_remove(0)) };
    let lower = asked.to_lowercase();
    let position = match asked.parse::<usize>() {
        Ok(index) => (index < found.len()).then_some(index),
        Err(_) => found.iter().position(|(_, f)| {
            f.name.to_lowercase().contains(&lower) || (!f.pci.is_empty() && f.pci.to_lowercase() == lower)
        }),
    };
    let Some(position) = position else {
        let names: Vec<_> = found.iter().enumerate().map(|(i, (_, f))| format!("{i} {}", f.name)).collect();
        return Err(Error::NoDevice(format!("no device matches `{asked}`; there are: {}", names.join(", "))));
    };
    Ok(found.swap_remove(position))
}

/// What the adapter has, but no more than the facts say.
fn limits(adapter: &wgpu::Adapter, facts: &Facts) -> Limits {
    let all = adapter.limits();
    let invocations = facts.workgroup_invocations;
    Limits {
        max_storage_buffer_binding_size: facts.storage_binding_bytes,
        max_uniform_buffer_binding_size: facts.uniform_binding_bytes,
        max_buffer_size: facts.buffer_bytes,
        max_compute_workgroup_storage_size: facts.workgroup_bytes,
        max_compute_invocations_per_workgroup: invocations,
        max_compute_workgroup_size_x: all.max_compute_workgroup_size_x.min(invocations),
        max_compute_workgroup_size_y: all.max_compute_workgroup_size_y.min(invocations),
        max_compute_workgroup_size_z: all.max_compute_workgroup_size_z.min(invocations),
        max_storage_buffers_per_shader_stage: facts.storage_buffers,
        max_compute_workgroups_per_dimension: facts.groups_per_axis,
        ..all
    }
}

pub(super) fn open(options: &Options) -> Result<Opened> {
    let forced = Forced::parse(options.variants.as_deref().unwrap_or_default())
        .map_err(|problem| Error::Input { what: "variant".into(), problem })?;
    let (adapter, mut facts) = choose(adapters(&options.search), options.device.as_deref())?;
    if let Some(most) = &options.no_more_than {
        facts = facts.no_more_than(most);
    }
    if let Some((what, need, have)) = facts.lacks() {
        let (need, have) = (format!("{need} {what}"), have.to_string());
        return Err(Error::Unfit { device: facts.name, what: "every kernel".into(), need, have });
    }
    let mut wanted = if facts.coop.is_empty() { Features::empty() } else { COOP };
    for (has, feature) in [(facts.subgroups, Features::SUBGROUP), (facts.timestamps, Features::TIMESTAMP_QUERY)] {
        wanted.set(feature, has);
    }
    if options.cache_dir.is_some() {
        wanted |= Features::PIPELINE_CACHE;
    }
    let required_features = adapter.features() & wanted;
    let profile = devices::profile(&facts, options.profile.as_deref())
        .map_err(|problem| Error::Input { what: "profile".into(), problem })?;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("healthgpt"),
        required_features,
        required_limits: limits(&adapter, &facts),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        experimental_features: if facts.coop.is_empty() {
            wgpu::ExperimentalFeatures::disabled()
        } else {
            trusted::experimental_features()
        },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
        Error::NoDevice(format!("{} cannot be opened: {}", facts.name, super::one_line(&e.to_string())))
    })?;
    let cache = match &options.cache_dir {
        Some(folder) if required_features.contains(Features::PIPELINE_CACHE) => {
            Cache::open(&device, &adapter.get_info(), folder)
        }
        _ => None,
    };
    Ok(Opened { device, queue, facts, profile, forced, cache })
}

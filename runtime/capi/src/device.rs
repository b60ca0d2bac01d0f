//! Devices: what there is to run on.

use crate::entry;
use crate::error::{Failure, HGPT_ERROR_NO_DEVICE, Result, hgpt_status};
use crate::handle::Ref;
use crate::runtime::{
    HGPT_BACKEND_D3D12, HGPT_BACKEND_GL, HGPT_BACKEND_METAL, HGPT_BACKEND_VULKAN, Runtime, hgpt_runtime,
};
use crate::strings::Out;
use crate::structs::{OutRecord, field, record};
use devices::{Backend, Facts, Kind};
use runtime::gpu::{self, Found};
use std::ffi::c_char;

/// As hgpt_model_options.device: the best device that may be taken.
pub const HGPT_DEVICE_BEST: u32 = u32::MAX;

/// Kinds of devices: not told.
pub const HGPT_DEVICE_OTHER: u32 = 0;
/// A card with its own memory.
pub const HGPT_DEVICE_DISCRETE: u32 = 1;
/// Shares memory with the CPU.
pub const HGPT_DEVICE_INTEGRATED: u32 = 2;
/// Virtualised.
pub const HGPT_DEVICE_VIRTUAL: u32 = 3;
/// The CPU itself.
pub const HGPT_DEVICE_SOFTWARE: u32 = 4;

/// Features of a device: arithmetic in 16 bits.
pub const HGPT_FEATURE_F16: u32 = 1;
/// Subgroup operations.
pub const HGPT_FEATURE_SUBGROUPS: u32 = 2;
/// Cooperative matrices ("tensor cores").
pub const HGPT_FEATURE_COOPERATIVE_MATRIX: u32 = 4;
/// A clock of its own: hgpt_stats.gpu_us is measured by it.
pub const HGPT_FEATURE_TIMESTAMPS: u32 = 8;

/// Verdicts on a device: both tasks run.
pub const HGPT_VERDICT_FIT: u32 = 1;
/// Too small for the picture decoder; questions are answered.
pub const HGPT_VERDICT_FIT_WITHOUT_GENERATION: u32 = 2;
/// Lacks what every kernel needs.
pub const HGPT_VERDICT_UNFIT: u32 = 3;

/// A device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_device_info {
    /// sizeof(hgpt_device_info).
    pub struct_size: u32,
    /// HGPT_BACKEND_*; 0 for another.
    pub backend: u32,
    /// HGPT_DEVICE_*.
    pub kind: u32,
    /// As the driver reports it; not always a PCI id.
    pub vendor_id: u32,
    /// As the driver reports it; not always a PCI id.
    pub device_id: u32,
    /// Smallest subgroup, in invocations.
    pub subgroup_min: u32,
    /// Largest subgroup, in invocations.
    pub subgroup_max: u32,
    /// HGPT_FEATURE_*.
    pub features: u32,
    /// HGPT_VERDICT_*.
    pub verdict: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes; 0 where the driver does not say.
    pub memory_total: u64,
    /// Bytes; 0 where the driver does not say.
    pub memory_free: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub max_binding: u64,
    /// Name.
    pub name: [c_char; 128],
    /// Driver and its version.
    pub driver: [c_char; 128],
    /// Which preferences it gets.
    pub profile: [c_char; 64],
    /// PCI bus id; empty where unknown.
    pub pci_bus: [c_char; 32],
}

record! {
    hgpt_device_info {
        backend, kind, vendor_id, device_id, subgroup_min, subgroup_max, features, verdict, reserved,
        memory_total, memory_free, max_buffer, max_binding, name, driver, profile, pci_bus,
    } = hgpt_device_info {
        struct_size: 0,
        backend: 0,
        kind: 0,
        vendor_id: 0,
        device_id: 0,
        subgroup_min: 0,
        subgroup_max: 0,
        features: 0,
        verdict: 0,
        reserved: 0,
        memory_total: 0,
        memory_free: 0,
        max_buffer: 0,
        max_binding: 0,
        name: [0; 128],
        driver: [0; 128],
        profile: [0; 64],
        pci_bus: [0; 32],
    }
}

/// Number of devices, best first; 0 is no error. They are looked for once per runtime, which takes up to a second.
///
/// Thread: any.
/// On failure: `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_device_count(runtime: *mut hgpt_runtime, out: *mut u32) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (runtime, out) = unsafe { (Ref::new(runtime), Out::new(out, 0)) };
    entry::call("hgpt_device_count", runtime, |runtime| {
        out.require("out")?;
        out.set(runtime.devices().len() as u32);
        Ok(())
    })
}

/// A device by its index. `out->struct_size` must be set.
///
/// Thread: any.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_device_info_get(
    runtime: *mut hgpt_runtime,
    index: u32,
    out: *mut hgpt_device_info,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (runtime, out) = unsafe { (Ref::new(runtime), OutRecord::new(out)) };
    entry::call("hgpt_device_info_get", runtime, |runtime| {
        out.clear()?;
        out.set(&info(runtime.device(index)?.1))
    })
}

impl Runtime {
    /// Every device of the back ends that were asked for, best first.
    pub fn devices(&self) -> &[Found] {
        self.devices.get_or_init(|| gpu::search(&self.search))
    }

    /// *Errors*: an index that no device has.
    fn device(&self, index: u32) -> Result<(u32, &Found)> {
        let count = self.devices().len();
        self.devices().get(index as usize).map(|found| (index, found)).ok_or_else(|| {
            Failure::argument("device", format!("{index} is not there; this machine has {count}, counted from 0"))
        })
    }

    /// The device that a model's options ask for, and its index.
    ///
    /// *Errors*: there is none, or only software ones that may not be taken.
    pub fn choose(&self, asked: u32) -> Result<(u32, &Found)> {
        if asked != HGPT_DEVICE_BEST {
            return self.device(asked);
        }
        let allowed = |(_, d): &(u32, &Found)| self.allow_software || d.facts.kind != Kind::Cpu;
        (0..).zip(self.devices()).find(allowed).ok_or_else(|| {
            let text = match self.devices().first() {
                None => "no usable device: no driver answered; install one (Debian: mesa-vulkan-drivers libvulkan1)",
                Some(_) => "no usable device but software ones, which HGPT_RUNTIME_ALLOW_SOFTWARE would take",
            };
            Failure::new(HGPT_ERROR_NO_DEVICE, text)
        })
    }
}

fn backend(facts: &Facts) -> u32 {
    match facts.backend {
        Backend::Vulkan => HGPT_BACKEND_VULKAN,
        Backend::D3d12 => HGPT_BACKEND_D3D12,
        Backend::Metal => HGPT_BACKEND_METAL,
        Backend::Gl => HGPT_BACKEND_GL,
        Backend::Other => 0,
    }
}

fn features(facts: &Facts) -> u32 {
    let bits = [
        (facts.f16, HGPT_FEATURE_F16),
        (facts.subgroups, HGPT_FEATURE_SUBGROUPS),
        (!facts.coop.is_empty(), HGPT_FEATURE_COOPERATIVE_MATRIX),
        (facts.timestamps, HGPT_FEATURE_TIMESTAMPS),
    ];
    bits.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum()
}

/// Whether it has the floor that every kernel's last variant needs.
fn verdict(facts: &Facts) -> u32 {
    let floor = Facts::floor();
    let fits = facts.storage_buffers >= floor.storage_buffers
        && facts.workgroup_bytes >= floor.workgroup_bytes
        && facts.workgroup_invocations >= floor.workgroup_invocations
        && facts.groups_per_axis >= floor.groups_per_axis;
    if fits { HGPT_VERDICT_FIT } else { HGPT_VERDICT_UNFIT }
}

fn info(found: &Found) -> hgpt_device_info {
    let facts = &found.facts;
    hgpt_device_info {
        struct_size: 0,
        backend: backend(facts),
        kind: match facts.kind {
            Kind::Discrete => HGPT_DEVICE_DISCRETE,
            Kind::Integrated => HGPT_DEVICE_INTEGRATED,
            Kind::Virtual => HGPT_DEVICE_VIRTUAL,
            Kind::Cpu => HGPT_DEVICE_SOFTWARE,
            Kind::Other => HGPT_DEVICE_OTHER,
        },
        vendor_id: facts.vendor,
        device_id: facts.device,
        subgroup_min: facts.subgroup_size[0],
        subgroup_max: facts.subgroup_size[1],
        features: features(facts),
        verdict: verdict(facts),
        reserved: 0,
        memory_total: 0,
        memory_free: 0,
        max_buffer: facts.buffer_bytes,
        max_binding: facts.storage_binding_bytes,
        name: field(&facts.name),
        driver: field(format!("{} {}", facts.driver, facts.driver_info).trim()),
        profile: field(found.profile.name),
        pci_bus: field(&facts.pci),
    }
}

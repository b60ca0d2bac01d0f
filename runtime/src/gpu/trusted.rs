//! All `unsafe` of the runtime: what wgpu lets nobody do by accident.
#![expect(unsafe_code, reason = "each function says why it is sound")]

use super::memory::Heap;

/// Lets a device have features that wgpu calls experimental.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: the contract is to accept that such a feature may have bugs. The only one requested is cooperative matrices,
    // and the kernels that use it are checked against their known answers before they are used (`Gpu::select`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// The heaps of a Vulkan device; none with another API.
#[cfg(any(target_os = "linux", target_os = "android", windows))]
pub(super) fn heaps(adapter: &wgpu::Adapter) -> Vec<Heap> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the contract is not to destroy what is handed out; it is only looked at.
    let Some(adapter) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return Vec::new() };
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device is one of this instance's, and the guard keeps both.
    let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory.memory_heaps_as_slice().iter();
    heaps.map(|heap| Heap { bytes: heap.size, is_local: heap.flags.as_raw() & DEVICE_LOCAL != 0 }).collect()
}

/// The heaps of a Vulkan device, of which there are none here.
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
pub(super) fn heaps(_: &wgpu::Adapter) -> Vec<Heap> {
    Vec::new()
}

/// A cache of pipelines, filled with `data` if there is any.
///
/// `data` must be what [`wgpu::PipelineCache::get_data`] returned, to the byte: the caller holds it against its hash.
/// That it is for this device and driver, wgpu and the driver check themselves.
pub(super) fn pipeline_cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
    // SAFETY: `data` came from `get_data` of such a cache, which is all the contract asks.
    unsafe { device.create_pipeline_cache(&descriptor) }
}

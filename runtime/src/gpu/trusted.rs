//! All `unsafe` of the runtime: what wgpu lets nobody do by accident.
#![expect(unsafe_code, reason = "each function says why it is sound")]

/// Lets a device have features that wgpu calls experimental.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: the contract is to accept that such a feature may have bugs. The only one requested is cooperative matrices,
    // and the kernels that use it are checked against their known answers before they are used (`Gpu::select`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
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

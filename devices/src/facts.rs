//! All that selection may know of a device.

/// API below wgpu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Vulkan.
    Vulkan,
    /// Metal.
    Metal,
    /// Direct3D 12.
    D3d12,
    /// OpenGL or OpenGL ES.
    Gl,
    /// Anything else.
    Other,
}

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A card with its own memory.
    Discrete,
    /// Shares memory with the CPU.
    Integrated,
    /// Virtualised.
    Virtual,
    /// Software.
    Cpu,
    /// Not told.
    Other,
}

/// A device as its driver reports it. Limits in bytes unless said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name.
    pub name: String,
    /// API.
    pub backend: Backend,
    /// Kind.
    pub kind: Kind,
    /// PCI vendor, or the API's substitute.
    pub vendor: u32,
    /// PCI device, or the API's substitute.
    pub device: u32,
    /// PCI bus id, empty where unknown.
    pub pci: String,
    /// Driver name.
    pub driver: String,
    /// Driver version and whatever else it says.
    pub driver_info: String,
    /// f16 arithmetic and storage.
    pub f16: bool,
    /// Sides of the square cooperative matrices that multiply f16 and add up in f32.
    pub coop: Vec<u32>,
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// A clock of its own that a pass can be timed with.
    pub timestamps: bool,
    /// Smallest and largest subgroup, in invocations.
    pub subgroup_size: [u32; 2],
    /// Largest storage binding.
    pub storage_binding_bytes: u64,
    /// Largest uniform binding.
    pub uniform_binding_bytes: u64,
    /// Largest buffer.
    pub buffer_bytes: u64,
    /// Workgroup memory.
    pub workgroup_bytes: u32,
    /// Invocations in a workgroup, a count.
    pub workgroup_invocations: u32,
    /// Storage buffers of a stage, a count.
    pub storage_buffers: u32,
    /// Workgroups along an axis, a count.
    pub groups_per_axis: u32,
}

impl Facts {
    /// A device with nothing but the WebGPU floor, for tests and as a starting point.
    pub fn floor() -> Self {
        Facts {
            name: "floor".into(),
            backend: Backend::Other,
            kind: Kind::Other,
            vendor: 0,
            device: 0,
            pci: String::new(),
            driver: String::new(),
            driver_info: String::new(),
            f16: false,
            coop: vec![],
            subgroups: false,
            timestamps: false,
            subgroup_size: [4, 128],
            storage_binding_bytes: 128 << 20,
            uniform_binding_bytes: 64 << 10,
            buffer_bytes: 256 << 20,
            workgroup_bytes: 16 << 10,
            workgroup_invocations: 256,
            storage_buffers: 8,
            groups_per_axis: 65535,
        }
    }
}

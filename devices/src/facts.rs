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

/// PCI vendors, or what an API says instead.
pub mod vendor {
    /// AMD.
    pub const AMD: u32 = 0x1002;
    /// Apple.
    pub const APPLE: u32 = 0x106b;
    /// ARM.
    pub const ARM: u32 = 0x13b5;
    /// Broadcom, of Raspberry Pi.
    pub const BROADCOM: u32 = 0x14e4;
    /// Imagination, of PowerVR.
    pub const IMAGINATION: u32 = 0x1010;
    /// Intel.
    pub const INTEL: u32 = 0x8086;
    /// NVIDIA.
    pub const NVIDIA: u32 = 0x10de;
    /// Qualcomm.
    pub const QUALCOMM: u32 = 0x5143;
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
    /// The largest pool of memory of its own, or all pools together where it shares memory with the CPU; `None` where the
    /// API does not tell.
    pub memory_bytes: Option<u64>,
    /// The computer's memory, if the system tells.
    pub system_bytes: Option<u64>,
    /// What of that no program uses.
    pub system_free_bytes: Option<u64>,
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
            memory_bytes: None,
            system_bytes: None,
            system_free_bytes: None,
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
    /// Whether its memory is the computer's own.
    pub fn is_unified(&self) -> bool {
        matches!(self.kind, Kind::Integrated | Kind::Cpu)
    }

    /// Memory that it was built with: its own, or the computer's.
    pub fn installed_bytes(&self) -> Option<u64> {
        if self.is_unified() { self.system_bytes.or(self.memory_bytes) } else { self.memory_bytes }
    }

    /// Memory that there is room for now, as far as anybody tells: of a card all of it.
    pub fn free_bytes(&self) -> Option<u64> {
        let all = [self.memory_bytes, self.system_free_bytes.filter(|_| self.is_unified())];
        all.into_iter().flatten().min()
    }

    /// The numbers of the driver's version: `[25, 0, 7]` of `Mesa 25.0.7-2~bpo12+1`. Empty if it says none.
    pub fn driver_version(&self) -> Vec<u32> {
        let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        let words: Vec<&str> = self.driver_info.split_whitespace().collect();
        // OpenGL drivers say their API's version first.
        let named = words.windows(2).find(|w| matches!(w[0], "Mesa" | "NVIDIA")).map(|w| w[1]).filter(is_version);
        let word = named.or(words.iter().copied().find(is_version)).unwrap_or_default();
        let end = word.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(word.len());
        word[..end].split('.').map_while(|number| number.parse().ok()).collect()
    }

    /// More than any device has; to take from in [`Facts::no_more_than`].
    pub fn plenty() -> Self {
        Facts {
            f16: true,
            coop: vec![16, 8],
            subgroups: true,
            timestamps: true,
            storage_binding_bytes: u64::MAX,
            uniform_binding_bytes: u64::MAX,
            buffer_bytes: u64::MAX,
            workgroup_bytes: u32::MAX,
            workgroup_invocations: u32::MAX,
            storage_buffers: u32::MAX,
            groups_per_axis: u32::MAX,
            ..Facts::floor()
        }
    }

    /// What a device must have at least, and this one lacks: (what, needed, there), of the first such limit.
    ///
    /// Kernels stay within the WebGPU floor, so a device that has that has enough. wgpu holds nobody to all of it:
    /// workgroup memory is not checked, and OpenGL drivers may have less.
    pub fn lacks(&self) -> Option<(&'static str, u64, u64)> {
        let floor = Facts::floor();
        let limits = |f: &Facts| {
            [
                ("bytes of workgroup memory", u64::from(f.workgroup_bytes)),
                ("invocations in a workgroup", u64::from(f.workgroup_invocations)),
                ("storage buffers", u64::from(f.storage_buffers)),
                ("bytes in a uniform binding", f.uniform_binding_bytes),
                ("bytes in a buffer", f.buffer_bytes),
            ]
        };
        let mut pairs = limits(&floor).into_iter().zip(limits(self));
        pairs.find_map(|((what, need), (_, have))| (have < need).then_some((what, need, have)))
    }

    /// No more than `other` has: features, limits, and memory as far as `other` tells.
    pub fn no_more_than(self, other: &Facts) -> Facts {
        let less = |have: Option<u64>, most: Option<u64>| have.into_iter().chain(most).min();
        let (f16, subgroups) = (self.f16 && other.f16, self.subgroups && other.subgroups);
        // Nothing multiplies them without both.
        let is_coop = |side: &u32| f16 && subgroups && other.coop.contains(side);
        Facts {
            memory_bytes: less(self.memory_bytes, other.memory_bytes),
            system_bytes: less(self.system_bytes, other.system_bytes),
            system_free_bytes: less(self.system_free_bytes, other.system_free_bytes),
            f16,
            coop: self.coop.into_iter().filter(is_coop).collect(),
            subgroups,
            timestamps: self.timestamps && other.timestamps,
            storage_binding_bytes: self.storage_binding_bytes.min(other.storage_binding_bytes),
            uniform_binding_bytes: self.uniform_binding_bytes.min(other.uniform_binding_bytes),
            buffer_bytes: self.buffer_bytes.min(other.buffer_bytes),
            workgroup_bytes: self.workgroup_bytes.min(other.workgroup_bytes),
            workgroup_invocations: self.workgroup_invocations.min(other.workgroup_invocations),
            storage_buffers: self.storage_buffers.min(other.storage_buffers),
            groups_per_axis: self.groups_per_axis.min(other.groups_per_axis),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_version_is_what_it_says_it_is() {
        let version = |info: &str| Facts { driver_info: info.into(), ..Facts::floor() }.driver_version();
        assert_eq!(version("Mesa 25.0.7-2~bpo12+1"), [25, 0, 7]);
        assert_eq!(version("Mesa 22.3.6 (LLVM 15.0.6)"), [22, 3, 6]);
        assert_eq!(version("550.90.07"), [550, 90, 7]);
        assert_eq!(version("OpenGL ES 3.2 NVIDIA 540.4.0"), [540, 4, 0]);
        assert_eq!(version("4.5 (Core Profile) Mesa 25.0.7"), [25, 0, 7]);
        assert_eq!(version(""), []);
        assert!(version("Mesa 25.0.7") < version("Mesa 25.1.0") && version("Mesa 9.2") < version("Mesa 10.0"));
    }

    #[test]
    fn a_device_below_the_floor_is_told_by_what_it_lacks() {
        assert_eq!(Facts::floor().lacks(), None);
        assert_eq!(Facts { storage_buffers: 4, ..Facts::floor() }.lacks(), Some(("storage buffers", 8, 4)));
        let small = Facts { workgroup_bytes: 8 << 10, ..Facts::floor() };
        assert_eq!(small.lacks(), Some(("bytes of workgroup memory", 16 << 10, 8 << 10)));
    }

    #[test]
    fn memory_of_a_device_that_shares_it_is_the_computers() {
        let card = Facts { kind: Kind::Discrete, memory_bytes: Some(8), ..Facts::floor() };
        let facts = Facts { system_bytes: Some(16), system_free_bytes: Some(4), ..card };
        assert_eq!((facts.installed_bytes(), facts.free_bytes()), (Some(8), Some(8)));
        let shared = Facts { kind: Kind::Integrated, ..facts };
        assert_eq!((shared.installed_bytes(), shared.free_bytes()), (Some(16), Some(4)));
    }
}

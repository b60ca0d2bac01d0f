//! What is known to go wrong on a driver, as data: where, which variants to avoid, what people should do.

use crate::facts::vendor;
use crate::{Backend, Facts};

/// A known fault, or a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong, in a clause.
    pub what: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    /// Where it is told.
    pub link: &'static str,
    /// Where it is.
    pub on: On,
    /// (kernel, variant) that are not chosen there; `*` is any that is not its kernel's last.
    pub avoid: &'static [(&'static str, &'static str)],
}

/// Devices with a fault: all that is given must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct On {
    /// API.
    pub backend: Option<Backend>,
    /// PCI vendor, or the API's substitute.
    pub vendor: Option<u32>,
    /// Part of the driver's name or of what else it says, in any case.
    pub driver: &'static str,
    /// Part of the device's name, in any case.
    pub name: &'static str,
    /// Driver versions before this one; empty for any.
    pub before: &'static [u32],
}

const ANYWHERE: On = On { backend: None, vendor: None, driver: "", name: "", before: &[] };

impl On {
    fn is(&self, facts: &Facts) -> bool {
        let within = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let version = facts.driver_version();
        self.backend.is_none_or(|b| b == facts.backend)
            && self.vendor.is_none_or(|v| v == facts.vendor)
            && (within(&facts.driver, self.driver) || within(&facts.driver_info, self.driver))
            && within(&facts.name, self.name)
            && (self.before.is_empty() || !version.is_empty() && version[..] < *self.before)
    }
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault {
        what: "kernels with large workgroups or unrolled loops have given wrong results",
        advice: "only the plainest kernels are used",
        link: "https://github.com/ggml-org/llama.cpp/issues/26213",
        on: On { vendor: Some(vendor::BROADCOM), name: "V3D", ..ANYWHERE },
        avoid: &[("*", "*")],
    },
    Fault {
        what: "the vendor's driver loses the device when a submission is long",
        advice: "submissions are kept short; Mesa's turnip driver does not have this fault",
        link: "https://github.com/ggml-org/llama.cpp/issues/8743",
        on: On { vendor: Some(vendor::QUALCOMM), driver: "Qualcomm", ..ANYWHERE },
        avoid: &[],
    },
    Fault {
        what: "some versions of the vendor's driver compute wrongly",
        advice: "the self-test must pass; if it does not, use Mesa's panvk driver",
        link: "https://github.com/tsukumijima/libmali-rockchip",
        on: On { backend: Some(Backend::Vulkan), vendor: Some(vendor::ARM), driver: "ARM", ..ANYWHERE },
        avoid: &[],
    },
    Fault {
        what: "bounds of buffers are not checked as they should be",
        advice: "install a driver of 2023 or later",
        link: "https://github.com/gfx-rs/wgpu/blob/v30.0.1/wgpu-hal/src/vulkan/adapter.rs",
        on: On { vendor: Some(vendor::INTEL), driver: "Intel Corporation", before: &[101, 2115], ..ANYWHERE },
        avoid: &[],
    },
    Fault {
        what: "cooperative matrices have given wrong results",
        advice: "they are not used",
        link: "https://github.com/ggml-org/llama.cpp/issues/28502",
        on: On { vendor: Some(vendor::IMAGINATION), name: "PowerVR", ..ANYWHERE },
        avoid: &[("gemm", "coop16"), ("gemm", "coop8"), ("gemm", "dp4a")],
    },
    Fault {
        what: "Mesa is of 2023 or older: its software driver loads memory three times slower than later ones, AMD has no \
               cooperative matrices, Raspberry Pi no subgroups",
        advice: "install Mesa 25 or later (Debian 12 has it in bookworm-backports)",
        link: "https://packages.debian.org/bookworm-backports/mesa-vulkan-drivers",
        on: On { driver: "Mesa", before: &[24], ..ANYWHERE },
        avoid: &[],
    },
    Fault {
        what: "NVIDIA's driver is older than R535: it has no cooperative matrices that can be used",
        advice: "install R535 or later (Jetson: JetPack 6): prompts and pictures gain from them",
        link: "https://developer.nvidia.com/vulkan-driver",
        on: On { vendor: Some(vendor::NVIDIA), driver: "NVIDIA", before: &[535], ..ANYWHERE },
        avoid: &[],
    },
];

/// The known faults of a device.
pub fn faults(facts: &Facts) -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().filter(|fault| fault.on.is(facts))
}

impl Fault {
    /// Whether it speaks against a variant.
    pub(crate) fn avoids(&self, kernel: &shaders::Kernel, variant: &shaders::Variant) -> bool {
        let last = kernel.variants.last().is_some_and(|last| last.name == variant.name);
        let names = |pattern: &str, name: &str| pattern == name || pattern == "*";
        let all = |v: &str| v == "*" && last;
        self.avoid.iter().any(|(k, v)| names(k, kernel.name) && names(v, variant.name) && !all(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_by_driver_and_version() {
        let llvmpipe = |info: &str| Facts { driver: "llvmpipe".into(), driver_info: info.into(), ..Facts::floor() };
        assert_eq!(faults(&llvmpipe("Mesa 22.3.6 (LLVM 15.0.6)")).count(), 1);
        assert_eq!(faults(&llvmpipe("Mesa 25.0.7")).count(), 0);
        let jetson = Facts { vendor: vendor::NVIDIA, driver: "NVIDIA".into(), ..llvmpipe("35.4.1") };
        assert!(faults(&jetson).any(|f| f.advice.contains("JetPack 6")));
        // Nobody knows how old it is.
        assert_eq!(faults(&llvmpipe("")).count(), 0);
        assert_eq!(faults(&Facts::floor()).count(), 0);
    }

    #[test]
    fn what_a_fault_avoids_exists() {
        for (kernel, variant) in FAULTS.iter().flat_map(|f| f.avoid).filter(|(k, _)| *k != "*") {
            crate::Forced::parse(&format!("{kernel}={variant}")).unwrap();
        }
    }
}

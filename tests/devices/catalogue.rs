//! The devices that clinics have, as their drivers report them. Memory and bandwidth are the makers' figures.

use devices::{Backend, Facts, Kind, vendor};

/// A device that somebody may have.
pub struct Device {
    pub name: &'static str,
    /// The profile that it must get.
    pub profile: &'static str,
    /// 10^9 bytes per second.
    pub bandwidth: f64,
    pub facts: Facts,
}

const GB: u64 = 1_000_000_000;
/// Of a computer's memory that is free before the model is opened, in percent.
const FREE: u64 = 75;

/// A device that shares `gigabytes` of memory. What the system shows is a little less than what is sold.
fn shared(vendor: u32, driver_name: &str, gigabytes: u64) -> Facts {
    let bytes = gigabytes * GB;
    Facts {
        name: driver_name.into(),
        vendor,
        backend: Backend::Vulkan,
        kind: Kind::Integrated,
        memory_bytes: Some(bytes),
        system_bytes: Some(bytes),
        system_free_bytes: Some(bytes / 100 * FREE),
        subgroups: true,
        subgroup_size: [32, 32],
        ..Facts::floor()
    }
}

fn card(vendor: u32, driver_name: &str, gibibytes: u64) -> Facts {
    let memory_bytes = Some(gibibytes << 30);
    Facts { kind: Kind::Discrete, memory_bytes, ..shared(vendor, driver_name, 32) }
}

fn vega(driver_name: &str, gigabytes: u64) -> Facts {
    Facts { subgroup_size: [64, 64], ..shared(vendor::AMD, driver_name, gigabytes) }
}

fn metal(driver_name: &str, gigabytes: u64) -> Facts {
    Facts { backend: Backend::Metal, ..shared(0, driver_name, gigabytes) }
}

/// All of them, the smallest of each kind first.
pub fn catalogue() -> Vec<Device> {
    use vendor::{AMD, ARM, BROADCOM, INTEL, NVIDIA, QUALCOMM};
    let tegra = |name: &str, gigabytes| shared(NVIDIA, &format!("NVIDIA Tegra {name} (nvgpu)"), gigabytes);
    let geforce = |name: &str, gibibytes| card(NVIDIA, &format!("NVIDIA GeForce {name}"), gibibytes);
    let rtx = |name: &str, gibibytes| card(NVIDIA, &format!("NVIDIA {name}"), gibibytes);
    let intel = |name: &str, least, gigabytes| Facts {
        subgroup_size: [least, 32],
        ..shared(INTEL, &format!("Intel(R) {name}"), gigabytes)
    };
    let arc = |name: &str, gibibytes| card(INTEL, &format!("Intel(R) Arc(tm) {name}"), gibibytes);
    let all = [
        ("Jetson Nano 4 GB", "tiny-shared", 25.6, tegra("X1", 4)),
        ("Jetson TX2 NX 4 GB", "tiny-shared", 51.2, tegra("X2", 4)),
        ("Jetson TX2 8 GB", "small-shared", 59.7, tegra("X2", 8)),
        ("Xavier NX 8 GB", "small-shared", 59.7, tegra("Xavier", 8)),
        ("Xavier NX 16 GB", "roomy-shared", 59.7, tegra("Xavier", 16)),
        ("AGX Xavier 32 GB", "roomy-shared", 136.5, tegra("Xavier", 32)),
        ("Orin Nano 4 GB (Super)", "tiny-shared", 51.0, tegra("Orin", 4)),
        ("Orin Nano 8 GB (Super)", "small-shared", 102.0, tegra("Orin", 8)),
        ("Orin NX 8 GB", "small-shared", 102.4, tegra("Orin", 8)),
        ("Orin NX 16 GB", "roomy-shared", 102.4, tegra("Orin", 16)),
        ("AGX Orin 32 GB", "roomy-shared", 204.8, tegra("Orin", 32)),
        ("AGX Orin 64 GB, IGX Orin", "roomy-shared", 204.8, tegra("Orin", 64)),
        ("AGX Thor T5000", "roomy-shared", 273.0, shared(NVIDIA, "NVIDIA Thor", 128)),
        ("Raspberry Pi 5 8 GB", "weak-shared", 17.1, shared(BROADCOM, "V3D 7.1.7.0", 8)),
        ("Elkhart Lake cart, 8 GB", "weak-shared", 51.0, intel("UHD Graphics (EHL)", 8, 8)),
        ("Intel UHD 630, 16 GB", "weak-shared", 51.0, intel("UHD Graphics 630 (CFL GT2)", 8, 16)),
        ("Intel UHD 770, 16 GB", "weak-shared", 90.0, intel("UHD Graphics 770 (ADL-S GT1)", 8, 16)),
        ("Iris Xe, 16 GB", "weak-shared", 83.0, intel("Iris(R) Xe Graphics (TGL GT2)", 8, 16)),
        ("Arc 140V (Lunar Lake), 16 GB", "roomy-shared", 136.5, intel("Graphics (LNL)", 16, 16)),
        ("Arc A310 4 GB", "small-card", 124.0, arc("A310 Graphics (DG2)", 4)),
        ("Arc A380 6 GB", "small-card", 186.0, arc("A380 Graphics (DG2)", 6)),
        ("Arc A770 16 GB", "card", 560.0, arc("A770 Graphics (DG2)", 16)),
        ("Arc B580 12 GB", "card", 456.0, arc("B580 Graphics (BMG G21)", 12)),
        ("Ryzen Embedded V2000, 8 GB", "weak-shared", 51.2, vega("AMD Radeon Graphics (RADV RENOIR)", 8)),
        ("Ryzen Embedded V2000, 16 GB", "weak-shared", 51.2, vega("AMD Radeon Graphics (RADV RENOIR)", 16)),
        ("Ryzen 780M, 32 GB", "roomy-shared", 90.0, shared(AMD, "AMD Radeon 780M (RADV PHOENIX)", 32)),
        ("Apple M1 8 GB", "small-shared", 68.0, metal("Apple M1", 8)),
        ("Apple M2 16 GB", "roomy-shared", 100.0, metal("Apple M2", 16)),
        ("Apple M4 16 GB", "roomy-shared", 120.0, metal("Apple M4", 16)),
        ("Apple M4 Max 64 GB", "roomy-shared", 546.0, metal("Apple M4 Max", 64)),
        ("Qualcomm QCS6490 8 GB", "weak-shared", 25.6, shared(QUALCOMM, "Turnip Adreno (TM) 643", 8)),
        ("Rockchip RK3588 16 GB", "weak-shared", 34.0, shared(ARM, "Mali-G610", 16)),
        ("RTX A500 4 GB", "small-card", 112.0, rtx("RTX A500 Embedded GPU", 4)),
        ("RTX 3050 6 GB", "small-card", 168.0, geforce("RTX 3050", 6)),
        ("RTX 3050 8 GB", "card", 224.0, geforce("RTX 3050", 8)),
        ("RTX A2000 6 GB", "small-card", 288.0, rtx("RTX A2000", 6)),
        ("RTX A2000 12 GB", "card", 288.0, rtx("RTX A2000 12GB", 12)),
        ("RTX 3060 12 GB", "card", 360.0, geforce("RTX 3060", 12)),
        ("RTX 4060 8 GB", "card", 272.0, geforce("RTX 4060", 8)),
        ("RTX A4000 16 GB", "card", 448.0, rtx("RTX A4000", 16)),
        ("L4 24 GB", "card", 300.0, rtx("L4", 24)),
        ("RTX A6000 48 GB", "card", 768.0, rtx("RTX A6000", 48)),
        ("RTX 4090 24 GB", "card", 1008.0, geforce("RTX 4090", 24)),
        ("RTX 5090 32 GB", "card", 1792.0, geforce("RTX 5090", 32)),
        ("H100 SXM 80 GB", "card", 3350.0, rtx("H100 80GB HBM3", 80)),
        ("H200 141 GB", "card", 4800.0, rtx("H200", 141)),
    ];
    all.map(|(name, profile, bandwidth, facts)| Device { name, profile, bandwidth, facts }).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::profile;

    #[test]
    fn every_device_gets_the_profile_of_its_class() {
        for Device { name, profile: expected, facts, .. } in catalogue() {
            assert_eq!(profile(&facts, None).expect("a profile").name, expected, "{name}");
        }
        let software = Facts { kind: Kind::Cpu, ..shared(0x10005, "llvmpipe (LLVM 15.0.6, 256 bits)", 24) };
        let rented = Facts { kind: Kind::Virtual, ..card(0x1af4, "Virtio-GPU Venus (NVIDIA RTX A2000)", 12) };
        assert_eq!(
            [software, rented].map(|facts| profile(&facts, None).expect("a profile").name),
            ["software", "generic"]
        );
    }

    #[test]
    fn no_ceiling_is_above_what_there_is() {
        for Device { name, facts, .. } in catalogue() {
            let ceiling = profile(&facts, None).expect("a profile").ceiling_bytes(&facts).expect("a ceiling");
            assert!(ceiling < facts.installed_bytes().expect("memory"), "{name}: {ceiling}");
        }
    }

    #[test]
    fn no_more_is_taken_than_is_free_where_memory_is_shared() {
        let busy = |facts: Facts| Facts { system_free_bytes: Some(GB), ..facts };
        let ceiling = |facts: Facts| profile(&facts, None).expect("a profile").ceiling_bytes(&facts);
        assert_eq!(ceiling(busy(shared(vendor::NVIDIA, "NVIDIA Tegra Orin (nvgpu)", 16))), Some(GB));
        let software = Facts { kind: Kind::Cpu, ..shared(0x10005, "llvmpipe", 16) };
        assert_eq!(ceiling(busy(software)), Some(GB));
        assert!(ceiling(busy(card(vendor::NVIDIA, "NVIDIA RTX A4000", 16))) > Some(10 * GB));
    }

    #[test]
    fn where_nobody_tells_the_memory_something_modest_is_taken() {
        let silent = |facts: Facts| Facts { memory_bytes: None, system_bytes: None, system_free_bytes: None, ..facts };
        let [shared, card] = [metal("Apple M3", 16), card(vendor::NVIDIA, "NVIDIA RTX A4000", 16)].map(silent);
        assert_eq!(
            [shared, card].map(|facts| profile(&facts, None).expect("a profile").name),
            ["small-shared", "card"]
        );
    }

    #[test]
    fn another_profile_can_be_asked_for() {
        assert_eq!(profile(&catalogue()[0].facts, Some("card")).map(|p| p.name), Ok("card"));
    }
}

//! The one rule by which a variant is chosen.

use crate::{Facts, Profile, faults};
use shaders::{Choice, Kernel, Needs, Variant};

/// Variants that the user forces, from `HEALTHGPT_VARIANT=portable` or `gemv=split_k,rmsnorm=portable`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forced {
    /// Portable variants everywhere.
    pub portable: bool,
    /// (kernel, variant).
    pub variants: Vec<(String, String)>,
}

impl Forced {
    /// Parses the value of `HEALTHGPT_VARIANT`.
    ///
    /// *Errors*: names a kernel or variant that does not exist.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut forced = Forced::default();
        for item in text.split(',').map(str::trim).filter(|s| !s.is_empty()) {
            if item == "portable" {
                forced.portable = true;
                continue;
            }
            let (kernel, variant) =
                item.split_once('=').ok_or_else(|| format!("`{item}` is neither `portable` nor KERNEL=VARIANT"))?;
            let found = shaders::kernels().iter().find(|k| k.name == kernel);
            let found = found.ok_or_else(|| format!("no kernel `{kernel}`"))?;
            if !found.variants.iter().any(|v| v.name == variant) {
                let known: Vec<_> = found.variants.iter().map(|v| v.name).collect();
                return Err(format!("kernel `{kernel}` has no variant `{variant}`; it has {}", known.join(", ")));
            }
            forced.variants.push((kernel.into(), variant.into()));
        }
        Ok(forced)
    }
}

/// Whether a device has what a variant needs.
pub fn meets(facts: &Facts, needs: &Needs) -> bool {
    let subgroups = needs.subgroup == 0 || facts.subgroups && facts.subgroup_size[0] >= needs.subgroup;
    subgroups && (needs.coop == 0 || facts.f16 && facts.coop.contains(&needs.coop))
}

/// The variant for `kernel` and what the data decides: the forced one if it fits, else the first of the profile's
/// preferences that fits, else the first that fits, of those that are `sound`. Only a forced one may be one that a known
/// fault of the device speaks against. The last variant of a kernel needs only the WebGPU floor, so there always is one.
pub fn select(
    kernel: &Kernel,
    data: &[Choice],
    facts: &Facts,
    profile: &Profile,
    forced: &Forced,
    sound: impl Fn(&Variant) -> bool,
) -> &'static Variant {
    let can = |v: &Variant| meets(facts, &v.needs) && v.takes(data) && sound(v);
    let fits = |name: &str| kernel.variants.iter().find(|v| v.name == name && can(v));
    let forced_name = forced.variants.iter().find(|(k, _)| k == kernel.name).map(|(_, v)| v.as_str());
    if let Some(variant) = forced_name.and_then(fits) {
        return variant;
    }
    let portable = || kernel.variants.last().expect("a kernel has variants");
    if forced.portable {
        return portable();
    }
    let advised = |v: &Variant| !faults(facts).any(|fault| fault.avoids(kernel, v));
    let preferred = profile.prefer.iter().filter(|(k, _)| *k == kernel.name);
    let preferred = preferred.filter_map(|(_, v)| fits(v)).find(|v| advised(v));
    preferred.or_else(|| kernel.variants.iter().find(|v| can(v) && advised(v))).unwrap_or_else(portable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GENERIC, Kind, PROFILES, profile};

    /// Rounds what it multiplies: taken only where it is asked for.
    const ON_DEMAND: &str = "dp4a";

    fn all(_: &Variant) -> bool {
        true
    }

    fn made_up() -> Vec<Facts> {
        let mut all = Vec::new();
        for kind in [Kind::Discrete, Kind::Integrated, Kind::Cpu, Kind::Other] {
            for (subgroups, smallest) in [(false, 4), (true, 4), (true, 8)] {
                let facts = Facts { kind, subgroups, subgroup_size: [smallest, 32], f16: true, ..Facts::floor() };
                for coop in [vec![], vec![8], vec![16], vec![16, 8]] {
                    all.push(Facts { coop, ..facts.clone() });
                }
            }
        }
        all
    }

    #[test]
    fn every_device_gets_a_variant_it_can_run() {
        for facts in made_up() {
            let profile = profile(&facts, None).unwrap();
            for kernel in shaders::kernels() {
                let variant = select(kernel, &[], &facts, profile, &Forced::default(), all);
                assert!(meets(&facts, &variant.needs), "{} on {facts:?}", kernel.name);
            }
        }
    }

    #[test]
    fn every_variant_is_chosen_by_some_device_or_only_on_demand() {
        for kernel in shaders::kernels() {
            for variant in kernel.variants.iter().filter(|v| v.name != ON_DEMAND) {
                let reached = made_up().iter().any(|facts| {
                    let profile = profile(facts, None).unwrap();
                    select(kernel, &[], facts, profile, &Forced::default(), all).name == variant.name
                });
                assert!(reached, "{} {} is never chosen", kernel.name, variant.name);
            }
        }
    }

    #[test]
    fn the_last_variant_needs_nothing() {
        for kernel in shaders::kernels() {
            assert!(meets(&Facts::floor(), &kernel.variants.last().unwrap().needs), "{}", kernel.name);
        }
    }

    #[test]
    fn profiles_name_only_what_exists() {
        for profile in PROFILES {
            for (kernel, variant) in profile.prefer {
                Forced::parse(&format!("{kernel}={variant}")).unwrap();
            }
        }
    }

    #[test]
    fn a_forced_variant_wins_where_it_fits() {
        let facts = Facts { kind: Kind::Cpu, ..Facts::floor() };
        let forced = Forced::parse("gemv=split_k").unwrap();
        assert_eq!(select(&shaders::gemv::KERNEL, &[], &facts, &GENERIC, &forced, all).name, "split_k");
        let forced = Forced::parse("rmsnorm=subgroup").unwrap();
        assert_eq!(select(&shaders::rmsnorm::KERNEL, &[], &facts, &GENERIC, &forced, all).name, "portable");
        assert!(Forced::parse("gemv=coop").unwrap_err().contains("split_k"));
        assert!(Forced::parse("nothing").is_err());
    }

    #[test]
    fn what_a_known_fault_speaks_against_is_chosen_only_by_name() {
        let pi =
            Facts { vendor: crate::vendor::BROADCOM, name: "V3D 7.1.7.0".into(), subgroups: true, ..Facts::floor() };
        let chosen = |name: &str, forced: &str| {
            let facts = Facts { name: name.into(), ..pi.clone() };
            let forced = Forced::parse(forced).unwrap();
            select(&shaders::rmsnorm::KERNEL, &[], &facts, &GENERIC, &forced, all).name
        };
        assert_eq!(chosen("V3D 7.1.7.0", ""), "portable");
        assert_eq!(chosen("V3D 7.1.7.0", "rmsnorm=subgroup"), "subgroup");
        assert_eq!(chosen("another", ""), "subgroup");
    }

    #[test]
    fn a_variant_that_is_not_sound_gives_way_to_the_next() {
        let facts = Facts { subgroups: true, ..Facts::floor() };
        let kernel = &shaders::rmsnorm::KERNEL;
        let chosen = |wrong: &[&str], forced: &str| {
            let forced = Forced::parse(forced).unwrap();
            select(kernel, &[], &facts, &GENERIC, &forced, |v| !wrong.contains(&v.name)).name
        };
        assert_eq!(chosen(&[], ""), "subgroup");
        assert_eq!(chosen(&["subgroup"], ""), "portable");
        assert_eq!(chosen(&["subgroup", "portable"], ""), "portable");
        assert_eq!(chosen(&["subgroup"], "rmsnorm=subgroup"), "portable");
    }

    #[test]
    fn data_that_a_variant_refuses_gets_another() {
        let kernel = &shaders::gemm::KERNEL;
        let forced = Forced::parse("gemm=dp4a").unwrap();
        let chosen = |weights| select(kernel, &[("weights", weights)], &Facts::floor(), &GENERIC, &forced, all).name;
        assert_eq!([chosen("weights_q4"), chosen("weights_q8"), chosen("weights_f16")], ["dp4a", "dp4a", "tile"]);
    }

    #[test]
    fn cooperative_matrices_are_taken_where_there_are_any_of_the_right_kind() {
        let gemm = |facts: &Facts| select(&shaders::gemm::KERNEL, &[], facts, &GENERIC, &Forced::default(), all).name;
        let facts = |f16, subgroups, coop: &[u32]| Facts { f16, subgroups, coop: coop.to_vec(), ..Facts::floor() };
        assert_eq!(gemm(&facts(true, true, &[8, 16])), "coop16");
        assert_eq!(gemm(&facts(true, true, &[8])), "coop8");
        assert_eq!(gemm(&facts(true, true, &[])), "tile");
        assert_eq!(gemm(&facts(false, true, &[16])), "tile");
        assert_eq!(gemm(&facts(true, false, &[16])), "tile");
    }

    #[test]
    fn an_unknown_profile_is_an_error_that_lists_the_known_ones() {
        assert!(profile(&Facts::floor(), Some("abacus")).unwrap_err().contains("generic"));
    }
}

//! What no kernel may do on any chip, and where one does today.

use crate::chips::{CHIPS, Chip};
use crate::report::{End, Numbers};

/// A program on a chip.
pub struct Row {
    /// Kernel, variant, data.
    pub program: String,
    /// Where.
    pub chip: &'static Chip,
    /// As wgpu opens the device.
    pub end: End,
    /// Without robust buffer access.
    pub plain: Option<Numbers>,
    /// If the program reads packed weights: bytes of their widest load, with and without robust buffer access; 0 if
    /// the driver shows none.
    pub weights: Option<[u64; 2]>,
}

/// What a row can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Every driver compiles it.
    Compiles,
    /// Nothing lies in memory that should lie in registers.
    Registers,
    /// The chip's least occupancy.
    Occupancy,
    /// Packed weights come sixteen bytes at a time, as far as it is the kernel's doing: under robust access some
    /// drivers check, and load, every word by itself.
    Weights,
}

/// Rules that `row` breaks, with what it does instead.
pub fn broken(row: &Row) -> Vec<(Rule, String)> {
    let mut broken = Vec::new();
    match &row.end {
        End::NotOffered => return broken,
        End::Failed(why) => broken.push((Rule::Compiles, why.clone())),
        End::Compiled(n) => {
            if n.spills > 0 || n.scratch > 0 {
                broken.push((Rule::Registers, format!("{} spills, {} of private memory", n.spills, n.scratch)));
            }
            let least = row.chip.least_occupancy;
            if n.occupancy < least {
                broken.push((Rule::Occupancy, format!("occupancy {}, at least {least}", n.occupancy)));
            }
        }
    }
    if let Some([_, bytes]) = row.weights.filter(|[_, bytes]| *bytes != 16) {
        broken.push((Rule::Weights, format!("loads of weights are {bytes} bytes wide, not 16")));
    }
    broken
}

/// A broken rule that we know of.
pub struct Known {
    /// Beginning of the program's name.
    pub program: &'static str,
    /// Names of chips.
    pub chips: &'static [&'static str],
    /// What is broken there.
    pub rule: Rule,
    /// Why it stands.
    pub why: &'static str,
}

const ON_DEMAND: &str = "the loops over two blocks are unrolled; nothing takes it but by name";
const EIGHT_TOKENS: &str = "the sums and queries of eight tokens, in half the lanes";
const FOUR_ROWS: &str = "four rows a thread, each with a block of 32 packed weights, take the registers";
const FOR_CPUS: &str = "chosen for software drivers only";

/// Kernels that break a rule today. An entry that is no longer true must go.
pub const KNOWN: &[Known] = &[
    Known { program: "attention portable", chips: &["tigerlake"], rule: Rule::Occupancy, why: EIGHT_TOKENS },
    Known { program: "conv stripe f16", chips: &["renoir"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "conv stripe", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "conv stripe", chips: &["adreno740"], rule: Rule::Registers, why: FOR_CPUS },
    Known { program: "gemm dp4a", chips: &["renoir", "tigerlake", "m1"], rule: Rule::Occupancy, why: ON_DEMAND },
    Known { program: "gemm dp4a", chips: &["m1"], rule: Rule::Registers, why: ON_DEMAND },
    Known { program: "gemm stripe f16", chips: &["renoir"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemm stripe", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemm stripe", chips: &["adreno740"], rule: Rule::Registers, why: FOR_CPUS },
    Known { program: "gemv broadcast", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemv uniform_x ", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemv_residual broadcast", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemv_residual uniform_x", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOR_CPUS },
    Known { program: "gemv dp4a f16", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv dp4a q4+f16", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv_residual dp4a f16", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv split_k q4", chips: &["renoir", "tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv split_k q8", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv split_k f16", chips: &["renoir", "tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv_residual split_k", chips: &["tigerlake"], rule: Rule::Occupancy, why: FOUR_ROWS },
    Known { program: "gemv_residual split_k f16", chips: &["renoir"], rule: Rule::Occupancy, why: FOUR_ROWS },
];

/// What is broken and not in `known`, and what is in `known` and not broken; one line each.
pub fn violations(rows: &[Row], known: &[Known]) -> Vec<String> {
    let mut used: Vec<(usize, &str)> = Vec::new();
    let mut lines = Vec::new();
    for row in rows {
        for (rule, what) in broken(row) {
            let excused = known
                .iter()
                .position(|k| k.rule == rule && row.program.starts_with(k.program) && k.chips.contains(&row.chip.name));
            match excused {
                Some(at) => used.push((at, row.chip.name)),
                None => lines.push(format!("{} on {}: {what}", row.program, row.chip.name)),
            }
        }
    }
    for (at, k) in known.iter().enumerate() {
        for chip in k.chips.iter().filter(|chip| !used.contains(&(at, chip))) {
            lines.push(format!("{} on {chip}: keeps {:?} now; take it out of KNOWN in rules.rs", k.program, k.rule));
        }
    }
    lines
}

/// Chips whose compiler does not report the spills of the program made to spill: there the gate would see nothing.
pub fn blind(spilling: &[Row]) -> Vec<String> {
    let sees = |chip: &Chip| {
        let mut rows = spilling.iter().filter(|row| row.chip.name == chip.name);
        rows.any(|row| broken(row).iter().any(|(rule, _)| *rule == Rule::Registers))
    };
    let missed = CHIPS.iter().filter(|chip| !sees(chip));
    missed.map(|chip| format!("{}: does not report the spills of a kernel that must spill", chip.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: Numbers, weights: Option<[u64; 2]>) -> Row {
        let chip = &CHIPS[0];
        Row { program: "gemm portable q4".into(), chip, end: End::Compiled(numbers), plain: None, weights }
    }

    fn good() -> Numbers {
        Numbers { registers: 40, occupancy: 48, ..Default::default() }
    }

    fn rules(row: &Row) -> Vec<Rule> {
        broken(row).into_iter().map(|(rule, _)| rule).collect()
    }

    #[test]
    fn each_rule_can_be_broken() {
        assert_eq!(rules(&row(good(), Some([4, 16]))), []);
        assert_eq!(rules(&row(Numbers { spills: 1, ..good() }, None)), [Rule::Registers]);
        assert_eq!(rules(&row(Numbers { scratch: 64, ..good() }, None)), [Rule::Registers]);
        assert_eq!(rules(&row(Numbers { occupancy: 8, ..good() }, None)), [Rule::Occupancy]);
        assert_eq!(rules(&row(good(), Some([4, 4]))), [Rule::Weights]);
        let failed = Row { end: End::Failed("vkCreateComputePipelines: -3".into()), ..row(good(), None) };
        assert_eq!(rules(&failed), [Rule::Compiles]);
        let not_offered = Row { end: End::NotOffered, ..row(good(), None) };
        assert_eq!(rules(&not_offered), []);
    }

    #[test]
    fn a_known_exception_excuses_its_rule_only_and_must_be_true() {
        let known = |rule| Known { program: "gemm ", chips: &["orin"], rule, why: "" };
        let narrow = [row(Numbers { occupancy: 8, ..good() }, None)];
        assert_eq!(violations(&narrow, &[known(Rule::Occupancy)]).len(), 0);
        let other = violations(&narrow, &[known(Rule::Registers)]);
        assert!(other[0].contains("occupancy 8") && other[1].contains("take it out"), "{other:?}");
    }

    #[test]
    fn a_chip_that_hides_spills_is_named() {
        let spills = row(Numbers { spills: 90, ..good() }, None);
        let blind = blind(&[spills]);
        assert_eq!(blind.len(), CHIPS.len() - 1);
        assert!(!blind.iter().any(|line| line.starts_with("orin")));
    }
}

//! The chips whose compilers are asked, and what each driver calls its numbers.

use crate::programs::Workgroup;

/// A chip that a driver is made to see; the newest and the weakest of each vendor that clinics have.
pub struct Chip {
    /// In the table.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Its driver.
    pub driver: &'static Driver,
    /// The chip, in the words of `gpu_shim.c`, or of RADV.
    pub id: &'static str,
    /// Workgroups that it holds beside each other, where the driver's occupancy leaves that out.
    pub groups: Option<Groups>,
    /// A kernel with less occupancy cannot hide the wait for memory: a quarter of what the chip can hold, half of
    /// Intel's lanes and of Apple's threads.
    pub least_occupancy: u64,
}

/// What a multiprocessor holds; from the tables of the CUDA programming guide.
pub struct Groups {
    /// Workgroups.
    pub most: u64,
    /// Bytes of workgroup memory, and what each workgroup takes besides its own.
    pub memory: [u64; 2],
}

impl Chip {
    /// The driver's occupancy, or that of the workgroups that fit, if it is less.
    pub fn occupancy(&self, reported: u64, subgroup: u64, workgroup: Workgroup) -> u64 {
        let Some(Groups { most, memory: [all, besides] }) = &self.groups else { return reported };
        let resident = (all / (workgroup.bytes + besides)).min(*most);
        reported.min(resident * workgroup.invocations.div_ceil(subgroup.max(1)))
    }
}

/// One of Mesa's Vulkan drivers.
pub struct Driver {
    /// Folder of the Mesa that has it.
    pub mesa: &'static str,
    /// Its ICD file there.
    pub icd: &'static str,
    /// Variable that carries the chip.
    pub chip_variable: &'static str,
    /// Makes the driver print its intermediate code, where the Vulkan extension does not carry it.
    pub text_variable: Option<(&'static str, &'static str)>,
    /// The statistics of `VK_KHR_pipeline_executable_properties` that stand for our columns.
    pub names: Names,
}

/// Names of statistics; those of one column are added up.
pub struct Names {
    /// Registers of a thread, or of a subgroup, as the compiler counts them.
    pub registers: &'static [&'static str],
    /// Values that did not fit into registers.
    pub spills: &'static [&'static str],
    /// Bytes or accesses of private memory, where spills and arrays with a computed index lie.
    pub scratch: &'static [&'static str],
    /// Subgroups, threads or lanes that run at once.
    pub occupancy: &'static [&'static str],
    /// Instructions.
    pub instructions: &'static [&'static str],
    /// The compiler's estimate, which sees neither loop counts nor memory.
    pub cycles: &'static [&'static str],
}

static NVK: Driver = Driver {
    mesa: "mesa26",
    icd: "nouveau.json",
    chip_variable: "GPU_SHIM",
    text_variable: None,
    names: Names {
        registers: &["Number of GPRs"],
        // Not "Spills to reg": those move a predicate or a uniform register to an ordinary one.
        spills: &["Spills to memory"],
        scratch: &["SLM size"],
        occupancy: &["Max warps/SM"],
        instructions: &["Instruction count"],
        cycles: &["Static cycle count"],
    },
};

static RADV: Driver = Driver {
    mesa: "mesa25",
    icd: "radv.json",
    chip_variable: "RADV_FORCE_FAMILY",
    text_variable: None,
    names: Names {
        registers: &["VGPRs"],
        spills: &["Spilled SGPRs", "Spilled VGPRs"],
        scratch: &["Scratch size"],
        occupancy: &["Subgroups per SIMD"],
        instructions: &["Instructions"],
        cycles: &["Inverse Throughput"],
    },
};

static ANV: Driver = Driver {
    mesa: "mesa26",
    icd: "intel.json",
    chip_variable: "GPU_SHIM",
    text_variable: None,
    names: Names {
        registers: &["Max live registers"],
        spills: &["Spills"],
        scratch: &["Scratch Memory Size"],
        occupancy: &["Subgroup size"],
        instructions: &["Instructions"],
        cycles: &["Cycles"],
    },
};

static TURNIP: Driver = Driver {
    mesa: "mesa26",
    icd: "freedreno.json",
    chip_variable: "GPU_SHIM",
    text_variable: None,
    names: Names {
        registers: &["Registers used"],
        spills: &["STP Count"],
        scratch: &["LDP Count"],
        occupancy: &["Max Waves Per Core"],
        instructions: &["Instruction Count"],
        cycles: &["Instruction Count", "Estimated cycles stalled on SS", "Estimated cycles stalled on SY"],
    },
};

static ASAHI: Driver = Driver {
    mesa: "mesa26",
    icd: "asahi.json",
    chip_variable: "GPU_SHIM",
    text_variable: Some(("AGX_MESA_DEBUG", "shaders")),
    names: Names {
        registers: &["GPRs"],
        spills: &["Spills"],
        scratch: &["Scratch"],
        occupancy: &["Threads"],
        instructions: &["Instructions"],
        cycles: &["ALU"],
    },
};

/// The chips.
pub static CHIPS: [Chip; 8] = [
    Chip {
        name: "orin",
        what: "NVIDIA Jetson Orin; occupancy: warps of 48",
        driver: &NVK,
        id: "nouveau:0x17b",
        groups: Some(Groups { most: 16, memory: [164 << 10, 1 << 10] }),
        least_occupancy: 12,
    },
    Chip {
        name: "rtx40",
        what: "NVIDIA RTX 40; occupancy: warps of 48",
        driver: &NVK,
        id: "nouveau:0x192",
        groups: Some(Groups { most: 24, memory: [100 << 10, 1 << 10] }),
        least_occupancy: 12,
    },
    Chip {
        name: "renoir",
        what: "AMD V2000; occupancy: waves of 10",
        driver: &RADV,
        id: "renoir",
        groups: None,
        least_occupancy: 3,
    },
    Chip {
        name: "phoenix",
        what: "AMD 780M; occupancy: waves of 32",
        driver: &RADV,
        id: "phoenix",
        groups: None,
        least_occupancy: 8,
    },
    Chip {
        name: "tigerlake",
        what: "Intel Iris Xe; occupancy: lanes of 32",
        driver: &ANV,
        id: "xe:0x9a49",
        groups: None,
        least_occupancy: 16,
    },
    Chip {
        name: "lunarlake",
        what: "Intel Arc 140V; occupancy: lanes of 32",
        driver: &ANV,
        id: "xe:0x64a0",
        groups: None,
        least_occupancy: 16,
    },
    Chip {
        name: "adreno740",
        what: "Qualcomm Adreno 740; occupancy: waves of 16",
        driver: &TURNIP,
        id: "msm:0x43050a01",
        groups: None,
        least_occupancy: 4,
    },
    Chip {
        name: "m1",
        what: "Apple M1; occupancy: threads of 1024",
        driver: &ASAHI,
        id: "asahi:13G",
        groups: None,
        least_occupancy: 512,
    },
];

/// Chips that must compile everything too, but are so close to one above that a table of them would tell nothing new.
pub static ALSO: [Chip; 1] =
    [Chip { name: "navi31", what: "AMD RX 7900", driver: &RADV, id: "navi31", groups: None, least_occupancy: 8 }];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroup_memory_and_the_number_of_workgroups_limit_nvidia() {
        let [orin, rtx40] = [&CHIPS[0], &CHIPS[1]];
        let tile = Workgroup { invocations: 64, bytes: 16 << 10 };
        assert_eq!([orin, rtx40].map(|c| c.occupancy(48, 32, tile)), [18, 10]);
        let small = Workgroup { invocations: 32, bytes: 0 };
        assert_eq!([orin, rtx40].map(|c| c.occupancy(48, 32, small)), [16, 24]);
        assert_eq!(orin.occupancy(8, 32, small), 8);
        assert_eq!(CHIPS[2].occupancy(1, 64, tile), 1);
    }
}

//! Runs `kernel_stats` on one chip and reads what it prints.

use crate::chips::{Chip, Driver};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a driver is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// With robust buffer access, as wgpu opens the device.
    pub robust: bool,
    /// With the driver's text, which is where the width of loads can be read.
    pub text: bool,
}

/// What a driver says of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It compiles.
    Compiled(Numbers),
    /// It asks for something that wgpu would not offer on this chip.
    NotOffered,
    /// The driver refuses it, or dies.
    Failed(String),
}

/// The columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    pub subgroup: u64,
    pub registers: u64,
    pub spills: u64,
    pub scratch: u64,
    pub occupancy: u64,
    pub instructions: u64,
    pub cycles: u64,
    /// Bytes of the widest load from a storage buffer, if the text was asked for and tells.
    pub widest_load: Option<u64>,
}

/// A chip's answers to a list of programs.
#[derive(Debug, Default)]
pub struct Report {
    /// Version of the driver.
    pub version: String,
    /// Name and end of each program, in the order of the list.
    pub ends: Vec<(String, End)>,
}

/// What is started on which chip.
pub struct Job<'a> {
    /// Where the Mesas and the tools lie.
    pub folder: &'a Path,
    pub chip: &'static Chip,
    pub mode: Mode,
}

impl Job<'_> {
    /// Compiles the programs of `list`, lines of `kernel_stats`. A driver that dies in one goes on with the next.
    ///
    /// *Errors*: a chip that cannot be opened, in one line.
    pub fn run(&self, list: &[String]) -> Result<Report, String> {
        let mut report = Report::default();
        while report.ends.len() < list.len() {
            let (said, error) = self.start(&list[report.ends.len()..])?;
            let more = parse(&said, self.chip.driver).map_err(|e| format!("{}: {e}", self.chip.name))?;
            if more.ends.is_empty() {
                let why = error.lines().last().unwrap_or("the driver says nothing");
                return Err(format!("{}: {why}", self.chip.name));
            }
            report.version = more.version;
            report.ends.extend(more.ends);
        }
        Ok(report)
    }

    fn start(&self, list: &[String]) -> Result<(String, String), String> {
        let driver = self.chip.driver;
        let (mesa, tools) = (self.folder.join(driver.mesa), self.folder.join("static"));
        // A driver that hangs in a kernel counts as one that dies in it.
        let mut command = Command::new("timeout");
        command.arg("300");
        if driver.mesa == "mesa26" {
            command.arg(mesa.join("run")).arg("--preload").arg(tools.join("gpu_shim.so"));
        } else {
            command.env("LD_LIBRARY_PATH", mesa.join("lib"));
        }
        command.arg(tools.join("kernel_stats")).arg(if self.mode.robust { "robust" } else { "plain" });
        if self.mode.text {
            command.arg("text").envs(driver.text_variable);
        }
        command.env("VK_DRIVER_FILES", mesa.join(driver.icd)).env(driver.chip_variable, self.chip.id);
        // The cache would answer for another mode, and Orin hides behind the second.
        command.env("MESA_SHADER_CACHE_DISABLE", "true").env("NVK_I_WANT_A_BROKEN_VULKAN_DRIVER", "1");
        command.env("NODEVICE_SELECT", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |e: std::io::Error| format!("{}: kernel_stats: {e}", self.chip.name);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A list fits into the pipe; a tool that ended early says why itself.
            let _ = input.write_all(list.concat().as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr)))
    }
}

/// Reads the output of `kernel_stats`; a program without an end is one that the driver died in.
///
/// *Errors*: a driver that has other statistics than it had.
pub fn parse(said: &str, driver: &Driver) -> Result<Report, String> {
    let mut report = Report::default();
    let mut open: Option<String> = None;
    let mut statistics = Vec::new();
    let mut widest = None;
    for line in said.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["driver", version] => report.version = version.into(),
            ["program", name] => {
                open = Some(name.into());
                statistics.clear();
                widest = None;
            }
            ["stat", name, value] => statistics.push((name, value.parse().unwrap_or(u64::MAX))),
            ["end", how] => {
                let end = match how.split_once(": ") {
                    None => End::Compiled(Numbers { widest_load: widest, ..numbers(&statistics, driver)? }),
                    Some(("not offered", _)) => End::NotOffered,
                    Some((_, why)) => End::Failed(why.into()),
                };
                report.ends.extend(open.take().map(|name| (name, end)));
            }
            _ => widest = widest.max(load_bytes(line)),
        }
    }
    report.ends.extend(open.map(|name| (name, End::Failed("the driver dies or hangs".into()))));
    Ok(report)
}

fn numbers(statistics: &[(&str, u64)], driver: &Driver) -> Result<Numbers, String> {
    let sum = |names: &[&str]| {
        names.iter().try_fold(0_u64, |sum, name| match statistics.iter().find(|(n, _)| n == name) {
            Some((_, value)) => Ok(sum.saturating_add(*value)),
            None => Err(format!("{} has no statistic `{name}`", driver.icd)),
        })
    };
    let names = &driver.names;
    Ok(Numbers {
        subgroup: sum(&["Subgroup size"])?,
        registers: sum(names.registers)?,
        spills: sum(names.spills)?,
        scratch: sum(names.scratch)?,
        occupancy: sum(names.occupancy)?,
        instructions: sum(names.instructions)?,
        cycles: sum(names.cycles)?,
        widest_load: None,
    })
}

/// NIR's loads from storage buffers, once each compiler has lowered them to its own.
const BUFFER_LOADS: [&str; 4] = ["load_ssbo", "load_ssbo_intel", "load_global_nv", "load_agx"];

/// Bytes that a line of NIR loads from a storage buffer: `div 32x4 %7 = @load_ssbo (%1, %2) (access=...)`.
fn load_bytes(line: &str) -> Option<u64> {
    let (result, call) = line.split_once("= @")?;
    if !BUFFER_LOADS.contains(&call.split([' ', '(']).next()?) {
        return None;
    }
    let shape = result.split_whitespace().rev().nth(1)?;
    let (bits, count) = shape.split_once('x').unwrap_or((shape, "1"));
    Some(bits.parse::<u64>().ok()? * count.parse::<u64>().ok()? / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chips::CHIPS;

    fn chip(name: &str) -> &'static Chip {
        CHIPS.iter().find(|c| c.name == name).unwrap()
    }

    /// As the driver printed it.
    const ORIN: &str = "device\tNVK GA10B\ndriver\tMesa 26.1.6-1~bpo13+1\nprogram\tgemv split_k q4\n\
        stat\tSubgroup size\t32\nstat\tInstruction count\t2379\nstat\tStatic cycle count\t31175\n\
        stat\tMax warps/SM\t20\nstat\tSpills to memory\t3\nstat\tFills from memory\t9\nstat\tSpills to reg\t2\n\
        stat\tFills from reg\t0\nstat\tCode size\t38064\nstat\tNumber of GPRs\t88\nstat\tSLM size\t12\nend\tok\n";

    #[test]
    fn the_drivers_numbers_become_ours() {
        let report = parse(ORIN, chip("orin").driver).unwrap();
        assert_eq!(report.version, "Mesa 26.1.6-1~bpo13+1");
        let expected = Numbers {
            subgroup: 32,
            registers: 88,
            spills: 3,
            scratch: 12,
            occupancy: 20,
            instructions: 2379,
            cycles: 31175,
            widest_load: None,
        };
        assert_eq!(report.ends, [("gemv split_k q4".to_string(), End::Compiled(expected))]);
    }

    #[test]
    fn a_statistic_that_is_gone_is_an_error_that_names_it() {
        let error = parse(ORIN, chip("m1").driver).unwrap_err();
        assert!(error.contains("asahi") && error.contains("GPRs"), "{error}");
    }

    #[test]
    fn a_program_without_an_end_failed() {
        let said = "driver\tMesa\nprogram\ta b -\nend\tnot offered: f16\nprogram\tc d -\nend\tfailed: \
                    vkCreateComputePipelines: -3\nprogram\te f -\nstat\tGPRs\t4\n";
        let ends = parse(said, chip("m1").driver).unwrap().ends;
        assert_eq!(ends[0].1, End::NotOffered);
        assert_eq!(ends[1].1, End::Failed("vkCreateComputePipelines: -3".into()));
        assert!(matches!(&ends[2], (name, End::Failed(_)) if name == "e f -"));
    }

    #[test]
    fn loads_have_the_width_that_their_line_says() {
        let anv = "    div 32x4  %4113 = @load_ssbo_intel (%1655, %3403) (access=readonly|reorderable, base=112)";
        let nvk = "    div 32    %122 = @load_global_nv (%118, %121) (base=0, access=readonly|reorderable)";
        let turnip = "        32x2  %2780 = @load_ssbo (%3179, %3457) (access=readonly|reorderable, offset_shift=2)";
        let descriptor = "   32x4  %2 = @load_constant_agx (%1, %0) (base=0)";
        assert_eq!([anv, nvk, turnip, descriptor].map(load_bytes), [Some(16), Some(4), Some(8), None]);
    }
}

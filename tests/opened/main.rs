//! `opened FOLDER`: opens a whole model through wgpu on the real drivers of GPUs that are not there: adapter, device,
//! every buffer, every pipeline. Holds what the drivers report, and the profile that follows from it, against what is
//! expected of the device. Nothing is computed there, which the self-test must notice. `cargo xtask static` puts the Mesas
//! and the shim into FOLDER.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the person at the terminal is its job")]

mod child;

use child::Opened;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

/// A GPU that a driver is made to see, and what is expected of it.
struct Device {
    name: &'static str,
    /// Folder of the Mesa, its ICD file, the variable that carries the chip, the chip.
    driver: [&'static str; 4],
    /// It is opened as if it had no more, in 10^9 bytes: the shim shows this computer's memory.
    gigabytes: u64,
    profile: &'static str,
    f16: bool,
    subgroup_size: [u32; 2],
    /// Sides of cooperative matrices.
    coop: &'static [u32],
    binding_mib: u64,
    /// Whether a device can be made: RADV's null device ends there.
    opens: bool,
}

const fn nvk(chip: &'static str) -> [&'static str; 4] {
    ["mesa26", "nouveau.json", "GPU_SHIM", chip]
}

const fn radv(chip: &'static str) -> [&'static str; 4] {
    ["mesa25", "radv.json", "RADV_FORCE_FAMILY", chip]
}

const NVIDIA: Device = Device {
    name: "",
    driver: nvk(""),
    gigabytes: 0,
    profile: "card",
    f16: true,
    subgroup_size: [32, 32],
    coop: &[16],
    binding_mib: 2047,
    opens: true,
};
const AMD: Device = Device { driver: radv(""), subgroup_size: [32, 64], opens: false, ..NVIDIA };
const INTEL: Device =
    Device { driver: ["mesa26", "intel.json", "GPU_SHIM", ""], subgroup_size: [8, 32], coop: &[], ..NVIDIA };

const DEVICES: [Device; 10] = [
    Device { name: "Jetson Orin", driver: nvk("nouveau:0x17b"), gigabytes: 8, profile: "small-shared", ..NVIDIA },
    Device { name: "RTX 40", driver: nvk("nouveau:0x192"), gigabytes: 24, ..NVIDIA },
    Device { name: "H100", driver: nvk("nouveau:0x180"), gigabytes: 80, ..NVIDIA },
    Device {
        name: "Tiger Lake",
        driver: ["mesa26", "intel.json", "GPU_SHIM", "xe:0x9a49"],
        gigabytes: 16,
        profile: "weak-shared",
        ..INTEL
    },
    Device {
        name: "Lunar Lake",
        driver: ["mesa26", "intel.json", "GPU_SHIM", "xe:0x64a0"],
        gigabytes: 32,
        profile: "roomy-shared",
        subgroup_size: [16, 32],
        ..INTEL
    },
    Device {
        name: "Adreno 740",
        driver: ["mesa26", "freedreno.json", "GPU_SHIM", "msm:0x43050a01"],
        gigabytes: 12,
        profile: "weak-shared",
        f16: false,
        subgroup_size: [64, 128],
        coop: &[],
        binding_mib: 128,
        ..NVIDIA
    },
    Device {
        name: "Apple M1",
        driver: ["mesa26", "asahi.json", "GPU_SHIM", "asahi:13G"],
        gigabytes: 8,
        profile: "small-shared",
        coop: &[],
        ..NVIDIA
    },
    Device { name: "Radeon 780M", driver: radv("phoenix"), gigabytes: 32, profile: "roomy-shared", ..AMD },
    Device {
        name: "Ryzen V2000",
        driver: radv("renoir"),
        gigabytes: 16,
        profile: "weak-shared",
        subgroup_size: [64, 64],
        coop: &[],
        ..AMD
    },
    Device { name: "Radeon 7900", driver: radv("navi31"), gigabytes: 24, ..AMD },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let problems = match arguments[..] {
        ["--here", gigabytes, model] => return child::run(gigabytes, model),
        [folder] => check(Path::new(folder)),
        _ => vec!["usage: opened FOLDER   (cargo xtask static calls it)".into()],
    };
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Opens the model on every device, as many at a time as there are cores. One line a problem.
fn check(folder: &Path) -> Vec<String> {
    let model = tests::tiny("q4");
    let waiting = Mutex::new(DEVICES.iter());
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let next = || waiting.lock().ok()?.next();
                while let Some(device) = next() {
                    let found = match open(folder, device, model) {
                        Ok(opened) => {
                            println!("{:<12} {opened}", device.name);
                            device.differs(&opened)
                        }
                        Err(why) => vec![why],
                    };
                    if let Ok(mut problems) = problems.lock() {
                        problems.extend(found.into_iter().map(|what| format!("{}: {what}", device.name)));
                    }
                }
            });
        }
    });
    problems.into_inner().unwrap_or_else(|_| vec!["a thread ended early".into()])
}

/// What another process found with that driver.
fn open(folder: &Path, device: &Device, model: &Path) -> Result<Opened, String> {
    let [mesa, icd, variable, chip] = device.driver;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mesa_folder = folder.join(mesa);
    // A driver that hangs counts as one that fails.
    let mut command = Command::new("timeout");
    command.arg("300");
    if mesa == "mesa26" {
        command.arg(mesa_folder.join("run")).arg("--preload").arg(folder.join("static").join("gpu_shim.so"));
    } else {
        command.env("LD_LIBRARY_PATH", mesa_folder.join("lib"));
    }
    command.arg(program).arg("--here").arg(device.gigabytes.to_string());
    command.arg(if device.opens { model } else { Path::new("-") });
    command.env("VK_DRIVER_FILES", mesa_folder.join(icd)).env(variable, chip);
    command.env("MESA_SHADER_CACHE_DISABLE", "true").env("NODEVICE_SELECT", "1");
    // Orin and H100 hide behind these.
    command.env("NVK_I_WANT_A_BROKEN_VULKAN_DRIVER", "1").env("WGPU_ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER", "1");
    let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, errors.lines().last().unwrap_or("the driver says nothing")));
    }
    Opened::parse(&output.stdout)
}

impl Device {
    /// What is not as expected.
    fn differs(&self, opened: &Opened) -> Vec<String> {
        let mut lines = Vec::new();
        let mut hold = |what: &str, found: String, expected: String| {
            if found != expected {
                lines.push(format!("{what} {found}, expected {expected}"));
            }
        };
        hold("profile", opened.profile.clone(), self.profile.into());
        hold("f16", opened.f16.to_string(), self.f16.to_string());
        hold("subgroups", format!("{:?}", opened.subgroup_size), format!("{:?}", self.subgroup_size));
        hold("cooperative matrices", format!("{:?}", opened.coop), format!("{:?}", self.coop));
        hold("MiB in a binding", opened.binding_mib.to_string(), self.binding_mib.to_string());
        hold("bytes allocated", opened.bytes.to_string(), opened.planned.to_string());
        if self.opens && (opened.bytes == 0 || opened.dispatches.len() != 2) {
            lines.push("the model was not opened".into());
        }
        if self.opens && !opened.found_out {
            lines.push("the self-test does not notice that nothing is computed".into());
        }
        lines
    }
}

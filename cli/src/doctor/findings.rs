//! What follows from what was found, each with what to do.

use super::{Machine, gigabytes};
use devices::{Facts, Kind, Profile, vendor};
use runtime::gpu::Found;
use std::path::Path;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, but badly.
    Warning,
    /// It does not work.
    Bad,
}

impl Grade {
    /// In front of a line.
    pub fn mark(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Note => "note",
            Grade::Warning => "warning",
            Grade::Bad => "error",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub grade: Grade,
    /// What is so, naming the thing.
    pub what: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Finding {
    pub fn good(what: impl Into<String>) -> Self {
        Finding { grade: Grade::Good, what: what.into(), advice: None }
    }

    pub fn new(grade: Grade, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { grade, what: what.into(), advice: Some(advice.into()) }
    }
}

fn maker(vendor: u32) -> &'static str {
    match vendor {
        vendor::AMD => "AMD",
        vendor::APPLE => "Apple",
        vendor::ARM => "ARM",
        vendor::BROADCOM => "Broadcom",
        vendor::INTEL => "Intel",
        vendor::NVIDIA => "NVIDIA",
        vendor::QUALCOMM => "Qualcomm",
        _ => "a",
    }
}

/// How the computer is set up, in the light of the devices that were found on it.
pub fn of_machine(machine: &Machine, found: &[Found]) -> Vec<Finding> {
    let mut all = Vec::new();
    let real = found.iter().any(|f| f.facts.kind != Kind::Cpu);
    // What would be an error is a hint where a GPU is found all the same.
    let grade = if real { Grade::Note } else { Grade::Bad };
    if machine.is_linux {
        loader(machine, grade, &mut all);
        drivers(machine, grade, &mut all);
        files(machine, &mut all);
        hidden(machine, found, &mut all);
    }
    if found.is_empty() {
        let advice =
            "install the GPU's driver; without a GPU Mesa's software driver (apt-get install mesa-vulkan-drivers)";
        all.push(Finding::new(Grade::Bad, "no device can be used", advice));
    } else if !real {
        let names: Vec<_> = found.iter().map(|f| f.facts.name.as_str()).collect();
        let what = format!("no GPU can be used, only software: {}", names.join(", "));
        let advice = if machine.is_linux && machine.gpus.is_empty() && machine.board.is_none() {
            "answers take minutes on it; the computer shows no GPU on its bus, so no driver will help"
        } else {
            "answers take minutes on it; install the GPU's driver, or see above what is wrong with it"
        };
        all.push(Finding::new(Grade::Warning, what, advice));
    }
    power(machine, &mut all);
    all
}

fn loader(machine: &Machine, grade: Grade, all: &mut Vec<Finding>) {
    match &machine.loader {
        Some(path) => all.push(Finding::good(format!("Vulkan's loader is {}", path.display()))),
        None => all.push(Finding::new(
            grade,
            "Vulkan's loader libvulkan.so.1 is not there",
            "apt-get install libvulkan1 (Fedora: vulkan-loader); until then only OpenGL can be used",
        )),
    }
}

fn drivers(machine: &Machine, grade: Grade, all: &mut Vec<Finding>) {
    let listed = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().find(|name| machine.variables.contains_key(*name));
    for driver in &machine.drivers {
        let file = driver.file.display();
        match &driver.problem {
            None => all.push(Finding::good(format!("driver {} ({file})", driver.library))),
            Some(problem) => {
                let advice = if let Some(name) = listed {
                    format!("correct the variable {name}, or unset it")
                } else if machine.container.is_some() {
                    "mount the driver's libraries from the host too, or remove the file".into()
                } else {
                    "install the driver anew, or remove the file".into()
                };
                all.push(Finding::new(grade, format!("{file}: {problem}"), advice));
            }
        }
    }
    if machine.drivers.is_empty() {
        let advice = match (listed, &machine.container, is_jetson(machine), has(machine, vendor::NVIDIA)) {
            (Some(name), ..) => format!("correct the variable {name}, or unset it"),
            (_, Some(_), true, _) => {
                "start the container with --runtime nvidia -e NVIDIA_DRIVER_CAPABILITIES=all, and \
                 mount the host's nvidia_icd.json (below /etc/vulkan/icd.d or /usr/share/vulkan/icd.d) and \
                 libnvidia-*gl* libraries"
                    .into()
            }
            (_, Some(_), false, true) => {
                "start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all: Vulkan is a part of `graphics`"
                    .into()
            }
            (_, Some(_), false, false) => {
                "start the container with --device /dev/dri, and install mesa-vulkan-drivers in it".into()
            }
            (_, None, true, _) => {
                "install NVIDIA's packages anew: apt-get install nvidia-l4t-3d-core nvidia-l4t-vulkan-sc; \
                 some images for Thor have none"
                    .into()
            }
            (_, None, false, true) => "install NVIDIA's driver with its Vulkan part (Debian: nvidia-vulkan-icd)".into(),
            _ => "apt-get install mesa-vulkan-drivers (AMD, Intel, Qualcomm and others), or the maker's driver".into(),
        };
        all.push(Finding::new(grade, "Vulkan is told of no driver: there is no ICD file", advice));
    }
}

/// Device files that this user may not open.
fn files(machine: &Machine, all: &mut Vec<Finding>) {
    if machine.forbidden.is_empty() {
        return;
    }
    let names: Vec<String> = machine.forbidden.iter().map(|path| path.display().to_string()).collect();
    let advice = if machine.container.is_some() {
        "give the container's user the group of the file: --group-add render (or the group's number on the host)"
    } else {
        "sudo usermod -aG render,video $USER, then log in again"
    };
    all.push(Finding::new(Grade::Warning, format!("{} cannot be opened: no permission", names.join(", ")), advice));
}

fn has(machine: &Machine, vendor: u32) -> bool {
    machine.gpus.iter().any(|gpu| gpu.vendor == vendor)
}

fn is_jetson(machine: &Machine) -> bool {
    let board = machine.board.as_deref().unwrap_or_default();
    machine.jetson_release.is_some() || ["Jetson", "Tegra", "IGX"].iter().any(|name| board.contains(name))
}

/// GPUs that are built in and that no driver shows.
fn hidden(machine: &Machine, found: &[Found], all: &mut Vec<Finding>) {
    let shown = |vendor| found.iter().any(|f| f.facts.vendor == vendor && f.facts.kind != Kind::Cpu);
    if is_jetson(machine) && !shown(vendor::NVIDIA) {
        let board = machine.board.as_deref().unwrap_or("a Jetson");
        let advice = if machine.container.is_some() {
            "start the container with --runtime nvidia -e NVIDIA_DRIVER_CAPABILITIES=all, and mount the host's \
             nvidia_icd.json"
        } else {
            "check that nvidia-l4t-3d-core is installed and that /dev/nvhost-gpu or /dev/nvgpu is there"
        };
        all.push(Finding::new(Grade::Bad, format!("this is {board}, but its GPU does not show"), advice));
    }
    for gpu in &machine.gpus {
        let known = [vendor::AMD, vendor::INTEL, vendor::NVIDIA].contains(&gpu.vendor);
        if !known || shown(gpu.vendor) {
            continue;
        }
        let (maker, address) = (maker(gpu.vendor), &gpu.address);
        let advice = match (gpu.vendor, gpu.kernel_driver.as_deref()) {
            (_, Some("vfio-pci")) => "it is given to a virtual machine; nothing to do here".into(),
            (vendor::NVIDIA, None) => "load its kernel driver (nvidia-smi tells whether it works)".into(),
            (vendor::NVIDIA, Some("nouveau")) => {
                "replace nouveau by NVIDIA's driver, or install Mesa 25 with NVK".into()
            }
            (vendor::NVIDIA, _) => nvidia_advice(machine),
            (_, None) => "load its kernel driver (amdgpu; i915 or xe), with its firmware".into(),
            (_, Some(_)) if machine.container.is_some() => {
                "start the container with --device /dev/dri, and install mesa-vulkan-drivers in it".into()
            }
            (_, Some(_)) => {
                "apt-get install mesa-vulkan-drivers; a GPU newer than the system needs a newer Mesa".into()
            }
        };
        all.push(Finding::new(Grade::Warning, format!("{maker} GPU at {address} does not show"), advice));
    }
}

/// What to do where NVIDIA's kernel driver runs and Vulkan shows nothing.
fn nvidia_advice(machine: &Machine) -> String {
    let has_graphics = machine
        .variables
        .get("NVIDIA_DRIVER_CAPABILITIES")
        .is_some_and(|list| list.split(',').any(|c| matches!(c, "all" | "graphics")));
    if machine.container.is_some() && !has_graphics {
        return "start the container with -e NVIDIA_DRIVER_CAPABILITIES=all: Vulkan is a part of `graphics`".into();
    }
    let glx = machine.drivers.iter().find(|d| d.library.contains("GLX_nvidia") && d.problem.is_none());
    match glx {
        Some(driver) => format!(
            "without a display {} needs libX11 and libXext (apt-get install libx11-6 libxext6); or point VK_DRIVER_FILES \
             at an ICD file that names libEGL_nvidia.so.0",
            driver.file.display()
        ),
        None => "install the Vulkan part of NVIDIA's driver (Debian: nvidia-vulkan-icd)".into(),
    }
}

fn power(machine: &Machine, all: &mut Vec<Finding>) {
    if let Some((mode, modes)) = &machine.power_mode {
        let fastest =
            modes.iter().find(|m| m.starts_with("MAXN_SUPER")).or(modes.iter().find(|m| m.starts_with("MAXN")));
        match fastest {
            Some(best) if best != mode => {
                let what = format!("power mode {mode}: clocks and memory bandwidth are below those of {best}");
                let advice = "sudo nvpmodel -q shows the modes, sudo nvpmodel -m N sets one; then sudo jetson_clocks";
                all.push(Finding::new(Grade::Warning, what, advice));
            }
            _ => all.push(Finding::good(format!("power mode {mode}"))),
        }
    }
    if machine.on_battery {
        let advice = "plug it in before measuring: memory clocks are lowered first";
        all.push(Finding::new(Grade::Note, "it runs on battery", advice));
    }
    if let Some(degrees) = machine.hottest.filter(|d| *d >= 90) {
        let advice = "give it air: clocks fall when it is hot";
        all.push(Finding::new(Grade::Warning, format!("something in it has {degrees} degrees"), advice));
    }
}

/// One device.
pub fn of_device(facts: &Facts, profile: &Profile) -> Vec<Finding> {
    let mut all = Vec::new();
    match facts.lacks() {
        None => all.push(Finding::good(format!("{} has what kernels need; profile {}", facts.name, profile.name))),
        Some((what, need, have)) => {
            let what = format!("{} cannot be used: kernels need {need} {what}, it has {have}", facts.name);
            all.push(Finding::new(Grade::Bad, what, "use its Vulkan driver, if this is OpenGL; else another device"));
        }
    }
    for fault in devices::faults(facts) {
        let driver = format!("{} {}", facts.driver, facts.driver_info);
        let what = format!("known of {} with driver {}: {}", facts.name, driver.trim(), fault.what);
        all.push(Finding::new(Grade::Note, what, format!("{} ({})", fault.advice, fault.link)));
    }
    if facts.backend == devices::Backend::Gl {
        let advice = "a Vulkan driver is faster, if there is one";
        all.push(Finding::new(Grade::Note, format!("{} is reached through OpenGL", facts.name), advice));
    }
    all
}

/// Whether a model that needs so many bytes fits. `file` is its name.
pub fn of_model(facts: &Facts, profile: &Profile, given: Option<u64>, file: &Path, needed: u64) -> Finding {
    let name = file.file_name().map_or("the model".into(), |n| n.to_string_lossy());
    let ceiling = given.or_else(|| profile.ceiling_bytes(facts));
    let free = facts.free_bytes();
    let most = ceiling.into_iter().chain(free).min();
    let need = gigabytes(needed);
    match most {
        None => Finding::good(format!("{name} takes {need}; how much memory there is nobody tells")),
        Some(most) if needed <= most => Finding::good(format!("{name} takes {need} of {}", gigabytes(most))),
        Some(most) => {
            let advice = if free.is_some_and(|free| needed > free) {
                "end other programs, or take less: --kv q8, a smaller --context, a model made with fewer bits"
            } else {
                "allow more with --memory, or take less: --kv q8, a smaller --context"
            };
            Finding::new(Grade::Bad, format!("{name} needs {need}, {} may be used", gigabytes(most)), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Driver, Gpu};
    use super::*;
    use std::path::PathBuf;

    fn found(vendor: u32, kind: Kind) -> Found {
        let facts = Facts { vendor, kind, name: "a device".into(), ..Facts::floor() };
        let profile = devices::profile(&facts, None).unwrap();
        Found { facts, profile }
    }

    fn linux() -> Machine {
        let driver = Driver { file: "a.json".into(), library: "liba.so".into(), problem: None };
        Machine { is_linux: true, loader: Some("libvulkan.so.1".into()), drivers: vec![driver], ..Machine::default() }
    }

    fn gpu(vendor: u32, kernel_driver: Option<&str>) -> Gpu {
        Gpu { vendor, address: "0000:01:00.0".into(), kernel_driver: kernel_driver.map(String::from) }
    }

    /// The worst finding, and its advice.
    fn worst(all: &[Finding]) -> (Grade, String) {
        let worst = all.iter().max_by_key(|f| f.grade).unwrap();
        (worst.grade, format!("{}: {}", worst.what, worst.advice.clone().unwrap_or_default()))
    }

    #[test]
    fn a_computer_that_is_well_has_only_good_findings() {
        let all = of_machine(&linux(), &[found(vendor::AMD, Kind::Integrated)]);
        assert!(all.len() >= 2 && all.iter().all(|f| f.grade == Grade::Good), "{all:?}");
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let software = [found(0x10005, Kind::Cpu)];
        for (machine, found, words) in [
            (Machine { loader: None, ..linux() }, &[][..], ["libvulkan.so.1", "apt-get install libvulkan1"]),
            (Machine { drivers: vec![], ..linux() }, &[], ["no ICD file", "mesa-vulkan-drivers"]),
            (
                Machine { drivers: vec![], gpus: vec![gpu(vendor::NVIDIA, Some("nvidia"))], ..linux() },
                &[],
                ["no ICD file", "nvidia-vulkan-icd"],
            ),
            (
                Machine {
                    drivers: vec![],
                    container: Some("docker".into()),
                    board: Some("NVIDIA Jetson Orin Nano Developer Kit".into()),
                    ..linux()
                },
                &[],
                ["Jetson Orin Nano", "nvidia_icd.json"],
            ),
            (
                Machine {
                    drivers: vec![Driver {
                        problem: Some("its library libGLX_nvidia.so.0 is not there".into()),
                        ..linux().drivers[0].clone()
                    }],
                    container: Some("docker".into()),
                    ..linux()
                },
                &[],
                ["libGLX_nvidia.so.0", "mount"],
            ),
            (
                Machine { forbidden: vec!["/dev/dri/renderD128".into()], ..linux() },
                &software,
                ["renderD128", "usermod"],
            ),
            (
                Machine { gpus: vec![gpu(vendor::NVIDIA, Some("nouveau"))], ..linux() },
                &software,
                ["0000:01:00.0", "NVK"],
            ),
            (Machine { gpus: vec![gpu(vendor::INTEL, Some("i915"))], ..linux() }, &software, ["Intel GPU", "mesa"]),
            (linux(), &software, ["only software", "minutes"]),
        ] {
            let all = of_machine(&machine, found);
            let told = all.iter().any(|f| {
                let text = format!("{} {}", f.what, f.advice.as_deref().unwrap_or_default());
                f.grade > Grade::Note && words.iter().all(|word| text.contains(word))
            });
            assert!(told, "{words:?} in {all:?}");
        }
    }

    #[test]
    fn a_gpu_without_a_display_and_one_in_a_container_get_their_own_advice() {
        let glx = Driver { file: "nvidia_icd.json".into(), library: "libGLX_nvidia.so.0".into(), problem: None };
        let headless = Machine { drivers: vec![glx], gpus: vec![gpu(vendor::NVIDIA, Some("nvidia"))], ..linux() };
        let text = |machine: &Machine| format!("{:?}", of_machine(machine, &[]));
        assert!(text(&headless).contains("libEGL_nvidia"));
        let mut contained = Machine { container: Some("docker".into()), ..headless };
        contained.variables.insert("NVIDIA_DRIVER_CAPABILITIES".into(), "compute,utility".into());
        assert!(text(&contained).contains("CAPABILITIES=all") && !text(&contained).contains("libEGL_nvidia"));
        contained.variables.insert("NVIDIA_DRIVER_CAPABILITIES".into(), "compute,graphics".into());
        assert!(text(&contained).contains("libEGL_nvidia"));
    }

    #[test]
    fn a_gpu_that_works_is_no_reason_to_complain_of_other_drivers() {
        let broken = Driver { problem: Some("its library x is not there".into()), ..linux().drivers[0].clone() };
        let machine = Machine { drivers: vec![broken], ..linux() };
        let all = of_machine(&machine, &[found(vendor::AMD, Kind::Discrete)]);
        assert_eq!(worst(&all).0, Grade::Note);
    }

    #[test]
    fn a_slow_power_mode_is_told() {
        let modes = vec!["15W".to_string(), "25W".into(), "MAXN_SUPER".into()];
        let at = |mode: &str| Machine { power_mode: Some((mode.into(), modes.clone())), ..linux() };
        let gpu = [found(vendor::NVIDIA, Kind::Integrated)];
        let (grade, text) = worst(&of_machine(&at("15W"), &gpu));
        assert!(grade == Grade::Warning && text.contains("MAXN_SUPER") && text.contains("nvpmodel -m"), "{text}");
        assert_eq!(worst(&of_machine(&at("MAXN_SUPER"), &gpu)).0, Grade::Good);
    }

    #[test]
    fn a_device_tells_what_it_lacks_and_what_is_known_of_it() {
        let (facts, profile) = (Facts { storage_buffers: 4, ..Facts::floor() }, &devices::GENERIC);
        assert_eq!(worst(&of_device(&facts, profile)).0, Grade::Bad);
        let pi = Facts { vendor: vendor::BROADCOM, name: "V3D 7.1.7.0".into(), ..Facts::floor() };
        let (grade, text) = worst(&of_device(&pi, profile));
        assert!(grade == Grade::Note && text.contains("issues/26213"), "{text}");
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_with_need_and_have() {
        let (file, profile) = (PathBuf::from("folder/m.safetensors"), &devices::GENERIC);
        let card = Facts { memory_bytes: Some(6_000_000_000), kind: Kind::Discrete, ..Facts::floor() };
        let said = |given, needed| of_model(&card, profile, given, &file, needed);
        assert_eq!(said(None, 4_000_000_000).grade, Grade::Good);
        let much = said(None, 5_000_000_000);
        assert!(much.grade == Grade::Bad && much.what.contains("needs 5.0 GB, 4.5 GB"), "{much:?}");
        assert!(much.advice.unwrap().contains("--memory"));
        assert_eq!(said(Some(5_500_000_000), 5_000_000_000).grade, Grade::Good);
        assert!(said(Some(9_000_000_000), 7_000_000_000).advice.unwrap().contains("end other programs"));
        assert!(!said(None, 1).what.contains("folder"));
    }
}

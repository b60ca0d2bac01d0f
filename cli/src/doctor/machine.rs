//! The computer as far as it decides whether a GPU can be reached. Everything is read from files below a root, so that
//! a test can make a computer up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where Vulkan's loader looks for drivers, below the root.
const ICD_FOLDERS: [&str; 4] =
    ["etc/vulkan/icd.d", "usr/share/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "usr/local/etc/vulkan/icd.d"];
/// Where libraries lie, below the root; those of one architecture in a folder of its name.
const LIBRARY_FOLDERS: [&str; 6] =
    ["usr/lib", "lib", "usr/lib64", "lib64", "usr/local/lib", "opt/nvidia/l4t-gputools/lib"];
/// Variables that decide which driver is found.
const VARIABLES: [&str; 14] = [
    "VK_DRIVER_FILES",
    "VK_ADD_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
    "MESA_VK_DEVICE_SELECT",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "WGPU_ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER",
    "HEALTHGPT_DEVICE",
    "HEALTHGPT_PROFILE",
    "HEALTHGPT_VARIANT",
    "HEALTHGPT_FLOOR",
];

/// A computer as it is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its system, for people.
    pub system: String,
    /// Whether the rules about Vulkan's loader and device files hold.
    pub is_linux: bool,
    /// The kind of container that this runs in.
    pub container: Option<String>,
    /// Vulkan's loader.
    pub loader: Option<PathBuf>,
    /// The drivers that the loader is told of.
    pub drivers: Vec<Driver>,
    /// GPUs on the bus and GPU device files, whether there is a driver or not.
    pub gpus: Vec<Gpu>,
    /// Files of devices that this user may not open.
    pub forbidden: Vec<PathBuf>,
    /// An embedded board's name.
    pub board: Option<String>,
    /// NVIDIA's release of a Jetson's system.
    pub jetson_release: Option<String>,
    /// A Jetson's power mode, and those that it has, the first of which is the fastest on most.
    pub power_mode: Option<(String, Vec<String>)>,
    /// Whether it runs on battery.
    pub on_battery: bool,
    /// The hottest of what has a thermometer, in degrees Celsius.
    pub hottest: Option<i64>,
    /// Variables that decide which driver is found.
    pub variables: BTreeMap<String, String>,
}

/// A driver that Vulkan's loader is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The file that names it.
    pub file: PathBuf,
    /// Its library, as the file says.
    pub library: String,
    /// What is wrong with either.
    pub problem: Option<String>,
}

/// A GPU that is built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// PCI vendor.
    pub vendor: u32,
    /// Address on the bus.
    pub address: String,
    /// Kernel driver that has it.
    pub kernel_driver: Option<String>,
}

impl Machine {
    /// Looks at the computer whose files lie below `root`; `variable` is its environment.
    pub fn look(root: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let at = |path: &str| root.join(path);
        let line = |path: &str| {
            let text = std::fs::read_to_string(at(path)).ok()?;
            let line = text.trim_matches(['\0', '\n', ' ']).lines().next()?.trim().to_string();
            (!line.is_empty()).then_some(line)
        };
        let variables: BTreeMap<String, String> =
            VARIABLES.iter().filter_map(|name| Some((name.to_string(), variable(name)?))).collect();
        let libraries = Libraries::new(root, variables.get("LD_LIBRARY_PATH").map_or("", String::as_str));
        Machine {
            system: system(root),
            is_linux: at("proc").is_dir(),
            container: container(root, variable),
            loader: libraries.find("libvulkan.so.1"),
            drivers: driver_files(root, &variables).into_iter().map(|file| Driver::read(file, &libraries)).collect(),
            gpus: gpus(root),
            forbidden: forbidden(root),
            board: line("proc/device-tree/model"),
            jetson_release: line("etc/nv_tegra_release"),
            power_mode: power_mode(root),
            on_battery: on_battery(root),
            hottest: hottest(root),
            variables,
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).map_or(vec![], |entries| entries.flatten().map(|e| e.path()).collect());
    all.sort();
    all
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn system(root: &Path) -> String {
    let release = read(&root.join("etc/os-release")).unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or(std::env::consts::OS);
    let kernel = read(&root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    format!("{} {kernel} {}", name.trim_matches('"'), std::env::consts::ARCH)
}

fn container(root: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if root.join(".dockerenv").exists() {
        return Some("docker".into());
    }
    if root.join("run/.containerenv").exists() {
        return Some("podman".into());
    }
    variable("container").or_else(|| variable("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".into()))
}

/// Where a library could be.
struct Libraries(Vec<PathBuf>);

impl Libraries {
    fn new(root: &Path, search_path: &str) -> Self {
        let mut folders: Vec<PathBuf> = search_path.split(':').filter(|s| !s.is_empty()).map(PathBuf::from).collect();
        for folder in LIBRARY_FOLDERS {
            let folder = root.join(folder);
            let below = entries(&folder).into_iter().filter(|path| {
                let name = path.file_name().map_or("".into(), |n| n.to_string_lossy());
                name.ends_with("-linux-gnu") || name.ends_with("-linux-musl") || name == "nvidia" || name == "tegra"
            });
            folders.extend(below.flat_map(|path| [path.join("nvidia"), path.join("tegra"), path]));
            folders.push(folder);
        }
        Libraries(folders)
    }

    /// A library by its name, or where it is if the name is a path.
    fn find(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.exists());
        }
        self.0.iter().map(|folder| folder.join(name)).find(|path| path.exists())
    }
}

/// The files that name drivers: those that a variable lists, or those of the usual folders.
fn driver_files(root: &Path, variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let listed = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().find_map(|name| variables.get(*name));
    let split = |list: &String| list.split(':').filter(|s| !s.is_empty()).map(PathBuf::from).collect::<Vec<_>>();
    let mut files = match listed {
        Some(list) => split(list).into_iter().flat_map(|p| if p.is_dir() { entries(&p) } else { vec![p] }).collect(),
        None => ICD_FOLDERS.iter().flat_map(|folder| entries(&root.join(folder))).collect::<Vec<_>>(),
    };
    files.extend(variables.get("VK_ADD_DRIVER_FILES").map(split).unwrap_or_default());
    files.retain(|path| path.extension().is_some_and(|e| e == "json") || !path.exists());
    files
}

impl Driver {
    fn read(file: PathBuf, libraries: &Libraries) -> Self {
        let wrong = |file, problem: String| Driver { file, library: String::new(), problem: Some(problem) };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => return wrong(file, error.to_string()),
        };
        let json: serde_json::Value = match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(error) => return wrong(file, format!("is no JSON: {error}")),
        };
        let Some(library) = json["ICD"]["library_path"].as_str() else {
            return wrong(file, "names no library".into());
        };
        // A path may be relative to the file.
        let beside = file.parent().map(|folder| folder.join(library));
        let found = libraries.find(library).or(beside.filter(|path| library.contains('/') && path.exists()));
        let problem = found.is_none().then(|| format!("its library {library} is not there"));
        Driver { file, library: library.into(), problem }
    }
}

/// Display controllers and accelerators on PCI, and GPUs on the chip itself.
fn gpus(root: &Path) -> Vec<Gpu> {
    let hexadecimal = |path: PathBuf| u32::from_str_radix(read(&path)?.trim_start_matches("0x"), 16).ok();
    let name = |path: &Path| path.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
    let driver = |device: &Path| std::fs::canonicalize(device.join("driver")).ok().map(|path| name(&path));
    let on_bus = entries(&root.join("sys/bus/pci/devices")).into_iter().filter_map(|device| {
        let class = hexadecimal(device.join("class"))? >> 16;
        // 3 is a display controller; 12 an accelerator.
        let vendor = hexadecimal(device.join("vendor")).filter(|_| matches!(class, 0x03 | 0x12))?;
        Some(Gpu { vendor, address: name(&device), kernel_driver: driver(&device) })
    });
    on_bus.collect()
}

/// GPU device files that are there and cannot be opened for reading and writing.
fn forbidden(root: &Path) -> Vec<PathBuf> {
    let is_gpu = |path: &PathBuf| {
        let name = path.file_name().map_or("".into(), |n| n.to_string_lossy());
        let starts =
            |begin: &str| name.strip_prefix(begin).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        starts("renderD")
            || starts("nvidia")
            || starts("mali")
            || name == "nvidiactl"
            || name == "nvhost-gpu"
            || name == "nvmap"
            || name == "kgsl-3d0"
    };
    let all = ["dev/dri", "dev"].iter().flat_map(|folder| entries(&root.join(folder)));
    let denied = |path: &PathBuf| {
        let opened = std::fs::File::options().read(true).write(true).open(path);
        opened.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    };
    all.filter(is_gpu).filter(denied).collect()
}

/// A Jetson's power mode by name, and all that its configuration knows.
fn power_mode(root: &Path) -> Option<(String, Vec<String>)> {
    let now = read(&root.join("var/lib/nvpmodel/status"))?;
    let id: usize = now.rsplit(':').next()?.trim().parse().ok()?;
    let configuration = read(&root.join("etc/nvpmodel.conf"))?;
    let mut modes = BTreeMap::new();
    for line in configuration.lines().filter(|line| line.trim_start().starts_with("< POWER_MODEL")) {
        let field = |key: &str| {
            let (_, rest) = line.split_once(key)?;
            Some(rest.split([' ', '>']).next()?.to_string())
        };
        if let (Some(id), Some(name)) = (field(" ID=").and_then(|id| id.parse::<usize>().ok()), field(" NAME=")) {
            modes.insert(id, name);
        }
    }
    Some((modes.get(&id)?.clone(), modes.into_values().collect()))
}

fn on_battery(root: &Path) -> bool {
    let supplies = entries(&root.join("sys/class/power_supply"));
    let is = |path: &Path, kind: &str| read(&path.join("type")).is_some_and(|t| t == kind);
    let mains: Vec<_> = supplies.iter().filter(|path| is(path, "Mains")).collect();
    supplies.iter().any(|path| is(path, "Battery") && read(&path.join("status")).is_some_and(|s| s == "Discharging"))
        && !mains.iter().any(|path| read(&path.join("online")).is_some_and(|online| online == "1"))
}

fn hottest(root: &Path) -> Option<i64> {
    let zones = entries(&root.join("sys/class/thermal")).into_iter();
    let degrees = zones.filter_map(|zone| read(&zone.join("temp"))?.parse::<i64>().ok()).map(|milli| milli / 1000);
    // Zones that are switched off say nonsense.
    degrees.filter(|d| (1..150).contains(d)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A computer made of files.
    struct Made(PathBuf);

    impl Made {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("healthgpt-doctor-{}-{name}", std::process::id()));
            for (path, content) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Made(root)
        }

        fn look(&self, variables: &[(&str, &str)]) -> Machine {
            let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            Machine::look(&self.0, &variable)
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const NVIDIA_ICD: &str = r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0"}}"#;

    #[test]
    fn a_jetson_in_a_container_is_seen_as_it_is() {
        let made = Made::new(
            "jetson",
            &[
                (".dockerenv", ""),
                ("proc/sys/kernel/osrelease", "5.15.148-tegra\n"),
                ("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0"),
                ("etc/os-release", "NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\n"),
                ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\nmore\n"),
                ("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"),
                ("var/lib/nvpmodel/status", "pmode:0000\n"),
                ("usr/lib/aarch64-linux-gnu/libvulkan.so.1", ""),
                ("etc/vulkan/icd.d/nvidia_icd.json", NVIDIA_ICD),
                ("sys/class/thermal/thermal_zone0/temp", "48500\n"),
                ("sys/class/thermal/thermal_zone1/temp", "-256000\n"),
            ],
        );
        let machine = made.look(&[("NVIDIA_DRIVER_CAPABILITIES", "compute"), ("HOME", "/root")]);
        assert!(machine.is_linux && machine.system.starts_with("Ubuntu 22.04.5 LTS 5.15.148-tegra "));
        assert_eq!(machine.container.as_deref(), Some("docker"));
        assert_eq!(machine.board.as_deref(), Some("NVIDIA Jetson Orin Nano Developer Kit"));
        assert_eq!(machine.jetson_release.as_deref(), Some("# R36 (release), REVISION: 4.3"));
        assert_eq!(machine.power_mode, Some(("15W".into(), vec!["15W".into(), "MAXN_SUPER".into()])));
        assert!(machine.loader.is_some());
        assert_eq!(machine.hottest, Some(48));
        let [driver] = &machine.drivers[..] else { panic!("{:?}", machine.drivers) };
        assert_eq!(driver.problem.as_deref(), Some("its library libGLX_nvidia.so.0 is not there"));
        // Nothing else of the environment.
        assert_eq!(machine.variables.len(), 1);
    }

    #[test]
    fn a_driver_is_whole_where_its_library_is() {
        let library = ("usr/lib/aarch64-linux-gnu/nvidia/libGLX_nvidia.so.0", "");
        let made = Made::new("whole", &[library, ("usr/share/vulkan/icd.d/nvidia_icd.json", NVIDIA_ICD)]);
        assert_eq!(made.look(&[]).drivers[0].problem, None);
        assert_eq!(made.look(&[]).loader, None);
    }

    #[test]
    fn a_variable_replaces_the_folders_of_drivers() {
        let made = Made::new("listed", &[("etc/vulkan/icd.d/a.json", NVIDIA_ICD), ("own/b.json", "no json")]);
        let own = made.0.join("own/b.json").to_string_lossy().into_owned();
        let listed = made.look(&[("VK_DRIVER_FILES", &format!("{own}:/nonexistent.json"))]).drivers;
        let problems: Vec<&str> = listed.iter().filter_map(|d| d.problem.as_deref()).collect();
        assert!(problems.len() == 2 && problems[0].starts_with("is no JSON"), "{listed:?}");
        assert!(problems[1].contains("No such file"), "{listed:?}");
        let added = made.look(&[("VK_ADD_DRIVER_FILES", &own)]).drivers;
        assert_eq!(added.len(), 2);
    }

    #[test]
    fn gpus_on_the_bus_are_seen_and_other_devices_are_not() {
        let pci = |device: &str, class: &'static str, vendor: &'static str| {
            [
                (format!("sys/bus/pci/devices/{device}/class"), class),
                (format!("sys/bus/pci/devices/{device}/vendor"), vendor),
            ]
        };
        let all = [pci("0000:00:02.0", "0x030000", "0x8086"), pci("0000:00:1f.6", "0x020000", "0x8086")].concat();
        let files: Vec<(&str, &str)> = all.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        let made = Made::new("bus", &files);
        let expected = Gpu { vendor: 0x8086, address: "0000:00:02.0".into(), kernel_driver: None };
        assert_eq!(made.look(&[]).gpus, [expected]);
    }

    #[test]
    fn battery_counts_where_it_empties() {
        let supply = |status: &'static str| {
            [("sys/class/power_supply/BAT0/type", "Battery"), ("sys/class/power_supply/BAT0/status", status)]
        };
        assert!(Made::new("battery", &supply("Discharging")).look(&[]).on_battery);
        assert!(!Made::new("charging", &supply("Charging")).look(&[]).on_battery);
    }
}

//! A Vulkan device: the machine's own, or Mesa's software driver through apt.

use crate::{Result, root, run, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A software driver unpacked aside.
pub struct Driver {
    /// For messages.
    pub name: &'static str,
    /// Environment that makes a program use it.
    pub environment: Vec<(String, String)>,
}

fn exists_any(paths: &[&str]) -> bool {
    paths.iter().any(|p| Path::new(p).exists())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

/// Makes sure that some driver is there; installs Mesa's where there is none and it may.
pub fn ensure() -> Result {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let loader = exists_any(&[
        "/usr/lib/x86_64-linux-gnu/libvulkan.so.1",
        "/usr/lib/aarch64-linux-gnu/libvulkan.so.1",
        "/usr/lib64/libvulkan.so.1",
        "/usr/lib/libvulkan.so.1",
    ]);
    let told = std::env::var_os("VK_DRIVER_FILES").or_else(|| std::env::var_os("VK_ICD_FILENAMES")).is_some();
    let driver = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .any(|mut files| files.next().is_some());
    if loader && (driver || told) {
        return Ok(());
    }
    println!("==> no Vulkan driver is installed; Mesa's software driver would do");
    if !may_install() {
        println!("    install it: apt-get install mesa-vulkan-drivers libvulkan1 (going on without)");
        return Ok(());
    }
    install(&["mesa-vulkan-drivers", "libvulkan1"])
}

fn may_install() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

/// Debian packages for the whole system.
///
/// *Errors*: where this may not, or apt cannot.
pub fn install(packages: &[&str]) -> Result {
    let what = format!("apt-get install {}", packages.join(" "));
    if !may_install() {
        return Err(format!("needs {what}"));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(args);
        command
    };
    run("apt-get update", &mut apt(&["update"]))?;
    run(&what, apt(&["install", "-y", "--no-install-recommends"]).args(packages))
}

/// What the C library is tested with, and the packages that have it.
const TOOLS: [(&str, &[&str]); 9] = [
    ("gcc", &["gcc", "libc6-dev"]),
    ("g++", &["g++"]),
    ("clang++", &["clang"]),
    ("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
    ("readelf", &["binutils"]),
    ("cmake", &["cmake", "make"]),
    ("pkg-config", &["pkg-config"]),
    ("python3", &["python3-minimal", "libpython3-stdlib"]),
    ("valgrind", &["valgrind"]),
];

/// Makes sure of the tools that the C library is tested with, where this may. What is missing then, the tests say: in CI they
/// fail, elsewhere they tell what they leave out.
///
/// *Errors*: where apt cannot.
pub fn tools() -> Result {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !has(tool)).flat_map(|(_, p)| p.iter().copied()).collect();
    if missing.is_empty() || !may_install() {
        return Ok(());
    }
    install(&missing)
}

/// The folder under `target` with those drivers unpacked (`25` and `26` are Mesa's), if this machine can have them. `icd`
/// is a file that must be there.
pub fn drivers(version: &str, icd: &str) -> Option<PathBuf> {
    let name = if version == "swiftshader" { version.into() } else { format!("mesa{version}") };
    let folder = scratch(&name);
    if !folder.join(icd).exists() {
        println!("==> unpacking {name} aside");
        let script = root().join("xtask").join("drivers.sh");
        let done = Command::new("bash").arg(script).arg(version).arg(&folder).status().is_ok_and(|s| s.success());
        if !done {
            return None;
        }
    }
    Some(folder)
}

/// Mesa 26's software driver, which has cooperative matrices, if this machine can have it. It comes with its own C
/// library, so programs run under its loader.
pub fn mesa_26() -> Option<Driver> {
    let folder = drivers("26", "lvp.json").filter(|_| cfg!(all(target_os = "linux", target_arch = "x86_64")))?;
    let text = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let environment = vec![
        ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER".into(), text("run")),
        ("VK_DRIVER_FILES".into(), text("lvp.json")),
    ];
    Some(Driver { name: "Mesa 26", environment })
}

/// Mesa 25's software driver, if this machine can have it.
pub fn mesa_25() -> Option<Driver> {
    let folder = drivers("25", "lvp.json")?;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let environment = vec![
        ("LD_LIBRARY_PATH".into(), text(folder.join("lib"))),
        ("VK_DRIVER_FILES".into(), text(folder.join("lvp.json"))),
    ];
    Some(Driver { name: "Mesa 25", environment })
}

/// Google's software driver: no f16, subgroups of four, ten storage buffers. If this machine can have it.
pub fn swiftshader() -> Option<Driver> {
    let icd = drivers("swiftshader", "swiftshader.json")?.join("swiftshader.json");
    let environment = vec![("VK_DRIVER_FILES".into(), icd.to_string_lossy().into_owned())];
    Some(Driver { name: "SwiftShader", environment })
}

/// No Vulkan driver, so that wgpu takes OpenGL: no subgroups, no f16. Mesa's software driver where there is no GPU.
pub fn opengl() -> Driver {
    // The loader must find no file there.
    Driver { name: "OpenGL", environment: vec![("VK_DRIVER_FILES".into(), "/nonexistent.json".into())] }
}

//! Compilers and other tools, and the library laid out as it is handed out.

use crate::header::capi;
use crate::package;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Whether a tool is there. Where CI runs it must be: `cargo xtask test` installs what it can.
pub fn has(tool: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|f| f.join(tool).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is not installed; `cargo xtask test` does that");
        // Past the harness, which would keep it to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {tool} is not installed");
    }
    found
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder with the libraries that cargo built beside this test.
pub fn built() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    program.parent().expect("its folder").to_path_buf()
}

/// The library laid out as `cargo xtask dist` does. It is large, so every run puts it in the same place.
pub fn dist() -> &'static Path {
    static DIST: OnceLock<PathBuf> = OnceLock::new();
    DIST.get_or_init(|| {
        let to = root().join("target/tmp/dist");
        let _ = std::fs::remove_dir_all(&to);
        package::lay_out(&root(), &built(), &to, env!("CARGO_PKG_VERSION")).expect("the library is laid out");
        to
    })
}

/// A file of the C tests.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("capi/c").join(name)
}

/// An example.
pub fn example(name: &str) -> PathBuf {
    capi().join("examples").join(name)
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A compiler with every warning an error, and the header's folder.
pub fn compiler(name: &str) -> Command {
    let mut command = Command::new(name);
    command.args(["-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(dist().join("include"));
    command
}

/// Runs a command that must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// Runs a command that must succeed and print nothing; a library never does.
#[track_caller]
pub fn run_silent(command: &mut Command) {
    let output = run(command);
    let printed = [output.stdout, output.stderr].concat();
    assert!(printed.is_empty(), "{command:?} printed: {}", String::from_utf8_lossy(&printed));
}

/// A program that runs against the laid-out library, without anything of the user's environment that changes it.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    let library = dist().join("lib");
    // A driver's folder may come by the same variable.
    let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(library).chain(std::env::split_paths(&others).filter(|f| f.is_absolute()));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders"));
    // A layer of Mesa's prints about Wayland where there is no desktop.
    command.env("NODEVICE_SELECT", "1").current_dir(tests::scratch());
    command
}

/// Compiles and links a program against the laid-out library.
pub fn link(compile: &mut Command, output: &str) -> PathBuf {
    let program = tests::scratch().join(output);
    run(compile.arg("-L").arg(dist().join("lib")).args(["-lhealthgpt", "-pthread", "-o"]).arg(&program));
    program
}

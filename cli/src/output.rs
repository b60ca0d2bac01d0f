//! The only place that prints.

use crate::args::Log;
use crate::failure::{FAILED, Failure, Result, USAGE};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The log on stderr or in a file. Silent unless asked for; never holds prompts, pictures or answers.
pub fn start_log(log: &Log) -> Result {
    let level = match (log.verbose, &log.log_file) {
        (0, None) => return Ok(()),
        (0 | 1, _) => log::LevelFilter::Info,
        (2, _) => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    // wgpu talks a lot; its warnings are enough.
    builder.filter_level(log::LevelFilter::Warn).filter_module("runtime", level).filter_module("healthgpt", level);
    if let Some(path) = &log.log_file {
        let file = std::fs::File::create(path)
            .map_err(|e| Failure::new(FAILED, format!("{}: cannot be written: {e}", path.display())))?;
        builder.target(env_logger::Target::Pipe(Box::new(file)));
    }
    builder.init();
    Ok(())
}

/// A piece of the result, at once.
pub fn stream(text: &str) -> Result {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(broken)
}

/// A line of the result.
pub fn line(text: impl AsRef<str>) -> Result {
    stream(&format!("{}\n", text.as_ref()))
}

/// The result as JSON on one line.
pub fn json(value: &serde_json::Value) -> Result {
    line(value.to_string())
}

/// Refuses outputs that would replace an input or each other, before any work is done.
pub fn check_files(outputs: &[Option<&PathBuf>], inputs: &[Option<&PathBuf>]) -> Result {
    // What does not exist yet is told by its folder and name.
    let real = |path: &Path| match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(path), ..) => Some(path),
        (_, Some(folder), Some(name)) if folder.as_os_str().is_empty() => {
            Some(PathBuf::from(".").canonicalize().ok()?.join(name))
        }
        (_, Some(folder), Some(name)) => Some(folder.canonicalize().ok()?.join(name)),
        _ => None,
    };
    let mut taken: Vec<PathBuf> = inputs.iter().flatten().filter_map(|p| p.canonicalize().ok()).collect();
    for output in outputs.iter().flatten() {
        let Some(path) = real(output) else {
            return Err(Failure::new(FAILED, format!("{}: its folder does not exist", output.display())));
        };
        if taken.contains(&path) {
            let message = format!("{}: is an input, or named twice; choose another output", output.display());
            return Err(Failure::new(USAGE, message));
        }
        taken.push(path);
    }
    Ok(())
}

/// A file, whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result {
    let failed = |e: std::io::Error| Failure::new(FAILED, format!("{}: cannot be written: {e}", path.display()));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        // It may not even be there.
        let _ = std::fs::remove_file(&temporary);
        failed(e)
    })
}

/// Something that is not the result. A closed stderr is no reason to fail.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}

/// Something that is not the result, without a new line.
pub fn prompt(text: &str) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// The one line that says what went wrong.
pub fn complain(failure: &Failure) {
    note(format!("error: {}", failure.message));
}

fn broken(error: std::io::Error) -> Failure {
    Failure::new(FAILED, format!("stdout: {error}"))
}

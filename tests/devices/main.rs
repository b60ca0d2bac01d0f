//! `device-table FILE`: writes docs/devices.md, what of HealthGPT-M3 fits on which device and how fast it can be there, by
//! the code that plans. `cargo xtask device-table` calls it.
#![expect(clippy::print_stderr, reason = "talking to the person at the terminal is its job")]

mod catalogue;

use catalogue::{Device, catalogue};
use devices::Facts;
use runtime::model::{Header, Task};
use runtime::{Footprint, Model, OpenOptions, SessionOptions};
use shaders::KvFormat;
use std::fmt::Write;
use std::process::ExitCode;

/// Language layers of HealthGPT-M3.
const LAYERS: usize = 32;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: device-table FILE   (cargo xtask device-table calls it)");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, page()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A way of using the model.
struct Configuration {
    name: &'static str,
    /// `q4`, or the file below `quantize/recipes`.
    recipe: &'static str,
    tasks: &'static [Task],
    kv: KvFormat,
    context: usize,
}

/// From the most that anybody may want to the least that is of use.
const CONFIGURATIONS: [Configuration; 5] = [
    Configuration { name: "both tasks", tasks: &Task::ALL, kv: KvFormat::F16, context: 2048, ..ASK },
    Configuration { name: "ask", kv: KvFormat::F16, context: 2048, ..ASK },
    Configuration { name: "ask, 2,048 in q8", context: 2048, ..ASK },
    Configuration { name: "ask, 1,024 in q8", ..ASK },
    Configuration { name: "ask, 1,024 in q8, compact", recipe: "compact", ..ASK },
];
const ASK: Configuration =
    Configuration { name: "", recipe: "q4", tasks: &[Task::Ask], kv: KvFormat::Q8, context: 1024 };
/// The model in the recipe of a configuration.
fn header(c: &Configuration) -> Header {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../quantize/recipes");
    let name = if c.recipe == "q4" { "q4".into() } else { format!("{folder}/{}.toml", c.recipe) };
    Header {
        recipe: quantize::recipe::load(&name, None, false).expect("a recipe"),
        ..Header::m3(LAYERS, 32).expect("a header")
    }
}

/// Bytes that a configuration takes. The one place that asks the planner.
fn planned(facts: &Facts, c: &Configuration) -> u64 {
    let header = header(c);
    let open = OpenOptions { tasks: c.tasks.to_vec(), ..Default::default() };
    let plan = |task: &Task| {
        let session = SessionOptions { task: *task, kv: c.kv, context: Some(c.context), ..Default::default() };
        Model::plan(&header, facts, &open, &session).expect("a plan")
    };
    // The weights once, a session for each task.
    let plans: Vec<Footprint> = c.tasks.iter().map(plan).collect();
    let session = |f: &Footprint| f.kv + f.scratch + f.staging;
    plans[0].total() + plans[1..].iter().map(session).sum::<u64>()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

/// The line of a device.
fn row(Device { name, bandwidth, facts, profile: expected }: &Device) -> String {
    let profile = devices::profile(facts, Some(expected)).expect("a known profile");
    let ceiling = profile.ceiling_bytes(facts);
    let fits = |c: &&Configuration| ceiling.is_none_or(|most| planned(facts, c) <= most);
    let may = ceiling.map_or("-".into(), gigabytes);
    let begin = format!("| {name} | {} | {may} |", profile.name);
    let Some(c) = CONFIGURATIONS.iter().find(fits) else {
        let least = planned(facts, &CONFIGURATIONS[CONFIGURATIONS.len() - 1]);
        return format!("{begin} nothing | {} | - |", gigabytes(least));
    };
    let limit = bandwidth * 1e9 / header(c).bytes_per_token(Task::Ask, c.kv, c.context / 2) as f64;
    format!("{begin} {} | {} | {limit:.0} |", c.name, gigabytes(planned(facts, c)))
}

fn page() -> String {
    let mut text = String::from(HEAD);
    for device in catalogue() {
        let _ = writeln!(text, "{}", row(&device));
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "\
# What fits where

Written by `cargo xtask device-table` from the code that plans; do not edit. The model is HealthGPT-M3 as `quantize` writes
it by default (`--recipe q4`), or with `quantize/recipes/compact.toml`. All sizes are in 10^9 bytes.

- *may take*: the profile's ceiling. Of a computer's memory three quarters are taken to be free. `--memory` raises it.
- *fits*: the most of these that stays below it: both tasks open at once, or one; a cache of 2,048 positions in f16, or less
  (`--context`, `--kv`); the compact recipe.
- *planned*: weights, cache, activations of that configuration. Where nothing fits, what the least of them needs.
- *limit*: bandwidth by the maker's figures, over the bytes that a token reads in the middle of the cache. Half to two
  thirds of it is what to expect; above some hundred tokens/s launching 292 dispatches a token takes longer.

Nothing here was measured on the device. `healthgpt doctor -m MODEL` says the same for the computer at hand, by its measured
bandwidth; `healthgpt bench` measures the model.

| device | profile | may take | fits | planned | limit, tokens/s |
| --- | --- | --- | --- | --- | --- |
";

const TAIL: &str = "
## Profiles

A profile is chosen by what the driver reports (`devices/src/profiles`); `--profile NAME` forces one. It holds preferences
only; limits come from the driver. Known faults of drivers are data too (`devices/src/faults.rs`), and so is what they forbid.
";

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_todays() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/devices.md");
        let committed = std::fs::read_to_string(file).expect("docs/devices.md");
        assert!(committed == super::page(), "run `cargo xtask device-table`");
    }
}

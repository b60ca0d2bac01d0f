//! `device-table FILE`: writes docs/devices.md, what of HealthGPT-M3 fits on which device and how fast it can be there, by
//! the code that plans. `cargo xtask device-table` calls it.
#![expect(clippy::print_stderr, reason = "talking to the person at the terminal is its job")]

mod catalogue;

use catalogue::{Device, catalogue};
use runtime::Use;
use runtime::model::{Header, Task};
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

/// The model in the recipe `q4`, or of a file below `quantize/recipes`.
fn header(recipe: &str) -> Header {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../quantize/recipes");
    let name = if recipe == "q4" { "q4".into() } else { format!("{folder}/{recipe}.toml") };
    Header {
        recipe: quantize::recipe::load(&name, &Default::default()).expect("a recipe"),
        ..Header::m3(LAYERS, 32).expect("a header")
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

/// The line of a device.
fn row(Device { name, bandwidth, facts, profile: expected }: &Device) -> String {
    let profile = devices::profile(facts, Some(expected)).expect("a known profile");
    let may = profile.ceiling_bytes(facts).map_or("-".into(), gigabytes);
    let begin = format!("| {name} | {} | {may} |", profile.name);
    let least = Use::ALL[Use::ALL.len() - 1];
    let fits = ["q4", "compact"].into_iter().find_map(|recipe| {
        let found = Use::that_fits(&header(recipe), facts, profile).expect("a plan");
        found.map(|(plan, bytes)| (recipe, plan, bytes))
    });
    let Some((recipe, plan, bytes)) = fits else {
        let bytes = least.bytes(&header("compact"), facts).expect("a plan");
        return format!("{begin} nothing | {} | - |", gigabytes(bytes));
    };
    let limit = bandwidth * 1e9 / header(recipe).bytes_per_token(Task::Ask, plan.kv, plan.context / 2) as f64;
    let recipe = if recipe == "q4" { String::new() } else { format!(", {recipe}") };
    format!("{begin} {plan}{recipe} | {} | {limit:.0} |", gigabytes(bytes))
}

fn page() -> String {
    let mut text = String::from(HEAD);
    for device in catalogue() {
        let _ = writeln!(text, "{}", row(&device));
    }
    text.push_str(SIZES);
    // A board of 4 GB: what is planned differs by some MB with the profile's chunk.
    let board = catalogue().into_iter().find(|d| d.profile == "tiny-shared").expect("a small board");
    for plan in Use::ALL {
        let bytes = |recipe| gigabytes(plan.bytes(&header(recipe), &board.facts).expect("a plan"));
        let _ = writeln!(text, "| {plan} | {} | {} |", bytes("q4"), bytes("compact"));
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "\
# What fits where

Written by `cargo xtask device-table` from the code that plans; do not edit. The model is HealthGPT-M3 as `quantize` writes
it by default (`--recipe q4`), or with `quantize/recipes/compact.toml`. All sizes are in 10^9 bytes.

- *may take*: the profile's ceiling. Of a computer's memory three quarters are taken to be free. `--memory` raises it.
- *fits*: the most that stays below it: both tasks open at once, or one; the cache (`--context`, `--kv`); the compact recipe.
- *planned*: weights, cache, activations of that configuration. Where nothing fits, what the least of them needs.
- *limit*: bandwidth by the maker's figures, over the bytes that a token reads in the middle of the cache. Half to two
  thirds of it is what to expect; above some hundred tokens/s launching 292 dispatches a token takes longer.

Nothing here was measured on the device. `healthgpt doctor -m MODEL` says the same for the computer at hand, by its measured
bandwidth; `healthgpt bench` measures the model.

| device | profile | may take | fits | planned | limit, tokens/s |
| --- | --- | --- | --- | --- | --- |
";

const SIZES: &str = "
## What a configuration takes

On a board of 4 GB, whose prompts are computed in chunks of 32. Questions about pictures with 1,024 positions are to stay
below 3.2.

| configuration | `q4` | compact |
| --- | --- | --- |
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

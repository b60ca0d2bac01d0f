//! `static-gate FOLDER [--update]`: compiles every kernel with real drivers' compilers and holds the outcome against
//! `table.txt` and the rules. `cargo xtask static` puts the Mesas and the tools into FOLDER.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the person at the terminal is its job")]

mod chips;
mod narrow;
mod programs;
mod report;
mod rules;
mod table;

use chips::{ALSO, CHIPS, Chip};
use programs::{Checks, Program, Workgroup};
use report::{End, Job, Mode, Report};
use rules::{Known, Row};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use table::{Difference, Total};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, update) = match &arguments[..] {
        [folder] => (folder, false),
        [folder, flag] if flag == "--update" => (folder, true),
        _ => {
            eprintln!("usage: static-gate FOLDER [--update]   (cargo xtask static calls it)");
            return ExitCode::from(2);
        }
    };
    match gate(Path::new(folder), update) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// A list of programs with the way they are compiled.
struct Pass {
    mode: Mode,
    list: Vec<String>,
}

/// Place of each pass; the first four are the ways of `Total`.
const SHIPPED: usize = 0;
const PLAIN: usize = 1;
const UNCHECKED: usize = 2;
const BARE: usize = 3;
const WEIGHTS: usize = 4;
const WEIGHTS_PLAIN: usize = 5;
const SPILLING: usize = 6;

fn gate(folder: &Path, update: bool) -> Result<(), String> {
    let programs = programs::all()?;
    let passes = passes(&folder.join("static"), &programs)?;
    let reports = run_all(folder, &passes)?;

    let mut rows = Vec::new();
    for program in &programs {
        let workgroup = program.workgroup()?;
        rows.extend(CHIPS.iter().zip(&reports).map(|(chip, reports)| row(&program.name, workgroup, chip, reports)));
    }
    let spilling: Vec<Row> = CHIPS
        .iter()
        .zip(&reports)
        .flat_map(|(chip, reports)| reports[SPILLING].ends.iter().map(move |(name, end)| (chip, name, end)))
        .map(|(chip, name, end)| Row { program: name.clone(), chip, end: end.clone(), plain: None, weights: None })
        .collect();
    let totals: Vec<Total> = CHIPS.iter().zip(&reports).map(|(chip, reports)| total(chip, reports)).collect();
    let versions: BTreeSet<&str> = reports.iter().map(|r| r[SHIPPED].version.as_str()).collect();
    let versions = Vec::from_iter(versions).join(", ");
    println!("{} programs on {} chips ({versions})", programs.len(), CHIPS.len());
    for Known { program, chips, rule, why } in rules::KNOWN {
        println!("known: {} breaks {rule:?} on {}: {why}", program.trim_end(), chips.join(", "));
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("static").join("table.txt");
    let now = table::text(&versions, &rows, &totals);
    let mut problems = rules::violations(&rows, rules::KNOWN);
    problems.extend(rules::blind(&spilling));
    for chip in &ALSO {
        let shipped = &passes[SHIPPED];
        let report = Job { folder, chip, mode: shipped.mode }.run(&shipped.list)?;
        problems.extend(report.ends.iter().filter_map(|(name, end)| match end {
            End::Failed(why) => Some(format!("{name} on {}: {why}", chip.name)),
            _ => None,
        }));
    }
    if update {
        std::fs::write(&path, &now).map_err(|e| format!("{}: {e}", path.display()))?;
    } else {
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        match table::difference(&committed, &now) {
            Difference::None => {}
            Difference::Notes(lines) => {
                println!("no kernel changed; other explanations or totals than in the table:\n{}", lines.join("\n"));
            }
            Difference::OtherDrivers => {
                println!("SKIPPED: comparing with the table, which other drivers wrote; the rules were checked");
            }
            Difference::Lines(lines) => {
                println!("{}", lines.join("\n"));
                problems.push("the table changed; if it should, run `cargo xtask static --update`".into());
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\nerror: ")) }
}

/// Writes the SPIR-V of every pass into `folder`.
fn passes(folder: &Path, programs: &[Program]) -> Result<Vec<Pass>, String> {
    let spirv = folder.join("spirv");
    std::fs::create_dir_all(&spirv).map_err(|e| format!("{}: {e}", spirv.display()))?;
    let (mut checked, mut unchecked, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for program in programs {
        let words = program.spirv(Checks::All)?;
        checked.push(write(&spirv, program, "checked", &words)?);
        unchecked.push(write(&spirv, program, "unchecked", &program.spirv(Checks::None)?)?);
        if let Some(binding) = program.weights {
            weights.push(write(&spirv, program, "weights", &narrow::all_but(binding, &words))?);
        }
    }
    let spilling = programs::spilling();
    let spilling = vec![write(&spirv, &spilling, "checked", &spilling.spirv(Checks::All)?)?];
    let robust = Mode { robust: true, text: false };
    let plain = Mode { robust: false, text: false };
    let pass = |mode, list: &[String]| Pass { mode, list: list.to_vec() };
    Ok(vec![
        pass(robust, &checked),
        pass(plain, &checked),
        pass(robust, &unchecked),
        pass(plain, &unchecked),
        pass(Mode { text: true, ..robust }, &weights),
        pass(Mode { text: true, ..plain }, &weights),
        pass(robust, &spilling),
    ])
}

/// Writes one program; its line for `kernel_stats`.
fn write(folder: &Path, program: &Program, what: &str, words: &[u32]) -> Result<String, String> {
    let path: PathBuf = folder.join(format!("{}.{what}.spv", program.name.replace(' ', "_")));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(format!("{}\t{}\t{}\n", program.name, program.layout, path.display()))
}

/// Every pass on every chip: as many processes at a time as there are cores. By chip, then by pass.
fn run_all(folder: &Path, passes: &[Pass]) -> Result<Vec<Vec<Report>>, String> {
    let jobs: Vec<(&'static Chip, &Pass)> = CHIPS.iter().flat_map(|c| passes.iter().map(move |p| (c, p))).collect();
    let waiting = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(Vec::new());
    let next = || waiting.lock().ok()?.next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((at, (chip, pass))) = next() {
                    let report = Job { folder, chip, mode: pass.mode }.run(&pass.list);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, report));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|_| "a thread ended early".to_string())?;
    done.sort_by_key(|(at, _)| *at);
    let mut reports = done.into_iter().map(|(_, report)| report).collect::<Result<Vec<_>, _>>()?.into_iter();
    Ok(CHIPS.iter().map(|_| reports.by_ref().take(passes.len()).collect()).collect())
}

fn row(program: &str, workgroup: Workgroup, chip: &'static Chip, reports: &[Report]) -> Row {
    let end = |pass: usize| reports[pass].ends.iter().find(|(name, _)| name == program).map(|(_, end)| end);
    let compiled = |pass| match end(pass) {
        Some(End::Compiled(numbers)) => Some(*numbers),
        _ => None,
    };
    let mut shipped = end(SHIPPED).cloned().unwrap_or(End::Failed("was not compiled".into()));
    if let End::Compiled(n) = &mut shipped {
        n.occupancy = chip.occupancy(n.occupancy, n.subgroup, workgroup);
    }
    let weights = [WEIGHTS, WEIGHTS_PLAIN].map(|pass| compiled(pass).map(|n| n.widest_load.unwrap_or(0)));
    Row {
        program: program.into(),
        chip,
        end: shipped,
        plain: compiled(PLAIN),
        weights: weights[0].zip(weights[1]).map(|(robust, plain)| [robust, plain]),
    }
}

fn total(chip: &Chip, reports: &[Report]) -> Total {
    let of = |pass: usize| {
        reports[pass].ends.iter().fold((0, 0), |(i, c), (_, end)| match end {
            End::Compiled(n) => (i + n.instructions, c + n.cycles),
            _ => (i, c),
        })
    };
    Total { chip: chip.name, ways: [SHIPPED, PLAIN, UNCHECKED, BARE].map(of) }
}

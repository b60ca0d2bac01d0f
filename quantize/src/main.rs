//! The command line of `quantize`: results on stdout, everything else on stderr.

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quantize::calibrate::{self, Models, Purpose, State};
use quantize::compare::RunOn;
use quantize::config::Choices;
use quantize::export::ExportType;
use quantize::model::{ModelFile, class_name, format_name, owner};
use quantize::recipe::Asked;
use quantize::report::{check_name, parts, size, size_table};
use quantize::source::{Given, discover};
use quantize::write::{Job, default_output};
use quantize::{Error, Progress, Result};
use runtime::gpu::Gpu;
use runtime::model::Task;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prepares a HealthGPT model file from the published checkpoint.
///
/// INPUT is the folder of the published parts, or one of their files: the rest is found beside it, by content and name.
/// The output defaults to the input file's name with the recipe's, beside the input file
/// (model.safetensors becomes model-q4.safetensors), or to model-RECIPE.safetensors in the current folder for a folder.
///
/// q4 is calibrated: the unquantised model is run over text and pictures, one layer at a time, on the GPU or a software device.
/// That takes memory for one layer, and can go on where it was interrupted. `--method nearest` needs no device and seconds.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 no device or unfit, 4 a file is missing, damaged or wrong, 5 out of memory,
/// 6 picture unreadable, 130 interrupted.
#[derive(Parser)]
#[command(name = "quantize", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: Make,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a model file: header, recipe, sizes, sources, hashes.
    Inspect {
        /// The model file.
        file: PathBuf,
        /// Lists every tensor with its hash and sources.
        #[arg(long)]
        tensors: bool,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures the distance of a model file to its checkpoint: tensor by tensor, and stage by stage as both are run.
    Compare {
        /// The model file.
        file: PathBuf,
        /// The checkpoint: what `quantize` was given.
        dir: PathBuf,
        #[command(flatten)]
        given: GivenArgs,
        /// Compares tensors alone: needs no device.
        #[arg(long)]
        tensors_only: bool,
        /// What both are run on, as for quantising [default: what is built in].
        #[arg(long, value_name = "DIR|FILE")]
        calibrate: Option<PathBuf>,
        /// Positions of it.
        #[arg(long, value_name = "N", default_value_t = 2048)]
        calibration_tokens: usize,
        /// Device to run on: number, part of its name, or PCI address.
        #[arg(long, value_name = "INDEX|NAME|PCI", env = "HEALTHGPT_DEVICE")]
        device: Option<String>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes the weights that a model file really computes with, back in the published layout.
    ///
    /// Vision layers that no task needs are not in the file and cannot be exported; settings.json says which of the
    /// remaining ones each task takes. The result can be given to `quantize` again.
    Export {
        /// The model file.
        file: PathBuf,
        /// Folder to write.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Type of matrices and tables. f32 is exact; bf16 rounds what is not exact in it.
        #[arg(long, value_enum, default_value = "f32")]
        dtype: DtypeArg,
        /// Replaces files that are there.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeArg {
    F32,
    Bf16,
}

#[derive(Args)]
struct GivenArgs {
    /// Vision tower: folder or weights, in place of what is found.
    #[arg(long, value_name = "PATH")]
    vit: Option<PathBuf>,
    /// Comprehension adapter.
    #[arg(long, value_name = "FILE")]
    hlora_ask: Option<PathBuf>,
    /// Generation adapter.
    #[arg(long, value_name = "FILE")]
    hlora_generate: Option<PathBuf>,
    /// Fusion layer: the tables of generation.
    #[arg(long, value_name = "FILE")]
    fusion: Option<PathBuf>,
    /// Picture decoder.
    #[arg(long, value_name = "FILE")]
    vqgan: Option<PathBuf>,
}

impl GivenArgs {
    fn given(self) -> Given {
        let GivenArgs { vit, hlora_ask, hlora_generate, fusion, vqgan } = self;
        Given { vit, hlora_ask, hlora_generate, fusion, vqgan }
    }
}

#[derive(Args)]
struct Make {
    /// Folder of the published parts, or one of their files.
    #[arg(required = true)]
    input: Option<PathBuf>,
    /// File to write.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// q4, q8, f16, or a recipe file.
    #[arg(long, default_value = "q4", value_name = "q4|q8|f16|FILE.toml")]
    recipe: String,
    /// How q4 is rounded [default: best]. `best` rotates the residual stream and makes up for each rounding in the next, `quick`
    /// scales channels by their use, `nearest` looks at the weights alone; or steps of your own: any of rotate, awq, then one of
    /// nearest, weighted, gptq.
    #[arg(long, value_name = "best|quick|nearest|STEP+STEP")]
    method: Option<String>,
    /// Values that share a scale in q4: 32, 64 or 128 [default: 64, by nearest 32].
    #[arg(long, value_name = "32|64|128")]
    group: Option<usize>,
    /// No zero points in q4.
    #[arg(long)]
    symmetric: bool,
    /// Tasks to include [default: ask, and generate if any part of it is there].
    #[arg(long, value_delimiter = ',', value_name = "ask,generate")]
    tasks: Option<Vec<TaskArg>>,
    /// Whether adapters stay beside the weights, computed as published, or are put into them with their gates fixed at their
    /// means: they then cost nothing per token, and the report says how far that is from exact. For one task at a time.
    #[arg(long, value_enum, default_value = "exact")]
    adapters: AdaptersArg,
    /// alpha of the comprehension adapter [default: from accompanying settings, else twice the rank].
    #[arg(long, value_name = "N")]
    alpha_ask: Option<f64>,
    /// alpha of the generation adapter, likewise.
    #[arg(long, value_name = "N")]
    alpha_generate: Option<f64>,
    /// Calibration data: text, or JSON lines of questions about pictures (image, question, answer) and of drawings (image,
    /// instruction, codes); of a folder every .txt, .md and .jsonl file. Should look like the use [default: a small set that is
    /// built in].
    #[arg(long, value_name = "DIR|FILE")]
    calibrate: Option<PathBuf>,
    /// Positions of calibration data that are run; of more they are taken evenly.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    calibration_tokens: usize,
    /// The file is not written if its predictions on held-back calibration data diverge by more than this in mean (KL, nats).
    #[arg(long, value_name = "X", default_value_t = 0.25)]
    max_kl: f64,
    /// Device to calibrate on: number, part of its name, or PCI address, as `healthgpt devices` lists them.
    #[arg(long, value_name = "INDEX|NAME|PCI", env = "HEALTHGPT_DEVICE")]
    device: Option<String>,
    #[command(flatten)]
    given: GivenArgs,
    /// Shows what would be written, and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Writes a report of every tensor; the ending decides the form.
    #[arg(long, value_name = "FILE.json|FILE.csv")]
    report: Option<PathBuf>,
    /// Replaces an output that is there, and writes one beyond --max-kl.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskArg {
    Ask,
    Generate,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum AdaptersArg {
    Exact,
    Folded,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Warnings of the library, such as files left out.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let result = ctrlc::set_handler(|| {
        // A second time means: at once.
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if let Err(e) = result {
        log::warn!("an interruption may leave a .partial file: {e}");
    }
    let result = match cli.command {
        Some(Command::Inspect { file, tensors, json }) => inspect(&file, tensors, json),
        Some(Command::Compare { file, dir, given, tensors_only, calibrate, calibration_tokens, device, json }) => {
            let device = (!tensors_only).then_some(device);
            compare(&file, &dir, given.given(), device, (calibrate, calibration_tokens), json)
        }
        Some(Command::Export { file, output, dtype, force }) => export(&file, &output, dtype, force),
        None => make(cli.make),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain("error", &e.to_string());
            ExitCode::from(e.exit_code())
        }
    }
}

/// Help and version as clap prints them; what is wrong with the command line on one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that left early has what it wanted.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let line = text.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    complain("error", &format!("{line} (see --help)"));
    ExitCode::from(2)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// One line on stderr, whatever a file name contains.
#[expect(clippy::print_stderr, reason = "this is the program's own voice")]
fn complain(kind: &str, text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    eprintln!("{kind}: {line}");
}

struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            complain("warning", &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Prints a result. A reader that has gone away is no failure.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Write { path: "stdout".into(), source: e }),
        _ => Ok(()),
    }
}

/// A bar on stderr with the time left; nothing where stderr is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(values: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(values), ProgressDrawTarget::stderr_with_hz(4));
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {elapsed} so far, {eta} left");
        Bar(style.map_or(bar.clone(), |s| bar.with_style(s)))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn advance(&self, values: u64) {
        self.0.inc(values);
    }

    fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}

fn make(args: Make) -> Result<()> {
    let usage = |text: &str| Err(Error::Usage(text.into()));
    let Some(input) = args.input else { return usage("INPUT is missing") };
    if let Some(path) = &args.report {
        check_name(path)?;
    }
    let asked = Asked { group: args.group, symmetric: args.symmetric, method: args.method.as_deref() };
    let recipe = quantize::recipe::load(&args.recipe, &asked)?;
    let tasks = args.tasks.map(|tasks| {
        let task = |t: &TaskArg| if matches!(t, TaskArg::Ask) { Task::Ask } else { Task::Generate };
        tasks.iter().map(task).collect()
    });
    let folded = args.adapters == AdaptersArg::Folded;
    let choices = Choices { tasks, alpha_ask: args.alpha_ask, alpha_generate: args.alpha_generate, folded };
    let found = discover(&input, &args.given.given())?;
    let output = args.output.unwrap_or_else(|| default_output(&input, &recipe));
    let mut models = Models::new(&found, &choices, recipe)?;
    let job = &models.job;
    let calibrates = job.needs_calibration();
    if args.calibrate.is_some() && !calibrates {
        return usage(&format!(
            "--calibrate changes nothing: method `{}` looks at the weights alone",
            job.recipe.method
        ));
    }
    job.check_output(&output, args.force)?;
    if args.dry_run {
        return say(&plan(job, &output));
    }
    let root = if input.is_dir() { input.as_path() } else { folder(&input) };
    let report = if calibrates {
        let gpu = open_device(args.device)?;
        let set = job.calibration_set(args.calibrate.as_deref(), Purpose::Learn, args.calibration_tokens)?;
        let state = State::open(&output, calibrate::key(job, &set, &gpu))?;
        let bar = Bar::new(calibrate::work(job) + job.values());
        let outcome = models.calibrate(&gpu, &set, &state, &bar)?;
        let job = &models.job;
        let card = outcome.card(job, &set);
        if !args.force {
            card.check(args.max_kl, &output)?;
        }
        let report = job.write_calibrated(&output, root, &state, card, &bar)?;
        state.remove();
        report
    } else {
        let bar = Bar::new(job.values());
        job.write(&output, root, &bar)?
    };
    if let Some(path) = &args.report {
        report.save(path)?;
    }
    say(&report.text())
}

fn open_device(device: Option<String>) -> Result<Gpu> {
    Ok(Gpu::open(&runtime::gpu::Options { device, ..Default::default() })?)
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What would be written.
fn plan(job: &Job, output: &Path) -> String {
    let mut out = String::new();
    for p in parts(job) {
        let surplus = if p.surplus > 0 { format!(" ({} tensors not needed)", p.surplus) } else { String::new() };
        out += &format!("{:<22} {}{surplus}\n", p.part, p.path.display());
    }
    for (name, path) in &job.tokenizer {
        out += &format!("{name:<22} {}\n", path.display());
    }
    for note in &job.notes {
        out += &format!("note: {note}\n");
    }
    let formats: Vec<String> = job.tensors.iter().map(|(s, _)| format_name(&s.kind, s.format(&job.recipe))).collect();
    let rows = job.tensors.iter().zip(&formats);
    let rows = rows.map(|((s, _), f)| (owner(&s.name), class_name(&s.kind), f.as_str(), job.bytes(s)));
    let total = job.tensors.iter().map(|(s, _)| job.bytes(s)).sum();
    out += &format!("\n{}\n", size_table(rows));
    out + &format!("{}: about {}, recipe {}; nothing was written\n", output.display(), size(total), job.recipe.name)
}

fn inspect(file: &Path, tensors: bool, json: bool) -> Result<()> {
    let model = ModelFile::open(file)?;
    match json {
        true => say(&format!("{:#}\n", model.as_json(tensors)?)),
        false => say(&model.as_text(tensors)?),
    }
}

/// With `device` (or the best one) also stage by stage, on `data`.
fn compare(
    file: &Path,
    dir: &Path,
    given: Given,
    device: Option<Option<String>>,
    (data, tokens): (Option<PathBuf>, usize),
    json: bool,
) -> Result<()> {
    let values = ModelFile::open(file)?.weights();
    let gpu = device.map(open_device).transpose()?;
    let run = gpu.as_ref().map(|gpu| RunOn { gpu, data: data.as_deref(), tokens });
    let comparison = {
        let bar = Bar::new(values);
        quantize::compare::compare(file, dir, &given, run.as_ref(), &bar)?
    };
    match json {
        true => say(&(comparison.json()? + "\n")),
        false => say(&comparison.text()),
    }
}

fn export(file: &Path, dir: &Path, dtype: DtypeArg, force: bool) -> Result<()> {
    let model = ModelFile::open(file)?;
    let kind = match dtype {
        DtypeArg::F32 => ExportType::F32,
        DtypeArg::Bf16 => ExportType::Bf16,
    };
    let written = {
        let bar = Bar::new(model.weights());
        quantize::export::export(&model, dir, kind, force, &bar)?
    };
    say(&written.iter().map(|p| format!("{}\n", p.display())).collect::<String>())
}

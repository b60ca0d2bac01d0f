//! `healthgpt doctor`.

use crate::args::{Doctor, Task};
use crate::doctor::{Finding, Grade, Machine, gigabytes, of_device, of_machine, of_model};
use crate::failure::{DEVICE, Failure, MEMORY, Result};
use crate::{open, output};
use runtime::file::Container;
use runtime::gpu::{Found, Gpu, list};
use runtime::model::{Header, Task as ModelTask};
use runtime::{Model, OpenOptions, SessionOptions};
use shaders::KvFormat;
use std::path::Path;
use std::time::Instant;

/// Share of the bandwidth's limit that other engines reach when they decode, in percent.
const USUAL_SHARE: [f64; 2] = [50.0, 70.0];
/// Copies that are timed.
const REPETITIONS: usize = 5;

pub fn run(args: &Doctor) -> Result {
    output::check_files(&[args.report.as_ref()], &[args.model.as_ref()])?;
    let machine = Machine::look(Path::new("/"), &|name| std::env::var(name).ok());
    let found = list();
    let mut report = Report::default();
    report.heading(&format!("healthgpt {} on {}", env!("CARGO_PKG_VERSION"), machine.system));
    of_machine(&machine, &found).into_iter().for_each(|f| report.add(f));
    for Found { facts, profile } in &found {
        of_device(facts, profile).into_iter().for_each(|f| report.add(f));
    }
    let outcome =
        if found.is_empty() { Err(Failure::new(DEVICE, "no device can be used")) } else { examine(args, &mut report) };
    if let Err(failure) = &outcome {
        report.add(Finding { grade: Grade::Bad, what: failure.message.clone(), advice: None });
    }
    output::stream(&report.text)?;
    if let Some(path) = &args.report {
        let details = details(&machine, &found);
        let text = anonymous(&format!("{}\n{details}", report.text), std::env::var("HOME").ok().as_deref());
        output::write_file(path, text.as_bytes())?;
        output::line(format!("\n{}: the report, without prompts, pictures or answers", path.display()))?;
    }
    outcome
}

/// What is said, a line a finding and a line for what to do.
#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn heading(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn add(&mut self, finding: Finding) {
        let Finding { grade, what, advice } = finding;
        self.text.push_str(&format!("{:<8} {what}\n", grade.mark()));
        if let Some(advice) = advice {
            self.text.push_str(&format!("         -> {advice}\n"));
        }
    }
}

/// The device that would be used, and the model on it.
fn examine(args: &Doctor, report: &mut Report) -> Result {
    let header = args.model.as_ref().map(|path| Header::read(&Container::open(path)?)).transpose()?;
    let options = open::options(&args.on, Task::Ask);
    let gpu = Gpu::open(&options.gpu)?;
    let (facts, profile) = (gpu.facts(), gpu.profile());
    report.heading(&format!("\n{} would be used, with profile {}", facts.name, profile.name));
    let [total, free] = [facts.installed_bytes(), facts.free_bytes()].map(|b| b.map_or("?".into(), gigabytes));
    let ceiling = gpu.memory_bytes().map_or("all of it".into(), gigabytes);
    report.add(Finding::good(format!("memory {total}, {free} of it free; a model may take {ceiling}")));
    let mut bandwidth = gpu.copy_gb_per_s(REPETITIONS)?;
    bandwidth.sort_by(f64::total_cmp);
    let bandwidth = bandwidth[REPETITIONS / 2];
    report.add(Finding::good(format!("memory bandwidth {bandwidth:.1} GB/s, measured by copying")));
    let fits = match args.model.as_ref().zip(header) {
        Some((path, header)) => model(args, report, &gpu, path, &header, bandwidth),
        None => {
            let what = "whether a model fits and how fast it can be";
            report.add(Finding::new(Grade::Note, what, "healthgpt doctor -m MODEL says it"));
            Ok(())
        }
    };
    report.add(Finding::good(self_test(&gpu, args.model.as_deref().filter(|_| fits.is_ok()))?));
    for variant in gpu.refused() {
        let what = format!("kernel {variant} gives wrong answers on this driver and is not used; another is");
        report.add(Finding::new(Grade::Note, what, "another version of the driver may be right, and faster"));
    }
    fits
}

fn tasks_of(header: &Header) -> Vec<ModelTask> {
    ModelTask::ALL.into_iter().filter(|t| header.config.task(*t).is_some()).collect()
}

/// The model for each of its tasks.
///
/// *Errors*: the first for which it does not fit.
fn model(args: &Doctor, report: &mut Report, gpu: &Gpu, path: &Path, header: &Header, bandwidth: f64) -> Result {
    let (facts, profile) = (gpu.facts(), gpu.profile());
    let context = args.on.context.unwrap_or(profile.context.min(header.config.language.max_positions));
    let kv = open::kv_for(&args.on, header, profile);
    let mut fits = Ok(());
    for task in tasks_of(header) {
        let open = OpenOptions { tasks: vec![task], on: Some(gpu.clone()), ..Default::default() };
        let session = SessionOptions { task, context: args.on.context, kv, ..Default::default() };
        let needed = Model::plan(header, facts, &open, &session)?.total();
        let mut finding = of_model(facts, profile, args.on.memory, path, needed);
        finding.what = format!("to {}: {} (cache of {context} positions in {})", task.name(), finding.what, kv.name());
        if finding.grade == Grade::Bad {
            fits = fits.and(Err(Failure::new(MEMORY, finding.what.clone())));
        }
        report.add(finding);
        report.add(expected(header, task, kv, context, bandwidth, facts.kind == devices::Kind::Cpu));
    }
    fits
}

/// Tokens per second by the measured bandwidth.
fn expected(
    header: &Header,
    task: ModelTask,
    kv: KvFormat,
    context: usize,
    bandwidth: f64,
    is_software: bool,
) -> Finding {
    // In the middle of a full cache.
    let bytes = header.bytes_per_token(task, kv, context / 2);
    let limit = bandwidth * 1e9 / bytes as f64;
    let [least, most] = USUAL_SHARE.map(|percent| limit * percent / 100.0);
    let what = format!("to {}: a token reads {}: at most {limit:.0} tokens/s", task.name(), gigabytes(bytes));
    if is_software {
        let advice =
            "software is slower, for its arithmetic takes longer than its reading: healthgpt bench measures it";
        return Finding::new(Grade::Note, what, advice);
    }
    Finding::good(format!("{what}, {least:.0} to {most:.0} are usual; healthgpt bench measures it"))
}

/// Runs kernels whose answers are known on this device: those that the model uses, else each once.
///
/// *Errors*: those of opening the model, the first kernel that gives a wrong answer, those of the device.
fn self_test(gpu: &Gpu, model: Option<&Path>) -> Result<String> {
    if let Some(path) = model {
        let start = Instant::now();
        let tasks = tasks_of(&Header::read(&Container::open(path)?)?);
        let model = Model::open(path, &OpenOptions { tasks, on: Some(gpu.clone()), ..Default::default() })?;
        model.self_test()?;
        let seconds = start.elapsed().as_secs_f64();
        return Ok(format!("self-test: the model opens, its kernels give the known answers; {seconds:.1} s"));
    }
    for kernel in shaders::kernels() {
        let Some((variant, case)) = (kernel.cases)().into_iter().find_map(|case| {
            let variant = gpu.select(kernel, &case.imports, &case.constants);
            variant.takes(&case.imports).then_some((variant, case))
        }) else {
            continue;
        };
        for (outcome, output) in gpu.probe(kernel, variant, &case)?.iter().zip(&case.outputs) {
            if outcome.error > output.bound_of(variant) || !outcome.in_bounds {
                let name = format!("{} ({})", kernel.name, variant.name);
                let message = format!("{} computes kernel {name} wrongly; use another driver", gpu.facts().name);
                return Err(Failure::new(DEVICE, message));
            }
        }
    }
    Ok(format!("self-test: {} kernels give the known answers", shaders::kernels().len()))
}

/// What a person at the other end of a mail needs besides.
fn details(machine: &Machine, found: &[Found]) -> String {
    let mut text = format!("machine\n{machine:#?}\n");
    for Found { facts, profile } in found {
        text.push_str(&format!("\ndevice, profile {}\n{facts:#?}\n", profile.name));
    }
    text
}

/// Without the name of the user, which stands in paths.
fn anonymous(text: &str, home: Option<&str>) -> String {
    match home.map(|home| home.trim_end_matches('/')).filter(|home| home.len() > 1) {
        Some(home) => text.replace(home, "~"),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_nobody() {
        let text = anonymous("driver /people/anna/icd.json, model /people/anna/m.safetensors", Some("/people/anna/"));
        assert_eq!(text, "driver ~/icd.json, model ~/m.safetensors");
        assert_eq!(anonymous("/usr/lib", Some("/")), "/usr/lib");
    }

    #[test]
    fn the_expected_speed_is_bandwidth_over_bytes() {
        let m3 = Header::m3(32, 32).unwrap();
        let bytes = m3.bytes_per_token(ModelTask::Ask, KvFormat::F16, 1024);
        let speed = |software| {
            let task = ModelTask::Ask;
            expected(&m3, task, KvFormat::F16, 2048, bytes as f64 * 40.0 / 1e9, software)
        };
        assert!(speed(false).what.contains("at most 40 tokens/s, 20 to 28 are usual"), "{:?}", speed(false));
        assert_eq!(speed(true).grade, Grade::Note);
    }
}

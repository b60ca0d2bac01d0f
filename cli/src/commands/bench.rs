//! `healthgpt bench`.

use crate::args::{Bench, Switch, Synthetic, Task};
use crate::failure::{Failure, Result, USAGE};
use crate::{open, output};
use clap::ValueEnum;
use runtime::model::Header;
use runtime::{KernelTime, Kernels, Measured, Model, Session, SessionOptions, Speed, Workload};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Language layers of HealthGPT-M3.
const M3_LAYERS: usize = 32;

pub fn run(args: &Bench) -> Result {
    let start = Instant::now();
    let model = model(args)?;
    let options = SessionOptions { adapter: args.adapter == Switch::On, ..open::session(&args.on, args.task) };
    let mut session = Session::new(&model, options)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    // Before measuring takes any.
    let device_bytes = model.gpu().allocated_bytes();
    let workload = Workload { prompt: args.prompt, tokens: args.tokens, reps: args.reps, pictures: !args.no_pictures };
    let speed = session.measure(&workload)?;
    let kernels = args.kernels.then(|| session.measure_kernels(&workload)).transpose()?;
    let results = Results { args, session: &session, load_ms, device_bytes, speed, kernels };
    if args.json { output::json(&results.json()) } else { results.print() }
}

/// What was measured, and on what.
struct Results<'a> {
    args: &'a Bench,
    session: &'a Session,
    load_ms: f64,
    device_bytes: u64,
    speed: Speed,
    kernels: Option<Kernels>,
}

fn model(args: &Bench) -> Result<Arc<Model>> {
    let options = open::options(&args.on, args.task);
    if let Some(Synthetic::M3) = args.synthetic {
        let header = Header::m3(args.layers.unwrap_or(M3_LAYERS), args.group);
        return Ok(Model::synthetic(header.map_err(|problem| Failure::new(USAGE, problem))?, &options)?);
    }
    let named = args.model.clone().or_else(|| std::env::var_os("HEALTHGPT_MODEL").map(PathBuf::from));
    let path = named.ok_or_else(|| Failure::new(USAGE, "--model or --synthetic is needed (see --help)"))?;
    Ok(Model::open(&path, &options)?)
}

impl Results<'_> {
    fn adapted(&self) -> bool {
        self.args.adapter == Switch::On
    }

    fn task(&self) -> &'static str {
        runtime::model::Task::from(self.args.task).name()
    }

    fn kv(&self) -> String {
        self.args.on.kv.to_possible_value().map_or_else(String::new, |v| v.get_name().into())
    }

    fn driver(&self) -> String {
        let facts = self.session.model().gpu().facts();
        format!("{} {}", facts.driver, facts.driver_info)
    }

    fn json(&self) -> Value {
        let Results { args, session, speed, .. } = self;
        let (device, profile, mut model) = open::describe(session);
        model["synthetic"] = json!(args.synthetic.map(|Synthetic::M3| "m3"));
        if args.synthetic.is_some() {
            model["sha256"] = Value::Null;
        }
        model["layers"] = json!(session.model().header().config.language.layers);
        let mut all = json!({
            "device": device,
            "driver": self.driver(),
            "profile": profile,
            "model": model,
            "task": self.task(),
            "adapter": self.adapted(),
            "kv": self.kv(),
            "context": session.context(),
            "prompt": args.prompt,
            "gen": args.tokens,
            "reps": args.reps,
            "load_ms": self.load_ms,
            "device_bytes": self.device_bytes,
            "image_ms": speed.image_ms.map(measured),
            "prefill_tokens_per_s": measured(speed.prefill_tokens_per_s),
            "decode_tokens_per_s": measured(speed.decode_tokens_per_s),
            "encode_us": measured(speed.encode_us),
            "dispatches_per_token": session.dispatches_per_token(),
            "bytes_per_token": speed.bytes_per_token,
            "copy_bandwidth_gb_s": measured(speed.copy_gb_per_s),
            "share_of_bandwidth": measured(speed.share_of_bandwidth),
        });
        if args.task == Task::Generate {
            // Every token that is drawn here is a code.
            all["codes_per_s"] = measured(speed.decode_tokens_per_s);
            all["decoder_ms"] = json!(speed.decoder_ms.map(measured));
        }
        if let Some(kernels) = &self.kernels {
            let decode = kernels.decode.iter().map(|k| kernel("decode", k));
            let prefill = kernels.prefill.iter().map(|k| kernel("prefill", k));
            all["kernels_timed_by"] = json!(clock(kernels));
            all["kernels"] = decode.chain(prefill).collect();
        }
        all
    }

    fn print(&self) -> Result {
        let Results { args, session, speed, .. } = self;
        let model = session.model();
        let (gpu, header) = (model.gpu(), model.header());
        output::line(format!("{}, driver {}, profile {}", gpu.facts().name, self.driver(), gpu.profile().name))?;
        output::line(format!(
            "{}model with {} language layers, recipe {}, to {} {} adapter, cache of {} positions in {}",
            if args.synthetic.is_some() { "synthetic " } else { "" },
            header.config.language.layers,
            header.recipe.name,
            self.task(),
            if self.adapted() { "with" } else { "without" },
            session.context(),
            self.kv(),
        ))?;
        let megabytes = self.device_bytes as f64 / 1e6;
        output::line(format!("loaded in {:.0} ms, {megabytes:.1} MB on the device", self.load_ms))?;
        let decoded = if args.task == Task::Generate { "codes/s" } else { "tokens/s" };
        let share = speed.share_of_bandwidth;
        let rows = [
            ("image".into(), speed.image_ms, "ms"),
            (format!("prefill of {} tokens", args.prompt), Some(speed.prefill_tokens_per_s), "tokens/s"),
            (format!("decode of {} tokens", args.tokens), Some(speed.decode_tokens_per_s), decoded),
            ("picture decoder".into(), speed.decoder_ms, "ms"),
            ("encoding a token".into(), Some(speed.encode_us), "µs"),
            ("copy bandwidth".into(), Some(speed.copy_gb_per_s), "GB/s"),
            ("read by decode, of that".into(), Some(Measured { median: share.median * 100.0, ..share }), "%"),
        ];
        for (what, measured, unit) in rows {
            if let Some(Measured { median, spread }) = measured {
                let (median, spread) = (figure(median), spread * 100.0);
                output::line(format!("{what:<24} {median:>10} {unit:<9} spread {spread:.0} %"))?;
            }
        }
        output::line(format!("{:<24} {:>10} dispatches", "a token takes", session.dispatches_per_token()))?;
        output::line(format!("{:<24} {:>10} MB", "a token reads", figure(speed.bytes_per_token as f64 / 1e6)))?;
        let Some(kernels) = &self.kernels else { return Ok(()) };
        table("one decoded token", clock(kernels), &kernels.decode)?;
        table(&format!("a chunk of {} tokens", kernels.prefill_tokens), clock(kernels), &kernels.prefill)
    }
}

fn measured(m: Measured) -> Value {
    json!({"median": m.median, "spread": m.spread})
}

fn kernel(run: &str, k: &KernelTime) -> Value {
    json!({
        "run": run,
        "kernel": k.kernel,
        "variant": k.variant,
        "dispatches": k.dispatches,
        "ms": measured(k.ms),
        "share": k.share,
        "weights_gb_s": k.weight_gb_per_s(),
    })
}

fn clock(kernels: &Kernels) -> &'static str {
    if kernels.by_device_clock { "timestamps" } else { "waiting" }
}

fn table(run: &str, clock: &str, kernels: &[KernelTime]) -> Result {
    let total: f64 = kernels.iter().map(|k| k.ms.median).sum();
    output::line(format!("\n{run}: {} ms in all kernels, timed by {clock}", figure(total)))?;
    output::line("kernel               variant      dispatches         ms   share   weights GB/s")?;
    for k in kernels {
        let (ms, share) = (figure(k.ms.median), k.share * 100.0);
        let rate = k.weight_gb_per_s().map_or_else(|| "-".into(), figure);
        output::line(format!(
            "{:<20} {:<12} {:>10} {ms:>10} {share:>5.1} % {rate:>14}",
            k.kernel, k.variant, k.dispatches
        ))?;
    }
    Ok(())
}

/// Four digits, or all of those before the point.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        v if v < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

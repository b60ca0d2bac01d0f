//! How far the choices of a device move the logits: `cargo bench -p tests --bench fidelity -- MODEL TEXT`. Each line is a
//! choice of variants and cache, against portable variants in f32 with an f32 cache: mean KL divergence per token, greedy
//! choices that differ, perplexity; for tokens run as a prompt is and as an answer is.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use runtime::gpu::{Gpu, Options};
use runtime::text::log_softmax_at;
use runtime::{By, Model, OpenOptions, Session, SessionOptions};
use shaders::KvFormat;
use std::path::{Path, PathBuf};

/// Name, profile, forced variants, cache.
type Choice = (&'static str, &'static str, &'static str, KvFormat);

const REFERENCE: Choice = ("reference: portable", "generic", "portable", KvFormat::F32);
const CHOICES: [Choice; 7] = [
    ("software, default", "software", "", KvFormat::F16),
    ("software, int8 cache", "software", "", KvFormat::Q8),
    ("generic, default", "generic", "", KvFormat::F16),
    ("generic, int8 cache", "generic", "", KvFormat::Q8),
    ("generic, no cooperative matrices", "generic", "gemm=tile", KvFormat::F16),
    ("dp4a", "generic", DP4A, KvFormat::F16),
    ("dp4a, int8 cache", "generic", DP4A, KvFormat::Q8),
];
const DP4A: &str = "gemm=dp4a,gemv=dp4a,gemv_residual=dp4a";

fn main() {
    let named: Vec<PathBuf> = std::env::args().skip(1).filter(|a| a != "--bench").map(PathBuf::from).collect();
    let [model, text] = &named[..] else { panic!("MODEL and TEXT are needed") };
    let text = std::fs::read_to_string(text).expect("the text");
    for by in [By::Chunk, By::Token] {
        println!("{}", if by == By::Chunk { "as a prompt" } else { "as an answer" });
        let expected = predictions(model, &text, REFERENCE, by);
        print(REFERENCE.0, &expected, &expected);
        for choice in CHOICES {
            print(choice.0, &expected, &predictions(model, &text, choice, by));
        }
    }
}

/// The natural logarithm of each probability, `[vocabulary rows]`, and the token that follows.
type Prediction = (Vec<f32>, u32);

fn predictions(model: &Path, text: &str, (_, profile, variants, kv): Choice, by: By) -> Vec<Prediction> {
    let gpu = Gpu::open(&Options {
        device: std::env::var("HEALTHGPT_DEVICE").ok(),
        profile: Some(profile.into()),
        variants: Some(variants.into()),
        ..Default::default()
    });
    let options = OpenOptions { on: Some(gpu.expect("a device")), ..Default::default() };
    let model = Model::open(model, &options).expect("the model");
    let mut session = Session::new(&model, SessionOptions { kv, ..Default::default() }).expect("a session");
    let mut all = Vec::new();
    let take = |logits: &[f32], next| {
        let any = logits.iter().position(|l| l.is_finite()).expect("numbers") as u32;
        let shift = log_softmax_at(logits, any) - f64::from(logits[any as usize]);
        all.push((logits.iter().map(|l| (f64::from(*l) + shift) as f32).collect(), next));
    };
    session.predict(text, by, take).expect("predictions");
    all
}

fn print(name: &str, expected: &[Prediction], found: &[Prediction]) {
    let count = expected.len() as f64;
    let divergence = |(p, q): (&Prediction, &Prediction)| {
        let terms = p.0.iter().zip(&q.0).map(|(p, q)| f64::from(*p).exp() * (f64::from(*p) - f64::from(*q)));
        terms.sum::<f64>()
    };
    let best = |(logs, _): &Prediction| logs.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let kl = expected.iter().zip(found).map(divergence).sum::<f64>() / count;
    let others = expected.iter().zip(found).filter(|(p, q)| best(p) != best(q)).count();
    let nll = found.iter().map(|(logs, next)| -f64::from(logs[*next as usize])).sum::<f64>();
    println!("  {name:<34} KL {kl:9.2e}  {others:>4} of {count} choices differ  perplexity {:.4}", (nll / count).exp());
}

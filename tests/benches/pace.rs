//! How long submissions are at several paces, what that costs, and how soon a cancel and a pause are obeyed:
//! `cargo xtask bench-pace`. HealthGPT-M3's dimensions with few layers and made-up weights, or `HEALTHGPT_MODEL=FILE`.
//! `PACE_LAYERS` (2), `PACE_PROMPT` (128 tokens) and `PACE_ROUNDS` (200) make it shorter or longer;
//! `PACE_SLICE` takes one of the paces only ("4 ms", "16 ms", "unlimited").
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use runtime::model::Header;
use runtime::text::Turn;
use runtime::{Control, Model, OpenOptions, Pace, Request, Session, SessionOptions};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const PACES: [(&str, Option<Duration>); 3] = [
    ("4 ms", Some(Duration::from_millis(4))),
    ("16 ms", Some(Duration::from_millis(16))),
    ("unlimited", Some(Duration::MAX)),
];
/// Tokens of the answers that are decoded.
const ANSWER: usize = 16;
/// Prompts whose submissions are counted, at each pace.
const PROMPTS: usize = 5;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn model() -> Arc<Model> {
    let options = OpenOptions { on: Some(tests::gpu().clone()), ..Default::default() };
    match std::env::var_os("HEALTHGPT_MODEL").map(PathBuf::from) {
        Some(file) => Model::open(&file, &options).expect("the model"),
        None => {
            let header = Header::m3(setting("PACE_LAYERS", 2), 32).expect("dimensions");
            Model::synthetic(header, &options).expect("the model")
        }
    }
}

/// `(median, 95 %, largest)` in milliseconds.
fn spread(mut times: Vec<Duration>) -> (f64, f64, f64) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    (at(0.5), at(0.95), at(1.0))
}

fn ask(session: &mut Session, turns: &[Turn], max_tokens: usize) -> runtime::Result<runtime::Answer> {
    session.ask(&Request { max_tokens, ..Request::new(turns) }, |_| ControlFlow::Continue(()))
}

fn main() {
    let model = model();
    let rounds = setting("PACE_ROUNDS", 200);
    // In the synthetic model a letter is a token.
    let turns = [Turn { question: "a".repeat(setting("PACE_PROMPT", 128)), answer: None }];
    let facts = model.gpu().facts();
    let layers = model.header().config.language.layers;
    let clock = if facts.timestamps { "device's" } else { "host's" };
    println!("{}, {} {}; {layers} layers, {clock} clock", facts.name, facts.driver, facts.driver_info);
    let only = std::env::var("PACE_SLICE").ok();
    for (name, slice) in PACES.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let control = Control::new();
        control.set_pace(Pace { slice, gap: Duration::ZERO });
        let options = SessionOptions { control: control.clone(), ..Default::default() };
        let mut session = Session::new(&model, options).expect("a session");
        // What steps take is learned first.
        let mut whole = Duration::ZERO;
        for _ in 0..3 {
            session.reset(false);
            let start = Instant::now();
            ask(&mut session, &turns, ANSWER).expect("an answer");
            whole = start.elapsed();
        }
        let (mut seconds, mut tokens, mut taken) = (0.0, 0, Vec::new());
        let (mut over, mut single) = (0, 0);
        for _ in 0..PROMPTS {
            session.reset(false);
            let answer = ask(&mut session, &turns, 1).expect("an answer");
            seconds += answer.timings.prefill_ms / 1e3;
            tokens += answer.prompt_tokens;
            for submission in session.each_submission() {
                taken.push(submission.taken);
                let long = slice.is_some_and(|slice| submission.taken > slice);
                over += usize::from(long);
                single += usize::from(long && submission.dispatches == 1);
            }
        }
        let (count, (median, most, longest)) = (taken.len(), spread(taken));
        println!("slice {name}");
        println!("  prompt   {:8.2} tokens/s, {} submissions each", tokens as f64 / seconds, count / PROMPTS);
        println!("  they took  {median:.2} ms (median), {most:.2} (95 %), {longest:.2} (longest)");
        println!("  longer than the slice {over} of {count}, of which {single} are a single dispatch");
        session.reset(false);
        let answer = ask(&mut session, &turns, ANSWER).expect("an answer");
        println!("  decode   {:8.2} tokens/s", answer.timings.decode_tokens_per_s);
        for (what, pauses) in [("cancel", false), ("pause", true)] {
            let (median, most, longest) = spread(delays(&mut session, &control, &turns, whole, rounds, pauses));
            println!("  {what:6}   {median:8.2} ms (median), {most:.2} (95 %), {longest:.2} (longest) of {rounds}");
        }
    }
}

/// How long it takes, at any moment of a call, from a cancel to the return of the call, or from a pause until nothing of the
/// call is on the device.
fn delays(
    session: &mut Session,
    control: &Control,
    turns: &[Turn],
    whole: Duration,
    rounds: usize,
    pauses: bool,
) -> Vec<Duration> {
    let mut delays = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while delays.len() < rounds {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let wait = whole.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
        session.reset(false);
        let begins = AtomicBool::new(false);
        let delay = scope(|threads| {
            let called = threads.spawn(|| {
                begins.store(true, Ordering::SeqCst);
                let _ = ask(session, turns, ANSWER);
                Instant::now()
            });
            while !begins.load(Ordering::SeqCst) {
                sleep(Duration::from_micros(20));
            }
            // A cancel before a call is none.
            sleep(wait + Duration::from_millis(1));
            let start = Instant::now();
            if !pauses {
                control.cancel();
                // A call that had ended already says nothing.
                return called.join().expect("no panic").checked_duration_since(start);
            }
            control.pause();
            while !control.is_waiting() && !called.is_finished() {
                sleep(Duration::from_micros(20));
            }
            let delay = (!called.is_finished()).then(|| start.elapsed());
            control.cancel();
            control.resume();
            called.join().expect("no panic");
            delay
        });
        delays.extend(delay);
    }
    delays
}

//! What other threads may do to a session that works, how its work is split, and what is known before any of it.

use super::{picture, preferred};
use runtime::gpu::{Gpu, Options};
use runtime::model::{Header, Task};
use runtime::text::{SYSTEM, Turn};
use runtime::{
    Control, Draw, Error, Finish, Model, OpenOptions, Pace, Request, Result, Session, SessionOptions, Submission,
};
use shaders::KvFormat;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, yield_now};
use std::time::Duration;
use tests::{Golden, tiny};

/// Every dispatch a submission of its own.
const ONE_BY_ONE: Pace = Pace { slice: Some(Duration::ZERO), gap: Duration::ZERO };
/// Nobody waits so long.
const HOUR: Duration = Duration::from_secs(3600);

fn session(task: Task, pace: Pace) -> Session {
    let control = Control::new();
    control.set_pace(pace);
    Session::new(preferred(), SessionOptions { task, control, ..Default::default() }).expect("a session")
}

/// Ids of the golden answer, or as many as there were when it was cancelled.
pub fn ask(session: &mut Session) -> Result<Vec<u32>> {
    ask_with(session, None, &mut |_| {})
}

fn ask_with(session: &mut Session, timeout: Option<Duration>, seen: &mut dyn FnMut(usize)) -> Result<Vec<u32>> {
    let golden = Golden::read("comprehension");
    let (turns, shown) = (golden.turns(), picture(preferred()));
    let max_tokens = golden.json["max_new_tokens"].as_u64().expect("max_new_tokens") as usize;
    let request = Request { picture: Some(&shown), max_tokens, timeout, ..Request::new(&turns) };
    let mut count = 0;
    let answer = session.ask(&request, |_| {
        count += 1;
        seen(count);
        ControlFlow::Continue(())
    })?;
    Ok(answer.tokens)
}

pub fn golden_answer() -> Vec<u32> {
    serde_json::from_value(Golden::read("comprehension").json["generated_ids"].clone()).expect("ids")
}

/// Codes of the golden picture.
fn draw(session: &mut Session) -> Result<Vec<u32>> {
    draw_with(session, None, &mut |_| {})
}

fn draw_with(session: &mut Session, timeout: Option<Duration>, seen: &mut dyn FnMut(bool)) -> Result<Vec<u32>> {
    let golden = Golden::read("generation");
    let (turns, shown) = (golden.turns(), picture(preferred()));
    let request = Draw { picture: Some(&shown), timeout, ..Draw::new(&turns[0].question) };
    let drawn = session.generate(&request, |row| {
        seen(row.done == row.of);
        ControlFlow::Continue(())
    })?;
    Ok(drawn.codes)
}

fn golden_codes() -> Vec<u32> {
    serde_json::from_value(Golden::read("generation").json["codes"].clone()).expect("codes")
}

type Call = fn(&mut Session) -> Result<Vec<u32>>;

fn calls() -> [(Task, Call, Vec<u32>); 2] {
    [(Task::Ask, ask, golden_answer()), (Task::Generate, draw, golden_codes())]
}

#[test]
fn no_submission_is_planned_to_be_longer_than_the_pace_allows() {
    for (task, call, wanted) in calls() {
        for slice in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(4)] {
            let mut session = session(task, Pace { slice: Some(slice), gap: Duration::ZERO });
            // The first time little is known, the second time all.
            for _ in 0..2 {
                session.reset(false);
                assert_eq!(call(&mut session), Ok(wanted.clone()), "{slice:?}");
                let too_long = |s: &&Submission| s.dispatches > 1 && s.planned > slice;
                assert_eq!(session.each_submission().iter().find(too_long), None, "{slice:?}");
                assert_eq!(session.submissions().count, session.each_submission().len());
            }
            if slice == Duration::ZERO {
                assert!(session.each_submission().iter().all(|s| s.dispatches == 1));
            }
        }
    }
}

#[test]
fn without_a_limit_a_stage_is_one_submission() {
    for (task, call, wanted) in calls() {
        let mut whole = session(task, Pace::UNLIMITED);
        assert_eq!(call(&mut whole), Ok(wanted.clone()));
        let mut single = session(task, ONE_BY_ONE);
        assert_eq!(call(&mut single), Ok(wanted));
        let dispatches = |session: &Session| session.each_submission().iter().map(|s| s.dispatches).sum::<usize>();
        // A run that was submitted ahead may be one too many.
        let more = dispatches(&whole) - dispatches(&single);
        assert!(more == 0 || more == whole.dispatches_per_token(), "{more} dispatches");
        // Vision, prompt, tokens after the first, decoder.
        let tokens = dispatches(&whole) / whole.dispatches_per_token();
        assert!(whole.submissions().count <= tokens + 3, "{:?}", whole.submissions());
        assert_eq!(single.submissions().count, dispatches(&single));
    }
}

/// Cancels a call where the control is looked at for the nth time, for many n; the session answers as ever afterwards.
fn cancel_everywhere(task: Task, call: Call, wanted: &[u32], points: usize) {
    let mut session = session(task, ONE_BY_ONE);
    let control = session.control().clone();
    const MANY: usize = usize::MAX;
    control.cancel_at(Some(MANY));
    assert_eq!(call(&mut session).as_deref(), Ok(wanted));
    let looks = MANY - control.looks_left().expect("as set");
    assert!(looks >= session.submissions().count);
    for point in 0..points {
        // The first and the last too.
        let at = point * (looks - 1) / (points - 1);
        session.reset(false);
        control.set_pace(ONE_BY_ONE);
        control.cancel_at(Some(at));
        match call(&mut session) {
            Err(error) => assert_eq!(error, Error::Cancelled, "look {at} of {looks}"),
            Ok(part) => {
                assert!(task == Task::Ask && part.len() < wanted.len() + 1, "look {at} of {looks}");
                assert!(wanted.starts_with(&part), "look {at} of {looks}");
            }
        }
        control.cancel_at(None);
        control.set_pace(Pace::default());
        assert_eq!(call(&mut session).as_deref(), Ok(wanted), "after look {at} of {looks}");
    }
}

#[test]
fn a_question_can_be_cancelled_anywhere() {
    cancel_everywhere(Task::Ask, ask, &golden_answer(), 25);
}

#[test]
fn a_drawing_can_be_cancelled_anywhere() {
    cancel_everywhere(Task::Generate, draw, &golden_codes(), 12);
}

#[test]
fn a_conversation_goes_on_after_a_cancelled_question() {
    let golden = Golden::read("two_turn");
    let (turns, shown) = (golden.turns(), picture(preferred()));
    let wanted: Vec<u32> = serde_json::from_value(golden.json["generated_ids"].clone()).expect("ids");
    let mut session = session(Task::Ask, ONE_BY_ONE);
    assert_eq!(ask(&mut session), Ok(golden_answer()));
    let control = session.control().clone();
    let max_tokens = wanted.len();
    let request = Request { picture: Some(&shown), max_tokens, ..Request::new(&turns) };
    for at in [0, 7] {
        control.cancel_at(Some(at));
        let other = [Turn { question: "Something else?".into(), answer: None }];
        let cancelled = session.ask(&Request::new(&other), |_| ControlFlow::Continue(()));
        assert_eq!(cancelled.err(), Some(Error::Cancelled));
        control.cancel_at(None);
        let answer = session.ask(&request, |_| ControlFlow::Continue(())).expect("an answer");
        assert_eq!(answer.tokens, wanted);
        assert!(answer.reused_tokens > 0, "what both prompts begin with was kept");
    }
}

#[test]
fn a_pause_holds_a_call_until_it_ends() {
    for (task, call, wanted) in calls() {
        let mut session = session(task, Pace::default());
        let control = session.control().clone();
        // A cancel ends a pause as a resume does.
        for (end, wanted) in [(Control::resume as fn(&Control), Ok(wanted)), (Control::cancel, Err(Error::Cancelled))] {
            session.reset(false);
            control.pause();
            let ended = scope(|threads| {
                let called = threads.spawn(|| call(&mut session));
                while !control.is_waiting() {
                    yield_now();
                }
                assert!(!called.is_finished());
                end(&control);
                called.join().expect("no panic")
            });
            assert_eq!(ended, wanted);
        }
    }
}

#[test]
fn a_pause_within_an_answer_keeps_the_next_token_back() {
    let mut session = session(Task::Ask, ONE_BY_ONE);
    let control = session.control().clone();
    let tokens = AtomicUsize::new(0);
    let answer = scope(|threads| {
        threads.spawn(|| {
            while !control.is_waiting() {
                yield_now();
            }
            assert_eq!(tokens.load(Ordering::SeqCst), 3);
            control.resume();
        });
        ask_with(&mut session, None, &mut |count| {
            tokens.store(count, Ordering::SeqCst);
            if count == 3 {
                control.pause();
            }
        })
    });
    assert_eq!(answer, Ok(golden_answer()));
}

/// Held because decoding lives from it: the device is never without work while the host reads an id.
#[test]
fn without_a_limit_the_next_token_is_submitted_before_the_last_one_is_read() {
    let mut session = session(Task::Ask, Pace::UNLIMITED);
    let control = session.control().clone();
    // At a pause the token that is on the device already arrives, and with it comes the end of the pause.
    let answer = ask_with(&mut session, Some(Duration::from_secs(30)), &mut |count| match count {
        3 => control.pause(),
        4 => control.resume(),
        _ => {}
    });
    assert_eq!(answer, Ok(golden_answer()));
}

#[test]
fn a_timeout_ends_a_call_in_every_stage() {
    let mut asking = session(Task::Ask, ONE_BY_ONE);
    assert_eq!(ask_with(&mut asking, Some(Duration::ZERO), &mut |_| {}), Err(Error::Cancelled));
    assert_eq!(asking.submissions().count, 0);
    // In the prompt: the picture is seen already.
    asking.encode(&picture(preferred())).expect("seen");
    assert_eq!(ask_with(&mut asking, Some(Duration::ZERO), &mut |_| {}), Err(Error::Cancelled));
    // Between two tokens.
    let control = asking.control().clone();
    let part = ask_with(&mut asking, Some(HOUR), &mut |count| {
        if count == 2 {
            control.let_pass(2 * HOUR);
        }
    });
    assert_eq!(part.as_deref(), Ok(&golden_answer()[..2]));
    assert_eq!(ask(&mut asking), Ok(golden_answer()));
    // In the picture decoder: all codes are there.
    let mut drawing = session(Task::Generate, Pace::default());
    let control = drawing.control().clone();
    let ended = draw_with(&mut drawing, Some(HOUR), &mut |last| {
        if last {
            control.let_pass(2 * HOUR);
        }
    });
    assert_eq!(ended, Err(Error::Cancelled));
    assert_eq!(draw(&mut drawing), Ok(golden_codes()));
}

#[test]
fn a_picture_is_seen_once() {
    let mut fresh = session(Task::Ask, ONE_BY_ONE);
    assert_eq!(ask(&mut fresh), Ok(golden_answer()));
    let all = fresh.submissions().count;
    let mut session = session(Task::Ask, ONE_BY_ONE);
    session.encode(&picture(preferred())).expect("seen");
    let vision = session.submissions().count;
    assert_eq!(ask(&mut session), Ok(golden_answer()));
    let rest = session.submissions().count;
    assert!(vision > 0 && rest + vision == all, "{vision} and {rest} of {all}");
    for (keep_picture, wanted) in [(true, rest), (false, all)] {
        session.reset(keep_picture);
        assert_eq!(ask(&mut session), Ok(golden_answer()));
        assert_eq!(session.submissions().count, wanted);
    }
}

#[test]
fn two_sessions_on_one_device_do_not_disturb_each_other() {
    let slow = Pace { slice: Some(Duration::from_micros(300)), gap: Duration::from_micros(50) };
    scope(|threads| {
        for (task, call, wanted) in calls() {
            threads.spawn(move || assert_eq!(call(&mut session(task, slow)), Ok(wanted)));
        }
    });
}

#[test]
fn probabilities_come_with_every_token() {
    let golden = Golden::read("comprehension");
    let (turns, shown) = (golden.turns(), picture(preferred()));
    let mut session = session(Task::Ask, Pace::default());
    let mut seen = Vec::new();
    let request = Request { picture: Some(&shown), max_tokens: 6, probabilities: true, ..Request::new(&turns) };
    let answer = session
        .ask(&request, |token| {
            seen.extend(token.logprob.zip(token.entropy));
            ControlFlow::Continue(())
        })
        .expect("an answer");
    assert_eq!(seen.len(), answer.tokens.len());
    let mean = seen.iter().map(|(p, _)| f64::from(*p)).sum::<f64>() / seen.len() as f64;
    assert!((mean - answer.logprob_mean.expect("asked for")).abs() < 1e-5);
    // The logits of the reference for the first token.
    let (_, logits) = &golden.stages["logits.prefill"];
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| f64::from(l - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let entropy: f64 = weights.iter().filter(|w| **w > 0.0).map(|w| -w / sum * (w / sum).ln()).sum();
    assert!((f64::from(seen[0].0) + sum.ln()).abs() < 0.02, "{} and {}", seen[0].0, -sum.ln());
    assert!((f64::from(seen[0].1) - entropy).abs() < 0.02, "{} and {entropy}", seen[0].1);
}

#[test]
fn the_system_text_is_a_part_of_the_prompt() {
    let golden = Golden::read("text_only");
    let turns = golden.turns();
    let answer = |system: Option<&str>| {
        let options = SessionOptions { system: system.map(String::from), ..Default::default() };
        let mut session = Session::new(preferred(), options).expect("a session");
        let request = Request { max_tokens: 8, ..Request::new(&turns) };
        session.ask(&request, |_| ControlFlow::Continue(())).expect("an answer")
    };
    let (own, same) = (answer(None), answer(Some(SYSTEM)));
    assert_eq!((own.tokens, own.prompt_tokens), (same.tokens, same.prompt_tokens));
    assert_ne!(own.prompt_tokens, answer(Some("Be brief.")).prompt_tokens);
}

fn header() -> Header {
    Model::probe(tiny("q4")).expect("a model file").header
}

fn m3(layers: usize) -> Header {
    Header::m3(layers, 32).expect("a header")
}

pub fn own_device() -> Gpu {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    Gpu::open(&Options { device, ..Default::default() }).expect("a device")
}

#[test]
fn what_was_planned_is_what_is_allocated() {
    let sessions = [
        (Task::Ask, KvFormat::F16, None, None),
        (Task::Ask, KvFormat::F32, Some(300), Some(7)),
        (Task::Generate, KvFormat::F16, None, None),
    ];
    let gpu = own_device();
    for (task, kv, context, chunk) in sessions {
        for tasks in [vec![task], Task::ALL.to_vec()] {
            let options = SessionOptions { task, kv, context, chunk, ..Default::default() };
            let open = OpenOptions { tasks, on: Some(gpu.clone()), ..Default::default() };
            let planned = Model::plan(&header(), gpu.facts(), &open, &options).expect("a plan");
            let before = gpu.allocated_bytes();
            let model = Model::open(tiny("q4"), &open).expect("the model");
            assert_eq!(gpu.allocated_bytes() - before, model.footprint().total());
            let mut session = Session::new(&model, options).expect("a session");
            assert_eq!(session.footprint(), planned);
            assert_eq!(gpu.allocated_bytes() - before, planned.total(), "{planned:?}");
            if task == Task::Generate {
                assert_eq!(draw(&mut session).map(|codes| codes.len()), Ok(64));
            } else {
                ask(&mut session)
                    .map(drop)
                    .or_else(|e| if context.is_some() { Ok(()) } else { Err(e) })
                    .expect("an answer");
            }
            assert_eq!(gpu.allocated_bytes() - before, planned.total(), "working allocates nothing");
            assert_eq!(planned.kv, planned.kv_per_token * session.context() as u64);
            drop((session, model));
            assert_eq!(gpu.allocated_bytes(), before);
        }
    }
}

#[test]
fn a_plan_needs_no_device_and_says_what_cannot_be() {
    let mut facts = devices::Facts::floor();
    let options = SessionOptions::default();
    let planned = Model::plan(&m3(32), &facts, &OpenOptions::default(), &options).expect("a plan");
    // Positions, layers, keys and values, heads, f16.
    assert_eq!(planned.kv, 2048 * 32 * 2 * 32 * 96 * 2);
    assert!(
        planned.weights > 1_900_000_000 && planned.vision > 600_000_000 && planned.image_decoder == 0,
        "{planned:?}"
    );
    let small = SessionOptions { context: Some(1024), kv: KvFormat::Q8, ..Default::default() };
    let less = Model::plan(&m3(32), &facts, &OpenOptions::default(), &small).expect("a plan");
    assert!(less.total() < planned.total());
    facts.buffer_bytes = 1 << 20;
    let refused = Model::plan(&m3(1), &facts, &OpenOptions::default(), &options);
    assert!(matches!(refused, Err(Error::Unfit { .. })), "{refused:?}");
    let mut header = m3(1);
    header.config.generate = None;
    let open = OpenOptions { tasks: vec![Task::Generate], ..Default::default() };
    assert!(matches!(Model::plan(&header, &devices::Facts::floor(), &open, &options), Err(Error::Task(_))));
}

#[test]
fn a_model_in_memory_is_the_model() {
    let bytes = std::fs::read(tiny("f16")).expect("the model file");
    let open = |bytes: &[u8], expected_sha256| {
        let options = OpenOptions { on: Some(tests::gpu().clone()), expected_sha256, ..Default::default() };
        Model::open_in_memory(bytes, &options)
    };
    let sha256 = Model::probe(tiny("f16")).expect("a model file").sha256;
    let expected: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&sha256[2 * i..2 * i + 2], 16).expect("hex")).collect();
    let expected: [u8; 32] = expected.try_into().expect("32 bytes");
    let model = open(&bytes, Some(expected)).expect("the model");
    assert_eq!(model.sha256(), sha256);
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    assert_eq!(ask(&mut session), Ok(golden_answer()));

    let refused = open(&bytes, Some([7; 32])).err().expect("refused");
    assert!(matches!(&refused, Error::Integrity { .. }) && refused.to_string().contains(&sha256), "{refused}");
    let mut damaged = bytes.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    assert!(matches!(open(&damaged, None), Err(Error::Integrity { .. })));
    for length in [0, 7, 100, bytes.len() - 1] {
        assert!(matches!(open(&bytes[..length], None), Err(Error::File { .. })), "{length} bytes");
    }
}

#[test]
fn opening_tells_how_far_it_is_and_can_be_ended() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = seen.clone();
    let here = std::thread::current().id();
    let open = |progress| {
        let options = OpenOptions { on: Some(tests::gpu().clone()), progress: Some(progress), ..Default::default() };
        Model::open(tiny("f16"), &options)
    };
    let model = open(Arc::new(move |fraction, stage| {
        assert_eq!(std::thread::current().id(), here);
        heard.lock().expect("no panic").push((fraction, stage));
        ControlFlow::Continue(())
    }));
    assert!(model.is_ok());
    let seen = seen.lock().expect("no panic");
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0) && seen.last() == Some(&(1.0, "ready")));
    // All of the file is loaded or checked.
    assert!(seen[seen.len() - 2].0 > 0.999, "{:?}", seen[seen.len() - 2]);
    for ends_at in [0.0, 0.5, 0.99] {
        let ended = open(Arc::new(move |fraction, _| match fraction >= ends_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }));
        assert_eq!(ended.err(), Some(Error::Cancelled));
    }
}

#[test]
fn trimming_takes_nothing_that_is_needed() {
    let gpu = own_device();
    let model = Model::open(tiny("f16"), &OpenOptions { on: Some(gpu), ..Default::default() }).expect("the model");
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    model.trim().expect("trimmed");
    assert_eq!(ask(&mut session), Ok(golden_answer()));
    drop(session);
    model.trim().expect("trimmed");
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    assert_eq!(ask(&mut session), Ok(golden_answer()));
}

#[test]
fn an_answer_that_was_cut_says_so() {
    let mut session = session(Task::Ask, Pace::default());
    let control = session.control().clone();
    let turns = Golden::read("text_only").turns();
    let answer = session
        .ask(&Request::new(&turns), |_| {
            control.cancel();
            ControlFlow::Continue(())
        })
        .expect("a part of an answer");
    assert_eq!(answer.finish, Finish::Cancelled);
    assert!((1..=2).contains(&answer.tokens.len()), "{} tokens", answer.tokens.len());
}

//! `healthgpt ask`.

use crate::args::{Ask, Task};
use crate::failure::{FAILED, Failure, INTERRUPTED, Result};
use crate::{input, interrupt, open, output};
use runtime::text::{Sampling, Turn};
use runtime::{Answer, Finish, Picture, Request, Session, SessionOptions, Timings};
use serde_json::{Value, json};
use std::io::BufRead;
use std::ops::ControlFlow;
use std::time::Instant;

pub fn run(args: &Ask) -> Result {
    let control = interrupt::catch()?;
    let mut turns = input::history(args.choose.history.as_deref())?;
    let rgb = input::picture(&args.image)?;
    let start = Instant::now();
    let model = open::model(&args.open, Task::Ask)?;
    let picture = input::prepare(&model, rgb)?;
    let options = SessionOptions { control, ..open::session(&args.open.on, Task::Ask) };
    let mut session = Session::new(&model, options)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut asked = args.question.clone();
    loop {
        let question = match asked.take() {
            Some(question) => question,
            None => match read_question()? {
                Some(question) => question,
                None => return Ok(()),
            },
        };
        turns.push(Turn { question, answer: None });
        interrupt::check()?;
        if !args.choices.is_empty() {
            let request = request(args, &turns, picture.as_ref());
            return choose(args, &mut session, &request, load_ms);
        }
        let answer = session.ask(&request(args, &turns, picture.as_ref()), |token| {
            // A closed pipe ends the answer.
            match args.json || output::stream(token.text).is_ok() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        if args.json {
            output::json(&describe(&session, &answer, load_ms))?;
        } else {
            output::line("")?;
        }
        if args.stats {
            let t = &answer.timings;
            let speed =
                format!("first token after {:.0} ms, then {:.1} tokens/s", t.first_token_ms, t.decode_tokens_per_s);
            output::note(open::stats(&session, load_ms, &speed));
        }
        if answer.finish == Finish::Cancelled {
            return Err(Failure::new(INTERRUPTED, "interrupted; the answer is not complete"));
        }
        if !args.chat {
            if answer.finish == Finish::Length && !args.json {
                output::note("note: the answer was cut at the token limit (-n) or the end of the context (--context)");
            }
            return Ok(());
        }
        if let Some(turn) = turns.last_mut() {
            turn.answer = Some(answer.text);
        }
    }
}

fn request<'a>(args: &Ask, turns: &'a [Turn], picture: Option<&'a Picture>) -> Request<'a> {
    let choose = &args.choose;
    Request {
        picture,
        max_tokens: choose.max_tokens.unwrap_or(512),
        sampling: Sampling { temperature: choose.temperature, top_p: choose.top_p, seed: choose.seed },
        probabilities: args.json,
        ..Request::new(turns)
    }
}

/// The next line that says something; `None` at the end.
fn read_question() -> Result<Option<String>> {
    loop {
        output::prompt("> ");
        let mut line = String::new();
        let read = interrupt::while_waiting(|| std::io::stdin().lock().read_line(&mut line));
        match read.map_err(|e| Failure::new(FAILED, format!("stdin: {e}")))? {
            0 => return Ok(None),
            _ if line.trim().is_empty() => {}
            _ => return Ok(Some(line.trim().to_string())),
        }
    }
}

fn timings(t: &Timings, load_ms: f64) -> Value {
    json!({
        "load_ms": load_ms,
        "image_ms": t.image_ms,
        "prefill_ms": t.prefill_ms,
        "first_token_ms": t.first_token_ms,
        "decode_tokens_per_s": t.decode_tokens_per_s,
    })
}

fn describe(session: &Session, answer: &Answer, load_ms: f64) -> Value {
    let (device, profile, model) = open::describe(session);
    json!({
        "answer": answer.text,
        "finish": answer.finish.name(),
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "logprob_mean": answer.logprob_mean,
        "choices": {},
        "timings": timings(&answer.timings, load_ms),
        "device": device,
        "profile": profile,
        "model": model,
    })
}

/// The choices with their probabilities, the most likely first.
fn choose(args: &Ask, session: &mut Session, request: &Request, load_ms: f64) -> Result {
    let judged = session.choose(request, &args.choices)?;
    let mut ranked: Vec<(&String, f64)> = args.choices.iter().zip(judged.probabilities).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    if !args.json {
        return ranked.iter().try_for_each(|(choice, p)| output::line(format!("{choice} {p:.4}")));
    }
    let (device, profile, model) = open::describe(session);
    let by_choice: serde_json::Map<_, _> = ranked.iter().map(|(c, p)| ((*c).clone(), json!(p))).collect();
    output::json(&json!({
        "answer": ranked[0].0,
        "finish": "stop",
        "tokens": [],
        "prompt_tokens": judged.prompt_tokens,
        "logprob_mean": null,
        "choices": by_choice,
        "timings": timings(&judged.timings, load_ms),
        "device": device,
        "profile": profile,
        "model": model,
    }))
}

//! `healthgpt eval`: questions whose answers are known, counted as the paper counts them.

mod records;
mod score;

use crate::args::{Eval, Task};
use crate::failure::{FAILED, Failure, INTERRUPTED, PICTURE, Result};
use crate::{input, interrupt, open, output};
use indicatif::{ProgressBar, ProgressStyle};
use records::Record;
use runtime::text::Turn;
use runtime::{Error, Finish, Picture, Request, Session, SessionOptions};
use score::{Mean, Tally};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub fn run(args: &Eval) -> Result {
    let control = interrupt::catch()?;
    output::check_files(&[args.output.as_ref()], &[Some(&args.file), Some(&args.open.model)])?;
    let found = records::read(&args.file, args.images.as_deref())?;
    let mut asked = found.asked;
    asked.truncate(args.limit.unwrap_or(usize::MAX));
    // One picture after another: its rows are computed once for all of its questions.
    asked.sort_by(|a, b| a.image.cmp(&b.image));
    let mut log = args.output.as_deref().map(create).transpose()?;
    let model = open::model(&args.open, Task::Ask)?;
    let options = SessionOptions { control, ..open::session(&args.open.on, Task::Ask) };
    let mut session = Session::new(&model, options)?;

    let start = Instant::now();
    let bar = progress(asked.len());
    let mut shown: Option<(PathBuf, Option<Picture>)> = None;
    let (mut tally, mut unreadable) = (Tally::default(), Vec::new());
    for record in &asked {
        if let Some(path) = record.image.as_ref().filter(|p| shown.as_ref().is_none_or(|(at, _)| at != *p)) {
            let picture = input::picture_file(path, 0).and_then(|rgb| Ok(model.picture(&rgb)?));
            if let Err(failure) = &picture {
                bar.suspend(|| output::note(format!("record {}: {}", record.number, failure.message)));
            }
            shown = Some((path.clone(), picture.ok()));
        }
        let picture = match (&record.image, &shown) {
            (Some(_), Some((_, Some(picture)))) => Some(picture),
            (Some(_), _) => {
                unreadable.push(record.number);
                continue;
            }
            (None, _) => None,
        };
        let said = match answer(&mut session, record, picture, args.max_tokens) {
            Ok(said) => said,
            Err(Error::Cancelled) => break,
            Err(error) => return Err(error.into()),
        };
        let points = score::points(record.closed, &record.answer, &said);
        tally.add(&record.group, record.closed, points);
        if let Some((path, file)) = &mut log {
            write(path, file, record, &said, points)?;
        }
        bar.inc(1);
        bar.set_message(format!("{:.1} %", 100.0 * tally.all().value().unwrap_or_default()));
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();

    if args.json {
        output::json(&as_json(&session, &tally, found.foreign, &unreadable, seconds))?;
    } else {
        print(&tally, seconds)?;
    }
    if found.foreign > 0 && !args.json {
        output::note(format!("note: {} questions in other languages than English were left out", found.foreign));
    }
    if interrupt::happened() {
        return Err(Failure::new(
            INTERRUPTED,
            format!("interrupted after {} of {} questions", tally.all().n, asked.len()),
        ));
    }
    match unreadable.len() {
        0 => Ok(()),
        n => Err(Failure::new(PICTURE, format!("{n} of {} questions were not asked: picture unreadable", asked.len()))),
    }
}

/// What the model says: the most likely of the choices where there are some, else its own words.
fn answer(
    session: &mut Session,
    record: &Record,
    picture: Option<&Picture>,
    max_tokens: usize,
) -> runtime::Result<String> {
    interrupt::check()?;
    let turns = [Turn { question: record.question.clone(), answer: None }];
    let request = Request { picture, max_tokens, ..Request::new(&turns) };
    if !record.choices.is_empty() {
        let judged = session.choose(&request, &record.choices)?;
        let best = judged.probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        return Ok(best.map_or_else(String::new, |(i, _)| record.choices[i].clone()));
    }
    let answer = session.ask(&request, |_| std::ops::ControlFlow::Continue(()))?;
    if answer.finish == Finish::Cancelled { Err(Error::Cancelled) } else { Ok(answer.text) }
}

fn create(path: &Path) -> Result<(PathBuf, std::fs::File)> {
    let file = std::fs::File::create(path);
    let file = file.map_err(|e| Failure::new(FAILED, format!("{}: cannot be written: {e}", path.display())))?;
    Ok((path.to_path_buf(), file))
}

/// A line at once, so that an interrupted run has lost nothing.
fn write(path: &Path, file: &mut std::fs::File, record: &Record, said: &str, points: f64) -> Result {
    let line = json!({"record": record.number, "said": said, "answer": record.answer, "points": points});
    writeln!(file, "{line}").map_err(|e| Failure::new(FAILED, format!("{}: cannot be written: {e}", path.display())))
}

/// On a terminal; nothing elsewhere.
fn progress(questions: usize) -> ProgressBar {
    let bar = ProgressBar::new(questions as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn kind(closed: bool) -> &'static str {
    if closed { "closed" } else { "open" }
}

fn percent(mean: Mean) -> String {
    mean.value().map_or_else(|| "-".into(), |v| format!("{:.1}", 100.0 * v))
}

fn print(tally: &Tally, seconds: f64) -> Result {
    let width = tally.groups.keys().map(|(group, _)| group.chars().count()).max().unwrap_or(0).max(4);
    for ((group, closed), mean) in &tally.groups {
        let group = if group.is_empty() { "-" } else { group };
        output::line(format!("{group:width$}  {:6}  {:>6}  {:>5} %", kind(*closed), mean.n, percent(*mean)))?;
    }
    output::line("")?;
    for (name, how, mean) in
        [("closed", "right", tally.closed), ("open", "recall", tally.open), ("all", "both", tally.all())]
    {
        output::line(format!("{name:width$}  {how:6}  {:>6}  {:>5} %", mean.n, percent(mean)))?;
    }
    output::line(format!("{seconds:.0} s, {:.2} s a question", seconds / tally.all().n.max(1) as f64))
}

fn as_json(session: &Session, tally: &Tally, foreign: usize, unreadable: &[usize], seconds: f64) -> Value {
    let (device, profile, model) = open::describe(session);
    let mean = |m: Mean| json!({"questions": m.n, "score": m.value()});
    let groups: Vec<Value> = tally
        .groups
        .iter()
        .map(
            |((group, closed), m)| json!({"group": group, "type": kind(*closed), "questions": m.n, "score": m.value()}),
        )
        .collect();
    json!({
        "closed": mean(tally.closed),
        "open": mean(tally.open),
        "all": mean(tally.all()),
        "groups": groups,
        "skipped": {"other_language": foreign, "picture_unreadable": unreadable},
        "seconds": seconds,
        "device": device,
        "profile": profile,
        "model": model,
    })
}

//! What switching between the tasks of one open model costs: `HEALTHGPT_MODEL=FILE cargo bench -p tests --bench tasks`,
//! the golden checkpoint if none is named.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use runtime::image::RgbPicture;
use runtime::model::Task;
use runtime::text::Turn;
use runtime::{Draw, Model, OpenOptions, Request, Session, SessionOptions};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    let named = std::env::var_os("HEALTHGPT_MODEL").map(PathBuf::from);
    let file = named.unwrap_or_else(|| tests::tiny("f16").to_path_buf());
    let on = Some(tests::gpu().clone());
    let options = OpenOptions { tasks: Task::ALL.to_vec(), on, ..Default::default() };
    let model = Model::open(&file, &options).expect("the model");
    println!("{}, {} MB on the device with both tasks", model.gpu().facts().name, model.gpu().allocated_bytes() >> 20);
    let start = Instant::now();
    let mut ask = Session::new(&model, SessionOptions::default()).expect("a session");
    println!("session to ask: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let options = SessionOptions { task: Task::Generate, ..Default::default() };
    let mut generate = Session::new(&model, options).expect("a session");
    println!("session to generate: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let turns = [Turn { question: "Is there a stone?".into(), answer: None }];
    let grey = RgbPicture { width: 8, height: 8, pixels: vec![90; 192], region: None };
    let picture = model.picture(&grey).expect("a picture");
    let request = Request { picture: Some(&picture), max_tokens: 1, ..Request::new(&turns) };
    let mut first_token = |what: &str| {
        let answer = ask.ask(&request, |_| ControlFlow::Continue(())).expect("an answer");
        println!("first token, {what}: {:.1} ms", answer.timings.first_token_ms);
    };
    first_token("all to compute");
    first_token("the same question again");
    let draw = Draw { picture: Some(&picture), ..Draw::new("Reconstruct the image.") };
    let start = Instant::now();
    generate.generate(&draw, |_| ControlFlow::Continue(())).expect("a picture");
    println!("a picture drawn in between: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    first_token("the same question after it");
}

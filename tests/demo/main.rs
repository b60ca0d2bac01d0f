//! The trained demonstration model on phantoms that it was not trained on, held against PyTorch: `demo/held-out` has its
//! answers, ids, codes and pictures.

use runtime::image::{Options, RgbPicture, decode};
use runtime::model::Task;
use runtime::text::Turn;
use runtime::{Draw, Model, OpenOptions, Request, Session, SessionOptions};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(path)
}

fn records(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(demo("held-out").join(name)).expect("demo/held-out");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text(record: &Value, key: &str) -> String {
    record[key].as_str().unwrap_or_else(|| panic!("{key} in {record}")).to_string()
}

fn picture(name: &str) -> RgbPicture {
    let bytes = std::fs::read(demo("held-out").join(name)).expect("a picture");
    decode(&bytes, name, Options { frame: 0 }).expect("a PNG")
}

fn model() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let file = tests::quantized(&demo("checkpoint"), "f16", "demo");
        let options = OpenOptions { tasks: Task::ALL.to_vec(), on: Some(tests::gpu().clone()), ..Default::default() };
        Model::open(&file, &options).expect("the demonstration model")
    })
}

#[test]
fn every_answer_is_pytorchs_token_for_token() {
    let mut session = Session::new(model(), SessionOptions::default()).expect("a session");
    let mut asked = 0;
    for record in records("questions.jsonl") {
        let shown = model().picture(&picture(&text(&record, "image"))).expect("a picture");
        let turns = [Turn { question: text(&record, "question"), answer: None }];
        let request = Request { picture: Some(&shown), ..Request::new(&turns) };
        let answer = session.ask(&request, |_| ControlFlow::Continue(())).expect("an answer");
        assert_eq!(serde_json::json!(answer.tokens), record["ids"], "{record}");
        assert_eq!(answer.text, text(&record, "pytorch"));
        asked += 1;
    }
    assert!(asked >= 100, "{asked} questions");
}

#[test]
fn every_drawing_has_pytorchs_codes_and_its_structural_similarity() {
    let options = SessionOptions { task: Task::Generate, ..Default::default() };
    let mut session = Session::new(model(), options).expect("a session");
    for record in records("drawings.jsonl") {
        let shown = model().picture(&picture(&text(&record, "image"))).expect("a picture");
        let instruction = text(&record, "instruction");
        let draw = Draw { picture: Some(&shown), ..Draw::new(&instruction) };
        let drawn = session.generate(&draw, |_| ControlFlow::Continue(())).expect("a picture");
        assert_eq!(serde_json::json!(drawn.codes), record["codes"], "{record}");
        let wanted = picture(&text(&record, "drawn"));
        let truth = picture(&text(&record, "truth"));
        let (found, expected) = (ssim(&drawn.picture, &truth), ssim(&wanted, &truth));
        assert!((found - expected).abs() < 5e-4, "SSIM {found} and PyTorch's {expected}: {record}");
    }
}

/// Mean structural similarity of the greys (Rec. 601): even windows of 7 x 7, unbiased variances, K 0.01 and 0.03, as
/// scikit-image has it by default.
fn ssim(a: &RgbPicture, b: &RgbPicture) -> f64 {
    const WINDOW: usize = 7;
    assert_eq!((a.width, a.height), (b.width, b.height));
    let grey = |p: &RgbPicture| -> Vec<f64> {
        let of = |c: &[u8]| 0.299 * f64::from(c[0]) + 0.587 * f64::from(c[1]) + 0.114 * f64::from(c[2]);
        p.pixels.chunks_exact(3).map(of).collect()
    };
    let (x, y, width, height) = (grey(a), grey(b), a.width as usize, a.height as usize);
    let n = (WINDOW * WINDOW) as f64;
    let (c1, c2) = ((0.01 * 255.0_f64).powi(2), (0.03 * 255.0_f64).powi(2));
    let (mut total, mut windows) = (0.0, 0.0);
    for top in 0..=height - WINDOW {
        for left in 0..=width - WINDOW {
            let at = |i: usize| (top + i / WINDOW) * width + left + i % WINDOW;
            let mean = |f: &dyn Fn(usize) -> f64| (0..WINDOW * WINDOW).map(|i| f(at(i))).sum::<f64>() / n;
            let (mx, my) = (mean(&|i| x[i]), mean(&|i| y[i]));
            let vx = (mean(&|i| x[i] * x[i]) - mx * mx) * n / (n - 1.0);
            let vy = (mean(&|i| y[i] * y[i]) - my * my) * n / (n - 1.0);
            let vxy = (mean(&|i| x[i] * y[i]) - mx * my) * n / (n - 1.0);
            total += (2.0 * mx * my + c1) * (2.0 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
            windows += 1.0;
        }
    }
    total / windows
}

#[test]
fn the_similarity_of_a_picture_to_itself_is_one_and_falls_with_a_change() {
    let a = picture(&text(&records("questions.jsonl")[0], "image"));
    assert!((ssim(&a, &a) - 1.0).abs() < 1e-12);
    let mut b = a.clone();
    b.pixels.iter_mut().for_each(|v| *v = v.saturating_add(40));
    let shifted = ssim(&a, &b);
    b.pixels.rotate_left(3 * a.width as usize * 5);
    assert!(ssim(&a, &b) < shifted && shifted < 0.99, "{shifted}");
}

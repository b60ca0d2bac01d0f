//! Pictures out, against what the reference drew; and models that misbehave.

use super::{picture, portable, preferred, without_subgroups};
use runtime::gpu::Options;
use runtime::image::decode;
use runtime::model::Task;
use runtime::text::{Sampling, Turn};
use runtime::{Draw, Error, Generated, Model, OpenOptions, Request, Session, SessionOptions, Values};
use sha2::{Digest, Sha256};
use shaders::KvFormat;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::{Golden, data, stages, tiny};

fn session(model: &Arc<Model>, kv: KvFormat) -> Session {
    Session::new(model, SessionOptions { task: Task::Generate, kv, ..Default::default() }).expect("a session")
}

fn draw(session: &mut Session, sampling: Sampling) -> Generated {
    let golden = Golden::read("generation");
    let shown = picture(session.model());
    let instruction = &golden.turns()[0].question;
    let mut rows = Vec::new();
    let draw = Draw { picture: Some(&shown), sampling, ..Draw::new(instruction) };
    let drawn = session
        .generate(&draw, |row| {
            rows.push(row.done);
            ControlFlow::Continue(())
        })
        .expect("a picture");
    assert_eq!(rows, (1..=8).collect::<Vec<_>>(), "every row is reported once");
    drawn
}

fn golden_codes() -> Vec<u32> {
    serde_json::from_value(Golden::read("generation").json["codes"].clone()).expect("codes")
}

/// Share of bytes that are equal; none may differ by more than one level.
fn equal_share(found: &[u8]) -> f64 {
    let bytes = std::fs::read(data("tiny/generation.png")).expect("the golden picture");
    let wanted = decode(&bytes, "generation.png", Default::default()).expect("the golden picture").pixels;
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().zip(&wanted).all(|(a, b)| a.abs_diff(*b) <= 1), "more than one level");
    found.iter().zip(&wanted).filter(|(a, b)| a == b).count() as f64 / wanted.len() as f64
}

#[test]
fn the_picture_is_the_references() {
    for (model, kv, share) in [
        (portable(), KvFormat::F32, 0.999),
        (preferred(), KvFormat::F16, 0.99),
        (without_subgroups(), KvFormat::F16, 0.99),
    ] {
        let drawn = draw(&mut session(model, kv), Sampling::default());
        assert_eq!(drawn.codes, golden_codes());
        let found = equal_share(&drawn.picture.pixels);
        assert!(found >= share, "{found} of the bytes are equal");
    }
}

#[test]
fn every_stage_of_a_picture_is_the_references() {
    for (like, kv, bound) in [
        (portable(), KvFormat::F32, 1e-9),
        (preferred(), KvFormat::F16, 1e-5),
        (without_subgroups(), KvFormat::F32, 1e-9),
    ] {
        let on = Some(like.gpu().clone());
        let options = OpenOptions { tasks: vec![Task::Generate], whole_head: true, on, ..Default::default() };
        let model = Model::open(tiny("f16"), &options).expect("the model");
        let options = SessionOptions { task: Task::Generate, kv, traced: true, ..Default::default() };
        let mut session = Session::new(&model, options).expect("a session");
        let golden = Golden::read("generation");
        let turns = golden.turns();
        let shown = picture(&model);
        let trace = session
            .trace(&Request { picture: Some(&shown), max_tokens: usize::MAX, ..Request::new(&turns) })
            .expect("a trace");
        let faults = golden.faults(&stages(&trace), bound);
        assert!(faults.is_empty(), "{kv:?}, bound {bound:e}:\n{}", faults.join("\n"));
        for (key, found) in [
            ("prompt", serde_json::json!(trace.prompt)),
            ("input_ids", serde_json::json!(trace.input_ids)),
            ("generated_ids", serde_json::json!(trace.generated_ids)),
            ("codes", serde_json::json!(trace.codes)),
        ] {
            assert_eq!(found, golden.json[key], "{key}");
        }
        let Values::U8(pixels) = &trace.tensors["image"].values else { panic!("the picture is not bytes") };
        assert!(equal_share(pixels) >= 0.99);
        let Values::I32(codes) = &trace.tensors["codes"].values else { panic!("codes are not integers") };
        assert_eq!(codes.len(), 64);
    }
}

#[test]
fn a_seed_draws_the_same_picture_again_and_another_one_does_not() {
    let mut session = session(preferred(), KvFormat::F16);
    let mut sample = |seed| draw(&mut session, Sampling { temperature: 30.0, top_p: 1.0, seed }).codes;
    let (a, b, c) = (sample(1), sample(1), sample(2));
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert_ne!(a, golden_codes());
}

#[test]
fn asking_before_and_after_drawing_gives_the_same_answer() {
    let golden = Golden::read("comprehension");
    let turns = golden.turns();
    let shown = picture(preferred());
    let mut ask_session = Session::new(preferred(), SessionOptions::default()).expect("a session");
    let mut logprob = || {
        // Another picture first, so that everything is computed anew, to the last bit.
        let other = [Turn { question: "Something else?".into(), answer: None }];
        let grey = runtime::image::RgbPicture { width: 9, height: 9, pixels: vec![90; 243], region: None };
        let grey = preferred().picture(&grey).expect("a picture");
        let one = Request { max_tokens: 1, picture: Some(&grey), ..Request::new(&other) };
        ask_session.ask(&one, |_| ControlFlow::Continue(())).expect("an answer");
        let request = Request { picture: Some(&shown), probabilities: true, ..Request::new(&turns) };
        let answer = ask_session.ask(&request, |_| ControlFlow::Continue(())).expect("an answer");
        (answer.tokens, answer.logprob_mean.expect("asked for").to_bits())
    };
    let before = logprob();
    let drawn = draw(&mut session(preferred(), KvFormat::F16), Sampling::default());
    assert_eq!(drawn.codes, golden_codes());
    assert_eq!(logprob(), before);
}

#[test]
fn a_drawing_can_be_cancelled_by_row_and_by_flag_and_the_session_goes_on() {
    let mut session = session(preferred(), KvFormat::F16);
    let golden = Golden::read("generation");
    let instruction = &golden.turns()[0].question;
    let shown = picture(preferred());
    let control = session.control().clone();
    let request = Draw { picture: Some(&shown), ..Draw::new(instruction) };
    let stopped = session.generate(&request, |row| match row.done {
        3 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(stopped.err(), Some(Error::Cancelled));
    let stopped = session.generate(&request, |row| {
        // After the last row the decoder is what remains to be cancelled.
        if row.done == row.of {
            control.cancel();
        }
        ControlFlow::Continue(())
    });
    assert_eq!(stopped.err(), Some(Error::Cancelled));
    assert_eq!(draw(&mut session, Sampling::default()).codes, golden_codes());
}

#[test]
fn too_short_a_context_is_refused_before_anything_is_drawn() {
    let options = SessionOptions { task: Task::Generate, context: Some(150), ..Default::default() };
    let mut session = Session::new(preferred(), options).expect("a session");
    let shown = picture(preferred());
    let request = Draw { picture: Some(&shown), ..Draw::new("Reconstruct.") };
    let error = session.generate(&request, |_| panic!("a row was drawn")).err().expect("an error");
    assert!(matches!(error, Error::ContextFull { have: 150, .. }), "{error}");
}

#[test]
fn a_session_does_only_what_it_was_made_for() {
    let turns = [Turn { question: "Why?".into(), answer: None }];
    let mut drawing = session(preferred(), KvFormat::F16);
    let refused = drawing.ask(&Request::new(&turns), |_| ControlFlow::Continue(())).err().expect("refused");
    assert!(matches!(refused, Error::Input { .. }), "{refused}");
    assert!(matches!(drawing.perplexity("Two tokens."), Err(Error::Input { .. })));
    let mut session = Session::new(preferred(), SessionOptions::default()).expect("a session");
    let refused = session.generate(&Draw::new("Draw."), |_| ControlFlow::Continue(())).err().expect("refused");
    assert!(matches!(refused, Error::Input { .. }), "{refused}");
}

#[test]
fn both_tasks_share_one_copy_of_the_base() {
    let open = |tasks: &[Task]| {
        let device = std::env::var("HEALTHGPT_DEVICE").ok();
        let gpu = Options { device, ..Default::default() };
        let options = OpenOptions { tasks: tasks.to_vec(), gpu, ..Default::default() };
        let model = Model::open(tiny("f16"), &options).expect("the model");
        model.gpu().allocated_bytes()
    };
    let (ask, generate, both) = (open(&[Task::Ask]), open(&[Task::Generate]), open(&Task::ALL));
    // The decoder layers alone, in f16: what would be there twice.
    let base = 2 * 3 * (192 * 3 * 192 + 192 * 192 + 2 * 320 * 192 + 192 * 320) as u64;
    assert!(both + base <= ask + generate, "{ask} to ask, {generate} to generate, {both} for both");
}

#[test]
fn what_a_session_takes_it_gives_back() {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    let gpu = Options { device, ..Default::default() };
    let options = OpenOptions { tasks: vec![Task::Generate], gpu, ..Default::default() };
    let model = Model::open(tiny("f16"), &options).expect("the model");
    let before = model.gpu().allocated_bytes();
    let drawn = draw(&mut session(&model, KvFormat::F16), Sampling::default());
    assert_eq!(drawn.codes, golden_codes());
    assert_eq!(model.gpu().allocated_bytes(), before);
}

/// The golden model with another head for drawing: `wish` gives each id's share of a bias that beats every logit.
fn misbehaving(name: &str, wish: impl Fn(u32) -> f32) -> PathBuf {
    let golden = data("tiny/checkpoint");
    let folder = tests::scratch().join(name);
    for part in ["phi3", "clip", "vqgan"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
        for entry in std::fs::read_dir(golden.join(part)).expect("a part") {
            let from = entry.expect("a file").path();
            std::fs::copy(&from, folder.join(part).join(from.file_name().expect("a name"))).expect("copied");
        }
    }
    for file in ["com_hlora_weights.bin", "gen_hlora_weights.bin"] {
        std::fs::copy(golden.join(file), folder.join(file)).expect("copied");
    }
    std::fs::copy(data("tiny/settings.json"), folder.join("settings.json")).expect("copied");
    // Every row of the head becomes wish(id) times one and the same direction, so that the wish decides.
    let fusion = quantize::source::Checkpoint::open(golden.join("fusion_layer_weights.bin")).expect("fusion layer");
    let embed = fusion.lookup("embed_tokens.weight").expect("embedding");
    let values = fusion.read_f32(&embed.name).expect("embedding");
    let [rows, cols] = embed.shape[..] else { panic!("a matrix") };
    let head: Vec<f32> = (0..rows as u32).flat_map(|id| vec![wish(id); cols]).collect();
    let bytes = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (embed, head) = (bytes(&values), bytes(&head));
    let view =
        |data| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, cols], data).expect("view");
    let tensors = [("embed_tokens.weight", view(&embed)), ("lm_head.weight", view(&head))];
    safetensors::serialize_to_file(tensors, None, &folder.join("fusion_layer_weights.safetensors")).expect("written");
    tests::quantized(&folder, "f16", name)
}

fn open_to_draw(file: &Path, whole_head: bool) -> Arc<Model> {
    let on = Some(tests::gpu().clone());
    let options = OpenOptions { tasks: vec![Task::Generate], whole_head, on, ..Default::default() };
    Model::open(file, &options).expect("the model")
}

/// The file with every value of `generate.head` not a number, its hash put right.
fn with_a_head_of_nan(file: &Path) -> PathBuf {
    let mut bytes = std::fs::read(file).expect("the model file");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).expect("a header");
    let at = |i: usize| start + header["generate.head"]["data_offsets"][i].as_u64().expect("an offset") as usize;
    let (from, to) = (at(0), at(1));
    bytes[from..to].as_chunks_mut::<2>().0.iter_mut().for_each(|half| *half = 0x7e00_u16.to_le_bytes());
    let hash: String = Sha256::digest(&bytes[from..to]).iter().map(|b| format!("{b:02x}")).collect();
    let hashes: serde_json::Value =
        serde_json::from_str(header["__metadata__"]["sha256"].as_str().expect("hashes")).expect("hashes");
    let before = hashes["generate.head"].as_str().expect("a hash").as_bytes();
    let place = bytes[..start].windows(64).position(|w| w == before).expect("the hash in the header");
    bytes[place..place + 64].copy_from_slice(hash.as_bytes());
    let changed = file.with_extension("nan.safetensors");
    std::fs::write(&changed, bytes).expect("written");
    changed
}

#[test]
fn a_model_whose_logits_are_no_numbers_ends_in_an_error_or_a_picture_but_ends() {
    let file = with_a_head_of_nan(tiny("f16"));
    for (temperature, whole_head) in [(0.0, false), (1.0, false), (0.0, true)] {
        let model = open_to_draw(&file, whole_head);
        let sampling = Sampling { temperature, top_p: 1.0, seed: 1 };
        let request = Draw { sampling, ..Draw::new("Draw.") };
        match session(&model, KvFormat::F16).generate(&request, |_| ControlFlow::Continue(())) {
            Ok(drawn) => assert_eq!(drawn.codes.len(), 64),
            Err(error) => assert!(matches!(error, Error::Input { .. }), "{error}"),
        }
    }
}

#[test]
fn without_the_mask_a_model_that_wants_text_is_told_apart() {
    // Whichever sign makes the wish the largest, one of the two models wants text.
    let unmasked = |sign: f32| {
        let file = misbehaving(&format!("unmasked{sign}"), |id| if id < 300 { sign } else { 0.0 });
        let model = open_to_draw(&file, true);
        let request = Draw { masked: false, ..Draw::new("Draw.") };
        session(&model, KvFormat::F16).generate(&request, |_| ControlFlow::Continue(())).err()
    };
    let errors: Vec<Error> = [1.0, -1.0].into_iter().filter_map(unmasked).collect();
    assert!(errors.iter().any(|e| e.to_string().contains("0 of 64 codes")), "{errors:?}");
    // A model that behaves draws the same without it.
    let model = open_to_draw(tiny("f16"), true);
    let golden = Golden::read("generation");
    let shown = picture(&model);
    let instruction = &golden.turns()[0].question;
    let request = Draw { picture: Some(&shown), masked: false, ..Draw::new(instruction) };
    let drawn = session(&model, KvFormat::F16).generate(&request, |_| ControlFlow::Continue(())).expect("a picture");
    assert_eq!(drawn.codes, golden_codes());
}

#[test]
fn a_model_that_misbehaves_still_draws_a_whole_picture() {
    // tiny: codes are 524..588, <start_index> 523, <end_index> 588, <pixel_newline> 589; chat tokens below.
    let stop = |id: u32| if id == 588 || id == 519 { 1.0 } else { 0.0 };
    let newline = |id: u32| if id == 589 { 1.0 } else { 0.0 };
    let text = |id: u32| if id < 300 { 1.0 } else { 0.0 };
    let wishes: [(&str, &dyn Fn(u32) -> f32); 3] =
        [("stops-early", &stop), ("newlines", &newline), ("wants-text", &text)];
    for (name, wish) in wishes {
        // The sign of the sum over the final norm is not known, so both are tried: one of them makes the wish the largest.
        for sign in [1.0, -1.0] {
            let file = misbehaving(&format!("{name}{sign}"), |id| sign * wish(id));
            // Chosen on the device; and once by the host, from a head in which what is not allowed is there to be drawn.
            let ways: &[(f32, bool)] = if sign > 0.0 { &[(0.0, false)] } else { &[(0.0, false), (1.0, true)] };
            for &(temperature, whole_head) in ways {
                let model = open_to_draw(&file, whole_head);
                let mut session = session(&model, KvFormat::F16);
                let sampling = Sampling { temperature, top_p: 1.0, seed: 5 };
                let drawn = draw(&mut session, sampling);
                assert_eq!(drawn.codes.len(), 64, "{name}");
                assert!(drawn.codes.iter().all(|c| *c < 64), "{name}");
                assert_eq!((drawn.picture.width, drawn.picture.height), (64, 64));
                assert!((64..=71).contains(&drawn.tokens), "{name}: {} tokens", drawn.tokens);
            }
        }
    }
}

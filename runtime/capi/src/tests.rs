//! A panic in every function: none gets out, the handle is poisoned, and its end still works.

use crate::entry::injected;
use crate::structs::Record;
use crate::*;
use quantize::config::Choices;
use quantize::source::{Given, discover};
use quantize::write::Job;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

/// The golden checkpoint as a model file.
fn model_file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let checkpoint = root.join("tests/data/tiny/checkpoint");
    let output = root.join("target/tmp").join(format!("capi-{}.safetensors", std::process::id()));
    std::fs::create_dir_all(output.parent().unwrap()).unwrap();
    let parts = discover(&checkpoint, &Given::default()).unwrap();
    let recipe = quantize::recipe::load("f16", &Default::default()).unwrap();
    let job = Job::new(&parts, &Choices::default(), recipe).unwrap();
    job.write(&output, &checkpoint, &quantize::Quiet).unwrap();
    output
}

fn last_error() -> String {
    let mut text = [0 as c_char; 256];
    unsafe { hgpt_last_error(text.as_mut_ptr(), text.len()) };
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().into()
}

/// Handles that work.
struct Handles {
    runtime: *mut hgpt_runtime,
    model: *mut hgpt_model,
    image: *mut hgpt_image,
    session: *mut hgpt_session,
}

const QUESTION: &CStr = c"Why?";

impl Handles {
    fn new(path: &CStr) -> Self {
        let mut h = Handles { runtime: null_mut(), model: null_mut(), image: null_mut(), session: null_mut() };
        let options = hgpt_runtime_options { flags: HGPT_RUNTIME_ALLOW_SOFTWARE, ..hgpt_runtime_options::defaults() };
        let asks = hgpt_model_options { tasks: HGPT_TASK_ASK, ..hgpt_model_options::defaults() };
        let small = hgpt_session_options { context_tokens: 128, ..hgpt_session_options::defaults() };
        let grey = [9_u8; 4];
        let pixels = hgpt_pixels {
            format: HGPT_PIXELS_GRAY8,
            width: 2,
            height: 2,
            size: 4,
            data: grey.as_ptr().cast(),
            ..hgpt_pixels::defaults()
        };
        unsafe {
            assert_eq!(hgpt_runtime_create(&options, &mut h.runtime), HGPT_OK, "{}", last_error());
            assert_eq!(hgpt_model_open(h.runtime, path.as_ptr(), &asks, &mut h.model), HGPT_OK, "{}", last_error());
            assert_eq!(hgpt_image_from_pixels(h.model, &pixels, &mut h.image), HGPT_OK, "{}", last_error());
            assert_eq!(hgpt_session_create(h.model, &small, &mut h.session), HGPT_OK, "{}", last_error());
        }
        h
    }

    fn end(self) {
        unsafe {
            hgpt_session_destroy(self.session);
            hgpt_image_release(self.image);
            hgpt_model_close(self.model);
            hgpt_runtime_destroy(self.runtime);
        }
    }
}

#[test]
fn a_panic_in_any_function_is_a_status_and_poisons_the_handle() {
    let file = model_file();
    let path = CString::new(file.to_str().unwrap()).unwrap();
    let mut h = Handles::new(&path);
    let bytes = std::fs::read(&file).unwrap();
    let (mut memory, mut info) = (hgpt_memory::defaults(), hgpt_model_info::defaults());
    let (mut device, mut stats) = (hgpt_device_info::defaults(), hgpt_stats::defaults());
    let mut token = hgpt_token::defaults();
    let (mut number, mut other, mut needed) = (0, 0, 0);
    let (mut runtime, mut model, mut image, mut session) = (null_mut(), null_mut(), null_mut(), null_mut());
    let choices = [QUESTION.as_ptr()];
    let mut probability = [0.0];
    let mut tried = BTreeSet::new();
    // What holds nothing: statics.
    tried.extend(["hgpt_abi_version", "hgpt_version", "hgpt_build_info", "hgpt_status_name"]);

    macro_rules! silent {
        ($function:ident($($argument:expr),*)) => {
            injected::next(stringify!($function));
            let _ = unsafe { $function($($argument),*) };
            tried.insert(stringify!($function));
        };
    }
    // On no handle of its own: the next call works again.
    macro_rules! passing {
        ($function:ident($($argument:expr),*)) => {
            injected::next(stringify!($function));
            assert_eq!(unsafe { $function($($argument),*) }, HGPT_ERROR_INTERNAL, stringify!($function));
            let said = last_error();
            assert!(said.contains(stringify!($function)) && said.contains("report"), "{said}");
            tried.insert(stringify!($function));
        };
    }
    // On a handle, which then is of no more use: all are made anew.
    macro_rules! poisons {
        ($function:ident($($argument:expr),*)) => {
            passing!($function($($argument),*));
            assert_eq!(unsafe { $function($($argument),*) }, HGPT_ERROR_POISONED, stringify!($function));
            assert!(last_error().contains("destroy it"));
            std::mem::replace(&mut h, Handles::new(&path)).end();
        };
    }
    silent!(hgpt_last_error(null_mut(), 0));
    silent!(hgpt_runtime_options_init(&mut hgpt_runtime_options::defaults(), 8));
    silent!(hgpt_model_options_init(&mut hgpt_model_options::defaults(), 8));
    silent!(hgpt_pixels_init(&mut hgpt_pixels::defaults(), 8));
    silent!(hgpt_decode_options_init(&mut hgpt_decode_options::defaults(), 8));
    silent!(hgpt_session_options_init(&mut hgpt_session_options::defaults(), 8));
    silent!(hgpt_ask_options_init(&mut hgpt_ask_options::defaults(), 8));
    silent!(hgpt_generate_options_init(&mut hgpt_generate_options::defaults(), 8));
    silent!(hgpt_session_destroy(h.session));
    silent!(hgpt_image_release(h.image));
    silent!(hgpt_model_close(h.model));
    silent!(hgpt_runtime_destroy(h.runtime));
    passing!(hgpt_runtime_create(null(), &mut runtime));
    passing!(hgpt_model_probe(path.as_ptr(), &mut info));
    passing!(hgpt_image_frame_count(bytes.as_ptr().cast(), bytes.len(), &mut number));

    poisons!(hgpt_device_count(h.runtime, &mut number));
    poisons!(hgpt_device_info_get(h.runtime, 0, &mut device));
    poisons!(hgpt_model_plan(h.runtime, path.as_ptr(), null(), null(), &mut memory));
    poisons!(hgpt_model_open(h.runtime, path.as_ptr(), null(), &mut model));
    poisons!(hgpt_model_open_memory(h.runtime, bytes.as_ptr().cast(), bytes.len(), null(), &mut model));
    poisons!(hgpt_model_info_get(h.model, &mut info));
    poisons!(hgpt_model_memory(h.model, &mut memory));
    poisons!(hgpt_model_self_test(h.model));
    poisons!(hgpt_model_trim(h.model, 0));
    poisons!(hgpt_image_from_pixels(h.model, null(), &mut image));
    poisons!(hgpt_image_from_bytes(h.model, bytes.as_ptr().cast(), bytes.len(), null(), &mut image));
    poisons!(hgpt_image_preview(h.image, null_mut(), 0, &mut number, &mut other));
    poisons!(hgpt_session_create(h.model, null(), &mut session));
    poisons!(hgpt_session_set_image(h.session, h.image));
    poisons!(hgpt_session_encode(h.session));
    poisons!(hgpt_session_reset(h.session, 0));
    poisons!(hgpt_session_cancel(h.session));
    poisons!(hgpt_session_pause(h.session));
    poisons!(hgpt_session_resume(h.session));
    poisons!(hgpt_session_set_pace(h.session, 0, 0));
    poisons!(hgpt_session_stats(h.session, &mut stats));
    poisons!(hgpt_session_report(h.session, null_mut(), 0, &mut needed));
    poisons!(hgpt_session_ask(h.session, QUESTION.as_ptr(), 4, null()));
    poisons!(hgpt_session_answer(h.session, null_mut(), 0, &mut needed));
    poisons!(hgpt_session_token(h.session, 0, &mut token));
    poisons!(hgpt_session_score(h.session, QUESTION.as_ptr(), 4, choices.as_ptr(), 1, probability.as_mut_ptr()));
    poisons!(hgpt_session_generate(h.session, QUESTION.as_ptr(), 4, null(), null_mut(), HGPT_PIXELS_RGB8, 0, 0));

    assert!(runtime.is_null() && model.is_null() && image.is_null() && session.is_null());
    let all: BTreeSet<&str> = include_str!("../../../tests/capi/exports.txt").lines().collect();
    assert_eq!(tried, all, "every function is tried");
    h.end();
    let _ = std::fs::remove_file(file);
}

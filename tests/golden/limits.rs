//! Devices that are poor, full or lost: what fits is as good as anywhere, what does not is an error, and the process goes
//! on.

use super::{CASES, check_planned, open, preferred};
use devices::Facts;
use runtime::gpu::{Gpu, Options};
use runtime::model::Task;
use runtime::{Error, Model, OpenOptions, Request, Session, SessionOptions};
use shaders::KvFormat;
use std::ops::ControlFlow;
use std::sync::Arc;
use tests::{Golden, tiny};

/// So small that tables, qkv and gate_up of the tiny model take two bindings each.
const SMALL_BINDING: u64 = 160 << 10;
/// So short that a layer's keys still fit one, and long enough for every case.
const SHORT: usize = 208;

fn poor(most: Facts) -> Options {
    Options { no_more_than: Some(most), ..Default::default() }
}

#[test]
fn tables_in_several_bindings_are_as_good() {
    let most = Facts { storage_binding_bytes: SMALL_BINDING, ..Facts::floor() };
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    let options = OpenOptions { gpu: Options { device, ..poor(most) }, ..Default::default() };
    let model = Model::open(tiny("f16"), &options).expect("the model");
    let options = SessionOptions { kv: KvFormat::F32, context: Some(SHORT), chunk: Some(16), ..Default::default() };
    let session = |model| Session::new(model, options.clone()).expect("a session");
    // A dispatch more for the second part of the table, of the head, and of two matrices in each of three layers.
    let [whole, parted] = [preferred(), &model].map(|model| session(model).dispatches_per_token());
    assert_eq!(parted, whole + 8);
    for case in CASES {
        check_planned(&model, case, options.clone(), 1e-9);
    }
}

#[test]
fn what_does_not_fit_a_binding_or_a_grid_is_an_error_that_says_so() {
    let refused = |most: Facts| {
        let model = Model::open(tiny("f16"), &OpenOptions { gpu: poor(most), ..Default::default() });
        model.and_then(|model| Session::new(&model, SessionOptions::default())).err().expect("an error")
    };
    for (most, need) in [
        (Facts { storage_binding_bytes: 64 << 10, ..Facts::floor() }, "binding"),
        (Facts { buffer_bytes: 128 << 20, ..Facts::floor() }, "bytes in a buffer"),
        (Facts { groups_per_axis: 16, ..Facts::floor() }, "workgroups along an axis"),
        (Facts { storage_buffers: 7, ..Facts::floor() }, "storage buffers"),
        (Facts { workgroup_bytes: 8 << 10, ..Facts::floor() }, "workgroup memory"),
        (Facts { workgroup_invocations: 128, ..Facts::floor() }, "invocations"),
    ] {
        let error = refused(most);
        assert!(matches!(error, Error::Unfit { .. }) && error.to_string().contains(need), "{need}: {error}");
    }
}

fn first_tokens(model: &Arc<Model>) -> Vec<u32> {
    let golden = Golden::read("text_only");
    let turns = golden.turns();
    let mut session = Session::new(model, SessionOptions::default()).expect("a session");
    let request = Request { max_tokens: 4, ..Request::new(&turns) };
    session.ask(&request, |_| ControlFlow::Continue(())).expect("an answer").tokens
}

#[test]
fn running_out_of_memory_is_an_error_and_leaves_nothing_behind() {
    let whole = open(None, Options::default());
    let loaded = whole.gpu().allocated_bytes();
    let session = Session::new(&whole, SessionOptions::default()).expect("a session");
    let all = whole.gpu().allocated_bytes();
    drop(session);
    assert_eq!(whole.gpu().allocated_bytes(), loaded);
    // Not enough for the first tensors, for all weights, for the session.
    for most in [4096, loaded - 1, all - 1] {
        let device = std::env::var("HEALTHGPT_DEVICE").ok();
        let options = Options { device, memory_bytes: Some(most), ..Default::default() };
        let gpu = Gpu::open(&options).expect("a device");
        let options = OpenOptions { tasks: Task::ALL.to_vec(), on: Some(gpu.clone()), ..Default::default() };
        let opened = Model::open(tiny("f16"), &options);
        let failed = opened.and_then(|model| Session::new(&model, SessionOptions::default()));
        let error = failed.err().expect("an error");
        assert!(matches!(error, Error::OutOfMemory { .. }), "{most}: {error}");
        assert!(error.to_string().contains(&most.to_string()), "{most}: {error}");
        assert_eq!(gpu.allocated_bytes(), 0, "{most}");
    }
    assert_eq!(first_tokens(&whole), first_tokens(preferred()));
}

#[test]
fn a_lost_device_is_an_error_and_the_model_can_be_opened_again() {
    let golden = Golden::read("text_only");
    let turns = golden.turns();
    let wanted = first_tokens(preferred());
    let model = open(None, Options::default());
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let request = Request { max_tokens: 8, ..Request::new(&turns) };
    let mut told = 0;
    let error = session.ask(&request, |_| {
        told += 1;
        if told == 2 {
            model.gpu().lose();
        }
        ControlFlow::Continue(())
    });
    let error = error.err().expect("an error");
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    // It stays so, for this session and for any other.
    let again = session.ask(&request, |_| ControlFlow::Continue(())).err().expect("an error");
    assert!(matches!(again, Error::DeviceLost(_)), "{again}");
    let other = Session::new(&model, SessionOptions::default()).err().expect("an error");
    assert!(matches!(other, Error::DeviceLost(_)), "{other}");
    drop((session, model));
    assert_eq!(first_tokens(&open(None, Options::default())), wanted);
}

//! A device that computes wrongly is found out: another variant answers, or nothing does.

use super::pace::{ask, golden_answer, own_device};
use runtime::gpu::{Gpu, Options};
use runtime::model::Task;
use runtime::{Error, Model, OpenOptions, Session, SessionOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tests::tiny;

fn on(gpu: &Gpu) -> OpenOptions {
    OpenOptions { tasks: Task::ALL.to_vec(), on: Some(gpu.clone()), ..Default::default() }
}

#[test]
fn a_kernel_that_begins_to_compute_wrongly_is_found_out() {
    let gpu = own_device();
    let model = Model::open(tiny("q4"), &on(&gpu)).expect("the model");
    assert_eq!(model.self_test(), Ok(()));
    // A kernel of each kind: matrices, attention, norms, what moves data, pictures.
    for kernel in ["gemv", "attention_decode", "rmsnorm", "embed", "argmax", "conv"] {
        gpu.inject_fault(Some(kernel));
        match model.self_test() {
            Err(Error::Faulty { kernel: found, .. }) => assert!(found.starts_with(&format!("{kernel} ")), "{found}"),
            other => panic!("{kernel}: {other:?}"),
        }
    }
    gpu.inject_fault(None);
    assert_eq!(model.self_test(), Ok(()));
}

/// The variants that a session uses although its kernels have others for the same data.
fn replaceable_variants(session: &Session) -> Vec<String> {
    let last = |name: &str| {
        let kernel = shaders::kernels().iter().find(|k| k.name == name).expect("a kernel");
        kernel.variants.last().expect("a variant").name
    };
    let used = session.variants().into_iter().filter(|(kernel, variant)| *variant != last(kernel));
    used.map(|(kernel, variant)| format!("{kernel} {variant}")).collect()
}

#[test]
fn a_variant_that_computes_wrongly_gives_way_to_the_next() {
    let gpu = own_device();
    let open = || Model::open(tiny("f16"), &OpenOptions { on: Some(gpu.clone()), ..Default::default() });
    let session = |model| Session::new(&model, SessionOptions::default()).expect("a session");
    let variants = replaceable_variants(&session(open().expect("the model")));
    assert!(!variants.is_empty(), "portable kernels only");
    for variant in &variants {
        gpu.inject_fault(Some(variant));
        let model = open().unwrap_or_else(|e| panic!("{variant}: {e}"));
        assert!(gpu.refused().contains(variant), "{variant}: {:?}", gpu.refused());
        assert_eq!(ask(&mut session(model)), Ok(golden_answer()), "{variant}");
        gpu.inject_fault(None);
        assert!(gpu.refused().is_empty());
    }
}

#[test]
fn a_device_with_no_right_variant_is_refused() {
    let gpu = own_device();
    let open = || Model::open(tiny("q4"), &on(&gpu));
    for kernel in ["gemv", "attention_decode", "embed", "argmax", "conv"] {
        gpu.inject_fault(Some(kernel));
        match open().err() {
            Some(Error::Faulty { kernel: found, .. }) => assert!(found.starts_with(&format!("{kernel} ")), "{found}"),
            other => panic!("{kernel}: {other:?}"),
        }
        assert_eq!(gpu.allocated_bytes(), 0, "{kernel}");
    }
    let trusting = OpenOptions { skip_self_test: true, ..on(&gpu) };
    assert!(Model::open(tiny("q4"), &trusting).is_ok());
    gpu.inject_fault(None);
    assert!(open().is_ok());
}

/// Whether opening on a newly found device had anything to test.
fn tests_anything(folder: &Path, fault: Option<&str>) -> Result<bool, Error> {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    let gpu = Gpu::open(&Options { device, cache_dir: Some(folder.into()), ..Default::default() })?;
    if fault.is_some() {
        gpu.inject_fault(fault);
    }
    let stages = Arc::new(Mutex::new(Vec::new()));
    let seen = stages.clone();
    let progress: runtime::Progress = Arc::new(move |_, stage| {
        seen.lock().expect("no panic").push(stage);
        ControlFlow::Continue(())
    });
    Model::open(tiny("q4"), &OpenOptions { progress: Some(progress), ..on(&gpu) })?;
    let stages = stages.lock().expect("no panic");
    Ok(stages.contains(&"self-test"))
}

#[test]
fn what_was_right_with_a_driver_is_not_tested_again() {
    let folder = tests::scratch().join("shown");
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(tests_anything(&folder, None), Ok(true));
    assert_eq!(tests_anything(&folder, None), Ok(false));
    // What it was right about is another program then.
    assert!(matches!(tests_anything(&folder, Some("embed")), Err(Error::Faulty { .. })));
    assert_eq!(tests_anything(&folder, None), Ok(false));
    let files = || std::fs::read_dir(&folder).expect("the folder").map(|e| e.expect("an entry").path());
    let file = files().find(|f| f.display().to_string().contains("self-test-")).expect("what was shown");
    for damaged in [&b""[..], b"\xff\xfe", b"nothing of the kind\n"] {
        std::fs::write(&file, damaged).expect("written");
        assert_eq!(tests_anything(&folder, None), Ok(true));
        assert_eq!(tests_anything(&folder, None), Ok(false));
    }
}

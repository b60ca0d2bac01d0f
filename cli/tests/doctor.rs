//! `healthgpt doctor` and `devices`, as people and scripts see them.

use quantize::config::Choices;
use quantize::recipe::Asked;
use quantize::source::{Given, discover};
use quantize::write::Job;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn model() -> &'static str {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    let made = MODEL.get_or_init(|| {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny/checkpoint");
        let parts = discover(&checkpoint, &Given::default()).unwrap();
        let recipe = quantize::recipe::load("q4", &Asked { method: Some("nearest"), ..Default::default() }).unwrap();
        let output = scratch("doctor-q4.safetensors");
        Job::new(&parts, &Choices::default(), recipe).unwrap().write(&output, &checkpoint, &quantize::Quiet).unwrap();
        output
    });
    made.to_str().unwrap()
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthgpt"));
    command.args(args).env("NODEVICE_SELECT", "1").env("HEALTHGPT_NO_CACHE", "1").env_remove("HEALTHGPT_MODEL");
    command.envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{errors}\n{text}");
    assert_eq!(errors.lines().count(), usize::from(code != 0), "{errors}");
    text.into_owned()
}

#[test]
fn it_says_that_a_model_runs_and_how_fast_and_writes_a_report_that_names_nobody() {
    let report = scratch("doctor-report.txt");
    let home = scratch("");
    let home = home.to_str().unwrap().trim_end_matches('/');
    let text = said(&run(&["doctor", "-m", model(), "--report", report.to_str().unwrap()], &[("HOME", home)]), 0);
    for words in ["self-test", "GB/s", "to ask: doctor-q4.safetensors takes", "tokens/s", "to generate:"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("self-test") && report.contains("storage_binding_bytes"));
    assert!(!report.contains(home), "{report}");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do_and_in_the_exit_code() {
    let text = said(&run(&["doctor", "-m", model(), "--memory", "2MB"], &[]), 5);
    assert!(text.contains("doctor-q4.safetensors needs") && text.contains("--kv q8"), "{text}");
    assert!(said(&run(&["doctor", "-m", "/no/such/model"], &[]), 4).contains("/no/such/model"));
    said(&run(&["doctor", "--device", "abacus"], &[]), 3);
    // It must not go by what the variable hides: the file is named.
    let hidden = run(&["doctor"], &[("VK_DRIVER_FILES", "/no/such/driver.json")]);
    let text = String::from_utf8_lossy(&hidden.stdout);
    assert!(text.contains("/no/such/driver.json") && text.contains("unset it"), "{text}");
}

#[test]
fn devices_says_what_there_is_and_what_a_model_may_take() {
    let found: Value = serde_json::from_str(&said(&run(&["devices", "--json"], &[]), 0)).unwrap();
    let first = &found[0];
    for field in ["name", "kind", "backend", "driver", "profile"] {
        assert!(first[field].as_str().is_some_and(|s| !s.is_empty()), "{field} of {first}");
    }
    assert!(first["memory"]["system_bytes"].as_u64().unwrap() > 1 << 28, "{first}");
    assert!(first["limits"]["workgroup_bytes"].as_u64().unwrap() >= 16 << 10, "{first}");
    assert!(first["defaults"]["slice_ms"].as_u64().unwrap() > 0, "{first}");
    // Whatever fits here today: if nothing does, that is said too.
    assert!(first["m3_fits"].is_null() || first["m3_fits"]["bytes"].as_u64().unwrap() > 3_000_000_000, "{first}");
    let text = said(&run(&["devices"], &[]), 0);
    assert!(text.contains("a model may take") && text.contains("HealthGPT-M3 in q4: "), "{text}");
}

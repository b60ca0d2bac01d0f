//! The examples, built and run as their first lines say.

use crate::golden;
use crate::tools::{compiler, dist, example, has, link, program, run};
use std::path::Path;
use tests::{data, tiny};

#[test]
fn ask_c_prints_the_golden_answer() {
    let path = link(compiler("gcc").arg("-std=c99").arg(example("ask.c")), "ask");
    let (questions, answer) = golden::turns("comprehension");
    let output = run(program(&path).arg(tiny("f16")).arg(data("tiny/input.png")).arg(&questions[0]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), answer + "\n");
    let output = program(&path).args(["/no/such/model", "x", "y"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("HGPT_ERROR_IO: /no/such/model"), "{said}");
}

#[test]
fn cart_cpp_freezes_pauses_cancels_and_goes_on() {
    let path = link(compiler("g++").arg("-std=c++11").arg(example("cart.cpp")), "cart");
    let output = run(program(&path).arg(tiny("f16")).arg("What is shown?"));
    let said = String::from_utf8_lossy(&output.stdout);
    let states = ["live", "freeze", "answered:", "stopped", "answered:"];
    let mut lines = said.lines();
    for state in states {
        assert!(lines.any(|l| l.starts_with(state)), "{state} does not come: {said}");
    }
    assert!(said.contains("frame "), "the answer is drawn as it comes: {said}");
}

#[test]
fn ask_py_prints_the_golden_answer() {
    if !has("python3") {
        return;
    }
    let (questions, answer) = golden::turns("comprehension");
    let mut python = program(Path::new("python3"));
    python.arg(example("ask.py")).arg(tiny("f16")).arg(data("tiny/input.png")).arg(&questions[0]);
    let output = run(python.arg(dist().join("lib/libhealthgpt.so.1")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), answer + "\n");
}

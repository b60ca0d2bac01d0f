//! `cargo xtask test`: what CI runs.

use crate::{Result, cargo, device, gate, run as step};

/// Test programs whose results depend on the driver.
const ON_EVERY_DRIVER: [&str; 2] = ["kernels", "golden"];

pub fn run() -> Result {
    device::ensure()?;
    device::tools()?;
    step("cargo fmt --check", &mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run_cargo("cargo clippy", &clippy, &[])?;
    run_cargo("cargo test", &["test", "--workspace"], &[])?;
    match gate::needs() {
        Ok(()) => gate::check(false)?,
        Err(why) => println!("==> SKIPPED: kernels and model on nine GPUs' drivers: {why}"),
    }

    let mut tests = vec!["test", "-p", "tests"];
    tests.extend(ON_EVERY_DRIVER.iter().flat_map(|name| ["--test", name]));
    let newer = device::mesa_25();
    let mut environment = Vec::new();
    match &newer {
        Some(driver) => {
            environment.extend(driver.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            run_cargo(&format!("kernels and golden data on {}", driver.name), &tests, &environment)?;
            // It leaves no memory behind, so what grows is ours.
            let rounds = ["test", "-p", "tests", "--test", "capi", "rounds_of_opening"];
            let environment = [&environment[..], &[("HEALTHGPT_DRIVER_IS_TIGHT", "1")]].concat();
            run_cargo(&format!("a hundred rounds of opening and closing on {}", driver.name), &rounds, &environment)?;
        }
        None => {
            println!(
                "==> SKIPPED: kernels, golden data and rounds of opening on Mesa 25, which cannot be had here (Debian 12 with apt only)"
            );
        }
    }
    match device::mesa_26() {
        Some(driver) => {
            let environment: Vec<_> = driver.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            // It is the only software driver that has them.
            let mut tests = tests.clone();
            tests.extend(["--", "coop"]);
            run_cargo(&format!("cooperative matrices on {}", driver.name), &tests, &environment)?;
        }
        None => println!(
            "==> SKIPPED: cooperative matrices on Mesa 26, which cannot be had here (Debian 12 on x86-64 with apt only)"
        ),
    }
    // Slow drivers, so only what compares with a reference.
    let references = [&tests[..], &["--", "reference"]].concat();
    match device::swiftshader() {
        Some(driver) => on(&driver, &references)?,
        None => println!(
            "==> SKIPPED: kernels and golden data on SwiftShader, which cannot be had here (Debian 12 on x86-64 with apt only)"
        ),
    }
    let opengl = device::opengl();
    // Says what the first device is, or fails.
    let mut look = cargo(&["run", "-q", "-p", "tests", "--bin", "opened", "--", "--here", "1000", "-"]);
    if look.envs(opengl.environment.iter().cloned()).output().is_ok_and(|o| o.status.success()) {
        on(&opengl, &references)?;
    } else {
        println!("==> SKIPPED: kernels and golden data on OpenGL, which shows no device here");
    }
    // On the faster driver if there is one. Mesa caches shaders without regard to the width.
    environment.push(("MESA_SHADER_CACHE_DISABLE", "true"));
    // At 512 bits compiling takes most of half an hour for all of them, so only what compares with a reference.
    for (width, subgroup, tests) in [("128", 4, &tests), ("512", 16, &references)] {
        let environment = [&environment[..], &[("LP_NATIVE_VECTOR_WIDTH", width)]].concat();
        run_cargo(&format!("kernels and golden data with subgroups of {subgroup}"), tests, &environment)?;
    }
    Ok(())
}

/// Kernels and golden data on a driver.
fn on(driver: &device::Driver, tests: &[&str]) -> Result {
    let environment: Vec<_> = driver.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    run_cargo(&format!("kernels and golden data on {}", driver.name), tests, &environment)
}

fn run_cargo(what: &str, args: &[&str], environment: &[(&str, &str)]) -> Result {
    step(what, cargo(args).envs(environment.iter().copied()))
}

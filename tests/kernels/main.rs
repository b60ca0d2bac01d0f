//! Every variant of every kernel that the device can run, on every case, against the kernel's CPU reference. With
//! `KERNEL=gemm,conv` in the environment of those kernels only.
#![expect(clippy::print_stderr, reason = "a skipped check says so")]

mod cache;
mod coop;

use runtime::gpu::Gpu;

fn check(gpu: &Gpu) {
    let mut failures = Vec::new();
    let mut count = 0;
    let asked = std::env::var("KERNEL").ok();
    let is_asked = |name: &str| asked.as_ref().is_none_or(|names| names.split(',').any(|n| n == name));
    for kernel in shaders::kernels().iter().filter(|k| is_asked(k.name)) {
        for variant in kernel.variants.iter().filter(|v| devices::meets(gpu.facts(), &v.needs)) {
            for case in (kernel.cases)().into_iter().filter(|case| variant.takes(&case.imports)) {
                let label = format!("{} {} [{}]", kernel.name, variant.name, case.name);
                count += 1;
                match gpu.probe(kernel, variant, &case) {
                    Err(error) => failures.push(format!("{label}: {error}")),
                    Ok(outcomes) => {
                        assert_eq!(outcomes.len(), case.outputs.len(), "{label}: an output has no binding");
                        for (outcome, output) in outcomes.iter().zip(&case.outputs) {
                            if outcome.error > output.bound_of(variant) {
                                failures.push(format!("{label}: {} is off by NMSE {:e}", outcome.name, outcome.error));
                            }
                            if !outcome.in_bounds {
                                failures.push(format!("{label}: wrote behind {}", outcome.name));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(count > 0, "no kernel of that name");
    assert!(failures.is_empty(), "{} of {count} runs failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_kernel_agrees_with_its_reference() {
    check(tests::gpu());
}

#[test]
fn every_kernel_agrees_at_the_webgpu_floor() {
    check(tests::gpu_at_the_floor());
}

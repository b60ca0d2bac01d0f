//! Every variant of every kernel that the device can run, on every case, against the kernel's CPU reference.
#![expect(clippy::print_stderr, reason = "a skipped check says so")]

mod cache;
mod coop;

use runtime::gpu::Gpu;

fn check(gpu: &Gpu) {
    let mut failures = Vec::new();
    let mut count = 0;
    for kernel in shaders::kernels() {
        for variant in kernel.variants.iter().filter(|v| devices::meets(gpu.facts(), &v.needs)) {
            for case in (kernel.cases)() {
                let label = format!("{} {} [{}]", kernel.name, variant.name, case.name);
                count += 1;
                match gpu.probe(kernel, variant, &case) {
                    Err(error) => failures.push(format!("{label}: {error}")),
                    Ok(outcomes) => {
                        assert_eq!(outcomes.len(), case.outputs.len(), "{label}: an output has no binding");
                        for (outcome, output) in outcomes.iter().zip(&case.outputs) {
                            if outcome.error > output.bound.max(variant.bound) {
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
    assert!(failures.is_empty(), "{} of {count} runs failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_kernel_agrees_with_its_reference() {
    check(tests::gpu());
}

#[test]
fn every_kernel_agrees_without_optional_features() {
    check(tests::gpu_without_features());
}

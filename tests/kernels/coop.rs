//! Cooperative matrices are used only where they give the known answers.

use runtime::gpu::{Gpu, Options};
use shaders::{Case, Choice, Expected, Kernel, Variant, gemm};

/// A device that prefers cooperative matrices, if it has any.
fn gpu() -> Option<Gpu> {
    let device = std::env::var("HEALTHGPT_DEVICE").ok();
    let gpu = Gpu::open(&Options { device, profile: Some("generic".into()), ..Default::default() }).expect("a device");
    if gpu.facts().coop.is_empty() {
        eprintln!("SKIPPED: {} has no cooperative matrices", gpu.facts().name);
        return None;
    }
    Some(gpu)
}

fn assert_right(gpu: &Gpu, kernel: &Kernel, variant: &Variant) {
    for case in (gemm::KERNEL.cases)() {
        for (outcome, output) in gpu.probe(kernel, variant, &case).expect("runs").iter().zip(&case.outputs) {
            let bound = output.bound_of(variant);
            assert!(outcome.error <= bound && outcome.in_bounds, "{} [{}]: {outcome:?}", variant.name, case.name);
        }
    }
}

#[test]
fn they_are_used_where_they_are_right() {
    let Some(gpu) = gpu() else { return };
    for case in (gemm::KERNEL.cases)() {
        let variant = gpu.select(&gemm::KERNEL, &case.imports, &case.constants);
        assert!(gpu.facts().coop.contains(&variant.needs.coop), "{} for {}", variant.name, case.name);
    }
}

/// Known answers with one wrong value each.
fn wrong() -> Vec<Case> {
    let mut cases = (gemm::KERNEL.cases)();
    for case in &mut cases {
        let Expected::F32(values) = &mut case.outputs[0].expected else { panic!("f32") };
        values[0] += values.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    }
    cases
}

#[test]
fn where_they_are_wrong_the_next_variant_answers() {
    let Some(gpu) = gpu() else { return };
    let faulty = Kernel { name: "faulty", cases: wrong, ..gemm::KERNEL };
    let variant = gpu.select(&faulty, &[], &[]);
    assert_eq!(variant.needs.coop, 0, "{}", variant.name);
    assert_right(&gpu, &faulty, variant);
}

#[test]
fn where_they_do_not_compile_the_next_variant_answers() {
    let Some(gpu) = gpu() else { return };
    const NOTHING: &[Choice] = &[("product", "rotary")];
    const VARIANTS: &[Variant] = &[
        Variant { imports: NOTHING, ..gemm::KERNEL.variants[0] },
        Variant { imports: NOTHING, ..gemm::KERNEL.variants[1] },
        gemm::KERNEL.variants[gemm::KERNEL.variants.len() - 1],
    ];
    let broken = Kernel { name: "broken", variants: VARIANTS, ..gemm::KERNEL };
    let variant = gpu.select(&broken, &[], &[]);
    assert_eq!(variant.name, "tile");
    assert_right(&gpu, &broken, variant);
}

#[test]
fn where_no_answer_is_known_they_are_not_used() {
    let Some(gpu) = gpu() else { return };
    assert_eq!(gpu.select(&gemm::KERNEL, &[("weights", "weights_none")], &[]).needs.coop, 0);
}

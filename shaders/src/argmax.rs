//! The most likely token; see `wgsl/argmax.wgsl`.

use crate::case::{Expected, F32_BOUND, Output, input_f32, noise};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub count: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "argmax",
    source: include_str!("../wgsl/argmax.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "logits"), write(3, "token")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Index of the largest, the lowest one among equals.
pub fn reference(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        if *v > logits[best] {
            best = i;
        }
    }
    best as u32
}

fn cases() -> Vec<Case> {
    let ragged = noise("logits", 1003);
    let mut tie = vec![-5.0; 700];
    (tie[301], tie[557], tie[45 + 256]) = (2.5, 2.5, 2.5);
    [
        ("ragged", ragged),
        ("ties take the lowest", tie),
        ("one", vec![-1e30]),
        ("last wins", (0..600).map(|i| i as f32).collect()),
    ]
    .into_iter()
    .map(|(name, logits)| Case {
        name: name.into(),
        imports: vec![],
        constants: vec![],
        params: bytemuck::bytes_of(&Params { count: logits.len() as u32 }).to_vec(),
        step: Step { pos: 0, n: 1, kv_len: 0, unused: 0 },
        inputs: vec![input_f32("logits", &logits)],
        outputs: vec![Output {
            name: "token",
            initial: vec![0xff; 4],
            expected: Expected::U32(vec![reference(&logits)]),
        }],
        grid: Box::new(|_| [1, 1, 1]),
        bound: F32_BOUND,
    })
    .collect()
}

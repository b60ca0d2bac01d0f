//! The most likely token; see `wgsl/argmax.wgsl`.

use crate::case::{Expected, Output, input_f32, noise};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub count: u32,
    pub rows: u32,
    pub first_id: u32,
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

/// Id of the largest of the first `count` and of row `also`, the lowest one among equals.
pub fn reference(p: &Params, logits: &[f32], also: u32) -> u32 {
    let ordinary = 0..p.count;
    let rows = ordinary.chain((also < p.rows && also >= p.count).then_some(also));
    let best = rows.reduce(|best, i| if logits[i as usize] > logits[best as usize] { i } else { best });
    p.first_id + best.unwrap_or(0)
}

fn cases() -> Vec<Case> {
    let ragged = noise("logits", 1003);
    let mut tie = vec![-5.0; 700];
    (tie[301], tie[557], tie[45 + 256]) = (2.5, 2.5, 2.5);
    let rising: Vec<f32> = (0..600).map(|i| i as f32).collect();
    [
        ("ragged", ragged, 1003, Step::NOTHING),
        ("ties take the lowest", tie, 700, Step::NOTHING),
        ("one", vec![-1e30], 1, Step::NOTHING),
        ("last wins", rising.clone(), 600, Step::NOTHING),
        ("rows past the ordinary ones do not win", rising.clone(), 500, Step::NOTHING),
        ("but one of them may", rising.clone(), 500, 555),
        ("if it is the largest", rising.iter().map(|v| -v).collect(), 500, 555),
    ]
    .into_iter()
    .map(|(name, logits, count, also)| {
        let params = Params { count, rows: logits.len() as u32, first_id: 11 };
        let expected = reference(&params, &logits, also);
        Case {
            name: name.into(),
            imports: vec![],
            constants: vec![],
            params: bytemuck::bytes_of(&params).to_vec(),
            step: Step { also, ..Step::new(0, 1) },
            inputs: vec![input_f32("logits", &logits)],
            outputs: vec![Output {
                name: "token",
                initial: vec![0xff; 4],
                expected: Expected::U32(vec![expected]),
                bound: 0.0,
                whole_x: false,
            }],
            grid: Box::new(|_| [1, 1, 1]),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let logits = [1.0, 3.0, 3.0, 9.0, 7.0];
        let params = Params { count: 3, rows: 5, first_id: 100 };
        assert_eq!(reference(&params, &logits, Step::NOTHING), 101);
        assert_eq!(reference(&params, &logits, 4), 104);
    }
}

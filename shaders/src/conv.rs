//! Convolutions of the picture decoder; see `wgsl/conv.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::gemv::weight_inputs;
use crate::kernel::{PRODUCTS, product_grid, read, uniform, write};
use crate::{Case, Format, Kernel, Packed, Step, Variant};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub rows: u32,
    pub cols4: u32,
    pub blocks: u32,
    pub c4: u32,
    pub width: u32,
    pub height: u32,
    pub doubled: u32,
    pub accumulate: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "conv",
    source: include_str!("../wgsl/conv.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "x"), write(3, "y"), read(4, "bias")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q4", "weights_q8", "weights_f16"])],
    variants: PRODUCTS,
    cases,
};

/// Workgroups of a variant.
pub fn grid(variant: &Variant, params: &Params) -> [u32; 3] {
    product_grid(variant, params.rows, params.width * params.height)
}

/// `[pixels][N]` of x `[pixels][c]` (a quarter of the pixels if doubled); `weights` are `[N][side][side][c]`.
pub fn reference(p: &Params, side: usize, weights: &Packed, bias: &[f32], x: &[f32]) -> Vec<f32> {
    let (width, height, c) = (p.width as usize, p.height as usize, p.c4 as usize * 4);
    let mut y = Vec::new();
    for at in 0..width * height {
        for (o, bias) in bias.iter().enumerate() {
            let mut sum = f64::from(*bias);
            for tap in 0..side * side {
                let px = (at % width + tap % side).wrapping_sub(side / 2);
                let py = (at / width + tap / side).wrapping_sub(side / 2);
                if px >= width || py >= height {
                    continue;
                }
                let (px, py) = (px >> p.doubled, py >> p.doubled);
                let from = &x[(py * (width >> p.doubled) + px) * c..][..c];
                for (i, v) in from.iter().enumerate() {
                    sum += f64::from(weights.value(o, tap * c + i)) * f64::from(*v);
                }
            }
            y.push(sum as f32);
        }
    }
    y
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // (name, format, side, c, out, width, height, doubled, accumulate)
    let shapes = [
        ("3x3", Format::F16, 3, 32, 40, 8, 8, 0, 0),
        ("3x3, ragged, 12 channels", Format::F16, 3, 12, 3, 7, 5, 0, 0),
        ("3x3 after doubling", Format::F16, 3, 32, 33, 10, 6, 1, 0),
        ("3x3, added", Format::Q8, 3, 64, 32, 9, 4, 0, 1),
        ("1x1", Format::F16, 1, 64, 70, 5, 7, 0, 0),
        ("1x1, q8", Format::Q8, 1, 32, 16, 8, 8, 0, 1),
        ("3x3, q4", Format::Q4 { group: 32, zero_points: true }, 3, 32, 32, 6, 6, 0, 0),
    ];
    for (name, format, side, c, out, width, height, doubled, accumulate) in shapes {
        let cols = side * side * c;
        let packed = format.pack(out, cols, &noise("w", out * cols)).expect("small values");
        let pixels = width * height;
        let x = noise("x", pixels / if doubled == 1 { 4 } else { 1 } * c);
        let bias = noise("bias", out);
        let params = Params {
            rows: out as u32,
            cols4: cols as u32 / 4,
            blocks: cols.div_ceil(32) as u32,
            c4: c as u32 / 4,
            width: width as u32,
            height: height as u32,
            doubled,
            accumulate,
        };
        let before = if accumulate == 1 { 0.5 } else { 7.0 };
        let mut expected = reference(&params, side, &packed, &bias, &x);
        if accumulate == 1 {
            expected.iter_mut().for_each(|v| *v += before);
        }
        let mut y = output_f32("y", expected);
        y.initial = bytemuck::cast_slice(&vec![before; pixels * out]).to_vec();
        let mut inputs = weight_inputs(&packed);
        inputs.push(input_f32("x", &x));
        inputs.push(input_f32("bias", &bias));
        let mut constants = format.constants();
        constants.push(("SIDE", side as f64));
        cases.push(Case {
            name: name.into(),
            imports: vec![format.import()],
            constants,
            params: bytemuck::bytes_of(&params).to_vec(),
            step: Step::new(0, 1),
            inputs,
            outputs: vec![y],
            grid: Box::new(move |variant| grid(variant, &params)),
        });
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_filter_by_hand() {
        // Ones everywhere: a corner sees 4 of the 9 taps, an edge 6, the middle all.
        let weights = Format::F16.pack(1, 36, &[1.0; 36]).unwrap();
        let p = Params { rows: 1, cols4: 9, blocks: 2, c4: 1, width: 3, height: 3, doubled: 0, accumulate: 0 };
        let y = reference(&p, 3, &weights, &[0.5], &[1.0; 36]);
        assert_eq!(y, [16.5, 24.5, 16.5, 24.5, 36.5, 24.5, 16.5, 24.5, 16.5]);
    }

    #[test]
    fn doubling_by_hand() {
        // One tap that looks at the pixel itself: nearest doubling of 1, 2 in a row.
        let weights = Format::F16.pack(1, 4, &[1.0, 0.0, 0.0, 0.0]).unwrap();
        let p = Params { rows: 1, cols4: 1, blocks: 1, c4: 1, width: 4, height: 2, doubled: 1, accumulate: 0 };
        let y = reference(&p, 1, &weights, &[0.0], &[1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(y, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    }
}

//! Many tokens times a matrix; see `wgsl/gemm.wgsl`.

use crate::case::{Output, input_f32, noise, output_f32, whole_numbers};
use crate::gemv::{FORMATS, weight_inputs};
use crate::kernel::{PRODUCT_BYTES, PRODUCTS, coop, product_grid, read, uniform, write};
use crate::{Case, Kernel, Packed, Step, Variant};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub rows: u32,
    pub cols4: u32,
    pub blocks: u32,
    pub x_offset4: u32,
    pub x_stride4: u32,
    pub y_offset: u32,
    pub y_stride: u32,
    pub accumulate: u32,
    pub tokens: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "gemm",
    source: include_str!("../wgsl/gemm.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "x"), write(3, "y")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q4", "weights_q8", "weights_f16"])],
    variants: &[
        coop("coop16", 16, &[("product", "coop16")]),
        coop("coop8", 8, &[("product", "coop8")]),
        PRODUCTS[0],
        PRODUCT_BYTES,
        PRODUCTS[1],
    ],
    cases,
};

/// Workgroups of a variant for a chunk of `tokens`.
pub fn grid(variant: &Variant, rows: u32, tokens: u32) -> [u32; 3] {
    product_grid(variant, rows, tokens)
}

/// `Y[t] = W X[t]`, `[n][N]`, in f64.
pub fn reference(weights: &Packed, x: &[f32]) -> Vec<f32> {
    let unpacked = weights.unpack();
    let dot = |row: &[f32], token: &[f32]| {
        row.iter().zip(token).map(|(w, v)| f64::from(*w) * f64::from(*v)).sum::<f64>() as f32
    };
    x.chunks_exact(weights.cols)
        .flat_map(|token| unpacked.chunks_exact(weights.cols).map(move |row| dot(row, token)))
        .collect()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (format_name, format) in FORMATS {
        // In the last shape the run has more tokens than y has rows.
        for (rows, cols, tokens, chunk, accumulate, n) in [
            (64, 64, 32, 32, 0, 32),
            (70, 100, 37, 64, 1, 37),
            (33, 288, 5, 5, 0, 5),
            (40, 64, 49, 49, 0, 50),
            (130, 64, 70, 70, 0, 70),
        ] {
            let packed = format.pack(rows, cols, &noise("w", rows * cols)).expect("small values");
            // In the largest shape x is such that int8 holds it.
            let whole = cols == 288;
            let x = if whole { whole_numbers(tokens * cols) } else { noise("x", tokens * cols) };
            let mut expected = vec![0.5_f32; chunk * rows];
            for (y, r) in expected.iter_mut().zip(reference(&packed, &x)) {
                *y = if accumulate == 1 { *y + r } else { r };
            }
            let mut y = Output { whole_x: whole, ..output_f32("y", expected) };
            y.initial = bytemuck::cast_slice(&vec![0.5_f32; chunk * rows]).to_vec();
            // Rows past n hold nothing; NaN there must not reach the others. One row stands before the first.
            let mut padded = vec![f32::NAN; cols];
            padded.extend_from_slice(&x);
            padded.resize((chunk + 1) * cols, f32::NAN);
            let mut inputs = weight_inputs(&packed);
            inputs.push(input_f32("x", &padded));
            let params = Params {
                rows: rows as u32,
                cols4: cols as u32 / 4,
                blocks: cols.div_ceil(32) as u32,
                x_offset4: cols as u32 / 4,
                x_stride4: cols as u32 / 4,
                y_offset: 0,
                y_stride: rows as u32,
                accumulate,
                tokens: chunk as u32,
            };
            cases.push(Case {
                name: format!("{format_name} {rows} x {cols}, {tokens} tokens"),
                imports: vec![format.import()],
                constants: format.constants(),
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, n),
                inputs,
                outputs: vec![y],
                grid: Box::new(move |variant| grid(variant, rows as u32, chunk as u32)),
            });
        }
    }
    cases
}

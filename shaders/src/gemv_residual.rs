//! One token times a matrix, added to the residual stream; see `wgsl/gemv_residual.wgsl`.

use crate::case::{Output, input_f32, noise, output_f32};
use crate::gemv::{FORMATS, SPREADS, UNIFORM_X_COLS, prepare, reference, rows_per_group, weight_inputs, x_constant};
use crate::kernel::{read, uniform, write};
use crate::{Case, Kernel, Step, Variant};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub rows: u32,
    pub cols4: u32,
    pub blocks: u32,
    pub row0: u32,
    pub d: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "gemv_residual",
    source: include_str!("../wgsl/gemv_residual.wgsl"),
    bindings: &[uniform(0, "params"), write(3, "stream"), read(4, "norm"), write(5, "normed")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q4", "weights_q8", "weights_f16"])],
    variants: SPREADS,
    cases,
};

/// Workgroups of a variant for `rows`.
pub fn grid(variant: &Variant, rows: u32) -> [u32; 3] {
    [rows.div_ceil(rows_per_group(variant)), 1, 1]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, format) in FORMATS {
        for (rows, cols) in [(300, 100), (192, 192), (5, 32)] {
            let packed = format.pack(rows, cols, &noise("w", rows * cols)).expect("small values");
            let (mut x, stream, norm) = (noise("x", cols), noise("stream", rows), noise("norm", rows));
            let sum: Vec<f32> = stream.iter().zip(reference(&packed, &x)).map(|(a, b)| a + b).collect();
            // What lies past K in the buffer must not matter, NaN included.
            x.resize(UNIFORM_X_COLS, f32::NAN);
            let mut inputs = weight_inputs(&packed);
            inputs.extend([input_f32("x", &x), input_f32("norm", &norm)]);
            let params = Params {
                rows: rows as u32,
                cols4: cols as u32 / 4,
                blocks: cols.div_ceil(32) as u32,
                row0: 0,
                d: rows as u32,
            };
            let normed = prepare(&sum, &norm);
            let initial = bytemuck::cast_slice(&stream).to_vec();
            cases.push(Case {
                name: format!("{name} {rows} x {cols}"),
                imports: vec![format.import()],
                constants: [format.constants(), vec![x_constant(cols)]].concat(),
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, 1),
                inputs,
                outputs: vec![Output { initial, ..output_f32("stream", sum) }, output_f32("normed", normed)],
                grid: Box::new(move |variant| grid(variant, rows as u32)),
            });
        }
    }
    cases
}

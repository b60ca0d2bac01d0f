//! One token times a matrix; see `wgsl/gemv.wgsl`.

use crate::case::{F32_BOUND, input_f32, input_u32, noise, output_f32};
use crate::kernel::{Needs, uniform, write};
use crate::{Case, Constant, Format, Kernel, Packed, Step, Variant};
use bytemuck::{Pod, Zeroable};

/// Largest K of the variant that binds x as a uniform buffer.
pub const UNIFORM_X_COLS: usize = 16384;
/// Bytes that the uniform x is bound with, whatever K is.
pub const UNIFORM_X_BYTES: usize = UNIFORM_X_COLS * 4;

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub rows: u32,
    pub cols4: u32,
    pub blocks: u32,
    pub y_offset: u32,
    pub accumulate: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "gemv",
    source: include_str!("../wgsl/gemv.wgsl"),
    bindings: &[uniform(0, "params"), write(3, "y")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("weights", &["weights_q4", "weights_q8", "weights_f16"])],
    variants: &[
        Variant {
            name: "uniform_x",
            imports: &[("x", "x_uniform")],
            constants: &[("LANES", 32.0), ("SPLIT", 1.0)],
            needs: Needs { subgroups: false },
        },
        Variant {
            name: "split_k",
            imports: &[("x", "x_storage")],
            constants: &[("LANES", 8.0), ("SPLIT", 16.0)],
            needs: Needs { subgroups: false },
        },
    ],
    cases,
};

/// Workgroups for `rows`, in two dimensions past 65,535.
pub fn grid(rows: u32, constants: &[Constant]) -> [u32; 3] {
    let lanes = constants.iter().find(|(name, _)| *name == "LANES").map_or(8, |(_, v)| *v as u32);
    let groups = rows.div_ceil(lanes * 4);
    let y = groups.div_ceil(65535);
    [groups.div_ceil(y), y, 1]
}

/// y = W x, in f64.
pub fn reference(weights: &Packed, x: &[f32]) -> Vec<f32> {
    (0..weights.rows)
        .map(|r| (0..weights.cols).map(|k| f64::from(weights.value(r, k)) * f64::from(x[k])).sum::<f64>() as f32)
        .collect()
}

pub(crate) const FORMATS: [(&str, Format); 6] = [
    ("f16", Format::F16),
    ("q8", Format::Q8),
    ("q4 symmetric, group 32", Format::Q4 { group: 32, zero_points: false }),
    ("q4, group 32", Format::Q4 { group: 32, zero_points: true }),
    ("q4, group 64", Format::Q4 { group: 64, zero_points: true }),
    ("q4, group 128", Format::Q4 { group: 128, zero_points: true }),
];

/// Buffers of a packed matrix.
pub(crate) fn weight_inputs(packed: &Packed) -> Vec<crate::Input> {
    let or_one = |plane: &[u32]| if plane.is_empty() { vec![0] } else { plane.to_vec() };
    let mut inputs = vec![input_u32("quants", &packed.quants)];
    if packed.format != Format::F16 {
        inputs.push(input_u32("scales", &or_one(&packed.scales)));
    }
    if matches!(packed.format, Format::Q4 { .. }) {
        inputs.push(input_u32("zero_points", &or_one(&packed.zero_points)));
    }
    inputs
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (format_name, format) in FORMATS {
        // The last row group is ragged, K is not a whole number of blocks, y starts past other rows.
        for (rows, cols, y_offset, accumulate) in [(192, 192, 0, 0), (70, 100, 3, 1), (1, 32, 0, 0), (520, 1152, 0, 0)]
        {
            let packed = format.pack(rows, cols, &noise("w", rows * cols)).expect("small values");
            let mut x = noise("x", cols);
            let mut expected = vec![0.5; y_offset + rows];
            for (y, r) in expected[y_offset..].iter_mut().zip(reference(&packed, &x)) {
                *y = if accumulate == 1 { *y + r } else { r };
            }
            let mut y = output_f32("y", expected);
            y.initial = bytemuck::cast_slice(&vec![0.5_f32; y_offset + rows]).to_vec();
            // What lies past K in the buffer must not matter, NaN included.
            x.resize(UNIFORM_X_COLS, f32::NAN);
            let mut inputs = weight_inputs(&packed);
            inputs.push(input_f32("x", &x));
            let params = Params {
                rows: rows as u32,
                cols4: cols as u32 / 4,
                blocks: cols.div_ceil(32) as u32,
                y_offset: y_offset as u32,
                accumulate,
            };
            cases.push(Case {
                name: format!("{format_name} {rows} x {cols}"),
                imports: vec![format.import()],
                constants: format.constants(),
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, 1),
                inputs,
                outputs: vec![y],
                grid: Box::new(move |constants| grid(rows as u32, constants)),
                bound: F32_BOUND,
            });
        }
    }
    cases
}

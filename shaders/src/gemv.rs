//! One token times a matrix; see `wgsl/gemv.wgsl`.

use crate::case::{BYTES_BOUND, Output, input_f32, input_u32, noise, output_f32, whole_numbers};
use crate::kernel::{Needs, PORTABLE, uniform, write};
use crate::{Case, Choice, Constant, Format, Kernel, Packed, Step, Variant};
use bytemuck::{Pod, Zeroable};

/// Largest K of the variants that bind x as a uniform buffer.
pub const UNIFORM_X_COLS: usize = 16384;
/// Largest K of the variant that keeps x in workgroup memory.
const SHARED_X_COLS: usize = 8192;
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
    pub down_rows: u32,
    pub down_offset: u32,
    pub parts: u32,
    pub eps: f32,
}

/// How x is bound and the work spread over a workgroup.
pub(crate) const SPREADS: &[Variant] = &[
    Variant {
        name: "broadcast",
        imports: &[("x", "x_uniform"), ("reach", "reach_handed"), ("rows", "rows_float"), ("spread", "whole")],
        constants: &[("LANES", 8.0)],
        needs: Needs { subgroup: 8, ..Needs::NOTHING },
        ..PORTABLE
    },
    Variant {
        name: "uniform_x",
        imports: &[("x", "x_uniform"), ("reach", "reach_direct"), ("rows", "rows_float"), ("spread", "whole")],
        constants: &[("LANES", 8.0)],
        ..PORTABLE
    },
    Variant {
        name: "dp4a",
        imports: &[("x", "x_storage"), ("reach", "reach_bytes"), ("rows", "rows_bytes"), ("spread", "split")],
        constants: &[("LANES", 8.0), ("SPLIT", 16.0)],
        rounds_x: true,
        bound: BYTES_BOUND,
        ..PORTABLE
    },
    Variant {
        name: "split_k",
        imports: &[("x", "x_storage"), ("reach", "reach_direct"), ("rows", "rows_float"), ("spread", "split")],
        constants: &[("LANES", 8.0), ("SPLIT", 16.0)],
        ..PORTABLE
    },
];

/// Whether a variant can take an x of `cols`.
pub fn takes_cols(variant: &Variant, cols: usize) -> bool {
    match variant.name {
        "split_k" => true,
        "dp4a" => cols <= SHARED_X_COLS,
        _ => cols <= UNIFORM_X_COLS,
    }
}

/// Override constant of the file behind `#import reach`, for an x of `cols`.
pub fn x_constant(cols: usize) -> Constant {
    ("RAGGED", f64::from(u8::from(!cols.is_multiple_of(32))))
}

/// What fills the slot [`crate::DOWN`] where there is no adapter.
pub const NO_DOWN: Choice = (crate::DOWN, "weights_none");

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "gemv",
    source: include_str!("../wgsl/gemv.wgsl"),
    bindings: &[uniform(0, "params"), write(3, "y")],
    params_bytes: size_of::<Params>(),
    data_imports: &[
        ("weights", &["weights_q4", "weights_q8", "weights_f16"]),
        ("down", &["weights_none", "weights_q8", "weights_f16", "weights_q4"]),
    ],
    variants: SPREADS,
    cases,
};

/// Rows of W, or of an adapter, that a workgroup handles.
pub fn rows_per_group(variant: &Variant) -> u32 {
    variant.constants.iter().find(|(name, _)| *name == "LANES").map_or(8, |(_, v)| *v as u32) * 4
}

/// Workgroups of a variant for `rows` of W and `down_rows` of an adapter.
pub fn grid(variant: &Variant, rows: u32, down_rows: u32) -> [u32; 3] {
    let per_group = rows_per_group(variant);
    [rows.div_ceil(per_group) + down_rows.div_ceil(per_group), 1, 1]
}

/// y = W x, in f64.
pub fn reference(weights: &Packed, x: &[f32]) -> Vec<f32> {
    (0..weights.rows)
        .map(|r| (0..weights.cols).map(|k| f64::from(weights.value(r, k)) * f64::from(x[k])).sum::<f64>() as f32)
        .collect()
}

/// A residual stream as the next norm takes it: times its weight, then the sums of squares of every 32 elements.
pub fn prepare(x: &[f32], norm: &[f32]) -> Vec<f32> {
    let scaled = x.iter().zip(norm).map(|(v, w)| v * w);
    let squares = x.chunks(32).map(|part| part.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() as f32);
    scaled.chain(squares).collect()
}

/// Sums of squares that stand behind a prepared residual stream of `cols`.
pub fn parts(cols: usize) -> usize {
    cols.div_ceil(32)
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

/// The same buffers under the names of the slot [`crate::DOWN`].
fn down_inputs(packed: &Packed) -> Vec<crate::Input> {
    let names = ["down_quants", "down_scales", "down_zero_points"];
    weight_inputs(packed).into_iter().zip(names).map(|(input, name)| crate::Input { name, ..input }).collect()
}

struct Shape {
    name: &'static str,
    format: Format,
    rows: usize,
    cols: usize,
    y_offset: usize,
    /// Rows and format of an adapter.
    down: Option<(usize, Format)>,
    /// x comes with the sums of squares of this many parts.
    parts: usize,
    /// x is such that int8 holds it exactly.
    whole: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let plain =
        |name, format| Shape { name, format, rows: 70, cols: 100, y_offset: 3, down: None, parts: 0, whole: false };
    for (name, format) in FORMATS {
        // The last row group is ragged, K is not a whole number of blocks, y starts past other rows.
        for (rows, cols, y_offset) in [(192, 192, 0), (70, 100, 3), (1, 32, 0), (520, 1152, 0)] {
            // A single sum may cancel, and then rounding x is much of it.
            cases.push(case(Shape { rows, cols, y_offset, whole: rows == 1, ..plain(name, format) }));
        }
    }
    let q4 = Format::Q4 { group: 64, zero_points: true };
    for (name, down) in [("q4, adapter q8", Format::Q8), ("q4, adapter f16", Format::F16), ("q4, adapter q4", q4)] {
        cases.push(case(Shape { rows: 200, down: Some((68, down)), parts: 3, ..plain(name, q4) }));
    }
    cases.push(case(Shape { rows: 33, down: Some((5, Format::F16)), ..plain("f16, adapter f16", Format::F16) }));
    cases.push(case(Shape { parts: 48, cols: 96, ..plain("q4 of a normed x", q4) }));
    for (name, format) in FORMATS {
        let down = Some((40, if format == Format::F16 { Format::Q8 } else { Format::F16 }));
        cases.push(case(Shape { whole: true, cols: 228, down, ..plain(name, format) }));
    }
    cases
}

fn case(s: Shape) -> Case {
    const EPS: f32 = 1e-5;
    let packed = s.format.pack(s.rows, s.cols, &noise("w", s.rows * s.cols)).expect("small values");
    let x = if s.whole { whole_numbers(s.cols) } else { noise("x", s.cols) };
    let squares: Vec<f32> = noise("parts", s.parts).into_iter().map(f32::abs).collect();
    let mean: f64 = squares.iter().map(|v| f64::from(*v)).sum::<f64>() / s.cols as f64;
    let factor = if s.parts == 0 { 1.0 } else { 1.0 / (mean + f64::from(EPS)).sqrt() };
    let scaled = |y: Vec<f32>| y.into_iter().map(move |v| (f64::from(v) * factor) as f32);
    let down_offset = s.y_offset + s.rows;
    let mut y = vec![0.5_f32; s.y_offset];
    y.extend(scaled(reference(&packed, &x)));
    let mut inputs = weight_inputs(&packed);
    let mut imports = vec![s.format.import()];
    let mut constants = s.format.constants();
    constants.push(x_constant(s.cols));
    if let Some((rows, format)) = s.down {
        let down = format.pack(rows, s.cols, &noise("down", rows * s.cols)).expect("small values");
        y.extend(scaled(reference(&down, &x)));
        inputs.extend(down_inputs(&down));
        imports.push(format.down_import());
        constants.extend(format.down_constants());
    } else {
        imports.push(NO_DOWN);
    }
    let initial = bytemuck::cast_slice(&vec![0.5_f32; y.len()]).to_vec();
    let output = Output { initial, whole_x: s.whole, ..output_f32("y", y) };
    // What lies past K in the buffer must not matter, NaN included; but for the sums of squares.
    let mut padded = x;
    padded.extend(squares);
    padded.resize(UNIFORM_X_COLS, f32::NAN);
    inputs.push(input_f32("x", &padded));
    let (rows, down_rows) = (s.rows as u32, s.down.map_or(0, |(rows, _)| rows as u32));
    let params = Params {
        rows,
        cols4: s.cols as u32 / 4,
        blocks: s.cols.div_ceil(32) as u32,
        y_offset: s.y_offset as u32,
        down_rows,
        down_offset: down_offset as u32,
        parts: s.parts as u32,
        eps: EPS,
    };
    Case {
        name: format!("{} {rows} x {}{}", s.name, s.cols, if s.whole { ", x in int8" } else { "" }),
        imports,
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        step: Step::new(0, 1),
        inputs,
        outputs: vec![output],
        grid: Box::new(move |variant| grid(variant, rows, down_rows)),
    }
}

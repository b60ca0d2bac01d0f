//! Rows of the codebook by code; see `wgsl/codebook.wgsl`.

use crate::case::{input_f32, input_u32, noise, output_f32};
use crate::kernel::{PORTABLE, elementwise, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub count: u32,
    pub cols: u32,
    pub rows: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "codebook",
    source: include_str!("../wgsl/codebook.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "codes"), read(3, "table"), write(4, "out")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups.
pub fn grid(cols: u32, rows: u32) -> [u32; 3] {
    elementwise(cols, rows)
}

/// `[count][cols]`.
pub fn reference(codes: &[u32], table: &[f32], cols: usize) -> Vec<f32> {
    codes.iter().flat_map(|c| table[*c as usize * cols..][..cols].to_vec()).collect()
}

fn cases() -> Vec<Case> {
    let (rows, cols) = (9, 70);
    let table = noise("table", rows * cols);
    let codes = [8, 0, 3, 3];
    vec![Case {
        name: "ragged".into(),
        imports: vec![],
        constants: vec![],
        params: bytemuck::bytes_of(&Params { count: 4, cols: cols as u32, rows: rows as u32 }).to_vec(),
        step: Step::new(0, 1),
        inputs: vec![input_u32("codes", &codes), input_f32("table", &table)],
        outputs: vec![output_f32("out", reference(&codes, &table, cols))],
        grid: Box::new(move |_| grid(cols as u32, 5)),
    }]
}

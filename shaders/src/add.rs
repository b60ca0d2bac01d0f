//! The residual sum; see `wgsl/add.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{PORTABLE, elementwise, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "add",
    source: include_str!("../wgsl/add.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "y"), write(3, "x")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups.
pub fn grid(cols: u32, rows: u32) -> [u32; 3] {
    elementwise(cols, rows)
}

/// Element by element.
pub fn reference(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

fn cases() -> Vec<Case> {
    let (d, n) = (100, 3);
    let (x, y) = (noise("x", n * d), noise("y", n * d));
    let mut output = output_f32("x", reference(&x, &y));
    output.initial = bytemuck::cast_slice(&x).to_vec();
    vec![Case {
        name: "ragged".into(),
        imports: vec![],
        constants: vec![],
        params: bytemuck::bytes_of(&Params { cols: d as u32 }).to_vec(),
        step: Step::new(0, n),
        inputs: vec![input_f32("y", &y)],
        outputs: vec![output],
        grid: Box::new(move |_| grid(d as u32, n as u32 + 1)),
    }]
}

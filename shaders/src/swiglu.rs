//! Gated activation of the feed-forward network; see `wgsl/swiglu.wgsl`.

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
    name: "swiglu",
    source: include_str!("../wgsl/swiglu.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "h"), write(3, "m")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups.
pub fn grid(cols: u32, rows: u32) -> [u32; 3] {
    elementwise(cols, rows)
}

/// `[n][f]` of h `[n][2 f]`.
pub fn reference(h: &[f32], f: usize) -> Vec<f32> {
    h.chunks_exact(2 * f)
        .flat_map(|row| {
            let (gate, up) = row.split_at(f);
            gate.iter().zip(up).map(|(g, u)| (f64::from(*g) / (1.0 + (-f64::from(*g)).exp()) * f64::from(*u)) as f32)
        })
        .collect()
}

fn cases() -> Vec<Case> {
    [("f 320", 320, 3, 2.0), ("ragged", 70, 2, 2.0), ("far from zero", 64, 1, 200.0)]
        .into_iter()
        .map(|(name, f, n, size)| {
            let h: Vec<f32> = noise("h", n * 2 * f).into_iter().map(|v| v * size).collect();
            Case {
                name: name.into(),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&Params { cols: f as u32 }).to_vec(),
                step: Step::new(0, n),
                inputs: vec![input_f32("h", &h)],
                outputs: vec![output_f32("m", reference(&h, f))],
                grid: Box::new(move |_| grid(f as u32, n as u32 + 1)),
            }
        })
        .collect()
}

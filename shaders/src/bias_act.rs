//! Bias and activation of the vision tower and the projector; see `wgsl/bias_act.wgsl`.

use crate::case::{input_f32, noise, output_f32};
use crate::kernel::{Choice, PORTABLE, elementwise, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};

/// What follows a linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// x sigmoid(1.702 x).
    QuickGelu,
    /// x (1 + erf(x / sqrt 2)) / 2.
    Gelu,
}

impl Activation {
    /// File behind `#import act`.
    pub fn import(self) -> Choice {
        (
            "act",
            match self {
                Activation::None => "act_none",
                Activation::QuickGelu => "act_quick_gelu",
                Activation::Gelu => "act_gelu",
            },
        )
    }
}

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "bias_act",
    source: include_str!("../wgsl/bias_act.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "bias"), write(3, "y")],
    params_bytes: size_of::<Params>(),
    data_imports: &[("act", &["act_none", "act_quick_gelu", "act_gelu"])],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups.
pub fn grid(cols: u32, rows: u32) -> [u32; 3] {
    elementwise(cols, rows)
}

/// erf by the series with terms of one sign (Abramowitz & Stegun 7.1.6), or 1 where f64 cannot tell.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp()
}

/// `y` is `[n][d]`.
pub fn reference(act: Activation, y: &[f32], bias: &[f32]) -> Vec<f32> {
    y.iter()
        .zip(bias.iter().cycle())
        .map(|(y, b)| {
            let v = f64::from(*y) + f64::from(*b);
            (match act {
                Activation::None => v,
                Activation::QuickGelu => v / (1.0 + (-1.702 * v).exp()),
                Activation::Gelu => 0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2)),
            }) as f32
        })
        .collect()
}

fn cases() -> Vec<Case> {
    [Activation::None, Activation::QuickGelu, Activation::Gelu]
        .into_iter()
        .map(|act| {
            let (d, n) = (200, 3);
            // Reaches from deep in either tail to the bend.
            let y: Vec<f32> =
                noise("y", n * d).into_iter().enumerate().map(|(i, v)| v * [0.3, 2.0, 60.0][i % 3]).collect();
            let bias = noise("bias", d);
            let mut output = output_f32("y", reference(act, &y, &bias));
            output.initial = bytemuck::cast_slice(&y).to_vec();
            Case {
                name: format!("{act:?}"),
                imports: vec![act.import()],
                constants: vec![],
                params: bytemuck::bytes_of(&Params { cols: d as u32 }).to_vec(),
                step: Step::new(0, n),
                inputs: vec![input_f32("bias", &bias)],
                outputs: vec![output],
                grid: Box::new(move |_| grid(d as u32, n as u32 + 1)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn erf_at_tabulated_points() {
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (-2.0, -0.995_322_265_0), (7.0, 1.0)]
        {
            assert!((super::erf(x) - y).abs() < 1e-9, "erf({x})");
        }
    }
}

//! Grids of int4 groups: the one that spans a group, and the one with the least weighted error.
//!
//! A grid is (q - zero point) scale, q in 0..=15. Groups of several rows are searched side by side, a row a lane, so that
//! the compiler makes vectors of them.

use shaders::{round_to_f16, usable_scale};

/// Rows searched side by side.
pub const LANES: usize = 32;

/// A value of each lane.
pub type Lanes = [f32; LANES];

/// Factors on the step of the grid that spans the group: clipping its ends is often worth it.
const SHRINK: [f32; 9] = [1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65];

/// Adding it and taking it away rounds to the nearest integer, ties to even, for sizes below 2^22; as vector instructions,
/// which `round_ties_even` is not everywhere.
const ROUNDING: f32 = 12_582_912.0;

/// Scale and zero point of a group in each lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grids {
    /// Exact in f16, never 0; of a symmetric grid perhaps negative.
    pub scale: Lanes,
    /// An integer 0 to 15; 8 of a symmetric grid.
    pub zero: Lanes,
}

/// The code of a value: an integer 0 to 15.
pub fn code(value: f32, scale: f32, zero: f32) -> f32 {
    (rounded(value / scale) + zero).clamp(0.0, 15.0)
}

/// The nearest integer; of what is far beyond a grid, something as far.
fn rounded(steps: f32) -> f32 {
    steps.clamp(-64.0, 64.0) + ROUNDING - ROUNDING
}

fn lanes(f: impl FnMut(usize) -> f32) -> Lanes {
    std::array::from_fn(f)
}

/// Sum of weight (value - stored)^2 in each lane.
fn loss(group: &[Lanes], weights: &[f32], grids: &Grids) -> Lanes {
    let mut sum = [0.0; LANES];
    for (values, weight) in group.iter().zip(weights) {
        for i in 0..LANES {
            let (scale, zero) = (grids.scale[i], grids.zero[i]);
            let off = values[i] - (code(values[i], scale, zero) - zero) * scale;
            sum[i] += weight * off * off;
        }
    }
    sum
}

/// The best grids so far with their losses.
struct Best<'a> {
    group: &'a [Lanes],
    weights: &'a [f32],
    grids: Grids,
    loss: Lanes,
}

impl<'a> Best<'a> {
    fn new(group: &'a [Lanes], weights: &'a [f32], grids: Grids) -> Self {
        Best { group, weights, grids, loss: loss(group, weights, &grids) }
    }

    fn offer(&mut self, grids: Grids) {
        let loss = loss(self.group, self.weights, &grids);
        for (i, new) in loss.iter().enumerate() {
            if *new < self.loss[i] {
                self.loss[i] = *new;
                self.grids.scale[i] = grids.scale[i];
                self.grids.zero[i] = grids.zero[i];
            }
        }
    }

    /// One least-squares step of the scale for the codes as they are.
    fn polish(mut self) -> Grids {
        let (mut over, mut under) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let Grids { scale, zero } = self.grids;
        for (values, weight) in self.group.iter().zip(self.weights) {
            for i in 0..LANES {
                let q = code(values[i], scale[i], zero[i]) - zero[i];
                over[i] += weight * values[i] * q;
                under[i] += weight * q * q;
            }
        }
        let fitted = lanes(|i| {
            let fitted = round_to_f16(over[i] / under[i]);
            // Nothing to fit, or nothing left of it.
            if fitted.is_finite() && fitted != 0.0 { fitted } else { scale[i] }
        });
        self.offer(Grids { scale: fitted, zero });
        self.grids
    }
}

/// The grids with the least sum of weight (value - stored)^2 among those tried, lane by lane. `group` is `[g]`, values of
/// one channel in all lanes; `weights` says how much each channel counts.
///
/// *Source*: AWQ's and GPTQ's clipping search, with the zero point moved along; llama.cpp's least-squares step.
pub fn search(group: &[Lanes], weights: &[f32], zero_points: bool) -> Grids {
    if zero_points { search_with_zero(group, weights) } else { search_symmetric(group, weights) }
}

fn search_with_zero(group: &[Lanes], weights: &[f32]) -> Grids {
    let (mut low, mut high) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for values in group {
        for i in 0..LANES {
            low[i] = low[i].min(values[i]);
            high[i] = high[i].max(values[i]);
        }
    }
    let scales = |factor: f32| lanes(|i| usable_scale((high[i] - low[i]) / 15.0 * factor));
    let spanning = scales(1.0);
    let zero = lanes(|i| code(-low[i], spanning[i], 0.0));
    let mut best = Best::new(group, weights, Grids { scale: spanning, zero });
    for factor in SHRINK {
        let scale = scales(factor);
        for shift in [-1.0, 0.0, 1.0] {
            let zero = lanes(|i| {
                // A grid that is too short lies in the middle of the values.
                let middle =
                    if factor < 1.0 { (15.0 - (high[i] + low[i]) / scale[i]) / 2.0 } else { -low[i] / scale[i] };
                (rounded(middle) + shift).clamp(0.0, 15.0)
            });
            best.offer(Grids { scale, zero });
        }
    }
    best.polish()
}

fn search_symmetric(group: &[Lanes], weights: &[f32]) -> Grids {
    let mut extreme = [0.0_f32; LANES];
    for values in group {
        for i in 0..LANES {
            extreme[i] = if values[i].abs() > extreme[i].abs() { values[i] } else { extreme[i] };
        }
    }
    let zero = [8.0; LANES];
    // The long end of the grid, code 0, lies on the extreme, or the short one on its size.
    let long = |factor: f32| lanes(|i| signed_scale(extreme[i] / -8.0 * factor));
    let short = |factor: f32| lanes(|i| usable_scale(extreme[i].abs() / 7.0 * factor));
    let mut best = Best::new(group, weights, Grids { scale: long(1.0), zero });
    for factor in SHRINK {
        best.offer(Grids { scale: long(factor), zero });
        best.offer(Grids { scale: long(1.0 / factor), zero });
        best.offer(Grids { scale: short(factor), zero });
    }
    best.polish()
}

fn signed_scale(scale: f32) -> f32 {
    let rounded = round_to_f16(scale);
    if rounded == 0.0 { usable_scale(0.0) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same group in every lane.
    fn spread(values: &[f32]) -> Vec<Lanes> {
        values.iter().map(|v| [*v; LANES]).collect()
    }

    fn stored(values: &[f32], grids: &Grids) -> Vec<f32> {
        let (scale, zero) = (grids.scale[0], grids.zero[0]);
        values.iter().map(|v| (code(*v, scale, zero) - zero) * scale).collect()
    }

    fn error(values: &[f32], weights: &[f32], grids: &Grids) -> f32 {
        let stored = stored(values, grids);
        values.iter().zip(&stored).zip(weights).map(|((a, b), w)| w * (a - b).powi(2)).sum()
    }

    #[test]
    fn codes_round_to_the_nearest_and_ties_to_even() {
        for (value, expected) in [(0.5, 8.0), (1.5, 10.0), (2.4, 10.0), (-0.6, 7.0), (1e30, 15.0), (-1e30, 0.0)] {
            assert_eq!(code(value, 1.0, 8.0), expected, "{value}");
        }
        assert_eq!(code(3.0, -1.0, 8.0), 5.0);
    }

    #[test]
    fn a_group_on_a_grid_is_found_exactly() {
        let values: Vec<f32> = (0..32).map(|i| ((i * 7 % 16) as f32 - 3.0) * 0.25).collect();
        let grids = search(&spread(&values), &[1.0; 32], true);
        assert_eq!((grids.scale, grids.zero), ([0.25; LANES], [3.0; LANES]));
        let values: Vec<f32> = (0..32).map(|i| ((i * 7 % 16) as f32 - 8.0) * -0.25).collect();
        let grids = search(&spread(&values), &[1.0; 32], false);
        assert_eq!((grids.scale[0], grids.zero[0]), (-0.25, 8.0));
    }

    /// By hand: 31 values of 1 or -1 and one of 15 that nobody reads. The spanning grid -1..15 has a step of 16 / 15, off by
    /// 1 / 15 on each; with the outlier clipped the others can be met exactly or nearly.
    #[test]
    fn what_does_not_count_is_clipped() {
        let mut values: Vec<f32> = (0..32).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        values[5] = 15.0;
        let mut weights = [1.0; 32];
        weights[5] = 0.0;
        let spanning = Grids { scale: [round_to_f16(16.0 / 15.0); LANES], zero: [1.0; LANES] };
        let found = search(&spread(&values), &weights, true);
        assert!(error(&values, &weights, &found) < 1e-6, "{found:?}");
        assert!(error(&values, &weights, &spanning) > 0.1);
    }

    #[test]
    fn a_search_is_never_worse_than_the_spanning_grid_and_lanes_do_not_mix() {
        let value = |lane: usize, k: usize| ((lane * 131 + k * 71) % 97) as f32 / 40.0 - 1.0;
        for (length, zero_points) in [(32, true), (64, true), (100, true), (128, true), (64, false)] {
            let group: Vec<Lanes> = (0..length).map(|k| lanes(|lane| value(lane, k))).collect();
            let weights: Vec<f32> = (0..length).map(|k| (k % 5 + 1) as f32).collect();
            let grids = search(&group, &weights, zero_points);
            for lane in [0, 7, LANES - 1] {
                let values: Vec<f32> = (0..length).map(|k| value(lane, k)).collect();
                let alone = search(&spread(&values), &weights, zero_points);
                assert_eq!((alone.scale[0], alone.zero[0]), (grids.scale[lane], grids.zero[lane]));
                let low = values.iter().fold(0.0_f32, |m, v| m.min(*v));
                let high = values.iter().fold(0.0_f32, |m, v| m.max(*v));
                let scale = usable_scale((high - low) / 15.0);
                let spanning = Grids { scale: [scale; LANES], zero: [code(-low, scale, 0.0); LANES] };
                if zero_points {
                    assert!(error(&values, &weights, &alone) <= error(&values, &weights, &spanning));
                }
            }
        }
    }

    #[test]
    fn zeros_and_tiny_values_stay_finite() {
        for value in [0.0, 1e-12, -1e-7] {
            for zero_points in [true, false] {
                let grids = search(&spread(&[value; 32]), &[1.0; 32], zero_points);
                assert!(stored(&[value; 32], &grids).iter().all(|v| v.abs() < 1e-6), "{value} {grids:?}");
            }
        }
    }
}

//! Rounding that makes up for itself: each column is rounded after it has taken over what rounding the columns before it did
//! to the output, as far as the inputs' correlation lets it.
//!
//! *Source*: Frantar et al. 2022 (GPTQ). Theirs takes the Cholesky factor U of the inverse H⁻¹ = UᵀU; with H = V Vᵀ, V upper
//! triangular, it is V = U⁻¹, and what a column c takes over from the errors e before it is (Σ e_j V_jc) / V_cc. That saves the
//! inverse.

use super::nearest::{LANES, Lanes, code, search};
use crate::matrix::Factor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use shaders::{Format, Packed};

/// Columns whose errors are handed on at once; a multiple of every group.
const BLOCK: usize = 128;

/// Rounds a row-major `[rows][cols]` matrix to q4 so that ‖(W - Q) X‖² is small, `factor` being that of X's products. Scales
/// and zero points are chosen for a group as it stands when it is reached. Also gives the sum of the squares of the error of
/// the outputs, in mean over the inputs.
///
/// *Panics* unless the format is q4.
pub fn round(format: Format, rows: usize, values: &[f32], factor: &Factor) -> (Packed, f64) {
    let Format::Q4 { group, zero_points } = format else { panic!("{format:?} is not rounded this way") };
    let cols = factor.width();
    assert_eq!(values.len(), rows * cols, "a matrix of {rows} x {cols}");
    let mut packed = Packed::blank(format, rows, cols);
    let lanes = rows.next_multiple_of(LANES);
    // [cols][lanes], as all that follows: rows side by side.
    let mut errors = vec![0.0_f32; cols * lanes];
    let mut lost = 0.0;
    for first in (0..cols).step_by(BLOCK) {
        let width = BLOCK.min(cols - first);
        // Σ e_j V_jc over the columns before the block.
        let mut taken = vec![0.0_f32; width * lanes];
        let before = MatRef::from_column_major_slice(&errors[..first * lanes], lanes, first);
        let sums = MatMut::from_column_major_slice_mut(&mut taken, lanes, width);
        matmul(sums, Accum::Replace, before, factor.above(first, width), 1.0, Par::Seq);
        // [width][width], so that the loops below find it in one place.
        let corner: Vec<f32> = (0..width)
            .flat_map(|j| (0..width).map(move |c| (j, c)))
            .map(|(j, c)| factor.column(first + c)[first + j])
            .collect();
        for lane in (0..rows).step_by(LANES) {
            let mut block = Block {
                values: read(values, rows, cols, lane, first, width),
                taken: (0..width).map(|c| lanes_at(&taken[c * lanes + lane..])).collect(),
                corner: &corner,
            };
            for start in (0..width).step_by(group) {
                let columns = start..(start + group).min(width);
                lost += block.round_group(
                    columns,
                    zero_points,
                    |c, own| {
                        errors[(first + c) * lanes + lane..][..LANES].copy_from_slice(own);
                    },
                    |row, codes, scale, zero| {
                        if lane + row < rows {
                            packed.put_q4(lane + row, (first + start) / group, codes, scale, zero);
                        }
                    },
                );
            }
        }
    }
    (packed, lost)
}

fn lanes_at(values: &[f32]) -> Lanes {
    std::array::from_fn(|i| values[i])
}

/// Columns of some rows, a row a lane; lanes without a row are 0.
fn read(values: &[f32], rows: usize, cols: usize, row: usize, first: usize, width: usize) -> Vec<Lanes> {
    let at =
        |c: usize| move |lane: usize| if row + lane < rows { values[(row + lane) * cols + first + c] } else { 0.0 };
    (0..width).map(|c| std::array::from_fn(at(c))).collect()
}

/// A block of columns of some rows.
struct Block<'a> {
    values: Vec<Lanes>,
    /// Σ e_j V_jc so far, by column.
    taken: Vec<Lanes>,
    /// V of these columns.
    corner: &'a [f32],
}

impl Block<'_> {
    /// V_jc, of columns of the block.
    fn v(&self, j: usize, c: usize) -> f32 {
        self.corner[j * self.values.len() + c]
    }

    /// The group as it stands, with all its columns free to make up for the errors before it.
    fn compensated(&self, columns: std::ops::Range<usize>) -> Vec<Lanes> {
        let mut taken = self.taken[columns.clone()].to_vec();
        let mut group = Vec::with_capacity(columns.len());
        for c in columns.clone() {
            let shift = taken[c - columns.start].map(|t| t / self.v(c, c));
            group.push(std::array::from_fn(|i| self.values[c][i] + shift[i]));
            for k in c + 1..columns.end {
                add(&mut taken[k - columns.start], &shift, -self.v(c, k));
            }
        }
        group
    }

    /// Rounds a group and hands its errors on; gives what the outputs lost.
    fn round_group(
        &mut self,
        columns: std::ops::Range<usize>,
        zero_points: bool,
        mut keep: impl FnMut(usize, &Lanes),
        mut store: impl FnMut(usize, &[u8], f32, u8),
    ) -> f64 {
        let weights: Vec<f32> = columns.clone().map(|c| self.v(c, c).powi(2)).collect();
        let grids = search(&self.compensated(columns.clone()), &weights, zero_points);
        let mut codes = [[0; BLOCK]; LANES];
        let mut lost = 0.0;
        for (at, c) in columns.clone().enumerate() {
            let diagonal = self.v(c, c);
            let mut error = [0.0; LANES];
            let mut off = [0.0; LANES];
            for i in 0..LANES {
                let value = self.values[c][i] + self.taken[c][i] / diagonal;
                let q = code(value, grids.scale[i], grids.zero[i]);
                let stored = (q - grids.zero[i]) * grids.scale[i];
                codes[i][at] = q as u8;
                error[i] = self.values[c][i] - stored;
                off[i] = (value - stored) * diagonal;
            }
            lost += off.iter().map(|o| f64::from(*o).powi(2)).sum::<f64>();
            keep(c, &error);
            for k in c + 1..self.values.len() {
                let v = self.v(c, k);
                add(&mut self.taken[k], &error, v);
            }
        }
        for (row, codes) in codes.iter().enumerate() {
            store(row, &codes[..columns.len()], grids.scale[row], grids.zero[row] as u8);
        }
        lost
    }
}

/// `sum += factor values`
fn add(sum: &mut Lanes, values: &Lanes, factor: f32) {
    for i in 0..LANES {
        sum[i] += factor * values[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Gram;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Inputs whose channels hang together.
    fn inputs(rows: usize, cols: usize) -> Vec<f32> {
        let (own, common) = (noise(rows * cols, 1), noise(rows, 2));
        (0..rows * cols).map(|i| own[i] + 2.0 * common[i / cols]).collect()
    }

    /// ‖(W - Q) X‖² over the rows of X, plus the damping.
    fn output_error(values: &[f32], packed: &Packed, x: &[f32], cols: usize, damping: f64) -> f64 {
        let off: Vec<f64> = values.iter().zip(packed.unpack()).map(|(a, b)| f64::from(a - b)).collect();
        let mut sum = 0.0;
        for row in off.chunks_exact(cols) {
            let mean_square = |x: &[f32]| row.iter().zip(x).map(|(e, x)| e * f64::from(*x)).sum::<f64>().powi(2);
            sum += x.chunks_exact(cols).map(mean_square).sum::<f64>() / (x.len() / cols) as f64;
            sum += damping * row.iter().map(|e| e * e).sum::<f64>();
        }
        sum
    }

    /// By hand, H = [1 0.9; 0.9 1], W = [0.5, 15] + what fixes the grid to steps of 1: the first column goes to 0 (ties to
    /// even) and is off by 0.5; the second takes over 0.5 * 0.9 / 1 and goes from 2.3 to 2.75, so to 3, not 2.
    #[test]
    fn two_columns_by_hand() {
        let (root, rest) = (0.9_f32, (1.0 - 0.81_f32).sqrt());
        // Two rows of X with X^T X = 2 H, and 30 channels of their own that fix the grid.
        let mut x = vec![0.0; 32 * 32];
        let scale = 32.0_f32.sqrt();
        (x[0], x[1], x[33]) = (scale, scale * root, scale * rest);
        (2..32).for_each(|k| x[k * 32 + k] = scale);
        let mut gram = Gram::new(32);
        gram.add(&x);
        let factor = Factor::new(&gram, 0.0).unwrap();
        let mut values = vec![0.0; 32];
        (values[0], values[1], values[2]) = (0.5, 2.3, 15.0);
        // Values on the grid make any other grid worse.
        (3..32).for_each(|k| values[k] = (k % 16) as f32);
        let (packed, lost) = round(Format::Q4 { group: 32, zero_points: true }, 1, &values, &factor);
        let stored = packed.unpack();
        assert_eq!(stored[..3], [0.0, 3.0, 15.0]);
        assert_eq!(stored[3..], values[3..]);
        // e = (0.5, -0.7): 0.25 + 0.49 - 2 * 0.35 * 0.9.
        assert!((lost - 0.11).abs() < 1e-4, "{lost}");
    }

    #[test]
    fn it_loses_less_than_rounding_to_nearest_and_says_how_much() {
        for (cols, group, zero_points) in [(192, 64, true), (192, 32, false), (100, 32, true), (320, 128, true)] {
            let x = inputs(400, cols);
            let mut gram = Gram::new(cols);
            gram.add(&x);
            let factor = Factor::new(&gram, 0.01).unwrap();
            let damping = 0.01 * gram.energies().iter().sum::<f64>() / cols as f64;
            let format = Format::Q4 { group, zero_points };
            let values = noise(40 * cols, 3);
            let (packed, lost) = round(format, 40, &values, &factor);
            let nearest = format.pack(40, cols, &values).unwrap();
            let [ours, theirs] = [&packed, &nearest].map(|p| output_error(&values, p, &x, cols, damping));
            assert!(ours < 0.5 * theirs, "{format:?}: {ours} against {theirs}");
            assert!((lost / ours - 1.0).abs() < 1e-3, "{format:?}: {lost} for {ours}");
        }
    }

    #[test]
    fn independent_inputs_leave_nothing_to_make_up_for() {
        let mut gram = Gram::new(64);
        let mut x = vec![0.0; 64 * 64];
        (0..64).for_each(|k| x[k * 64 + k] = 1.0);
        gram.add(&x);
        let factor = Factor::new(&gram, 0.1).unwrap();
        let values = noise(3 * 64, 5);
        let format = Format::Q4 { group: 32, zero_points: true };
        let (packed, _) = round(format, 3, &values, &factor);
        for (row, line) in values.chunks_exact(64).enumerate() {
            for (g, group) in line.chunks_exact(32).enumerate() {
                let tile: Vec<Lanes> = group.iter().map(|v| [*v; LANES]).collect();
                let grids = search(&tile, &[1.0; 32], true);
                for (k, v) in group.iter().enumerate() {
                    let wanted = (code(*v, grids.scale[0], grids.zero[0]) - grids.zero[0]) * grids.scale[0];
                    assert_eq!(packed.value(row, g * 32 + k), wanted);
                }
            }
        }
    }

    #[test]
    fn rows_do_not_know_of_each_other() {
        let cols = 160;
        let mut gram = Gram::new(cols);
        gram.add(&inputs(300, cols));
        let factor = Factor::new(&gram, 0.1).unwrap();
        let values = noise(70 * cols, 9);
        let format = Format::Q4 { group: 64, zero_points: true };
        let whole = round(format, 70, &values, &factor).0.unpack();
        let part = round(format, 3, &values[65 * cols..68 * cols], &factor).0.unpack();
        let off = whole[65 * cols..68 * cols].iter().zip(&part).filter(|(a, b)| a != b).count();
        // Sums may be taken in another order; a code on the edge may fall to the other side.
        assert!(off < 10, "{off} values differ");
    }
}

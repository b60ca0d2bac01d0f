//! Products and factors of large matrices with every core. Work is cut into pieces whose size does not depend on how many
//! cores there are, so neither does the result.

use crate::parallel::for_chunks;
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows or columns of a piece.
const PIECE: usize = 256;

/// `[rows][cols]`, row-major.
fn row_major(values: &[f32], rows: usize, cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(values, rows, cols)
}

/// The same to be written. By way of the transpose: faer 0.24's own function of that name takes the stride for that of
/// columns.
fn row_major_mut(values: &mut [f32], rows: usize, cols: usize, stride: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_with_stride_mut(values, cols, rows, stride).transpose_mut()
}

/// `out (+)= a b` of row-major matrices, `a` `[rows][inner]`, `b` `[inner][cols]`, on this thread.
pub fn multiply(out: &mut [f32], accumulate: bool, a: &[f32], b: &[f32], [rows, inner, cols]: [usize; 3]) {
    let accumulate = if accumulate { Accum::Add } else { Accum::Replace };
    let out = row_major_mut(out, rows, cols, cols);
    matmul(out, accumulate, row_major(a, rows, inner), row_major(b, inner, cols), 1.0, Par::Seq);
}

/// The lower triangle of a `[n][n]` matrix X^T X, summed over any number of rows of X.
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    n: usize,
    sums: Vec<f32>,
    rows: usize,
}

impl Gram {
    /// Of no rows.
    pub fn new(n: usize) -> Self {
        Gram { n, sums: vec![0.0; n * n], rows: 0 }
    }

    /// Columns of X.
    pub fn width(&self) -> usize {
        self.n
    }

    /// Rows of X.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds rows of X, `[rows][n]`.
    pub fn add(&mut self, x: &[f32]) {
        let (n, rows) = (self.n, x.len() / self.n);
        let x = row_major(x, rows, n);
        for_chunks(&mut self.sums, PIECE * n, |i, piece| {
            let (start, count) = (i * PIECE, piece.len() / n);
            let own = x.subcols(start, count).transpose();
            let (out, diagonal) = row_major_mut(piece, count, start + count, n).split_at_col_mut(start);
            matmul(out, Accum::Add, own, x.subcols(0, start), 1.0, Par::Seq);
            let (lower, any) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
            let right = x.subcols(start, count);
            triangular::matmul(diagonal, lower, Accum::Add, own, any, right, any, 1.0, Par::Seq);
        });
        self.rows += rows;
    }

    /// Mean squares of the columns.
    pub fn energies(&self) -> Vec<f64> {
        let count = self.rows.max(1) as f64;
        self.sums.iter().step_by(self.n + 1).map(|v| f64::from(*v) / count).collect()
    }

    /// As if the columns of X had been divided by `factors`.
    pub fn divide(&mut self, factors: &[f32]) {
        assert_eq!(factors.len(), self.n, "a factor a column");
        for (row, own) in self.sums.chunks_exact_mut(self.n).zip(factors) {
            row.iter_mut().zip(factors).for_each(|(v, f)| *v /= own * f);
        }
    }

    /// An element of the whole matrix.
    fn at(&self, i: usize, j: usize) -> f32 {
        self.sums[i.max(j) * self.n + i.min(j)]
    }
}

/// The upper triangle V with V V^T = X^T X / rows + damping: the Cholesky factor of the matrix turned by half a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    n: usize,
    /// Column after column.
    v: Vec<f32>,
}

impl Factor {
    /// Adds `damping` times the mean of the diagonal to the diagonal, and takes the factor. A matrix of zeros is taken for
    /// the identity.
    ///
    /// Returns nothing if the matrix holds what is no number.
    pub fn new(gram: &Gram, damping: f64) -> Option<Self> {
        let n = gram.n;
        let mean = (0..n).map(|i| f64::from(gram.at(i, i))).sum::<f64>() / n as f64;
        if !mean.is_finite() {
            return None;
        }
        // In units of the mean, so that no size is too large or too small.
        let unit = if mean > 0.0 { mean } else { 1.0 };
        let mut a = vec![0.0_f64; n * n];
        for_chunks(&mut a, PIECE * n, |piece, columns| {
            for (c, column) in columns.chunks_exact_mut(n).enumerate() {
                let j = piece * PIECE + c;
                for (i, value) in column.iter_mut().enumerate().skip(j) {
                    *value = f64::from(gram.at(n - 1 - i, n - 1 - j)) / unit;
                }
                column[j] += if mean > 0.0 { damping } else { 1.0 };
            }
        });
        if !cholesky(&mut a, n) {
            return None;
        }
        let root = (unit / gram.rows.max(1) as f64).sqrt();
        Some(Factor { n, v: a.iter().rev().map(|v| (v * root) as f32).collect() })
    }

    /// Rows and columns.
    pub fn width(&self) -> usize {
        self.n
    }

    /// Column `j`, of which the first j + 1 elements are the triangle's.
    pub fn column(&self, j: usize) -> &[f32] {
        &self.v[j * self.n..(j + 1) * self.n]
    }

    /// The rows before `first` of `count` columns from there on, as a matrix.
    pub(crate) fn above(&self, first: usize, count: usize) -> MatRef<'_, f32> {
        MatRef::from_column_major_slice_with_stride(&self.v[first * self.n..], first, count, self.n)
    }
}

/// The lower Cholesky factor in place of the lower triangle of `a`, column after column; false if there is none.
fn cholesky(a: &mut [f64], n: usize) -> bool {
    let mut scratch =
        faer::dyn_stack::MemBuffer::new(llt::cholesky_in_place_scratch::<f64>(PIECE, Par::Seq, Default::default()));
    for start in (0..n).step_by(PIECE) {
        let count = PIECE.min(n - start);
        let (done, rest) = a.split_at_mut((start + count) * n);
        let panel =
            MatMut::from_column_major_slice_with_stride_mut(&mut done[start * n + start..], n - start, count, n);
        let (mut corner, mut below) = panel.split_at_row_mut(count);
        let stack = faer::dyn_stack::MemStack::new(&mut scratch);
        if llt::cholesky_in_place(corner.as_mut(), Default::default(), Par::Seq, stack, Default::default()).is_err() {
            return false;
        }
        // Finite values can still have overflown.
        if (0..count).any(|i| !corner[(i, i)].is_finite()) {
            return false;
        }
        solve_lower_triangular_in_place(corner.as_ref(), below.as_mut().transpose_mut(), Par::Seq);
        let below = below.as_ref();
        for_chunks(rest, PIECE * n, |i, columns| {
            let (first, width) = (i * PIECE, columns.len() / n);
            let at = start + count + first;
            let rows = n - at;
            let out = MatMut::from_column_major_slice_with_stride_mut(&mut columns[at..], rows, width, n);
            let left = below.subrows(first, rows);
            matmul(out, Accum::Add, left, left.subrows(0, width).transpose(), -1.0, Par::Seq);
        });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn products_of_rows_are_summed() {
        for (n, rows) in [(3, 2), (300, 40), (520, 7)] {
            let x = noise(2 * rows * n);
            let mut gram = Gram::new(n);
            gram.add(&x[..rows * n]);
            gram.add(&x[rows * n..]);
            for (i, j) in [(0, 0), (2, 1), (1, 2), (n - 1, 0), (n - 1, n - 1), (n / 2, n / 3)] {
                let wanted: f32 = (0..2 * rows).map(|r| x[r * n + i] * x[r * n + j]).sum();
                assert!((gram.at(i, j) - wanted).abs() < 1e-3, "{n}: {i}, {j}");
            }
            assert_eq!(gram.rows(), 2 * rows);
        }
    }

    /// By hand: X^T X / 2 = [5 2; 2 1], V V^T with V = [1 2; 0 1].
    #[test]
    fn a_factor_by_hand() {
        let mut gram = Gram::new(2);
        gram.add(&[3.0, 1.0, 1.0, 1.0]);
        assert_eq!((gram.at(0, 0), gram.at(0, 1), gram.at(1, 1)), (10.0, 4.0, 2.0));
        let factor = Factor::new(&gram, 0.0).unwrap();
        let v = [factor.column(0)[0], factor.column(1)[0], factor.column(1)[1]];
        for (found, wanted) in v.iter().zip([1.0, 2.0, 1.0]) {
            assert!((found - wanted).abs() < 1e-6, "{v:?}");
        }
        // Damping of 1/2: 3 / 2 more on the diagonal.
        let factor = Factor::new(&gram, 0.5).unwrap();
        let [a, b, c] = [factor.column(0)[0], factor.column(1)[0], factor.column(1)[1]];
        assert!((a * a + b * b - 6.5).abs() < 1e-5 && (b * c - 2.0).abs() < 1e-5 && (c * c - 2.5).abs() < 1e-5);
    }

    #[test]
    fn a_large_factor_gives_the_matrix_back() {
        let n = 600;
        let x = noise(n * n);
        let mut gram = Gram::new(n);
        gram.add(&x);
        let factor = Factor::new(&gram, 0.01).unwrap();
        let mean = gram.energies().iter().sum::<f64>() / n as f64;
        for (i, j) in [(0, 0), (1, 0), (255, 256), (256, 256), (599, 3), (599, 599), (300, 511)] {
            let product = |k: usize| f64::from(factor.column(k)[i]) * f64::from(factor.column(k)[j]);
            let found: f64 = (i.max(j)..n).map(product).sum();
            let damping = if i == j { 0.01 * mean } else { 0.0 };
            let wanted = f64::from(gram.at(i, j)) / n as f64 + damping;
            assert!((found - wanted).abs() < 1e-5 * mean.max(1.0), "{i}, {j}: {found} {wanted}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_factor_and_nothing_has_the_identity() {
        let mut gram = Gram::new(4);
        assert_eq!(Factor::new(&gram, 0.1).unwrap().column(3), [0.0, 0.0, 0.0, 1.0]);
        gram.add(&[1.0, f32::NAN, 0.0, 0.0]);
        assert_eq!(Factor::new(&gram, 0.1), None);
    }

    #[test]
    fn divided_columns_are_those_of_divided_rows() {
        let (x, factors) = (noise(5 * 3), [2.0, 0.5, 4.0]);
        let mut gram = Gram::new(3);
        gram.add(&x);
        gram.divide(&factors);
        let mut other = Gram::new(3);
        other.add(&x.iter().enumerate().map(|(i, v)| v / factors[i % 3]).collect::<Vec<_>>());
        for (a, b) in gram.sums.iter().zip(&other.sums) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn a_product_by_hand() {
        let mut out = [1.0; 4];
        multiply(&mut out, true, &[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], [2, 2, 2]);
        assert_eq!(out, [20.0, 23.0, 44.0, 51.0]);
        multiply(&mut out, false, &[1.0, 2.0], &[3.0, 4.0], [2, 1, 2]);
        assert_eq!(out, [3.0, 4.0, 6.0, 8.0]);
    }
}

//! The orthogonal matrix that turns the residual stream of a rotated file: signs, then a Hadamard matrix, all of whose
//! elements have the same size. No single channel then stands out, and what is rounded is spread evenly.
//!
//! *Source*: Ashkboos et al. 2024 (QuaRot) §3; Paley 1933 for the matrices.

/// Q = diag(signs) (C ⊗ W) / sqrt(d): W the Walsh-Hadamard matrix of a power of two, C a core of the rest of the width.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// By channel, with the factor 1 / sqrt(d).
    signs: Vec<f32>,
    core: Core,
    /// Side of W.
    walsh: usize,
}

/// A square matrix whose rows are orthogonal and have the squared length of its order.
#[derive(Debug, Clone, PartialEq)]
enum Core {
    /// Of order 1.
    One,
    /// Hadamard matrix of order q + 1, q a prime, q = 3 (mod 4). Holds the Legendre symbols modulo q.
    Paley1(Vec<f32>),
    /// Hadamard matrix of order 2 (q + 1), q a prime, q = 1 (mod 4). Likewise.
    Paley2(Vec<f32>),
    /// Hartley matrix, cos + sin of 2π i j / n: for orders of which no Hadamard matrix is known here. Holds its first row
    /// but one.
    Hartley(Vec<f32>),
}

fn is_prime(n: usize) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// 0, and 1 or -1 for what is a square modulo the prime q or is not.
fn legendre_symbols(q: usize) -> Vec<f32> {
    let mut symbols = vec![-1.0; q];
    (1..q).for_each(|i| symbols[i * i % q] = 1.0);
    symbols[0] = 0.0;
    symbols
}

impl Core {
    /// The smallest one of order `odd` times a power of two, and that power; at most `twos` twos are there.
    fn of(odd: usize, twos: u32) -> (Self, u32) {
        if odd == 1 {
            return (Core::One, 0);
        }
        for used in 2..=twos {
            let order = odd << used;
            let (first, second) = (order - 1, order / 2 - 1);
            if first % 4 == 3 && is_prime(first) {
                return (Core::Paley1(legendre_symbols(first)), used);
            }
            if second % 4 == 1 && is_prime(second) {
                return (Core::Paley2(legendre_symbols(second)), used);
            }
        }
        let angle = |j: usize| std::f64::consts::TAU * j as f64 / odd as f64;
        (Core::Hartley((0..odd).map(|j| (angle(j).cos() + angle(j).sin()) as f32).collect()), 0)
    }

    #[cfg(test)]
    fn order(&self) -> usize {
        match self {
            Core::One => 1,
            Core::Paley1(symbols) => symbols.len() + 1,
            Core::Paley2(symbols) => 2 * (symbols.len() + 1),
            Core::Hartley(row) => row.len(),
        }
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        // Of row i - 1 and column j - 1 modulo q.
        let symbol = |symbols: &[f32], i: usize, j: usize| symbols[(j + symbols.len() - i) % symbols.len()];
        match self {
            Core::One => 1.0,
            Core::Paley1(symbols) => {
                let skew = match (i, j) {
                    (0, 0) => 0.0,
                    (0, _) => 1.0,
                    (_, 0) => -1.0,
                    _ => symbol(symbols, i, j),
                };
                skew + if i == j { 1.0 } else { 0.0 }
            }
            Core::Paley2(symbols) => {
                let symmetric = match (i / 2, j / 2) {
                    (0, 0) => 0.0,
                    (0, _) | (_, 0) => 1.0,
                    (i, j) => symbol(symbols, i, j),
                };
                // C ⊗ [1 1; 1 -1] + I ⊗ [1 -1; -1 -1]
                let both = (i % 2, j % 2);
                let (conference, identity) = match both {
                    (0, 0) => (1.0, 1.0),
                    (1, 1) => (-1.0, -1.0),
                    _ => (1.0, -1.0),
                };
                symmetric * conference + if i / 2 == j / 2 { identity } else { 0.0 }
            }
            Core::Hartley(row) => row[i * j % row.len()],
        }
    }
}

impl Rotation {
    /// The rotation of `width` channels whose signs the seed decides. Every width has one.
    ///
    /// *Panics* if the width is 0.
    pub fn new(width: usize, seed: u64) -> Self {
        assert!(width > 0, "a stream has channels");
        let twos = width.trailing_zeros();
        let (core, used) = Core::of(width >> twos, twos);
        let factor = 1.0 / (width as f64).sqrt();
        // splitmix64
        let sign = |i: u64| {
            let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            if (z ^ (z >> 31)) & 1 == 0 { factor } else { -factor }
        };
        Rotation { signs: (0..width as u64).map(|i| sign(i) as f32).collect(), core, walsh: 1 << (twos - used) }
    }

    /// Channels.
    pub fn width(&self) -> usize {
        self.signs.len()
    }

    /// `x Q` in place. `x` is `[d]`, or with `lanes` several of them side by side, `[d][lanes]`: then the matrix is
    /// multiplied from the left by Qᵀ.
    pub fn apply(&self, x: &mut [f32], lanes: usize) {
        assert_eq!(x.len(), self.width() * lanes, "channels to be turned");
        self.flip(x, lanes);
        self.walsh(x, lanes);
        self.multiply(x, lanes, |from, to| self.core.at(from, to));
    }

    /// `x Qᵀ` in place: what [`Rotation::apply`] did is undone.
    pub fn undo(&self, x: &mut [f32], lanes: usize) {
        assert_eq!(x.len(), self.width() * lanes, "channels to be turned back");
        self.multiply(x, lanes, |from, to| self.core.at(to, from));
        self.walsh(x, lanes);
        self.flip(x, lanes);
    }

    fn flip(&self, x: &mut [f32], lanes: usize) {
        for (channel, sign) in x.chunks_exact_mut(lanes).zip(&self.signs) {
            channel.iter_mut().for_each(|v| *v *= sign);
        }
    }

    /// I ⊗ W, a butterfly of ever larger halves.
    fn walsh(&self, x: &mut [f32], lanes: usize) {
        let mut half = lanes;
        while half < self.walsh * lanes {
            for pair in x.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
    }

    /// C ⊗ I, or its transpose.
    fn multiply(&self, x: &mut [f32], lanes: usize, element: impl Fn(usize, usize) -> f32) {
        if self.core == Core::One {
            return;
        }
        let before = x.to_vec();
        let run = self.walsh * lanes;
        for (to, sum) in x.chunks_exact_mut(run).enumerate() {
            sum.fill(0.0);
            for (from, part) in before.chunks_exact(run).enumerate() {
                let e = element(from, to);
                sum.iter_mut().zip(part).for_each(|(s, p)| *s += e * p);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q, row by row.
    fn matrix(rotation: &Rotation) -> Vec<Vec<f32>> {
        let unit = |i: usize| (0..rotation.width()).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<_>>();
        let turned = |i| {
            let mut row = unit(i);
            rotation.apply(&mut row, 1);
            row
        };
        (0..rotation.width()).map(turned).collect()
    }

    #[test]
    fn four_channels_by_hand() {
        let mut rotation = Rotation::new(4, 0);
        rotation.signs = vec![0.5, 0.5, -0.5, 0.5];
        let mut x = [1.0, 2.0, 3.0, 4.0];
        rotation.apply(&mut x, 1);
        // (1, 2, -3, 4) / 2 times the Walsh matrix.
        assert_eq!(x, [2.0, -4.0, 1.0, 3.0]);
        rotation.undo(&mut x, 1);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn every_width_has_an_orthogonal_matrix_and_most_a_flat_one() {
        // Paley 12 = 11 + 1, 20 = 19 + 1; 36 = 2 (17 + 1), 28 = 2 (13 + 1); powers of two.
        let flat = [1, 2, 8, 12, 20, 28, 36, 192, 256, 576];
        // Nothing divides by 4, or no prime is near.
        let uneven = [3, 5, 6, 18, 15, 92, 172];
        for width in flat.into_iter().chain(uneven) {
            let rotation = Rotation::new(width, 7);
            let q = matrix(&rotation);
            for i in 0..width {
                for j in i..width {
                    let dot: f64 = q[i].iter().zip(&q[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((dot - wanted).abs() < 1e-5, "width {width}: rows {i}, {j} give {dot}");
                }
            }
            let size = 1.0 / (width as f32).sqrt();
            let even = q.iter().flatten().all(|v| (v.abs() - size).abs() < 1e-6);
            assert_eq!(even, flat.contains(&width), "width {width}");
        }
        assert_eq!(Rotation::new(3072, 0).core.order(), 12);
        assert_eq!(Rotation::new(576, 0).core.order(), 36);
    }

    #[test]
    fn undoing_is_exact_to_rounding_whatever_the_lanes() {
        for (width, lanes) in [(192, 1), (36, 5), (18, 3)] {
            let rotation = Rotation::new(width, 3);
            let before: Vec<f32> = (0..width * lanes).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let mut x = before.clone();
            rotation.apply(&mut x, lanes);
            // Each lane is turned as if it were alone.
            let mut alone: Vec<f32> = before.iter().skip(lanes - 1).step_by(lanes).copied().collect();
            rotation.apply(&mut alone, 1);
            for (a, b) in x.iter().skip(lanes - 1).step_by(lanes).zip(&alone) {
                assert!((a - b).abs() < 1e-5);
            }
            rotation.undo(&mut x, lanes);
            assert!(x.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn a_seed_decides_the_signs() {
        assert_eq!(Rotation::new(64, 1), Rotation::new(64, 1));
        assert_ne!(Rotation::new(64, 1), Rotation::new(64, 2));
        let minus = Rotation::new(3072, 0).signs.iter().filter(|s| **s < 0.0).count();
        assert!((1300..1800).contains(&minus), "{minus}");
    }
}

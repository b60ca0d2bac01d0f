//! Weight formats: the one definition of each packed layout, and their CPU pack and unpack.
//!
//! A matrix is `[N][K]`, y = W x. K is cut in blocks of 32 and padded to whole blocks with values that are exactly
//! zero. Words are interleaved along N, so that neighbouring threads load neighbouring 16 bytes.

use crate::kernel::{Choice, Constant, DOWN};
use half::f16;

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Half precision: `[K/8][N][4]` words.
    F16,
    /// int8 in groups of 32 with an f16 scale: `[K/16][N][4]` words and `[ceil(K/64)][N]` scale pairs.
    Q8,
    /// 4-bit integers: `[K/32][N][4]` words, `[ceil(G/2)][N]` scale pairs, `[ceil(G/8)][N]` words of zero points.
    Q4 {
        /// Values that share a scale: 32, 64 or 128.
        group: usize,
        /// Whether each group has an integer zero point, else it is 8.
        zero_points: bool,
    },
}

/// A value that a format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormatError {
    /// Row of the value.
    pub row: usize,
    /// Column of the value.
    pub col: usize,
    /// The value.
    pub value: f32,
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "value {} at row {}, column {} cannot be stored in f16 (largest 65504)",
            self.value, self.row, self.col
        )
    }
}

impl std::error::Error for FormatError {}

/// A matrix in one of the formats.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// How it is stored.
    pub format: Format,
    /// N, outputs.
    pub rows: usize,
    /// K, inputs.
    pub cols: usize,
    /// The values, interleaved.
    pub quants: Vec<u32>,
    /// Scale pairs; empty for f16.
    pub scales: Vec<u32>,
    /// Zero points; empty without them.
    pub zero_points: Vec<u32>,
}

/// The nearest f16, as f32.
pub fn round_to_f16(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

fn f16_bits(value: f32) -> u32 {
    u32::from(f16::from_f32(value).to_bits())
}

fn f16_half(word: u32, half: usize) -> f32 {
    f16::from_bits((word >> (16 * half)) as u16).to_f32()
}

impl Format {
    /// Words of (quants, scales, zero points) of an `[rows][cols]` matrix.
    pub fn words(self, rows: usize, cols: usize) -> [usize; 3] {
        let blocks = cols.div_ceil(32);
        match self {
            Format::F16 => [blocks * 16 * rows, 0, 0],
            Format::Q8 => [blocks * 8 * rows, blocks.div_ceil(2) * rows, 0],
            Format::Q4 { group, zero_points } => {
                let groups = cols.div_ceil(group);
                [blocks * 4 * rows, groups.div_ceil(2) * rows, if zero_points { groups.div_ceil(8) * rows } else { 0 }]
            }
        }
    }

    /// Words that one row adds to each line of (quants, scales, zero points): a plane is `[lines][rows][per_row]`.
    pub fn words_per_row(self) -> [usize; 3] {
        [4, 1, 1]
    }

    /// File behind `#import weights`.
    pub fn import(self) -> Choice {
        (
            "weights",
            match self {
                Format::F16 => "weights_f16",
                Format::Q8 => "weights_q8",
                Format::Q4 { .. } => "weights_q4",
            },
        )
    }

    /// Override constants of that file.
    pub fn constants(self) -> Vec<Constant> {
        match self {
            Format::F16 | Format::Q8 => vec![],
            Format::Q4 { group, zero_points } => {
                vec![("GROUP_BLOCKS", (group / 32) as f64), ("ZERO_POINTS", f64::from(u8::from(zero_points)))]
            }
        }
    }

    /// File behind `#import down as down`, the way down of an adapter.
    pub fn down_import(self) -> Choice {
        (DOWN, self.import().1)
    }

    /// Override constants of that file.
    pub fn down_constants(self) -> Vec<Constant> {
        let rename = |name| match name {
            "GROUP_BLOCKS" => "down_GROUP_BLOCKS",
            "ZERO_POINTS" => "down_ZERO_POINTS",
            other => other,
        };
        self.constants().into_iter().map(|(name, value)| (rename(name), value)).collect()
    }

    /// Names of the planes in a model file: the values have the tensor's own name, the rest a suffix.
    pub const PLANES: [&'static str; 3] = ["", ".scale", ".zero_point"];

    /// Packs `values`, row-major `[rows][cols]`, rounding each to the nearest.
    ///
    /// *Errors*: a value or scale that f16 cannot hold, NaN included.
    pub fn pack(self, rows: usize, cols: usize, values: &[f32]) -> Result<Packed, FormatError> {
        assert_eq!(values.len(), rows * cols, "a matrix of {rows} x {cols}");
        let mut packed = Packed::blank(self, rows, cols);
        for (row, line) in values.chunks_exact(cols.max(1)).enumerate() {
            if let Some(col) = line.iter().position(|v| v.is_nan() || v.abs() >= 65520.0) {
                return Err(FormatError { row, col, value: line[col] });
            }
            match self {
                Format::F16 => packed.pack_f16(row, line),
                Format::Q8 => packed.pack_q8(row, line),
                Format::Q4 { group, zero_points } => packed.pack_q4(row, line, group, zero_points),
            }
        }
        Ok(packed)
    }

    /// The error of rounding to nearest: mean square of the error over mean square of the values.
    pub fn error(self, values: &[f32], packed: &Packed) -> f64 {
        let (mut wrong, mut all) = (0.0, 0.0);
        for (v, u) in values.iter().zip(packed.unpack()) {
            wrong += f64::from(v - u).powi(2);
            all += f64::from(*v).powi(2);
        }
        if all == 0.0 { 0.0 } else { wrong / all }
    }
}

impl Packed {
    /// A matrix of which nothing has been stored yet; [`Packed::put_q4`] fills it.
    pub fn blank(format: Format, rows: usize, cols: usize) -> Self {
        let [quants, scales, zeros] = format.words(rows, cols);
        Packed { format, rows, cols, quants: vec![0; quants], scales: vec![0; scales], zero_points: vec![0; zeros] }
    }

    /// Stores a group of q4, once: codes 0 to 15, each for (code - zero point) scale. The scale is exact in f16.
    /// Symmetric groups have the zero point 8.
    pub fn put_q4(&mut self, row: usize, group: usize, codes: &[u8], scale: f32, zero_point: u8) {
        let Format::Q4 { group: size, zero_points } = self.format else { panic!("{:?} has no codes", self.format) };
        assert!(zero_points || zero_point == 8, "a symmetric group around {zero_point}");
        self.put_scale(row, group, scale);
        if zero_points {
            self.zero_points[(group / 8) * self.rows + row] |= u32::from(zero_point) << (4 * (group % 8));
        }
        // Padding up to the block holds the zero point, so that it is exactly zero.
        for i in 0..codes.len().next_multiple_of(32) {
            let code = codes.get(i).map_or(zero_point, |c| *c);
            let k = group * size + i;
            self.quants[((k / 32) * self.rows + row) * 4 + (k % 32) / 8] |= u32::from(code) << (4 * (k % 8));
        }
    }

    fn pack_f16(&mut self, row: usize, line: &[f32]) {
        for (k, v) in line.iter().enumerate() {
            self.quants[((k / 8) * self.rows + row) * 4 + (k % 8) / 2] |= f16_bits(*v) << (16 * (k % 2));
        }
    }

    fn put_scale(&mut self, row: usize, group: usize, scale: f32) {
        self.scales[(group / 2) * self.rows + row] |= f16_bits(scale) << (16 * (group % 2));
    }

    fn pack_q8(&mut self, row: usize, line: &[f32]) {
        for (g, group) in line.chunks(32).enumerate() {
            let largest = group.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let scale = usable_scale(largest / 127.0);
            self.put_scale(row, g, scale);
            for (i, v) in group.iter().enumerate() {
                let q = (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
                let k = g * 32 + i;
                self.quants[((k / 16) * self.rows + row) * 4 + (k % 16) / 4] |= u32::from(q as u8) << (8 * (k % 4));
            }
        }
    }

    fn pack_q4(&mut self, row: usize, line: &[f32], group_size: usize, with_zero: bool) {
        for (g, group) in line.chunks(group_size).enumerate() {
            let (scale, zero) = if with_zero { grid_with_zero(group) } else { grid_symmetric(group) };
            let mut codes = [0; 128];
            for (code, v) in codes.iter_mut().zip(group) {
                *code = ((v / scale).round_ties_even() + zero).clamp(0.0, 15.0) as u8;
            }
            self.put_q4(row, g, &codes[..group.len()], scale, zero as u8);
        }
    }

    /// The value that kernels compute with.
    pub fn value(&self, row: usize, k: usize) -> f32 {
        match self.format {
            Format::F16 => f16_half(self.quants[((k / 8) * self.rows + row) * 4 + (k % 8) / 2], k % 2),
            Format::Q8 => {
                let word = self.quants[((k / 16) * self.rows + row) * 4 + (k % 16) / 4];
                f32::from((word >> (8 * (k % 4))) as u8 as i8) * self.scale(row, k / 32)
            }
            Format::Q4 { group, zero_points } => {
                let g = k / group;
                let word = self.quants[((k / 32) * self.rows + row) * 4 + (k % 32) / 8];
                let q = (word >> (4 * (k % 8))) & 15;
                let zero =
                    if zero_points { (self.zero_points[(g / 8) * self.rows + row] >> (4 * (g % 8))) & 15 } else { 8 };
                (q as f32 - zero as f32) * self.scale(row, g)
            }
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        f16_half(self.scales[(group / 2) * self.rows + row], group % 2)
    }

    /// The values that kernels compute with, row-major `[rows][cols]`.
    pub fn unpack(&self) -> Vec<f32> {
        (0..self.rows * self.cols).map(|i| self.value(i / self.cols, i % self.cols)).collect()
    }
}

/// A scale that is exact in f16 and not zero, so that dividing by it is harmless.
pub fn usable_scale(scale: f32) -> f32 {
    let rounded = round_to_f16(scale);
    if rounded == 0.0 { f16::MIN_POSITIVE_SUBNORMAL.to_f32() } else { rounded }
}

/// Scale and zero point of the grid that spans a group and zero; zero itself is on the grid.
fn grid_with_zero(group: &[f32]) -> (f32, f32) {
    let low = group.iter().fold(0.0_f32, |m, v| m.min(*v));
    let high = group.iter().fold(0.0_f32, |m, v| m.max(*v));
    let scale = usable_scale((high - low) / 15.0);
    (scale, (-low / scale).round_ties_even().clamp(0.0, 15.0))
}

/// Scale of the grid -8..=7 whose end 8 lies on the value of largest size; the scale takes its sign.
fn grid_symmetric(group: &[f32]) -> (f32, f32) {
    let extreme = group.iter().fold(0.0_f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let rounded = round_to_f16(extreme / -8.0);
    (if rounded == 0.0 { usable_scale(0.0) } else { rounded }, 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::noise;

    const FORMATS: [Format; 6] = [
        Format::F16,
        Format::Q8,
        Format::Q4 { group: 32, zero_points: false },
        Format::Q4 { group: 32, zero_points: true },
        Format::Q4 { group: 64, zero_points: true },
        Format::Q4 { group: 128, zero_points: true },
    ];

    #[test]
    fn q4_by_hand() {
        // -1, 0 and 14 with a scale of 1: zero point 1, so the nibbles are 0, 1, 15; padding is the zero point.
        let packed = Format::Q4 { group: 32, zero_points: true }.pack(1, 3, &[-1.0, 0.0, 14.0]).unwrap();
        assert_eq!(packed.quants, [0x1111_1f10, 0x1111_1111, 0x1111_1111, 0x1111_1111]);
        assert_eq!(packed.scales, [0x3c00]);
        assert_eq!(packed.zero_points, [1]);
        assert_eq!(packed.unpack(), [-1.0, 0.0, 14.0]);
    }

    #[test]
    fn q8_by_hand() {
        let packed = Format::Q8.pack(2, 2, &[127.0, -127.0, 0.0, 0.0]).unwrap();
        assert_eq!(packed.quants[0], 0x0000_817f);
        assert_eq!(packed.scales[0], 0x3c00);
        assert_eq!(packed.unpack(), [127.0, -127.0, 0.0, 0.0]);
    }

    #[test]
    fn f16_is_exact_on_f16_values_and_refuses_what_it_cannot_hold() {
        let packed = Format::F16.pack(1, 3, &[1.5, -0.25, 65504.0]).unwrap();
        assert_eq!(packed.unpack(), [1.5, -0.25, 65504.0]);
        for bad in [70000.0, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(Format::F16.pack(2, 2, &[0.0, 0.0, 0.0, bad]).unwrap_err().row, 1);
        }
    }

    #[test]
    fn every_format_keeps_zero_and_stays_within_half_a_step() {
        for format in FORMATS {
            for (rows, cols) in [(5, 32), (3, 576), (4, 100)] {
                let mut values = noise("weights", rows * cols);
                values[cols] = 0.0;
                let packed = format.pack(rows, cols, &values).unwrap();
                let words = [packed.quants.len(), packed.scales.len(), packed.zero_points.len()];
                assert_eq!(words, format.words(rows, cols), "{format:?}");
                assert_eq!(packed.value(1, 0), 0.0, "{format:?}");
                for k in cols..cols.next_multiple_of(32) {
                    assert_eq!(packed.value(0, k), 0.0, "padding of {format:?}");
                }
                // Values reach about 3.5, so a step is at most 7 / 15.
                let step = match format {
                    Format::F16 => 0.004,
                    Format::Q8 => 0.03,
                    Format::Q4 { .. } => 0.47,
                };
                for (v, u) in values.iter().zip(packed.unpack()) {
                    assert!((v - u).abs() <= step, "{format:?}: {v} became {u}");
                }
            }
        }
    }

    #[test]
    fn groups_of_zeros_and_of_tiny_values_stay_finite() {
        for format in FORMATS {
            let unpacked = format.pack(1, 32, &[1e-12; 32]).unwrap().unpack();
            assert!(unpacked.iter().all(|v| v.abs() < 1e-6), "{format:?}");
        }
    }
}

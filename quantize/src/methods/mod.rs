//! How matrices are rounded to int4, and what is done to them before so that rounding costs less. Pure mathematics: nothing
//! here knows of files, devices or calibration data.

pub mod awq;
pub mod gptq;
pub mod nearest;
pub mod rotate;

use crate::matrix::Factor;
use nearest::{LANES, Lanes, code, search};
use shaders::{Format, Packed};

/// What a recipe's `method` asks for: steps joined by `+`, of which the last one rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// The residual stream is rotated.
    pub rotate: bool,
    /// Channels are scaled by how strongly they are used.
    pub awq: bool,
    /// How q4 is rounded.
    pub rounding: Rounding,
}

/// How a matrix is rounded to q4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Each value to the nearest of a grid that spans its group.
    Nearest,
    /// The same on the grid with the least error, weighted by the channels' mean squares.
    Weighted,
    /// Making up for errors as it goes.
    Gptq,
}

impl Methods {
    /// Reads a recipe's `method`.
    ///
    /// *Errors*: a step that is unknown, doubled or out of place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut methods = Methods { rotate: false, awq: false, rounding: Rounding::Nearest };
        let mut rounds = false;
        for step in text.split('+') {
            let again = match step {
                _ if rounds => return Err(format!("method `{text}`: nothing can follow a rounding")),
                "rotate" => std::mem::replace(&mut methods.rotate, true),
                "awq" => std::mem::replace(&mut methods.awq, true),
                "nearest" | "weighted" | "gptq" => {
                    rounds = true;
                    methods.rounding = match step {
                        "weighted" => Rounding::Weighted,
                        "gptq" => Rounding::Gptq,
                        _ => Rounding::Nearest,
                    };
                    false
                }
                _ => {
                    let known = "rotate, awq, nearest, weighted and gptq, joined by `+`";
                    return Err(format!("method `{text}`: step `{step}` is not known; there are {known}"));
                }
            };
            if again {
                return Err(format!("method `{text}`: `{step}` comes twice"));
            }
        }
        if !rounds {
            return Err(format!("method `{text}` does not end with a rounding: nearest, weighted or gptq"));
        }
        Ok(methods)
    }

    /// Whether it has to be known what goes into the linears.
    pub fn needs_calibration(&self) -> bool {
        self.awq || self.rounding != Rounding::Nearest
    }
}

/// What is known of a matrix's inputs when it is rounded.
pub enum Inputs {
    /// Nothing.
    Unknown,
    /// The mean squares of its channels.
    Energies(Vec<f32>),
    /// The factor of their products.
    Products(Factor),
}

impl Inputs {
    /// Packs a row-major `[rows][cols]` matrix; what is known is used for q4. Also gives the sum of the squares of the error
    /// of the outputs where that is known.
    ///
    /// *Errors*: as [`Format::pack`].
    pub fn pack(
        &self,
        format: Format,
        rows: usize,
        cols: usize,
        values: &[f32],
    ) -> Result<(Packed, Option<f64>), shaders::FormatError> {
        match (self, format) {
            (Inputs::Unknown, _) | (_, Format::F16 | Format::Q8) => Ok((format.pack(rows, cols, values)?, None)),
            (Inputs::Energies(energies), Format::Q4 { .. }) => {
                check(values, cols)?;
                Ok((round_weighted(format, rows, values, energies), None))
            }
            (Inputs::Products(factor), Format::Q4 { .. }) => {
                check(values, cols)?;
                let (packed, lost) = gptq::round(format, rows, values, factor);
                Ok((packed, Some(lost)))
            }
        }
    }
}

/// Every value must be one that f16 could hold, as for every other way of packing.
fn check(values: &[f32], cols: usize) -> Result<(), shaders::FormatError> {
    match values.iter().position(|v| v.is_nan() || v.abs() >= 65520.0) {
        Some(i) => Err(shaders::FormatError { row: i / cols, col: i % cols, value: values[i] }),
        None => Ok(()),
    }
}

/// Rounds each value to the nearest of its group's best grid, channels weighted by their mean squares.
fn round_weighted(format: Format, rows: usize, values: &[f32], energies: &[f32]) -> Packed {
    let Format::Q4 { group, zero_points } = format else { panic!("{format:?} is not rounded this way") };
    let cols = energies.len();
    let mut packed = Packed::blank(format, rows, cols);
    for first in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - first);
        let at = |lane: usize, k: usize| if lane < count { values[(first + lane) * cols + k] } else { 0.0 };
        for (g, start) in (0..cols).step_by(group).enumerate() {
            let columns = start..(start + group).min(cols);
            let tile: Vec<Lanes> = columns.clone().map(|k| std::array::from_fn(|lane| at(lane, k))).collect();
            let grids = search(&tile, &energies[columns], zero_points);
            for lane in 0..count {
                let (scale, zero) = (grids.scale[lane], grids.zero[lane]);
                let codes: Vec<u8> = tile.iter().map(|v| code(v[lane], scale, zero) as u8).collect();
                packed.put_q4(first + lane, g, &codes, scale, zero as u8);
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_steps_that_end_with_a_rounding() {
        let parsed = Methods::parse("rotate+awq+gptq").unwrap();
        assert_eq!(parsed, Methods { rotate: true, awq: true, rounding: Rounding::Gptq });
        assert!(parsed.needs_calibration() && !Methods::parse("nearest").unwrap().needs_calibration());
        for wrong in ["", "rotate", "gptq+rotate", "awq+awq+nearest", "magic", "gptq+nearest", "rotate+ gptq"] {
            let error = Methods::parse(wrong).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn weights_move_the_error_to_where_it_does_not_count() {
        let cols = 96;
        let value = |i: usize| ((i * 131 % 251) as f32 / 125.0 - 1.0) * if i.is_multiple_of(7) { 3.0 } else { 1.0 };
        let values: Vec<f32> = (0..40 * cols).map(value).collect();
        let energies: Vec<f32> = (0..cols).map(|k| if k % 7 == 3 { 100.0 } else { 0.01 }).collect();
        for zero_points in [true, false] {
            let format = Format::Q4 { group: 32, zero_points };
            let weighted = Inputs::Energies(energies.clone()).pack(format, 40, cols, &values).unwrap().0;
            let nearest = Inputs::Unknown.pack(format, 40, cols, &values).unwrap().0;
            let error = |packed: &Packed| -> f64 {
                let off = values.iter().zip(packed.unpack()).map(|(a, b)| f64::from(a - b).powi(2));
                off.enumerate().map(|(i, e)| e * f64::from(energies[i % cols])).sum()
            };
            assert!(error(&weighted) < 0.5 * error(&nearest), "{} {}", error(&weighted), error(&nearest));
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_refused_whatever_the_method() {
        let format = Format::Q4 { group: 32, zero_points: true };
        let mut values = vec![0.0; 64];
        values[40] = 7e4;
        for inputs in [Inputs::Unknown, Inputs::Energies(vec![1.0; 32])] {
            let error = inputs.pack(format, 2, 32, &values).unwrap_err();
            assert_eq!((error.row, error.col), (1, 8));
        }
    }
}

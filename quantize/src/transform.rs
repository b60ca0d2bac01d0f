//! From the published basis to that of the file: which tensors a rotation or a scaling of channels changes, and how. The
//! network computes the same before and after.
//!
//! | what | reads or writes | rotated | scaled by s |
//! | --- | --- | --- | --- |
//! | qkv, gate_up, their adapters' A and R | reads the stream through a norm | columns times the norm's weight, then turned | columns times s |
//! | o, down, their adapters' A and R | reads values, inner channels | | columns times s |
//! | o, down, their adapters' B | writes the stream | rows turned | |
//! | qkv and its B: v rows; gate_up and its B: up rows | writes values, inner channels | | rows over the s of o, down |
//! | norms of the layers | | 1 | over the s of qkv, gate_up |
//! | last norm, head | reads the stream | as qkv | |
//! | embedding, projector's last layer and bias | writes the stream | turned | |

use crate::assemble::{Source, shape_of};
use crate::matrix::multiply;
use crate::methods::rotate;
use crate::{Error, Result};
use runtime::model::{Config, LINEARS, Language, Rotation, Spec, Task, value_scale};
use std::ops::Range;

/// Factors of the input channels of a layer's linears, in the order of [`LINEARS`].
pub type Scales = [Vec<f32>; 4];

/// The place of a tensor in the network, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The norm before qkv (0) or gate_up (2).
    Norm {
        layer: usize,
        linear: usize,
    },
    LastNorm,
    FoldedNorm,
    ChannelScale {
        layer: usize,
        linear: usize,
    },
    Linear {
        layer: usize,
        linear: usize,
    },
    Down {
        layer: usize,
        linear: usize,
    },
    Up {
        layer: usize,
        linear: usize,
    },
    Embed,
    Head,
    Projected,
    Elsewhere,
}

// Places in `LINEARS`.
const QKV: usize = 0;
const O: usize = 1;
const GATE_UP: usize = 2;
const DOWN: usize = 3;

fn place(name: &str) -> Place {
    let number = |text: &str| text.parse::<usize>().ok();
    let linear = |text: &str| LINEARS.iter().position(|(n, _)| *n == text);
    let task = |text: &str| Task::ALL.iter().any(|t| t.name() == text);
    let parts: Vec<&str> = name.split('.').collect();
    let found = match parts[..] {
        ["language", "norm"] => Some(Place::LastNorm),
        ["language", "norm", "folded"] => Some(Place::FoldedNorm),
        ["language", "layers", i, "input_norm"] => number(i).map(|layer| Place::Norm { layer, linear: QKV }),
        ["language", "layers", i, "post_norm"] => number(i).map(|layer| Place::Norm { layer, linear: GATE_UP }),
        ["language", "layers", i, l, ref rest @ ..] => number(i).zip(linear(l)).map(|(layer, linear)| match rest {
            [] => Place::Linear { layer, linear },
            _ => Place::ChannelScale { layer, linear },
        }),
        [t, "layers", i, l, way] if task(t) => number(i).zip(linear(l)).map(|(layer, linear)| match way {
            "down" => Place::Down { layer, linear },
            _ => Place::Up { layer, linear },
        }),
        [t, "embed"] if task(t) => Some(Place::Embed),
        [t, "head"] if task(t) => Some(Place::Head),
        [t, "projector", "1", ..] if task(t) => Some(Place::Projected),
        _ => None,
    };
    found.unwrap_or(Place::Elsewhere)
}

/// An adapter of one linear with its gates fixed: `up` `[outputs][rank]` times `down` `[rank][inputs]` is added to W.
#[derive(Debug, Clone)]
pub struct Fold {
    /// B.
    pub up: Vec<f32>,
    /// A, each row times its gate and the scale.
    pub down: Vec<f32>,
}

/// What is done to the columns of a matrix.
#[derive(Default)]
struct Columns<'a> {
    factors: Vec<&'a [f32]>,
    rotation: Option<&'a Rotation>,
}

/// What is done to its rows.
#[derive(Default)]
struct Rows<'a> {
    /// The last rows are divided by these.
    divisors: Vec<f32>,
    rotation: Option<&'a Rotation>,
}

/// The change of basis of one file.
#[derive(Debug, Clone)]
pub struct Transform {
    language: Language,
    rotation: Option<Rotation>,
    scaled: bool,
    /// Weights of the norms before qkv and gate_up, by layer, and of the last one.
    norms: Vec<[Vec<f32>; 2]>,
    last_norm: Vec<f32>,
    /// By layer, as far as they are known.
    scales: Vec<Option<Scales>>,
    /// Adapters to be put into the linears of one layer, in the order of [`LINEARS`].
    fold: Option<(usize, [Fold; 4])>,
}

impl Transform {
    /// The one that the configuration asks for. `norm` reads a norm by its name in the file; with `known`, whether they are
    /// needed or not.
    ///
    /// *Errors*: a norm cannot be read.
    pub fn new(config: &Config, known: bool, norm: impl Fn(&str) -> Result<Vec<f32>>) -> Result<Self> {
        let l = &config.language;
        let mut this = Transform {
            language: l.clone(),
            rotation: config.basis.rotation.map(|seed| Rotation::new(l.hidden, seed)),
            scaled: config.basis.scaled,
            norms: Vec::new(),
            last_norm: Vec::new(),
            scales: vec![None; l.layers],
            fold: None,
        };
        if known || !config.basis.is_published() {
            for i in 0..l.layers {
                let [first, second] = ["input_norm", "post_norm"].map(|n| norm(&format!("language.layers.{i}.{n}")));
                this.norms.push([first?, second?]);
            }
            this.last_norm = norm("language.norm")?;
        }
        Ok(this)
    }

    /// The rotation of the residual stream.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// The published weight of the norm before a layer's qkv or gate_up.
    pub(crate) fn norm(&self, layer: usize, second: bool) -> &[f32] {
        &self.norms[layer][usize::from(second)]
    }

    /// Sets the factors of a layer's input channels.
    pub fn set_scales(&mut self, layer: usize, scales: Scales) {
        self.scales[layer] = Some(scales);
    }

    /// Puts adapters into the linears of this layer from now on, and into no others.
    pub fn set_fold(&mut self, layer: usize, folds: [Fold; 4]) {
        self.fold = Some((layer, folds));
    }

    fn fold(&self, place: Place) -> Option<&Fold> {
        let (at, folds) = self.fold.as_ref()?;
        match place {
            Place::Linear { layer, linear } if layer == *at => Some(&folds[linear]),
            _ => None,
        }
    }

    /// The factors of a layer's input channels, if there are any.
    pub fn scales(&self, layer: usize) -> Option<&Scales> {
        self.scales.get(layer)?.as_ref().filter(|_| self.scaled)
    }

    fn columns(&self, place: Place) -> Columns<'_> {
        let mut columns = Columns::default();
        match place {
            Place::Linear { layer, linear } | Place::Down { layer, linear } => {
                if let (Some(rotation), QKV | GATE_UP) = (&self.rotation, linear) {
                    columns.factors.push(self.norm(layer, linear == GATE_UP));
                    columns.rotation = Some(rotation);
                }
                columns.factors.extend(self.scales(layer).map(|s| s[linear].as_slice()));
            }
            Place::Head => {
                if let Some(rotation) = &self.rotation {
                    columns = Columns { factors: vec![&self.last_norm], rotation: Some(rotation) };
                }
            }
            Place::Embed => columns.rotation = self.rotation.as_ref(),
            _ => {}
        }
        columns
    }

    fn rows(&self, place: Place) -> Rows<'_> {
        let mut rows = Rows::default();
        match place {
            Place::Linear { linear: O | DOWN, .. } | Place::Up { linear: O | DOWN, .. } | Place::Projected => {
                rows.rotation = self.rotation.as_ref();
            }
            Place::Linear { layer, linear } | Place::Up { layer, linear } => {
                if let Some(scales) = self.scales(layer) {
                    rows.divisors = match linear {
                        QKV => value_scale(&self.language, &scales[O]),
                        _ => scales[DOWN].clone(),
                    };
                }
            }
            _ => {}
        }
        rows
    }

    /// Whether rows of this tensor can be had without the others.
    pub fn is_by_row(&self, spec: &Spec) -> bool {
        self.rows(place(&spec.name)).rotation.is_none()
    }

    /// The values of these rows in the file's basis, row-major.
    ///
    /// *Errors*: a read fault; a value that is no number.
    pub fn read(&self, spec: &Spec, source: &Source, range: Range<usize>) -> Result<Vec<f32>> {
        let [rows, cols] = shape_of(spec);
        let place = place(&spec.name);
        match place {
            Place::Norm { layer, linear } => {
                if self.rotation.is_some() {
                    return Ok(vec![1.0; cols]);
                }
                if let Some(scales) = self.scales(layer) {
                    let weights = self.norm(layer, linear == GATE_UP);
                    return Ok(weights.iter().zip(&scales[linear]).map(|(n, s)| n / s).collect());
                }
            }
            Place::LastNorm if self.rotation.is_some() => return Ok(vec![1.0; cols]),
            Place::FoldedNorm => return Ok(self.last_norm.clone()),
            Place::ChannelScale { layer, linear } => {
                return Ok(self.scales(layer).map_or_else(|| vec![1.0; cols], |s| s[linear].clone()));
            }
            _ => {}
        }
        let (over, across) = (self.columns(place), self.rows(place));
        let fold = self.fold(place);
        let changes = over.rotation.is_some() || !over.factors.is_empty() || across.rotation.is_some();
        if !changes && across.divisors.is_empty() && fold.is_none() {
            return source.rows(range);
        }
        let wanted = if across.rotation.is_some() { 0..rows } else { range.clone() };
        let mut values = source.rows(wanted.clone())?;
        // Turned, one such value would be everywhere.
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(source.wrong_value(spec, wanted.start + i / cols, i % cols, values[i], "is not finite"));
        }
        if let Some(Fold { up, down }) = fold {
            let rank = down.len() / cols;
            multiply(&mut values, true, &up[wanted.start * rank..wanted.end * rank], down, [wanted.len(), rank, cols]);
        }
        for row in values.chunks_exact_mut(cols) {
            for factors in &over.factors {
                row.iter_mut().zip(*factors).for_each(|(v, f)| *v *= f);
            }
        }
        if let Some(rotation) = over.rotation {
            values.chunks_exact_mut(cols).for_each(|row| rotation.apply(row, 1));
        }
        let first_divided = rows - across.divisors.len();
        for (row, divisor) in (first_divided..).zip(&across.divisors) {
            if wanted.contains(&row) {
                values[(row - wanted.start) * cols..][..cols].iter_mut().for_each(|v| *v /= divisor);
            }
        }
        if let Some(rotation) = across.rotation {
            // A bias is a column.
            if rows == 1 {
                rotation.apply(&mut values, 1)
            } else {
                rotate::rows(rotation, &mut values, cols)
            }
            if wanted != range {
                values = values[range.start * cols..range.end * cols].to_vec();
            }
        }
        Ok(values)
    }
}

/// A norm of the checkpoint, by its name in the file.
pub(crate) fn read_norm(tensors: &[(Spec, Source)], name: &str) -> Result<Vec<f32>> {
    let found = tensors.iter().find(|(spec, _)| spec.name == name);
    let (spec, source) = found.ok_or_else(|| Error::Usage(format!("`{name}` is in no table of tensors")))?;
    let values = source.rows(0..1)?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(source.wrong_value(spec, 0, i, values[i], "is not finite")),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_has_its_place() {
        for (name, expected) in [
            ("language.norm", Place::LastNorm),
            ("language.layers.3.input_norm", Place::Norm { layer: 3, linear: QKV }),
            ("language.layers.12.gate_up", Place::Linear { layer: 12, linear: GATE_UP }),
            ("language.layers.12.o.channel_scale", Place::ChannelScale { layer: 12, linear: O }),
            ("generate.layers.0.down.up", Place::Up { layer: 0, linear: DOWN }),
            ("ask.layers.0.qkv.down", Place::Down { layer: 0, linear: QKV }),
            ("ask.projector.1.bias", Place::Projected),
            ("ask.projector.0", Place::Elsewhere),
            ("vision.layers.1.qkv", Place::Elsewhere),
            ("vqgan.mid.attn_1.q", Place::Elsewhere),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
    }
}

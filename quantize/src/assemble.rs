//! The values of each tensor of the file, made from the published ones, some rows at a time.
//!
//! Every source tensor is looked up and its shape checked when a [`Source`] is made, before anything is written.

use crate::config::{adapter, own_table};
use crate::source::{self, Checkpoint, Parts};
use crate::{Error, Result};
use runtime::model::{Config, Kind, Origin, Part, Spec};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows of a table summed at a time.
const MEAN_ROWS: usize = 1024;

/// A tensor of the checkpoint that a tensor of the file is made from.
#[derive(Debug)]
struct Piece<'a> {
    checkpoint: &'a Checkpoint,
    key: &'a str,
    /// Rows that it makes.
    rows: usize,
}

#[derive(Debug)]
enum How {
    /// Rows one piece after another; further dimensions flattened.
    Rows,
    /// Vectors end to end as one row.
    Line,
    /// `[out][in][kh][kw]` as `[out][kh][kw][in]`.
    Convolution { inputs: usize },
    /// A vector and a table: the vector is added to the table's first row.
    ClassAndPosition,
    /// The table's rows but the last, which is the mean of the others.
    BaseWithMean,
    /// From nothing published: see [`crate::transform`].
    Basis,
}

/// Where the values of one tensor of the file come from.
#[derive(Debug)]
pub struct Source<'a> {
    pieces: Vec<Piece<'a>>,
    how: How,
    rows: usize,
    cols: usize,
}

/// Rows and columns of a tensor, however it is stored.
pub fn shape_of(spec: &Spec) -> [usize; 2] {
    match spec.kind {
        Kind::Matrix { rows, cols, .. } | Kind::Table { rows, cols } | Kind::Plain { rows, cols } => [rows, cols],
    }
}

/// Shapes of the `count` tensors that are stacked to make `spec`: vectors end to end, or rows one after another.
pub fn stacked_shapes(config: &Config, spec: &Spec, part: Part, count: usize) -> Vec<Vec<usize>> {
    let [rows, cols] = shape_of(spec);
    match (spec.kind, part, count) {
        (Kind::Plain { rows: 1, .. }, ..) => vec![vec![cols / count]; count],
        // [A; R]
        (_, Part::Adapter(task), 2) => {
            let experts = config.task(task).map_or(0, |t| t.adapter.experts);
            vec![vec![rows - experts, cols], vec![experts, cols]]
        }
        _ => vec![vec![rows / count, cols]; count],
    }
}

impl<'a> Source<'a> {
    /// Finds the tensors that `spec` is made from.
    ///
    /// *Errors*: one is missing or has another shape or an unreadable type; both shapes are named.
    pub fn find(parts: &'a Parts, config: &Config, spec: &Spec) -> Result<Self> {
        let [rows, cols] = shape_of(spec);
        let piece = |part: Part, name: &str, shape: &[usize], rows: usize| -> Result<Piece<'a>> {
            let checkpoint = checkpoint(parts, part, name)?;
            let info = checkpoint.lookup_shaped(published_name(checkpoint, name), shape)?;
            Ok(Piece { checkpoint, key: &info.name, rows })
        };
        let (pieces, how) = match &spec.origin {
            Origin::Stack(part, names) => {
                let shapes = stacked_shapes(config, spec, *part, names.len());
                let how = if shapes.iter().all(|s| s.len() == 1) { How::Line } else { How::Rows };
                let pairs = names.iter().zip(&shapes);
                (
                    pairs
                        .map(|(n, s)| piece(*part, n, s, if s.len() == 1 { 1 } else { s[0] }))
                        .collect::<Result<_>>()?,
                    how,
                )
            }
            Origin::Convolution(part, name) => {
                let side = kernel_side(&spec.name);
                let inputs = cols / (side * side);
                (vec![piece(*part, name, &[rows, inputs, side, side], rows)?], How::Convolution { inputs })
            }
            Origin::Flatten(part, name) => {
                let side = config.vision.as_ref().map_or(0, |v| v.patch);
                (vec![piece(*part, name, &[rows, 3, side, side], rows)?], How::Rows)
            }
            Origin::ClassAndPosition(part, class, position) => {
                let class = piece(*part, class, &[cols], 0)?;
                (vec![class, piece(*part, position, &[rows, cols], rows)?], How::ClassAndPosition)
            }
            Origin::BaseWithMean(part, name) => {
                let weights = checkpoint(parts, *part, name)?;
                let name = tied(parts, name)?;
                let found = weights.lookup(name)?;
                // The base table has padding rows beyond the tokens; how many does not matter.
                let shape = match found.shape.as_slice() {
                    [have, width] if *have >= rows - 1 && *width == cols => found.shape.clone(),
                    _ => {
                        return Err(source::Error::Tensor {
                            path: weights.file_of(&found.name).unwrap_or(weights.path()).into(),
                            tensor: found.name.clone(),
                            found: format!("shape {:?}", found.shape),
                            expected: format!("[at least {}, {cols}]", rows - 1),
                        }
                        .into());
                    }
                };
                (vec![piece(*part, name, &shape, rows)?], How::BaseWithMean)
            }
            Origin::OwnTable(part, name) => (vec![piece(*part, name, &[rows, cols], rows)?], How::Rows),
            Origin::Basis => (Vec::new(), How::Basis),
        };
        Ok(Source { pieces, how, rows, cols })
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Keys in their checkpoints, with the file that holds each.
    pub fn tensors(&self) -> impl Iterator<Item = (&Path, &'a str)> {
        self.pieces.iter().map(|p| (p.checkpoint.file_of(p.key).unwrap_or(p.checkpoint.path()), p.key))
    }

    /// The values of these rows, row-major.
    ///
    /// *Errors*: a read fault.
    pub fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        match (&self.how, self.pieces.as_slice()) {
            (How::Basis, _) => Ok(vec![0.0; rows.len() * self.cols]),
            (How::Line, pieces) => {
                let mut line = Vec::with_capacity(self.cols);
                for p in pieces {
                    line.append(&mut p.checkpoint.read_f32(p.key)?);
                }
                Ok(line)
            }
            (How::Convolution { inputs }, [p]) => {
                let mut values = p.checkpoint.read_rows_f32(p.key, rows)?;
                channels_last(&mut values, *inputs, self.cols);
                Ok(values)
            }
            (How::ClassAndPosition, [class, position]) => {
                let first = rows.start == 0 && !rows.is_empty();
                let mut values = position.checkpoint.read_rows_f32(position.key, rows)?;
                if first {
                    for (v, c) in values.iter_mut().zip(class.checkpoint.read_f32(class.key)?) {
                        *v += c;
                    }
                }
                Ok(values)
            }
            (How::BaseWithMean, [p]) => {
                let mut values = p.checkpoint.read_rows_f32(p.key, rows.start..rows.end.min(self.rows - 1))?;
                if rows.end == self.rows {
                    values.append(&mut self.mean(p)?);
                }
                Ok(values)
            }
            (_, pieces) => {
                let mut values = Vec::with_capacity(rows.len() * self.cols);
                let mut at = 0;
                for p in pieces {
                    let (start, end) = (rows.start.max(at), rows.end.min(at + p.rows));
                    if start < end {
                        let mut part = p.checkpoint.read_rows_f32(p.key, start - at..end - at)?;
                        if values.is_empty() { values = part } else { values.append(&mut part) }
                    }
                    at += p.rows;
                }
                Ok(values)
            }
        }
    }

    /// Source: reference.md §2.
    fn mean(&self, table: &Piece) -> Result<Vec<f32>> {
        let (count, mut sum) = (self.rows - 1, vec![0.0_f64; self.cols]);
        for start in (0..count).step_by(MEAN_ROWS) {
            let values = table.checkpoint.read_rows_f32(table.key, start..(start + MEAN_ROWS).min(count))?;
            for row in values.chunks_exact(self.cols) {
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
            }
        }
        Ok(sum.iter().map(|s| (s / count as f64) as f32).collect())
    }

    /// An error about a value of this tensor, naming the published one.
    pub fn wrong_value(&self, spec: &Spec, row: usize, col: usize, value: f32, limit: &str) -> Error {
        let (mut at, mut row_there) = (0, row);
        let mut found = self.pieces.first();
        for p in &self.pieces {
            if row >= at && row < at + p.rows {
                (found, row_there) = (Some(p), row - at);
            }
            at += p.rows;
        }
        let (path, key) = match found {
            Some(p) => (p.checkpoint.file_of(p.key).unwrap_or(p.checkpoint.path()).to_owned(), p.key),
            None => (PathBuf::new(), ""),
        };
        let problem =
            format!("tensor {key}: value {value} at row {row_there}, column {col} {limit} (for `{}`)", spec.name);
        Error::File { path, problem }
    }
}

/// The checkpoint that holds a part.
fn checkpoint<'a>(parts: &'a Parts, part: Part, name: &str) -> Result<&'a Checkpoint> {
    let found = match part {
        Part::Language => Some(&parts.language.weights),
        Part::Vision => parts.vision.as_ref().map(|v| &v.weights),
        Part::Adapter(task) => adapter(parts, task),
        Part::Tables(task) => own_table(parts, task, name)?,
        Part::Vqgan => parts.vqgan.as_ref().map(|v| &v.weights),
    };
    found.ok_or_else(|| Error::file(&parts.language.dir, format!("no part was found that holds {name}")))
}

/// The codebook of a plain VQGAN has another name than a GumbelVQ's.
fn published_name<'n>(checkpoint: &Checkpoint, name: &'n str) -> &'n str {
    const OTHER: &str = "quantize.embedding.weight";
    let absent = |n: &str| matches!(checkpoint.find(n), Ok(None));
    if name == "quantize.embed.weight" && absent(name) && !absent(OTHER) { OTHER } else { name }
}

/// The head is the embedding where the model ties them and stores only one.
fn tied<'n>(parts: &Parts, name: &'n str) -> Result<&'n str> {
    let ties = parts.language.config.get("tie_word_embeddings").and_then(serde_json::Value::as_bool) == Some(true);
    if name == "lm_head.weight" && ties && parts.language.weights.find(name)?.is_none() {
        return Ok("embed_tokens.weight");
    }
    Ok(name)
}

/// Side of a convolution's kernel, by its place in the image decoder.
///
/// Source: taming-transformers, `Decoder`.
pub fn kernel_side(name: &str) -> usize {
    let wide = ["conv1", "conv2", "conv_in", "conv_out", "upsample"].iter().any(|end| name.ends_with(end));
    if wide { 3 } else { 1 }
}

/// Turns rows of `[in][k]` into rows of `[k][in]`.
fn channels_last(values: &mut [f32], inputs: usize, cols: usize) {
    let kernel = cols / inputs.max(1);
    if kernel < 2 {
        return;
    }
    let mut line = vec![0.0; cols];
    for row in values.chunks_exact_mut(cols) {
        for (i, v) in row.iter().enumerate() {
            line[(i % kernel) * inputs + i / kernel] = *v;
        }
        row.copy_from_slice(&line);
    }
}

/// Turns rows of `[k][in]` back into rows of `[in][k]`.
pub fn channels_first(values: &mut [f32], inputs: usize, cols: usize) {
    channels_last(values, cols / inputs.max(1), cols);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_last_and_come_back() {
        let published: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let mut values = published.clone();
        channels_last(&mut values, 3, 6);
        assert_eq!(values, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        channels_first(&mut values, 3, 6);
        assert_eq!(values, published);
    }

    #[test]
    fn kernels_are_three_wide_but_for_mixing_and_shortcuts() {
        for (name, side) in [
            ("vqgan.post_quant", 1),
            ("vqgan.conv_in", 3),
            ("vqgan.mid.attn_1.q", 1),
            ("vqgan.up.1.block.0.conv2", 3),
            ("vqgan.up.1.block.0.shortcut", 1),
            ("vqgan.up.1.upsample", 3),
        ] {
            assert_eq!(kernel_side(name), side, "{name}");
        }
    }
}

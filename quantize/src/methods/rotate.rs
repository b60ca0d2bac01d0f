//! Turning matrices: their columns where they read the residual stream, their rows where they write it.

use crate::parallel::for_chunks;
use runtime::model::Rotation;

/// Columns turned side by side.
const LANES: usize = 64;
/// Rows of a piece.
const ROWS: usize = 64;

/// `M Q`: of a row-major `[rows][d]` matrix that reads the stream, or of rows of the stream itself.
pub fn columns(rotation: &Rotation, matrix: &mut [f32]) {
    let width = rotation.width();
    for_chunks(matrix, ROWS * width, |_, piece| piece.chunks_exact_mut(width).for_each(|row| rotation.apply(row, 1)));
}

/// `Q^T M`: of a row-major `[d][cols]` matrix that writes the stream.
pub fn rows(rotation: &Rotation, matrix: &mut [f32], cols: usize) {
    let mut tiles: Vec<Vec<f32>> = (0..cols)
        .step_by(LANES)
        .map(|first| {
            let lanes = LANES.min(cols - first);
            matrix.chunks_exact(cols).flat_map(|row| &row[first..first + lanes]).copied().collect()
        })
        .collect();
    for_chunks(&mut tiles, 1, |_, tile| {
        for tile in tile {
            let lanes = tile.len() / rotation.width();
            rotation.apply(tile, lanes);
        }
    });
    for (i, row) in matrix.chunks_exact_mut(cols).enumerate() {
        for (part, tile) in row.chunks_mut(LANES).zip(&tiles) {
            part.copy_from_slice(&tile[i * part.len()..(i + 1) * part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = M x is the same when M reads a turned stream, and comes out turned when M writes one.
    #[test]
    fn what_reads_and_what_writes_the_stream_agree() {
        let (d, out) = (24, 100);
        let rotation = Rotation::new(d, 5);
        let value = |i: usize| ((i * 29 % 83) as f32 - 41.0) / 20.0;
        let x: Vec<f32> = (0..d).map(value).collect();
        let product = |m: &[f32], x: &[f32]| -> Vec<f32> {
            m.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
        };
        let mut turned = x.clone();
        rotation.apply(&mut turned, 1);
        let reads: Vec<f32> = (0..out * d).map(value).collect();
        let mut reads_turned = reads.clone();
        columns(&rotation, &mut reads_turned);
        for (a, b) in product(&reads, &x).iter().zip(product(&reads_turned, &turned)) {
            assert!((a - b).abs() < 1e-4);
        }
        let writes: Vec<f32> = (0..d * out).map(|i| value(i + 7)).collect();
        let mut writes_turned = writes.clone();
        rows(&rotation, &mut writes_turned, out);
        let inner: Vec<f32> = (0..out).map(|i| value(i + 3)).collect();
        let mut wanted = product(&writes, &inner);
        rotation.apply(&mut wanted, 1);
        for (a, b) in wanted.iter().zip(product(&writes_turned, &inner)) {
            assert!((a - b).abs() < 1e-3);
        }
    }
}

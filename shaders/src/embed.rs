//! Rows of the embedding table, or of the picture, by token; see `wgsl/embed.wgsl`.

use crate::case::{input_f32, input_u32, noise, output_f32};
use crate::kernel::{PORTABLE, read, uniform, write};
use crate::{Case, Kernel, Step};
use bytemuck::{Pod, Zeroable};
use half::f16;

/// Marks a token that is a row of the picture.
pub const PICTURE_ROW: u32 = 1 << 31;

/// Mirrors `Params` in WGSL.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[expect(missing_docs, reason = "documented in the WGSL")]
pub struct Params {
    pub cols2: u32,
    pub row0: u32,
    pub rows: u32,
    pub last_row: u32,
    pub picture: u32,
}

/// Contract of the kernel.
pub const KERNEL: Kernel = Kernel {
    name: "embed",
    source: include_str!("../wgsl/embed.wgsl"),
    bindings: &[uniform(0, "params"), read(2, "tokens"), read(3, "table"), read(4, "picture"), write(5, "x")],
    params_bytes: size_of::<Params>(),
    data_imports: &[],
    variants: &[PORTABLE],
    cases,
};

/// Workgroups for a chunk of `tokens`.
pub fn grid(tokens: u32) -> [u32; 3] {
    [tokens, 1, 1]
}

/// `table` is `[rows][d]`, `picture` `[picture rows][d]`; the result `[n][d]`.
pub fn reference(tokens: &[u32], table: &[f32], picture: &[f32], d: usize) -> Vec<f32> {
    let last = table.len() / d - 1;
    tokens
        .iter()
        .flat_map(|&token| {
            let (from, row) = match token & PICTURE_ROW {
                0 => (table, (token as usize).min(last)),
                _ => (picture, (token ^ PICTURE_ROW) as usize),
            };
            from[row * d..(row + 1) * d].to_vec()
        })
        .collect()
}

fn cases() -> Vec<Case> {
    let (d, rows, chunk) = (132, 20, 8);
    let table: Vec<f32> = noise("table", rows * d).into_iter().map(crate::round_to_f16).collect();
    let picture = noise("picture", 3 * d);
    let tokens = [0, 19, 4_000_000, PICTURE_ROW | 2, 7, 8, PICTURE_ROW];
    let all = reference(&tokens, &table, &picture, d);
    // Whole table at once, then each shard by itself: a shard leaves other rows as they were.
    [(0, 20, true), (0, 8, true), (8, 12, false)]
        .into_iter()
        .map(|(row0, shard_rows, serves_picture)| {
            let mut expected = vec![9.0; chunk * d];
            for (t, token) in tokens.iter().enumerate() {
                let row = (*token as usize).min(rows - 1);
                let here =
                    if token & PICTURE_ROW == 0 { (row0..row0 + shard_rows).contains(&row) } else { serves_picture };
                if here {
                    expected[t * d..(t + 1) * d].copy_from_slice(&all[t * d..(t + 1) * d]);
                }
            }
            let shard = &table[row0 * d..(row0 + shard_rows) * d];
            let pairs: Vec<u32> = shard
                .chunks_exact(2)
                .map(|p| u32::from(f16::from_f32(p[0]).to_bits()) | u32::from(f16::from_f32(p[1]).to_bits()) << 16)
                .collect();
            let mut x = output_f32("x", expected);
            x.initial = bytemuck::cast_slice(&vec![9.0_f32; chunk * d]).to_vec();
            let params = Params {
                cols2: d as u32 / 2,
                row0: row0 as u32,
                rows: shard_rows as u32,
                last_row: rows as u32 - 1,
                picture: u32::from(serves_picture),
            };
            Case {
                name: format!("rows {row0}..{}", row0 + shard_rows),
                imports: vec![],
                constants: vec![],
                params: bytemuck::bytes_of(&params).to_vec(),
                step: Step::new(0, tokens.len()),
                inputs: vec![
                    input_u32("tokens", &[&tokens[..], &[0]].concat()),
                    input_u32("table", &pairs),
                    input_f32("picture", &picture),
                ],
                outputs: vec![x],
                grid: Box::new(move |_| grid(chunk as u32)),
            }
        })
        .collect()
}

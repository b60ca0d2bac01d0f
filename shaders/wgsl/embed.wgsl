// Rows of the embedding table, or of the picture, by token: x[t] = table[min(id, last_row)].
//
// A token with the top bit set is a row of the picture. Ids past the table's end take its last row: the rows that
// HealthGPT adds to the base vocabulary are all equal (their mean) and are stored once. A dispatch serves one shard of
// the table and leaves other rows alone.

#import step

struct Params {
    cols2: u32,    // d / 2
    row0: u32,     // first row of this shard
    rows: u32,     // rows of this shard
    last_row: u32, // of the whole table
    picture: u32,  // 1: this dispatch also serves the picture's rows
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // [n]
@group(0) @binding(3) var<storage, read> table: array<u32>; // [rows][d/2] f16 pairs
@group(0) @binding(4) var<storage, read> picture: array<vec2<f32>>; // [picture rows][d/2]
@group(0) @binding(5) var<storage, read_write> x: array<vec2<f32>>; // [n][d/2]

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.x;
    if t >= step.n {
        return;
    }
    let token = tokens[t];
    let from_picture = (token >> 31u) == 1u;
    let row = min(token, params.last_row) - params.row0; // wraps below row0, so it is then past `rows`
    for (var c = local.x; c < params.cols2; c += 64u) {
        if from_picture {
            if params.picture == 1u {
                x[t * params.cols2 + c] = picture[(token & 0x7fffffffu) * params.cols2 + c];
            }
        } else if row < params.rows {
            x[t * params.cols2 + c] = unpack2x16float(table[row * params.cols2 + c]);
        }
    }
}

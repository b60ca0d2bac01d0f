// Many tokens times a matrix: Y[t][r] (+)= sum over k of W[r][k] * X[t][k], t < min(n, tokens).
//
// Tiles as `tile` has them.

#import step
#import weights
#import tile

struct Params {
    rows: u32,       // N
    cols4: u32,      // K / 4
    blocks: u32,     // ceil(K / 32)
    x_offset4: u32,  // of token 0 in x, in vec4
    x_stride4: u32,  // of a token in x, in vec4
    y_offset: u32,
    y_stride: u32,
    accumulate: u32, // 1: add to y
    tokens: u32,     // rows of y: fewer than n where the first rows of x are left out
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [n][x_stride4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [n][y_stride]

fn fetch(token: vec2<u32>, k4: u32) -> vec4<f32> {
    if k4 >= params.cols4 {
        return vec4(0.0);
    }
    return x[params.x_offset4 + token.x * params.x_stride4 + k4];
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_token = group.y * 32u;
    let first_row = group.x * 32u;
    let tokens = min(step.n, params.tokens);
    if first_token >= tokens {
        return;
    }
    let token = min(first_token + local % 32u, tokens - 1u);
    let row = min(first_row + local % 32u, params.rows - 1u);
    let sums = tile_product(local, vec2(token, 0u), row, params.blocks, params.rows);
    let tx = local % 8u;
    let ty = local / 8u;
    store(first_token + ty, first_row + tx, sums.a);
    store(first_token + ty + 8u, first_row + tx, sums.b);
    store(first_token + ty + 16u, first_row + tx, sums.c);
    store(first_token + ty + 24u, first_row + tx, sums.d);
}

fn store(token: u32, row0: u32, sums: vec4<f32>) {
    if token >= min(step.n, params.tokens) {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let row = row0 + i * 8u;
        if row < params.rows {
            let at = params.y_offset + token * params.y_stride + row;
            if params.accumulate == 1u {
                y[at] += sums[i];
            } else {
                y[at] = sums[i];
            }
        }
    }
}

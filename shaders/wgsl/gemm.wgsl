// Many tokens times a matrix: Y[t][r] (+)= sum over k of W[r][k] * X[t][k], t < min(n, tokens).
//
// A workgroup of 64 makes a tile of 32 tokens x 32 rows, a thread 4 x 4 of it, from slices of 64 k held in workgroup
// memory (16 KiB, the WebGPU floor). Weights are taken apart once per tile, one block of 32 by each thread.

#import step
#import weights

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

var<workgroup> sh_x: array<f32, 2048>; // [64 k][32 tokens]
var<workgroup> sh_w: array<f32, 2048>; // [64 k][32 rows]

fn put_w(at: u32, scale: f32, w: Octet) {
    for (var i = 0u; i < 4u; i++) {
        sh_w[at + i * 32u] = scale * w.lo[i];
        sh_w[at + (i + 4u) * 32u] = scale * w.hi[i];
    }
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_token = group.y * 32u;
    let first_row = group.x * 32u;
    let tokens = min(step.n, params.tokens);
    if first_token >= tokens {
        return;
    }
    let lane = local % 32u; // token and row that this thread loads
    let half = local / 32u; // block of the slice that it loads
    let token = min(first_token + lane, tokens - 1u);
    let row = min(first_row + lane, params.rows - 1u);
    let tx = local % 8u; // rows tx, tx + 8, ..
    let ty = local / 8u; // tokens ty, ty + 8, ..
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var block0 = 0u; block0 < params.blocks; block0 += 2u) {
        let block = block0 + half;
        let at = half * 1024u + lane;
        for (var i = 0u; i < 8u; i++) {
            let k4 = block * 8u + i;
            var v = vec4(0.0);
            if k4 < params.cols4 {
                v = x[params.x_offset4 + token * params.x_stride4 + k4];
            }
            sh_x[at + i * 128u] = v.x;
            sh_x[at + i * 128u + 32u] = v.y;
            sh_x[at + i * 128u + 64u] = v.z;
            sh_x[at + i * 128u + 96u] = v.w;
        }
        if block < params.blocks {
            let scale = weights_scale(row, block, params.rows);
            for (var o = 0u; o < 4u; o++) {
                put_w(at + o * 256u, scale, weights_octet(row, block * 4u + o, params.rows));
            }
        } else {
            for (var k = 0u; k < 32u; k++) {
                sh_w[at + k * 32u] = 0.0;
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 2048u; k += 32u) {
            let w = vec4(sh_w[k + tx], sh_w[k + tx + 8u], sh_w[k + tx + 16u], sh_w[k + tx + 24u]);
            sum0 += sh_x[k + ty] * w;
            sum1 += sh_x[k + ty + 8u] * w;
            sum2 += sh_x[k + ty + 16u] * w;
            sum3 += sh_x[k + ty + 24u] * w;
        }
        workgroupBarrier();
    }
    store(first_token + ty, first_row + tx, sum0);
    store(first_token + ty + 8u, first_row + tx, sum1);
    store(first_token + ty + 16u, first_row + tx, sum2);
    store(first_token + ty + 24u, first_row + tx, sum3);
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

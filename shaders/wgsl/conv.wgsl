// Convolution of a picture [height][width][c] with SIDE x SIDE taps, zeros around it, plus bias:
// y[p][o] (+)= bias[o] + sum over taps, c of W[o][tap][c] * x[p + tap][c].
//
// An implicit GEMM: pixels are the tokens, K is tap-major, and x is gathered while a tile is loaded, so no unfolded
// picture is stored. Nearest doubling of the input happens in the same gather. Tiles as in `gemm`.

#import step
#import weights

struct Params {
    rows: u32,       // output channels, N
    cols4: u32,      // K / 4 = SIDE * SIDE * c / 4
    blocks: u32,     // ceil(K / 32)
    c4: u32,         // input channels / 4
    width: u32,      // of the output
    height: u32,
    doubled: u32,    // 1: the input has half the sides
    accumulate: u32, // 1: add to y
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [pixels][c / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [pixels][N]
@group(0) @binding(4) var<storage, read> bias: array<f32>; // [N]

override SIDE: u32 = 3u;

var<workgroup> sh_x: array<f32, 2048>; // [64 k][32 pixels]
var<workgroup> sh_w: array<f32, 2048>; // [64 k][32 rows]

// Four channels of the input under tap k4 of the pixel at `at`.
fn gather(at: vec2<u32>, k4: u32) -> vec4<f32> {
    if k4 >= params.cols4 {
        return vec4(0.0);
    }
    let tap = k4 / params.c4;
    // One more than the tap's offset, so that it stays unsigned: 0 is outside.
    let reach = vec2(tap % SIDE, tap / SIDE) + at + 1u - SIDE / 2u;
    if reach.x == 0u || reach.y == 0u || reach.x > params.width || reach.y > params.height {
        return vec4(0.0);
    }
    let source = (reach - 1u) >> vec2(params.doubled);
    return x[(source.y * (params.width >> params.doubled) + source.x) * params.c4 + k4 % params.c4];
}

fn put_w(at: u32, scale: f32, w: Octet) {
    for (var i = 0u; i < 4u; i++) {
        sh_w[at + i * 32u] = scale * w.lo[i];
        sh_w[at + (i + 4u) * 32u] = scale * w.hi[i];
    }
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let pixels = params.width * params.height;
    let first_pixel = group.y * 32u;
    let first_row = group.x * 32u;
    let lane = local % 32u; // pixel and row that this thread loads
    let half = local / 32u; // block of the slice that it loads
    let pixel = min(first_pixel + lane, pixels - 1u);
    let at_pixel = vec2(pixel % params.width, pixel / params.width);
    let row = min(first_row + lane, params.rows - 1u);
    let tx = local % 8u; // rows tx, tx + 8, ..
    let ty = local / 8u; // pixels ty, ty + 8, ..
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var block0 = 0u; block0 < params.blocks; block0 += 2u) {
        let block = block0 + half;
        let at = half * 1024u + lane;
        for (var i = 0u; i < 8u; i++) {
            let v = gather(at_pixel, block * 8u + i);
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
    store(first_pixel + ty, first_row + tx, sum0);
    store(first_pixel + ty + 8u, first_row + tx, sum1);
    store(first_pixel + ty + 16u, first_row + tx, sum2);
    store(first_pixel + ty + 24u, first_row + tx, sum3);
}

fn store(pixel: u32, row0: u32, sums: vec4<f32>) {
    if pixel >= params.width * params.height {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let row = row0 + i * 8u;
        if row < params.rows {
            let at = pixel * params.rows + row;
            let value = sums[i] + bias[row];
            if params.accumulate == 1u {
                y[at] += value;
            } else {
                y[at] = value;
            }
        }
    }
}

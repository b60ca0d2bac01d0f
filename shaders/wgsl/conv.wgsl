// Convolution of a picture [height][width][c] with SIDE x SIDE taps, zeros around it, plus bias:
// y[p][o] (+)= bias[o] + sum over taps, c of W[o][tap][c] * x[p + tap][c].
//
// An implicit GEMM: pixels are the tokens, K is tap-major, and x is gathered while a tile is loaded, so no unfolded
// picture is stored. Nearest doubling of the input happens in the same gather.

#import step
#import weights
#import product

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

// Four channels of the input under tap k4 of the pixel at `at`.
fn fetch(at: vec2<u32>, k4: u32) -> vec4<f32> {
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

fn columns() -> u32 {
    return params.width * params.height;
}

fn column(pixel: u32) -> vec2<u32> {
    return vec2(pixel % params.width, pixel / params.width);
}

fn store(pixel: u32, row: u32, sum: f32) {
    let at = pixel * params.rows + row;
    let value = sum + bias[row];
    if params.accumulate == 1u {
        y[at] += value;
    } else {
        y[at] = value;
    }
}

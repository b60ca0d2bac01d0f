// Many tokens times a matrix: Y[t][r] (+)= sum over k of W[r][k] * X[t][k], t < min(n, tokens).

#import step
#import weights
#import product

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

fn columns() -> u32 {
    return min(step.n, params.tokens);
}

fn column(token: u32) -> vec2<u32> {
    return vec2(token, 0u);
}

fn fetch(token: vec2<u32>, k4: u32) -> vec4<f32> {
    if k4 >= params.cols4 {
        return vec4(0.0);
    }
    return x[params.x_offset4 + token.x * params.x_stride4 + k4];
}

fn store(token: u32, row: u32, sum: f32) {
    let at = params.y_offset + token * params.y_stride + row;
    if params.accumulate == 1u {
        y[at] += sum;
    } else {
        y[at] = sum;
    }
}

// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight. One workgroup per token.

#import step
#import reduce

struct Params {
    cols: u32,
    last: u32, // 1: only the last token of the run, written to row 0
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>; // [n][d]
@group(0) @binding(3) var<storage, read> weight: array<f32>; // [d]
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [n][d]

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.x;
    if t >= step.n {
        return;
    }
    let from_row = select(t, step.n - 1u, params.last == 1u);
    var squares = 0.0;
    for (var c = lane.index; c < params.cols; c += 64u) {
        let v = x[from_row * params.cols + c];
        squares += v * v;
    }
    let scale = 1.0 / sqrt(reduce_sum(squares, lane) / f32(params.cols) + params.eps);
    for (var c = lane.index; c < params.cols; c += 64u) {
        y[t * params.cols + c] = x[from_row * params.cols + c] * scale * weight[c];
    }
}

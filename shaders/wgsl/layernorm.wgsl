// y[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias. One workgroup per token; two passes, since the
// one-pass variance loses digits when the mean is large.

#import step
#import reduce

struct Params {
    cols: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>; // [n][d]
@group(0) @binding(3) var<storage, read> weight: array<f32>; // [d]
@group(0) @binding(4) var<storage, read> bias: array<f32>; // [d]
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [n][d]

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.x;
    if t >= step.n {
        return;
    }
    let row = t * params.cols;
    var sum = 0.0;
    for (var c = lane.index; c < params.cols; c += 64u) {
        sum += x[row + c];
    }
    let mean = reduce_sum(sum, lane) / f32(params.cols);
    var squares = 0.0;
    for (var c = lane.index; c < params.cols; c += 64u) {
        let v = x[row + c] - mean;
        squares += v * v;
    }
    let scale = 1.0 / sqrt(reduce_sum(squares, lane) / f32(params.cols) + params.eps);
    for (var c = lane.index; c < params.cols; c += 64u) {
        y[row + c] = (x[row + c] - mean) * scale * weight[c] + bias[c];
    }
}

// x[i] += y[i] + (B v)[i]: the output of a linear with its adapter joins the residual stream of one token, which is made
// ready for the norm that follows: times its weight, with the sum of squares of every 32 elements behind it.

#import step
#import reduce
#import weights
#import hlora

struct Params {
    cols: u32, // d
    rank: u32,
    experts: u32,
    up_blocks: u32,
    hlora_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> y: array<f32>; // [d + rank + experts]
@group(0) @binding(3) var<storage, read_write> x: array<f32>; // [d]
@group(0) @binding(4) var<storage, read> norm: array<f32>; // [d]
@group(0) @binding(5) var<storage, read_write> normed: array<f32>; // [d + ceil(d / 32)]

fn u(i: u32) -> f32 {
    return y[params.cols + i];
}

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) group: vec3<u32>) {
    hlora_load(lane.index);
    let i = group.x * 64u + lane.index;
    var value = 0.0;
    if i < params.cols {
        value = x[i] + y[i] + hlora_up(i, params.cols);
        x[i] = value;
        normed[i] = value * norm[i];
    }
    let square = value * value;
    let low = reduce_sum(select(0.0, square, lane.index < 32u), lane);
    let high = reduce_sum(select(square, 0.0, lane.index < 32u), lane);
    if lane.index % 32u == 0u && i < params.cols {
        normed[params.cols + i / 32u] = select(high, low, lane.index == 0u);
    }
}

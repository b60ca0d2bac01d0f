// Mean and sum of squared deviations of each group of channels over a part of the picture; `groupnorm_swish` joins the
// parts. Two passes over a part, since the one-pass variance loses digits when the mean is large.

#import step
#import reduce

struct Params {
    pixels: u32,
    channels: u32,
    groups: u32,
    parts: u32, // the picture is cut into so many runs of pixels
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>; // [pixels][channels]
@group(0) @binding(3) var<storage, read_write> stats: array<vec4<f32>>; // [groups][parts]: count, mean, squares, unused

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) id: vec3<u32>) {
    let width = params.channels / params.groups;
    let each = (params.pixels + params.parts - 1u) / params.parts;
    let first = min(id.y * each, params.pixels);
    let count = (min(first + each, params.pixels) - first) * width;
    let at = first * params.channels + id.x * width;
    var sum = 0.0;
    for (var i = lane.index; i < count; i += 64u) {
        sum += x[at + (i / width) * params.channels + i % width];
    }
    let mean = reduce_sum(sum, lane) / max(f32(count), 1.0);
    var squares = 0.0;
    for (var i = lane.index; i < count; i += 64u) {
        let v = x[at + (i / width) * params.channels + i % width] - mean;
        squares += v * v;
    }
    let all = reduce_sum(squares, lane);
    if lane.index == 0u {
        stats[id.x * params.parts + id.y] = vec4(f32(count), mean, all, 0.0);
    }
}

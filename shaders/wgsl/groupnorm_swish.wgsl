// y = act((x - mean) / sqrt(variance + eps) * weight + bias) by groups of channels, act being swish or nothing. The parts
// of `groupnorm_stats` are joined first (Chan et al.), once per workgroup.

#import step

struct Params {
    pixels: u32,
    channels: u32,
    groups: u32, // at most 64
    parts: u32,
    swish: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>; // [pixels][channels]
@group(0) @binding(3) var<storage, read> stats: array<vec4<f32>>; // [groups][parts]: count, mean, squares, unused
@group(0) @binding(4) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(5) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // [pixels][channels]

var<workgroup> sh_group: array<vec2<f32>, 64>; // mean, 1 / deviation

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) id: vec3<u32>) {
    if local < params.groups {
        var joined = vec3(0.0); // count, mean, squares
        for (var part = 0u; part < params.parts; part++) {
            let s = stats[local * params.parts + part];
            let count = joined.x + s.x;
            let distance = s.y - joined.y;
            let share = s.x / max(count, 1.0);
            joined = vec3(count, joined.y + distance * share, joined.z + s.z + distance * distance * joined.x * share);
        }
        sh_group[local] = vec2(joined.y, 1.0 / sqrt(joined.z / joined.x + params.eps));
    }
    workgroupBarrier();
    let width = params.channels / params.groups;
    // Sixteen pixels a workgroup.
    let first = (id.x + id.y * 65535u) * 16u;
    let count = (min(first + 16u, params.pixels) - min(first, params.pixels)) * params.channels;
    for (var i = local; i < count; i += 64u) {
        let c = i % params.channels;
        let group = sh_group[c / width];
        let at = first * params.channels + i;
        let v = (x[at] - group.x) * group.y * weight[c] + bias[c];
        y[at] = select(v, v / (1.0 + exp(-clamp(v, -87.0, 87.0))), params.swish == 1u);
    }
}

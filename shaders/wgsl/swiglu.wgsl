// m[t][i] = silu(h[t][i]) * h[t][f + i]: gate rows first, then up.

#import step

struct Params {
    cols: u32, // f
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> h: array<f32>; // [n][2 f]
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // [n][f]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.y;
    let i = id.x;
    if t >= step.n || i >= params.cols {
        return;
    }
    let gate = h[t * 2u * params.cols + i];
    let up = h[t * 2u * params.cols + params.cols + i];
    // Clamped: exp may overflow to a value some drivers treat as undefined.
    m[t * params.cols + i] = gate / (1.0 + exp(-clamp(gate, -87.0, 87.0))) * up;
}

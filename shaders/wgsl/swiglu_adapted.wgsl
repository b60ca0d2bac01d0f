// m[i] = silu(g[i]) * h[i] of one token, g and h the halves of a linear's output with its adapter: y + B v.

#import step
#import weights
#import hlora

struct Params {
    cols: u32, // f
    rank: u32,
    experts: u32,
    up_blocks: u32,
    hlora_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> y: array<f32>; // [2 f + rank + experts]: gate rows first, then up
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // [f]

fn u(i: u32) -> f32 {
    return y[2u * params.cols + i];
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    hlora_load(local);
    let i = group.x * 64u + local;
    if i < params.cols {
        let gate = y[i] + hlora_up(i, 2u * params.cols);
        let up = y[params.cols + i] + hlora_up(params.cols + i, 2u * params.cols);
        // Clamped: exp may overflow to a value some drivers treat as undefined.
        m[i] = gate / (1.0 + exp(-clamp(gate, -87.0, 87.0))) * up;
    }
}

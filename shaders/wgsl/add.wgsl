// x[t] += y[t]

#import step

struct Params {
    cols: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> y: array<f32>; // [n][d]
@group(0) @binding(3) var<storage, read_write> x: array<f32>; // [n][d]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.y;
    let c = id.x;
    if t >= step.n || c >= params.cols {
        return;
    }
    x[t * params.cols + c] += y[t * params.cols + c];
}

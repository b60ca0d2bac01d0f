// y[t] = act(y[t] + bias), in place.

#import step
#import act

struct Params {
    cols: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [d]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [n][d]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.y;
    let c = id.x;
    if t >= step.n || c >= params.cols {
        return;
    }
    let at = t * params.cols + c;
    y[at] = act(y[at] + bias[c]);
}

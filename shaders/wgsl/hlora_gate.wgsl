// H-LoRA between its two products: v[t][k] = scale * softmax(R x)[k / (rank / experts)] * (A x)[k].
//
// `u` holds (A x, R x) of each token, from the stacked operand [A; R]. v is padded with zeros to whole blocks of 32.

#import step

struct Params {
    rank: u32,
    experts: u32,
    v_cols: u32, // rank rounded up to a multiple of 32
    scale: f32,  // alpha / rank * experts
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> u: array<f32>; // [n][rank + experts]
@group(0) @binding(3) var<storage, read_write> v: array<f32>; // [n][v_cols]
@group(0) @binding(4) var<storage, read_write> gates: array<f32>; // [n][experts]

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.x;
    if t >= step.n {
        return;
    }
    let row = t * (params.rank + params.experts);
    var largest = u[row + params.rank];
    for (var e = 1u; e < params.experts; e++) {
        largest = max(largest, u[row + params.rank + e]);
    }
    var total = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        total += exp(u[row + params.rank + e] - largest);
    }
    let per_expert = params.rank / params.experts;
    for (var k = local.x; k < params.v_cols; k += 64u) {
        var value = 0.0;
        if k < params.rank {
            let gate = exp(u[row + params.rank + k / per_expert] - largest) / total;
            value = params.scale * gate * u[row + k];
        }
        v[t * params.v_cols + k] = value;
    }
    for (var e = local.x; e < params.experts; e += 64u) {
        gates[t * params.experts + e] = exp(u[row + params.rank + e] - largest) / total;
    }
}

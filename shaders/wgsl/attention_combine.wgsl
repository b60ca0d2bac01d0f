// Joins the parts of an attention, of which some may hold nothing (total 0): out[h] = sum over parts of e^(largest - m) sum / sum over parts of e^(largest - m) total.

#import step

struct Params {
    heads: u32,
    head_dim4: u32, // head_dim / 4
    parts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>; // [parts][heads][head_dim / 4 + 1], the last (largest, total)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [heads head_dim / 4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let dim4 = params.head_dim4;
    if id.x >= params.heads * dim4 {
        return;
    }
    let head = id.x / dim4;
    let stride = dim4 + 1u;
    var largest = -3.0e38;
    for (var p = 0u; p < params.parts; p++) {
        let of_part = parts[(p * params.heads + head) * stride + dim4];
        largest = select(largest, max(largest, of_part.x), of_part.y > 0.0);
    }
    var sum = vec4(0.0);
    var total = 0.0;
    for (var p = 0u; p < params.parts; p++) {
        let at = (p * params.heads + head) * stride;
        let of_part = parts[at + dim4];
        let weight = select(0.0, exp(of_part.x - largest), of_part.y > 0.0);
        sum += weight * parts[at + id.x % dim4];
        total += weight * of_part.y;
    }
    out[id.x] = sum / total;
}

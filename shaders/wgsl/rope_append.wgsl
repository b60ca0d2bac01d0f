// Rotary embedding of q and k, then k and v go to the cache at their positions. `qkv` rows are q, k, v. A workgroup
// handles a head of a token.

#import step
#import kv_update
#import rotary

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32, // a multiple of 4, at most 512
    kv_factors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<f32>; // [n][(heads + 2 kv_heads) head_dim]
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>; // [positions][head_dim / 2]: cos, sin
@group(0) @binding(4) var<storage, read_write> q: array<vec4<f32>>; // [n][heads head_dim / 4]

var<workgroup> sh_own: array<vec4<f32>, 128>;

fn k_own(i4: u32) -> vec4<f32> {
    return sh_own[i4];
}

fn v_own(i4: u32) -> vec4<f32> {
    return sh_own[i4];
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let head = group.x;
    let t = group.y;
    if t >= step.n {
        return;
    }
    let dim4 = params.head_dim / 4u;
    let pos = step.pos + t;
    let first = (t * (params.heads + 2u * params.kv_heads) + head) * params.head_dim;
    for (var i = local; i < params.head_dim; i += 64u) {
        sh_raw[i] = qkv[first + i];
    }
    workgroupBarrier();
    if head < params.heads {
        for (var i = local; i < dim4; i += 64u) {
            q[(t * params.heads + head) * dim4 + i] = turned4(i, pos, params.head_dim);
        }
        return;
    }
    let is_k = head < params.heads + params.kv_heads;
    for (var i = local; i < dim4; i += 64u) {
        if is_k {
            sh_own[i] = turned4(i, pos, params.head_dim);
        } else {
            sh_own[i] = raw4(i);
        }
    }
    workgroupBarrier();
    let kv_head = head - params.heads - select(params.kv_heads, 0u, is_k);
    let at = (pos * params.kv_heads + kv_head) * dim4;
    for (var i = local * KV_UNIT4; i < dim4; i += 64u * KV_UNIT4) {
        if is_k {
            k_store(at + i, i);
        } else {
            v_store(at + i, i);
        }
    }
}

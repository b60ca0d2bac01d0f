// Rotary embedding of q and k (half-split: element i turns with i + head_dim/2), then k and v go to the cache at
// their positions. `qkv` rows are q, k, v. A thread handles two neighbouring elements of each half.

#import step
#import kv_write

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32, // a multiple of 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<vec2<f32>>; // [n][(heads + 2 kv_heads) head_dim / 2]
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>; // [positions][head_dim/2]: cos, sin
@group(0) @binding(4) var<storage, read_write> q: array<vec2<f32>>; // [n][heads head_dim / 2]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let t = group.y;
    let quarter = params.head_dim / 4u; // threads a head
    let head = id.x / quarter;
    if t >= step.n || head >= params.heads + 2u * params.kv_heads {
        return;
    }
    let j = id.x % quarter;
    let pos = step.pos + t;
    let half2 = params.head_dim / 4u; // half a head, in vec2
    let in_row = (params.heads + 2u * params.kv_heads) * params.head_dim / 2u;
    let at = t * in_row + head * params.head_dim / 2u + j;
    let a = qkv[at];
    let b = qkv[at + half2];
    if head >= params.heads + params.kv_heads {
        let v_at = (pos * params.kv_heads + head - params.heads - params.kv_heads) * params.head_dim / 2u + j;
        v_store(v_at, a);
        v_store(v_at + half2, b);
        return;
    }
    let r = (pos * params.head_dim / 2u) + 2u * j;
    let t0 = rope[r];
    let t1 = rope[r + 1u];
    let c = vec2(t0.x, t1.x);
    let s = vec2(t0.y, t1.y);
    let ra = a * c - b * s;
    let rb = b * c + a * s;
    if head < params.heads {
        let q_at = t * params.heads * params.head_dim / 2u + head * params.head_dim / 2u + j;
        q[q_at] = ra;
        q[q_at + half2] = rb;
    } else {
        let k_at = (pos * params.kv_heads + head - params.heads) * params.head_dim / 2u + j;
        k_store(k_at, ra);
        k_store(k_at + half2, rb);
    }
}

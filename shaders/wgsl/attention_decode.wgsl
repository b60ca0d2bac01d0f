// The attention of one token, from the qkv linear on: adapter, rotary embedding, writing k and v to the cache, attention.
//
// Workgroup (head, part) takes a part of the positions before the token, 64 at a time: a thread scores one position, then
// threads share the elements of the running sum (online softmax). The last part takes the token itself too, from
// workgroup memory; the first head that shares a k and v head writes them to the cache, where nobody reads them in this
// dispatch. With one part the output is final, else `attention_combine` joins the parts.

#import step
#import reduce
#import kv_update
#import weights
#import hlora
#import rotary

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32, // a multiple of 4, at most 512
    window: u32,   // a token sees itself and at most this many before it
    parts: u32,
    scale: f32,
    rank: u32,
    experts: u32,
    up_blocks: u32,
    hlora_scale: f32,
    kv_factors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<f32>; // [(heads + 2 kv_heads) head_dim + rank + experts]
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>; // [positions][head_dim / 2]: cos, sin
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [heads head_dim / 4], or [parts][heads][head_dim / 4 + 1]

// The smaller the arrays, the more workgroups share a core.
override HEAD4: u32 = 128u; // a quarter of head_dim or more

var<workgroup> sh_q: array<vec4<f32>, HEAD4>;
var<workgroup> sh_k: array<vec4<f32>, HEAD4>;
var<workgroup> sh_v_own: array<vec4<f32>, HEAD4>;
var<workgroup> sh_sum: array<vec4<f32>, 128>; // [position groups][head_dim / 4]
var<workgroup> sh_p: array<f32, 64>;

fn outputs() -> u32 {
    return (params.heads + 2u * params.kv_heads) * params.head_dim;
}

fn u(i: u32) -> f32 {
    return qkv[outputs() + i];
}

// Row `first + i` of the linear with its adapter, for every i of a head.
fn load_head(first: u32, local: u32) {
    workgroupBarrier();
    for (var i = local; i < params.head_dim; i += 64u) {
        sh_raw[i] = qkv[first + i] + hlora_up(first + i, outputs());
    }
    workgroupBarrier();
}

fn k_own(i4: u32) -> vec4<f32> {
    return sh_k[i4];
}

fn v_own(i4: u32) -> vec4<f32> {
    return sh_v_own[i4];
}

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) group: vec3<u32>) {
    let local = lane.index;
    let head = group.x;
    let shared_by = params.heads / params.kv_heads;
    let kv_head = head / shared_by;
    let dim4 = params.head_dim / 4u;
    let kv_stride4 = params.kv_heads * dim4;
    let pos = step.pos;
    let last = group.y == params.parts - 1u;

    hlora_load(local);
    load_head(head * params.head_dim, local);
    for (var i = local; i < dim4; i += 64u) {
        sh_q[i] = params.scale * turned4(i, pos, params.head_dim);
    }
    if last {
        load_head((params.heads + kv_head) * params.head_dim, local);
        for (var i = local; i < dim4; i += 64u) {
            sh_k[i] = turned4(i, pos, params.head_dim);
        }
        load_head((params.heads + params.kv_heads + kv_head) * params.head_dim, local);
        for (var i = local; i < dim4; i += 64u) {
            sh_v_own[i] = raw4(i);
        }
        workgroupBarrier();
        if head % shared_by == 0u {
            let at = pos * kv_stride4 + kv_head * dim4;
            for (var i = local * KV_UNIT4; i < dim4; i += 64u * KV_UNIT4) {
                k_store(at + i, i);
                v_store(at + i, i);
            }
        }
    }
    // Groups of threads that share the positions of a tile when the sum is updated.
    let groups = max(1u, 64u / dim4);
    for (var i = local; i < groups * dim4; i += 64u) {
        sh_sum[i] = vec4(0.0);
    }
    workgroupBarrier();

    let first = select(0u, pos - params.window, pos > params.window);
    let each = ((pos - first + params.parts - 1u) / params.parts + 63u) / 64u * 64u;
    let begin = first + group.y * each;
    let end = min(begin + each, pos);
    var largest = -3.0e38;
    var total = 0.0;
    for (var tile = begin; tile < end; tile += 64u) {
        let j = tile + local;
        var score = -3.0e38;
        if j < end {
            let at = j * kv_stride4 + kv_head * dim4;
            var parts = vec4(0.0);
            for (var i = 0u; i < dim4; i++) {
                parts += sh_q[i] * k_load(at + i);
            }
            score = parts.x + parts.y + parts.z + parts.w;
        }
        let new_largest = max(largest, reduce_max(score, lane));
        let p = select(0.0, exp(score - new_largest), j < end);
        sh_p[local] = p;
        let rescale = exp(largest - new_largest);
        total = total * rescale + reduce_sum(p, lane);
        largest = new_largest;
        let count = min(64u, end - tile);
        for (var e = local; e < groups * dim4; e += 64u) {
            var sum = rescale * sh_sum[e];
            let at = tile * kv_stride4 + kv_head * dim4 + e % dim4;
            for (var i = e / dim4; i < count; i += groups) {
                sum += sh_p[i] * v_load(at + i * kv_stride4);
            }
            sh_sum[e] = sum;
        }
    }
    var own = 0.0; // weight of the token itself
    var rescale = 1.0;
    if last {
        var part = 0.0;
        for (var i = local; i < dim4; i += 64u) {
            part += dot(sh_q[i], sh_k[i]);
        }
        let score = reduce_sum(part, lane);
        let new_largest = max(largest, score);
        rescale = exp(largest - new_largest);
        own = exp(score - new_largest);
        total = total * rescale + own;
        largest = new_largest;
    }
    workgroupBarrier();
    let out_stride = select(dim4 + 1u, dim4, params.parts == 1u);
    let at = (group.y * params.heads + head) * out_stride;
    for (var i = local; i < dim4; i += 64u) {
        var sum = vec4(0.0);
        for (var g = 0u; g < groups; g++) {
            sum += sh_sum[g * dim4 + i];
        }
        sum *= rescale;
        if last {
            sum += own * sh_v_own[i];
        }
        out[at + i] = select(sum, sum / total, params.parts == 1u);
    }
    if params.parts > 1u && local == 0u {
        out[at + dim4] = vec4(select(0.0, largest, total > 0.0), total, 0.0, 0.0);
    }
}

// out[t][h] = softmax(scale * q[t][h] . k[j]) v[j] over the positions j that token t may see.
//
// One workgroup per head and token walks the positions 64 at a time: a thread scores one position, then the threads
// share the elements of the running sum, four each at a time, rescaled when the maximum grows (online softmax).
// Serves decode, prefill (causal, sliding window), and the vision tower and the picture decoder (not causal; q, k, v
// from one activation).

#import step
#import reduce
#import kv_read

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim4: u32, // head_dim / 4, at most 256
    full: u32,   // rows that all see each other; 0: causal, over the cache
    window: u32, // causal: a token sees itself and at most this many before it
    q_offset4: u32,
    q_stride4: u32, // of a token
    k_offset4: u32,
    v_offset4: u32,
    kv_stride4: u32, // of a position
    scale: f32,
    kv_factors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>; // [n][q_stride4]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [n][heads head_dim / 4]

var<workgroup> sh_q: array<vec4<f32>, 256>; // [head_dim / 4]
var<workgroup> sh_sum: array<vec4<f32>, 256>; // [head_dim / 4]; an element belongs to one thread
var<workgroup> sh_p: array<f32, 64>;

@compute @workgroup_size(64)
fn main(lane: Lane, @builtin(workgroup_id) group: vec3<u32>) {
    let head = group.x;
    let t = group.y;
    let n = select(params.full, step.n, params.full == 0u);
    if t >= n {
        return;
    }
    let dim4 = params.head_dim4;
    let kv_head4 = (head / (params.heads / params.kv_heads)) * dim4;
    for (var i = lane.index; i < dim4; i += 64u) {
        sh_q[i] = params.scale * q[params.q_offset4 + t * params.q_stride4 + head * dim4 + i];
        sh_sum[i] = vec4(0.0);
    }
    workgroupBarrier();
    var end = n;
    var begin = 0u;
    if params.full == 0u {
        end = step.pos + t + 1u;
        begin = select(0u, end - 1u - params.window, end - 1u > params.window);
    }
    var largest = -3.0e38;
    var total = 0.0;
    for (var tile = begin; tile < end; tile += 64u) {
        let j = tile + lane.index;
        var score = -3.0e38;
        if j < end {
            let at = params.k_offset4 + j * params.kv_stride4 + kv_head4;
            var parts = vec4(0.0);
            for (var i = 0u; i < dim4; i++) {
                parts += sh_q[i] * k_load(at + i);
            }
            score = parts.x + parts.y + parts.z + parts.w;
        }
        let new_largest = max(largest, reduce_max(score, lane));
        let p = select(0.0, exp(score - new_largest), j < end);
        sh_p[lane.index] = p;
        let rescale = exp(largest - new_largest);
        total = total * rescale + reduce_sum(p, lane);
        largest = new_largest;
        let count = min(64u, end - tile);
        for (var c = lane.index; c < dim4; c += 64u) {
            var sum = rescale * sh_sum[c];
            var at = params.v_offset4 + tile * params.kv_stride4 + kv_head4 + c;
            for (var i = 0u; i < count; i++) {
                sum += sh_p[i] * v_load(at);
                at += params.kv_stride4;
            }
            sh_sum[c] = sum;
        }
    }
    for (var c = lane.index; c < dim4; c += 64u) {
        out[(t * params.heads + head) * dim4 + c] = sh_sum[c] / total;
    }
}

// out[t][h] = softmax(scale * q[t][h] . k[j]) v[j] over the positions j that token t may see.
//
// One workgroup takes eight tokens of a head over the positions, 64 at a time, so that keys and values are loaded once for
// eight tokens. A thread scores one position for all eight; then it owns four elements of the running sums of four tokens,
// rescaled when a maximum grows (online softmax). A head wider than 128 is spread over several workgroups, each with the
// scores of its own.
//
// Serves prefill (causal, sliding window), and the vision tower and the picture decoder (not causal; q, k, v from one
// activation).

#import step
#import kv_read

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim4: u32, // head_dim / 4
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

const NEVER: f32 = -3.0e38;

var<workgroup> sh_p: array<vec4<f32>, 128>; // [64 positions][8 tokens]: scores, then their exponentials
var<workgroup> sh_largest: array<vec4<f32>, 16>; // [8 parts of the positions][8 tokens]

// The scores that tokens t0 .. + 4 may see.
fn masked(scores: vec4<f32>, t0: u32, j: u32, n: u32) -> vec4<f32> {
    if params.full > 0u {
        return select(vec4(NEVER), scores, vec4(j < n));
    }
    let own = step.pos + t0 + vec4(0u, 1u, 2u, 3u);
    return select(vec4(NEVER), scores, (vec4(j) <= own) & (vec4(j) >= own - min(own, vec4(params.window))));
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let head = group.x;
    let t0 = group.y * 8u;
    let n = select(params.full, step.n, params.full == 0u);
    if t0 >= n {
        return;
    }
    let dim4 = params.head_dim4;
    let kv_head4 = (head / (params.heads / params.kv_heads)) * dim4;
    // Tokens past the end repeat the last one; nothing of theirs is stored.
    let low = params.q_offset4 + head * dim4 + params.q_stride4 * min(vec4(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4(n - 1u));
    let high = params.q_offset4 + head * dim4 + params.q_stride4 * min(vec4(t0 + 4u, t0 + 5u, t0 + 6u, t0 + 7u), vec4(n - 1u));
    var end = n;
    var begin = 0u;
    if params.full == 0u {
        end = step.pos + min(t0 + 8u, n);
        begin = max(step.pos + t0, params.window) - params.window;
    }
    // What this thread sums: elements 4 c .. + 4 of tokens 4 four .. + 4.
    let c = group.z * 32u + local % 32u;
    let four = local / 32u;
    var a = vec4(0.0);
    var b = vec4(0.0);
    var d = vec4(0.0);
    var e = vec4(0.0);
    var totals = vec4(0.0);
    var largest_low = vec4(NEVER);
    var largest_high = vec4(NEVER);
    for (var tile = begin; tile < end; tile += 64u) {
        let j = tile + local;
        let at = params.k_offset4 + min(j, end - 1u) * params.kv_stride4 + kv_head4;
        var scores_low = vec4(0.0);
        var scores_high = vec4(0.0);
        for (var i = 0u; i < dim4; i++) {
            let k = params.scale * k_load(at + i);
            scores_low += vec4(dot(q[low.x + i], k), dot(q[low.y + i], k), dot(q[low.z + i], k), dot(q[low.w + i], k));
            scores_high += vec4(dot(q[high.x + i], k), dot(q[high.y + i], k), dot(q[high.z + i], k), dot(q[high.w + i], k));
        }
        scores_low = masked(scores_low, t0, j, n);
        scores_high = masked(scores_high, t0 + 4u, j, n);
        sh_p[local * 2u] = scores_low;
        sh_p[local * 2u + 1u] = scores_high;
        workgroupBarrier();
        if local < 16u {
            var part = sh_p[local];
            for (var i = 1u; i < 8u; i++) {
                part = max(part, sh_p[local + i * 16u]);
            }
            sh_largest[local] = part;
        }
        workgroupBarrier();
        let before = select(largest_low, largest_high, four == 1u);
        for (var i = 0u; i < 16u; i += 2u) {
            largest_low = max(largest_low, sh_largest[i]);
            largest_high = max(largest_high, sh_largest[i + 1u]);
        }
        // A token that has seen nothing yet: the difference would be zero.
        sh_p[local * 2u] = select(exp(scores_low - largest_low), vec4(0.0), scores_low == vec4(NEVER));
        sh_p[local * 2u + 1u] = select(exp(scores_high - largest_high), vec4(0.0), scores_high == vec4(NEVER));
        workgroupBarrier();
        let rescale = exp(before - select(largest_low, largest_high, four == 1u));
        totals *= rescale;
        a *= rescale.x;
        b *= rescale.y;
        d *= rescale.z;
        e *= rescale.w;
        if c < dim4 {
            var value = params.v_offset4 + tile * params.kv_stride4 + kv_head4 + c;
            for (var i = 0u; i < min(64u, end - tile); i++) {
                let p = sh_p[i * 2u + four];
                let v = v_load(value);
                totals += p;
                a += p.x * v;
                b += p.y * v;
                d += p.z * v;
                e += p.w * v;
                value += params.kv_stride4;
            }
        }
        workgroupBarrier();
    }
    if c < dim4 {
        let t = t0 + four * 4u;
        store(t, n, head, c, a / totals.x);
        store(t + 1u, n, head, c, b / totals.y);
        store(t + 2u, n, head, c, d / totals.z);
        store(t + 3u, n, head, c, e / totals.w);
    }
}

fn store(t: u32, n: u32, head: u32, c: u32, value: vec4<f32>) {
    if t < n {
        out[(t * params.heads + head) * params.head_dim4 + c] = value;
    }
}

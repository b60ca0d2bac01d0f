// One token times a matrix: y[r] (+)= sum over k of W[r][k] * x[k].
//
// A thread owns four rows, LANES apart, so that neighbouring threads load neighbouring 16 bytes of the interleaved
// weights and each x is used four times. SPLIT threads share the K of a row and are summed through workgroup memory:
// many on GPUs, where rows alone do not fill the device; one on CPUs, where a barrier costs more than it wins.

#import step
#import weights
#import x

struct Params {
    rows: u32,       // N
    cols4: u32,      // K / 4
    blocks: u32,     // ceil(K / 32)
    y_offset: u32,   // of row 0 in y: shards of one matrix write side by side
    accumulate: u32, // 1: add to y
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [N]

override LANES: u32 = 8u;
override SPLIT: u32 = 8u;

var<workgroup> sh_sums: array<vec4<f32>, LANES * SPLIT>;

fn octet_dot(w: Octet, lo: vec4<f32>, hi: vec4<f32>) -> f32 {
    return dot(w.lo, lo) + dot(w.hi, hi);
}

fn masked_x4(i: u32) -> vec4<f32> {
    return select(vec4(0.0), x4(i), i < params.cols4);
}

@compute @workgroup_size(LANES, SPLIT)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let row0 = (group.x + group.y * groups.x) * LANES * 4u + local.x;
    let last = params.rows - 1u;
    // Rows past the end repeat the last one; their sums are not stored.
    let rows = min(vec4(row0, row0 + LANES, row0 + 2u * LANES, row0 + 3u * LANES), vec4(last));
    var sums = vec4(0.0);
    for (var block = local.y; block < params.blocks; block += SPLIT) {
        let i = block * 8u;
        let x0 = masked_x4(i);
        let x1 = masked_x4(i + 1u);
        let x2 = masked_x4(i + 2u);
        let x3 = masked_x4(i + 3u);
        let x4_ = masked_x4(i + 4u);
        let x5 = masked_x4(i + 5u);
        let x6 = masked_x4(i + 6u);
        let x7 = masked_x4(i + 7u);
        let w0 = weights_block(rows.x, block, params.rows);
        let w1 = weights_block(rows.y, block, params.rows);
        let w2 = weights_block(rows.z, block, params.rows);
        let w3 = weights_block(rows.w, block, params.rows);
        let dots = vec4(
            octet_dot(w0.a, x0, x1) + octet_dot(w0.b, x2, x3) + octet_dot(w0.c, x4_, x5) + octet_dot(w0.d, x6, x7),
            octet_dot(w1.a, x0, x1) + octet_dot(w1.b, x2, x3) + octet_dot(w1.c, x4_, x5) + octet_dot(w1.d, x6, x7),
            octet_dot(w2.a, x0, x1) + octet_dot(w2.b, x2, x3) + octet_dot(w2.c, x4_, x5) + octet_dot(w2.d, x6, x7),
            octet_dot(w3.a, x0, x1) + octet_dot(w3.b, x2, x3) + octet_dot(w3.c, x4_, x5) + octet_dot(w3.d, x6, x7),
        );
        let scale = vec4(
            weights_scale(rows.x, block, params.rows), weights_scale(rows.y, block, params.rows),
            weights_scale(rows.z, block, params.rows), weights_scale(rows.w, block, params.rows),
        );
        sums += scale * dots;
    }
    if SPLIT > 1u {
        sh_sums[local.y * LANES + local.x] = sums;
        workgroupBarrier();
        if local.y == 0u {
            for (var part = 1u; part < SPLIT; part++) {
                sums += sh_sums[part * LANES + local.x];
            }
        }
    }
    if local.y == 0u {
        for (var i = 0u; i < 4u; i++) {
            let row = row0 + i * LANES;
            if row < params.rows {
                let at = params.y_offset + row;
                if params.accumulate == 1u {
                    y[at] += sums[i];
                } else {
                    y[at] = sums[i];
                }
            }
        }
    }
}

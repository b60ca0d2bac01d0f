// How a GEMV is spread over a workgroup: a thread owns four rows, LANES apart, so that neighbouring threads load
// neighbouring 16 bytes of the interleaved weights and each x is used four times. SPLIT threads share the K of a row and
// are summed through workgroup memory: many on GPUs, where rows alone do not fill the device; one on CPUs, where a barrier
// costs more than it wins.
//
// Imported last: naga 30 makes an override of `LANES * SPLIT` and fails if others are declared behind it.

override LANES: u32 = 8u;
override SPLIT: u32 = 8u;

var<workgroup> sh_sums: array<vec4<f32>, LANES * SPLIT>;

fn masked_x4(i: u32) -> vec4<f32> {
    return select(vec4(0.0), x4(i), i < params.cols4);
}

// The four rows of a thread. Rows past the end repeat the last one; their sums are not stored.
fn rows_of(row0: u32, end: u32) -> vec4<u32> {
    return min(vec4(row0, row0 + LANES, row0 + 2u * LANES, row0 + 3u * LANES), vec4(end - 1u));
}

// The whole sums, in the threads with local.y == 0.
fn joined(own: vec4<f32>, local: vec3<u32>) -> vec4<f32> {
    var sums = own;
    if SPLIT > 1u {
        sh_sums[local.y * LANES + local.x] = sums;
        workgroupBarrier();
        if local.y == 0u {
            for (var part = 1u; part < SPLIT; part++) {
                sums += sh_sums[part * LANES + local.x];
            }
        }
    }
    return sums;
}

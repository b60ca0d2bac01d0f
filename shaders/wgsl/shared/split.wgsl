// How a GEMV is spread over a workgroup of a GPU: a thread owns four rows, LANES apart, so that neighbouring threads load
// neighbouring 16 bytes of the interleaved weights and each x is used four times. SPLIT threads share the K of a row and
// are summed through workgroup memory, for rows alone do not fill the device.
//
// Imported last: naga 30 makes an override of `LANES * SPLIT` and fails if others are declared behind it.

override LANES: u32 = 8u;
override SPLIT: u32 = 8u;

var<workgroup> sh_sums: array<vec4<f32>, LANES * SPLIT>;

// The blocks of a thread: this one and every SPLIT-th after it.
fn first_block(local: vec3<u32>) -> u32 {
    return local.y;
}

// The whole sums, in the threads with local.y == 0.
fn joined(own: vec4<f32>, local: vec3<u32>) -> vec4<f32> {
    var sums = own;
    sh_sums[local.y * LANES + local.x] = sums;
    workgroupBarrier();
    if local.y == 0u {
        for (var part = 1u; part < SPLIT; part++) {
            sums += sh_sums[part * LANES + local.x];
        }
    }
    return sums;
}

// How a GEMV is spread over a workgroup of a CPU: a thread owns four rows, LANES apart, and all of their K; a barrier would
// cost more than it wins.

override LANES: u32 = 8u;

const SPLIT: u32 = 1u;

// The blocks of a thread: all.
fn first_block(local: vec3<u32>) -> u32 {
    return 0u;
}

// The whole sums. The barrier is for what else the threads exchange.
fn joined(own: vec4<f32>, local: vec3<u32>) -> vec4<f32> {
    workgroupBarrier();
    return own;
}

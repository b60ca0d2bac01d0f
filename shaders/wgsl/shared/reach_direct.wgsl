// Every thread loads the x that it needs.

override RAGGED: bool = false; // K is no multiple of 32

struct XLane { @builtin(local_invocation_index) index: u32 }

// What a thread holds of a block of 32 values: nothing.
fn x_part(block: u32, lane: XLane) -> vec4<f32> {
    return vec4(0.0);
}

// Values 4 j .. + 4 of the block, zeros past the end.
fn x_quad(part: vec4<f32>, block: u32, j: u32) -> vec4<f32> {
    let i4 = block * 8u + j;
    return select(x[i4], vec4(0.0), RAGGED && i4 >= params.cols4);
}

// Before x is used; by all threads. Nothing to do.
fn x_prepare(thread: u32, threads: u32, blocks: u32, natural: bool) {}

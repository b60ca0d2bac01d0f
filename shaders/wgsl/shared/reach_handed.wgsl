// Eight lanes load a vec4 of a block of x each and hand it to the others. Needs subgroups of at least eight. On llvmpipe a
// load is eight scalar loads with their tests, a broadcast two instructions.

#import handed

override RAGGED: bool = false; // K is no multiple of 32

struct XLane { @builtin(subgroup_invocation_id) index: u32 }

// What a lane holds of a block of 32 values, zeros past the end.
fn x_part(block: u32, lane: XLane) -> vec4<f32> {
    let i4 = block * 8u + lane.index % 8u;
    return select(x[i4], vec4(0.0), RAGGED && i4 >= params.cols4);
}

// Values 4 j .. + 4 of the block; j is a literal.
fn x_quad(part: vec4<f32>, block: u32, j: u32) -> vec4<f32> {
    return handed(part, j);
}

// Before x is used; by all threads. Nothing to do.
fn x_prepare(thread: u32, threads: u32, blocks: u32, natural: bool) {}

// Weights as int8 in groups of 32 with an f16 scale: w = scale * q.

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/16][N], k ascending from the low byte of x
@group(0) @binding(11) var<storage, read> scales: array<u32>; // [ceil(K/64)][N], f16 of an even and an odd group

// Thirty-two consecutive values of one row, packed.
struct Block { a: vec4<u32>, b: vec4<u32> }

// What turns the integers of a block into weights.
struct Factor { scale: f32 }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    let at = block * 2u * rows + row;
    return Block(quants[at], quants[at + rows]);
}

fn weights_factor(row: u32, block: u32, rows: u32) -> Factor {
    return Factor(unpack2x16float(scales[(block / 2u) * rows + row] >> ((block & 1u) * 16u)).x);
}

// Values 4 j .. + 4 of a block, still without scale; j is a literal.
fn weights_quad(block: Block, j: u32, factor: Factor) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(select(block.a[j & 3u], block.b[j & 3u], j >= 4u)));
}

// How `bytes` orders x for the two functions below.
const NATURAL: bool = true;

// The integers of a block, without scale.
fn weights_words(block: Block, factor: Factor) -> Block {
    return block;
}

// A block times 32 values in int8; without their scale.
fn weights_dot(block: Block, factor: Factor, a: vec4<u32>, b: vec4<u32>, total: f32) -> f32 {
    let w = block;
    let sum = dot4I8Packed(w.a.x, a.x) + dot4I8Packed(w.a.y, a.y) + dot4I8Packed(w.a.z, a.z) + dot4I8Packed(w.a.w, a.w)
        + dot4I8Packed(w.b.x, b.x) + dot4I8Packed(w.b.y, b.y) + dot4I8Packed(w.b.z, b.z) + dot4I8Packed(w.b.w, b.w);
    return factor.scale * f32(sum);
}

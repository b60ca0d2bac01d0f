// Weights as 4-bit integers in groups with an f16 scale: w = scale * (q - zero).

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/32][N], k ascending from the low nibble of x
@group(0) @binding(11) var<storage, read> scales: array<u32>; // [ceil(G/2)][N], f16 of an even and an odd group
@group(0) @binding(12) var<storage, read> zero_points: array<u32>; // [ceil(G/8)][N] nibbles; one unread word without ZERO_POINTS

override GROUP_BLOCKS: u32 = 1u; // blocks of 32 in a group
override ZERO_POINTS: bool = false; // else the zero point is 8

// Thirty-two consecutive values of one row, packed.
alias Block = vec4<u32>;

// What turns the integers of a block into weights.
struct Factor { scale: f32, zero: f32 }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    return quants[block * rows + row];
}

fn weights_factor(row: u32, block: u32, rows: u32) -> Factor {
    let group = block / GROUP_BLOCKS;
    var factor = Factor(unpack2x16float(scales[(group / 2u) * rows + row] >> ((group & 1u) * 16u)).x, 8.0);
    if ZERO_POINTS {
        factor.zero = f32((zero_points[(group / 8u) * rows + row] >> ((group & 7u) * 4u)) & 15u);
    }
    return factor;
}

// Values 4 j .. + 4 of a block, still without scale; j is a literal.
fn weights_quad(block: Block, j: u32, factor: Factor) -> vec4<f32> {
    return vec4<f32>((vec4(block[j / 2u]) >> (vec4(0u, 4u, 8u, 12u) + (j & 1u) * 16u)) & vec4(15u)) - factor.zero;
}

// How `bytes` orders x for the two functions below.
const NATURAL: bool = false;

struct Words { a: vec4<u32>, b: vec4<u32> }

// The nibbles of a block as bytes: of eight the even ones, then the odd ones.
fn spread_nibbles(block: Block) -> Words {
    let even = block & vec4(0x0f0f0f0fu);
    let odd = (block >> vec4(4u)) & vec4(0x0f0f0f0fu);
    return Words(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}

// The integers of a block as int8, without scale.
fn weights_words(block: Block, factor: Factor) -> Words {
    // Byte by byte, the top bit keeping borrows from the neighbour.
    const TOP = vec4(0x80808080u);
    let zero = vec4(u32(factor.zero) * 0x01010101u);
    let w = spread_nibbles(block);
    return Words(((w.a | TOP) - zero) ^ TOP, ((w.b | TOP) - zero) ^ TOP);
}

// A block times 32 values in int8 whose integers sum to `total`; without their scale.
fn weights_dot(block: Block, factor: Factor, a: vec4<u32>, b: vec4<u32>, total: f32) -> f32 {
    let w = spread_nibbles(block);
    let sum = dot4I8Packed(w.a.x, a.x) + dot4I8Packed(w.a.y, a.y) + dot4I8Packed(w.a.z, a.z) + dot4I8Packed(w.a.w, a.w)
        + dot4I8Packed(w.b.x, b.x) + dot4I8Packed(w.b.y, b.y) + dot4I8Packed(w.b.z, b.z) + dot4I8Packed(w.b.w, b.w);
    return factor.scale * (f32(sum) - factor.zero * total);
}

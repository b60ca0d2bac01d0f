// Weights as 4-bit integers in groups with an f16 scale: w = scale * (q - zero_point).

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/32][N], k ascending from the low nibble of x
@group(0) @binding(11) var<storage, read> scales: array<u32>; // [ceil(G/2)][N], f16 of an even and an odd group
@group(0) @binding(12) var<storage, read> zero_points: array<u32>; // [ceil(G/8)][N] nibbles; one unread word without ZERO_POINTS

override GROUP_BLOCKS: u32 = 1u; // blocks of 32 in a group
override ZERO_POINTS: bool = false; // else the zero point is 8

// Eight consecutive values of one row.
struct Octet { lo: vec4<f32>, hi: vec4<f32> }

fn zero_point(row: u32, block: u32, rows: u32) -> f32 {
    if ZERO_POINTS {
        let group = block / GROUP_BLOCKS;
        return f32((zero_points[(group / 8u) * rows + row] >> ((group & 7u) * 4u)) & 15u);
    }
    return 8.0;
}

fn nibbles(word: u32, zero: f32) -> Octet {
    let lo = (vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
    let hi = (vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u);
    return Octet(vec4<f32>(lo) - zero, vec4<f32>(hi) - zero);
}

// Row `row` of `rows`, k = 8 * octet ..+8, still without scale.
fn weights_octet(row: u32, octet: u32, rows: u32) -> Octet {
    let block = octet / 4u;
    let q = quants[block * rows + row];
    return nibbles(q[octet & 3u], zero_point(row, block, rows));
}

// Thirty-two consecutive values of one row.
struct Block { a: Octet, b: Octet, c: Octet, d: Octet }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    let q = quants[block * rows + row];
    let zero = zero_point(row, block, rows);
    return Block(nibbles(q.x, zero), nibbles(q.y, zero), nibbles(q.z, zero), nibbles(q.w, zero));
}

// Factor of a block of thirty-two.
fn weights_scale(row: u32, block: u32, rows: u32) -> f32 {
    let group = block / GROUP_BLOCKS;
    let pair = unpack2x16float(scales[(group / 2u) * rows + row]);
    return select(pair.x, pair.y, (group & 1u) == 1u);
}

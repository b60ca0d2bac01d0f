// Weights as f16: `[K/8][N]` vec4<u32>, eight values each, k ascending from the low half of x. No f16 feature needed.

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/8][N]

// Eight consecutive values of one row.
struct Octet { lo: vec4<f32>, hi: vec4<f32> }

// Row `row` of `rows`, k = 8 * octet ..+8, still without scale.
fn weights_octet(row: u32, octet: u32, rows: u32) -> Octet {
    let q = quants[octet * rows + row];
    return Octet(vec4(unpack2x16float(q.x), unpack2x16float(q.y)), vec4(unpack2x16float(q.z), unpack2x16float(q.w)));
}

// Thirty-two consecutive values of one row against x.
struct Block { a: Octet, b: Octet, c: Octet, d: Octet }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    let o = block * 4u;
    return Block(weights_octet(row, o, rows), weights_octet(row, o + 1u, rows), weights_octet(row, o + 2u, rows), weights_octet(row, o + 3u, rows));
}

// Factor of a block of thirty-two.
fn weights_scale(row: u32, block: u32, rows: u32) -> f32 {
    return 1.0;
}

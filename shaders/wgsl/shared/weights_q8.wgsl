// Weights as int8 in groups of 32 with an f16 scale: w = scale * q.

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/16][N], k ascending from the low byte of x
@group(0) @binding(11) var<storage, read> scales: array<u32>; // [ceil(K/64)][N], f16 of an even and an odd group

// Eight consecutive values of one row.
struct Octet { lo: vec4<f32>, hi: vec4<f32> }

fn int8x4(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}

// Row `row` of `rows`, k = 8 * octet ..+8, still without scale.
fn weights_octet(row: u32, octet: u32, rows: u32) -> Octet {
    let q = quants[(octet / 2u) * rows + row];
    let w = select(q.xy, q.zw, (octet & 1u) == 1u);
    return Octet(int8x4(w.x), int8x4(w.y));
}

// Thirty-two consecutive values of one row.
struct Block { a: Octet, b: Octet, c: Octet, d: Octet }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    let q0 = quants[(block * 2u) * rows + row];
    let q1 = quants[(block * 2u + 1u) * rows + row];
    return Block(
        Octet(int8x4(q0.x), int8x4(q0.y)), Octet(int8x4(q0.z), int8x4(q0.w)),
        Octet(int8x4(q1.x), int8x4(q1.y)), Octet(int8x4(q1.z), int8x4(q1.w)),
    );
}

// Factor of a block of thirty-two.
fn weights_scale(row: u32, block: u32, rows: u32) -> f32 {
    let pair = unpack2x16float(scales[(block / 2u) * rows + row]);
    return select(pair.x, pair.y, (block & 1u) == 1u);
}

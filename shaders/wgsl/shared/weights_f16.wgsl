// Weights as f16: `[K/8][N]` vec4<u32>, eight values each, k ascending from the low half of x. No f16 feature needed.

@group(0) @binding(10) var<storage, read> quants: array<vec4<u32>>; // [K/8][N]

// Thirty-two consecutive values of one row.
struct Block { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

struct Factor { scale: f32 }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    let at = block * 4u * rows + row;
    return Block(quants[at], quants[at + rows], quants[at + 2u * rows], quants[at + 3u * rows]);
}

fn weights_factor(row: u32, block: u32, rows: u32) -> Factor {
    return Factor(1.0);
}

// Values 4 j .. + 4 of a block; j is a literal.
fn weights_quad(block: Block, j: u32, factor: Factor) -> vec4<f32> {
    let low = select(block.a, block.b, (j & 2u) == 2u);
    let high = select(block.c, block.d, (j & 2u) == 2u);
    let eight = select(low, high, j >= 4u);
    let four = select(eight.xy, eight.zw, (j & 1u) == 1u);
    return vec4(unpack2x16float(four.x), unpack2x16float(four.y));
}

// How `bytes` orders x for the function below.
const NATURAL: bool = true;

// A block times 32 values in int8; without their scale.
fn weights_dot(block: Block, factor: Factor, a: vec4<u32>, b: vec4<u32>, total: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 4u; i++) {
        let low = select(block.a, block.b, (i & 1u) == 1u);
        let eight = select(low, select(block.c, block.d, (i & 1u) == 1u), i >= 2u);
        let x = select(a, b, i >= 2u);
        let pair = select(x.xy, x.zw, (i & 1u) == 1u);
        sum += dot(vec4(unpack2x16float(eight.x), unpack2x16float(eight.y)), vec4<f32>(unpack4xI8(pair.x)))
            + dot(vec4(unpack2x16float(eight.z), unpack2x16float(eight.w)), vec4<f32>(unpack4xI8(pair.y)));
    }
    return sum;
}

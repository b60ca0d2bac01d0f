// Four rows of a matrix against x: what a GEMV thread computes. Weights are unpacked four at a time where they are used:
// whole blocks of four rows would not fit the registers. The calls are written out, for j must be a literal.

// A block of each row, packed.
struct Rows { w0: Block, w1: Block, w2: Block, w3: Block, f0: Factor, f1: Factor, f2: Factor, f3: Factor }

fn rows_quad(r: Rows, j: u32, v: vec4<f32>) -> vec4<f32> {
    return vec4(
        dot(weights_quad(r.w0, j, r.f0), v), dot(weights_quad(r.w1, j, r.f1), v),
        dot(weights_quad(r.w2, j, r.f2), v), dot(weights_quad(r.w3, j, r.f3), v),
    );
}

// Sums over blocks `first`, `first + stride`, … of `blocks`; `n` rows lie interleaved.
fn rows_dot(rows: vec4<u32>, lane: XLane, first: u32, stride: u32, blocks: u32, n: u32) -> vec4<f32> {
    var sums = vec4(0.0);
    for (var block = first; block < blocks; block += stride) {
        let r = Rows(
            weights_block(rows.x, block, n), weights_block(rows.y, block, n),
            weights_block(rows.z, block, n), weights_block(rows.w, block, n),
            weights_factor(rows.x, block, n), weights_factor(rows.y, block, n),
            weights_factor(rows.z, block, n), weights_factor(rows.w, block, n),
        );
        let part = x_part(block, lane);
        var dots = rows_quad(r, 0u, x_quad(part, block, 0u));
        dots += rows_quad(r, 1u, x_quad(part, block, 1u));
        dots += rows_quad(r, 2u, x_quad(part, block, 2u));
        dots += rows_quad(r, 3u, x_quad(part, block, 3u));
        dots += rows_quad(r, 4u, x_quad(part, block, 4u));
        dots += rows_quad(r, 5u, x_quad(part, block, 5u));
        dots += rows_quad(r, 6u, x_quad(part, block, 6u));
        dots += rows_quad(r, 7u, x_quad(part, block, 7u));
        sums += vec4(r.f0.scale, r.f1.scale, r.f2.scale, r.f3.scale) * dots;
    }
    return sums;
}

// Four rows of a matrix against x in int8: what a GEMV thread computes, by dot products of integers.

// Sums over blocks `first`, `first + stride`, … of `blocks`; `n` rows lie interleaved.
fn rows_dot(rows: vec4<u32>, lane: XLane, first: u32, stride: u32, blocks: u32, n: u32) -> vec4<f32> {
    var sums = vec4(0.0);
    for (var block = first; block < blocks; block += stride) {
        let a = sh_bytes[block * 2u];
        let b = sh_bytes[block * 2u + 1u];
        let f = sh_factors[block];
        sums += f.x * vec4(
            weights_dot(weights_block(rows.x, block, n), weights_factor(rows.x, block, n), a, b, f.y),
            weights_dot(weights_block(rows.y, block, n), weights_factor(rows.y, block, n), a, b, f.y),
            weights_dot(weights_block(rows.z, block, n), weights_factor(rows.z, block, n), a, b, f.y),
            weights_dot(weights_block(rows.w, block, n), weights_factor(rows.w, block, n), a, b, f.y),
        );
    }
    return sums;
}

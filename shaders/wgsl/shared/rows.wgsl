// Four rows of a matrix against x: what a GEMV thread computes.

fn octet_dot(w: Octet, lo: vec4<f32>, hi: vec4<f32>) -> f32 {
    return dot(w.lo, lo) + dot(w.hi, hi);
}

fn block_dot(w: Block, x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>, x4_: vec4<f32>, x5: vec4<f32>, x6: vec4<f32>, x7: vec4<f32>) -> f32 {
    return octet_dot(w.a, x0, x1) + octet_dot(w.b, x2, x3) + octet_dot(w.c, x4_, x5) + octet_dot(w.d, x6, x7);
}

// Sums over blocks `first`, `first + stride`, … of `blocks`; `n` rows lie interleaved.
fn rows_dot(rows: vec4<u32>, first: u32, stride: u32, blocks: u32, n: u32) -> vec4<f32> {
    var sums = vec4(0.0);
    for (var block = first; block < blocks; block += stride) {
        let i = block * 8u;
        let x0 = masked_x4(i);
        let x1 = masked_x4(i + 1u);
        let x2 = masked_x4(i + 2u);
        let x3 = masked_x4(i + 3u);
        let x4_ = masked_x4(i + 4u);
        let x5 = masked_x4(i + 5u);
        let x6 = masked_x4(i + 6u);
        let x7 = masked_x4(i + 7u);
        let dots = vec4(
            block_dot(weights_block(rows.x, block, n), x0, x1, x2, x3, x4_, x5, x6, x7),
            block_dot(weights_block(rows.y, block, n), x0, x1, x2, x3, x4_, x5, x6, x7),
            block_dot(weights_block(rows.z, block, n), x0, x1, x2, x3, x4_, x5, x6, x7),
            block_dot(weights_block(rows.w, block, n), x0, x1, x2, x3, x4_, x5, x6, x7),
        );
        let scale = vec4(
            weights_scale(rows.x, block, n), weights_scale(rows.y, block, n),
            weights_scale(rows.z, block, n), weights_scale(rows.w, block, n),
        );
        sums += scale * dots;
    }
    return sums;
}

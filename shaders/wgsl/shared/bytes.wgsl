// Values as int8 with a factor for every 32, for integer dot products.

fn bytes_largest(v: vec4<f32>) -> f32 {
    let sizes = abs(v);
    return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

// What values are multiplied with before they are rounded. Where all are zero, or nearly, nothing must become infinite.
fn bytes_inverse(largest: f32) -> f32 {
    return select(0.0, 127.0 / largest, largest > 1.0e-30);
}

// Eight values in two words: as they come, or the even ones and the odd ones, as the nibbles of q4 are taken apart.
fn bytes(v: vec4<f32>, w: vec4<f32>, inverse: f32, natural: bool) -> vec2<u32> {
    let p = vec4<i32>(round(v * inverse));
    let q = vec4<i32>(round(w * inverse));
    return vec2(
        pack4xI8(select(vec4(p.xz, q.xz), p, natural)),
        pack4xI8(select(vec4(p.yw, q.yw), q, natural)),
    );
}

// A head of one token in workgroup memory, and its rotary embedding (half-split: element i turns with i + head_dim / 2).
// The kernel brings the binding `rope` and fills sh_raw.

override HEAD: u32 = 512u; // head_dim or more

var<workgroup> sh_raw: array<f32, HEAD>;

fn raw4(i4: u32) -> vec4<f32> {
    let i = i4 * 4u;
    return vec4(sh_raw[i], sh_raw[i + 1u], sh_raw[i + 2u], sh_raw[i + 3u]);
}

// Elements 4 i4 .. + 4, turned to a position.
fn turned4(i4: u32, pos: u32, head_dim: u32) -> vec4<f32> {
    let half = head_dim / 2u;
    var result: vec4<f32>;
    for (var c = 0u; c < 4u; c++) {
        let i = i4 * 4u + c;
        let low = i < half;
        let r = rope[pos * half + select(i - half, i, low)];
        let other = select(sh_raw[select(i - half, i, low)], -sh_raw[select(i, i + half, low)], low);
        result[c] = sh_raw[i] * r.x + other * r.y;
    }
    return result;
}

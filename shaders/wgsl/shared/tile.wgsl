// A tile of 32 columns (tokens, pixels) x 32 rows by a workgroup of 64, 4 x 4 of it a thread, from slices of 64 k held in
// workgroup memory (16 KiB, the WebGPU floor). Weights are taken apart once per tile, one block of 32 by each thread.
// The kernel brings `fetch(column, k4)`: four k of what it multiplies, zeros past the end.

var<workgroup> sh_x: array<f32, 2048>; // [64 k][32 columns]
var<workgroup> sh_w: array<f32, 2048>; // [64 k][32 rows]

// Sums of columns ty, ty + 8, ty + 16, ty + 24; each of rows tx, tx + 8, tx + 16, tx + 24.
struct Tile { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

fn put_w(at: u32, scale: f32, w: Octet) {
    for (var i = 0u; i < 4u; i++) {
        sh_w[at + i * 32u] = scale * w.lo[i];
        sh_w[at + (i + 4u) * 32u] = scale * w.hi[i];
    }
}

// `column` and `row` are the ones that this thread loads: lane `local % 32` of the tile.
fn tile_product(local: u32, column: vec2<u32>, row: u32, blocks: u32, rows: u32) -> Tile {
    let half = local / 32u; // block of the slice that this thread loads
    let at = half * 1024u + local % 32u;
    let tx = local % 8u;
    let ty = local / 8u;
    var sums: Tile;
    for (var block0 = 0u; block0 < blocks; block0 += 2u) {
        let block = block0 + half;
        for (var i = 0u; i < 8u; i++) {
            let v = fetch(column, block * 8u + i);
            sh_x[at + i * 128u] = v.x;
            sh_x[at + i * 128u + 32u] = v.y;
            sh_x[at + i * 128u + 64u] = v.z;
            sh_x[at + i * 128u + 96u] = v.w;
        }
        if block < blocks {
            let scale = weights_scale(row, block, rows);
            for (var o = 0u; o < 4u; o++) {
                put_w(at + o * 256u, scale, weights_octet(row, block * 4u + o, rows));
            }
        } else {
            for (var k = 0u; k < 32u; k++) {
                sh_w[at + k * 32u] = 0.0;
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 2048u; k += 32u) {
            let w = vec4(sh_w[k + tx], sh_w[k + tx + 8u], sh_w[k + tx + 16u], sh_w[k + tx + 24u]);
            sums.a += sh_x[k + ty] * w;
            sums.b += sh_x[k + ty + 8u] * w;
            sums.c += sh_x[k + ty + 16u] * w;
            sums.d += sh_x[k + ty + 24u] * w;
        }
        workgroupBarrier();
    }
    return sums;
}

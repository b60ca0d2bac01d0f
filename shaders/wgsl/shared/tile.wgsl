// Many columns (tokens, pixels) times a matrix, for GPUs: a tile of 32 columns x 32 rows by a workgroup of 64, 4 x 4 of it
// a thread, from slices of 64 k held in workgroup memory (16 KiB, the WebGPU floor). Weights are taken apart once per
// tile, one block of 32 by each thread.
//
// The kernel brings `columns()`, `column(i)`, `fetch(column, k4)` (four k of what is multiplied, zeros past the end) and
// `store(i, row, sum)`; its params have `rows` and `blocks`.

var<workgroup> sh_x: array<f32, 2048>; // [64 k][32 columns]
var<workgroup> sh_w: array<f32, 2048>; // [64 k][32 rows]

fn put_x(at: u32, v: vec4<f32>) {
    sh_x[at] = v.x;
    sh_x[at + 32u] = v.y;
    sh_x[at + 64u] = v.z;
    sh_x[at + 96u] = v.w;
}

fn put_w(at: u32, v: vec4<f32>) {
    sh_w[at] = v.x;
    sh_w[at + 32u] = v.y;
    sh_w[at + 64u] = v.z;
    sh_w[at + 96u] = v.w;
}

fn put_block(at: u32, row: u32, block: u32) {
    let w = weights_block(row, block, params.rows);
    let f = weights_factor(row, block, params.rows);
    put_w(at, f.scale * weights_quad(w, 0u, f));
    put_w(at + 128u, f.scale * weights_quad(w, 1u, f));
    put_w(at + 256u, f.scale * weights_quad(w, 2u, f));
    put_w(at + 384u, f.scale * weights_quad(w, 3u, f));
    put_w(at + 512u, f.scale * weights_quad(w, 4u, f));
    put_w(at + 640u, f.scale * weights_quad(w, 5u, f));
    put_w(at + 768u, f.scale * weights_quad(w, 6u, f));
    put_w(at + 896u, f.scale * weights_quad(w, 7u, f));
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_column = group.y * 32u;
    let first_row = group.x * 32u;
    if first_column >= columns() {
        return;
    }
    // What this thread loads: a block of a column and of a row, of the first or the second half of a slice.
    let loads = column(min(first_column + local % 32u, columns() - 1u));
    let row = min(first_row + local % 32u, params.rows - 1u);
    let half = local / 32u;
    let at = half * 1024u + local % 32u;
    // What it computes: columns ty, ty + 8, … and rows tx, tx + 8, …
    let tx = local % 8u;
    let ty = local / 8u;
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    for (var block0 = 0u; block0 < params.blocks; block0 += 2u) {
        let block = block0 + half;
        for (var i = 0u; i < 8u; i++) {
            put_x(at + i * 128u, fetch(loads, block * 8u + i));
        }
        if block < params.blocks {
            put_block(at, row, block);
        } else {
            for (var i = 0u; i < 8u; i++) {
                put_w(at + i * 128u, vec4(0.0));
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 2048u; k += 32u) {
            let w = vec4(sh_w[k + tx], sh_w[k + tx + 8u], sh_w[k + tx + 16u], sh_w[k + tx + 24u]);
            a += sh_x[k + ty] * w;
            b += sh_x[k + ty + 8u] * w;
            c += sh_x[k + ty + 16u] * w;
            d += sh_x[k + ty + 24u] * w;
        }
        workgroupBarrier();
    }
    store_four(first_column + ty, first_row + tx, a);
    store_four(first_column + ty + 8u, first_row + tx, b);
    store_four(first_column + ty + 16u, first_row + tx, c);
    store_four(first_column + ty + 24u, first_row + tx, d);
}

fn store_four(i: u32, row0: u32, sums: vec4<f32>) {
    if i >= columns() {
        return;
    }
    for (var r = 0u; r < 4u; r++) {
        let row = row0 + r * 8u;
        if row < params.rows {
            store(i, row, sums[r]);
        }
    }
}

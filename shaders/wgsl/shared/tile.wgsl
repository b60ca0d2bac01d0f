// Many columns (tokens, pixels) times a matrix, for GPUs: a tile of 64 columns x 64 rows by a workgroup of 128, 4 columns x
// 8 rows of it a thread, from slices of 16 k held in workgroup memory (8 KiB, so that several workgroups fit where there
// are 64). Half of the threads take the weights apart, once per tile; the other half fetches the columns.
//
// The kernel brings `columns()`, `column(i)`, `fetch(column, k4)` (four k of what is multiplied, zeros past the end) and
// `store(i, row, sum)`; its params have `rows` and `blocks`.

// Four k in an element: whole elements are stored, for a store to a component may touch its neighbours.
var<workgroup> sh_x: array<vec4<f32>, 256>; // [16 k / 4][64 columns]
var<workgroup> sh_w: array<vec4<f32>, 256>; // [16 k / 4][64 rows]

// Sums of a thread: columns ty, ty + 16, … of rows tx, tx + 8, …
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32> }

fn slice(before: Sums, tx: u32, ty: u32) -> Sums {
    var s = before;
    for (var k = 0u; k < 256u; k += 64u) {
        let w0 = sh_w[k + tx];
        let w1 = sh_w[k + tx + 8u];
        let w2 = sh_w[k + tx + 16u];
        let w3 = sh_w[k + tx + 24u];
        let w4 = sh_w[k + tx + 32u];
        let w5 = sh_w[k + tx + 40u];
        let w6 = sh_w[k + tx + 48u];
        let w7 = sh_w[k + tx + 56u];
        var v = sh_x[k + ty];
        s.a += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
        s.b += vec4(dot(v, w4), dot(v, w5), dot(v, w6), dot(v, w7));
        v = sh_x[k + ty + 16u];
        s.c += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
        s.d += vec4(dot(v, w4), dot(v, w5), dot(v, w6), dot(v, w7));
        v = sh_x[k + ty + 32u];
        s.e += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
        s.f += vec4(dot(v, w4), dot(v, w5), dot(v, w6), dot(v, w7));
        v = sh_x[k + ty + 48u];
        s.g += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
        s.h += vec4(dot(v, w4), dot(v, w5), dot(v, w6), dot(v, w7));
    }
    return s;
}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_column = group.y * 64u;
    let first_row = group.x * 64u;
    if first_column >= columns() {
        return;
    }
    // What this thread brings: a row (threads below 64) or a column. Those past the end repeat the last one.
    let brings = local % 64u;
    let brings_row = local < 64u;
    let row = min(first_row + brings, params.rows - 1u);
    let source = column(min(first_column + brings, columns() - 1u));
    let tx = local % 8u;
    let ty = local / 8u;
    var s: Sums;
    for (var block = 0u; block < params.blocks; block++) {
        var w: Block;
        var f: Factor;
        if brings_row {
            w = weights_block(row, block, params.rows);
            f = weights_factor(row, block, params.rows);
            sh_w[brings] = f.scale * weights_quad(w, 0u, f);
            sh_w[brings + 64u] = f.scale * weights_quad(w, 1u, f);
            sh_w[brings + 128u] = f.scale * weights_quad(w, 2u, f);
            sh_w[brings + 192u] = f.scale * weights_quad(w, 3u, f);
        } else {
            for (var j = 0u; j < 4u; j++) {
                sh_x[brings + j * 64u] = fetch(source, block * 8u + j);
            }
        }
        workgroupBarrier();
        s = slice(s, tx, ty);
        workgroupBarrier();
        if brings_row {
            sh_w[brings] = f.scale * weights_quad(w, 4u, f);
            sh_w[brings + 64u] = f.scale * weights_quad(w, 5u, f);
            sh_w[brings + 128u] = f.scale * weights_quad(w, 6u, f);
            sh_w[brings + 192u] = f.scale * weights_quad(w, 7u, f);
        } else {
            for (var j = 0u; j < 4u; j++) {
                sh_x[brings + j * 64u] = fetch(source, block * 8u + 4u + j);
            }
        }
        workgroupBarrier();
        s = slice(s, tx, ty);
        workgroupBarrier();
    }
    let i = first_column + ty;
    let r = first_row + tx;
    store_eight(i, r, s.a, s.b);
    store_eight(i + 16u, r, s.c, s.d);
    store_eight(i + 32u, r, s.e, s.f);
    store_eight(i + 48u, r, s.g, s.h);
}

#import store_eight

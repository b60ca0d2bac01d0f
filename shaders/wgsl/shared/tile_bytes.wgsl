// As `tile`, with both sides in int8 and dot products of integers: a tile of 64 columns x 64 rows by a workgroup of 128,
// 4 columns x 8 rows of it a thread, 32 k at a time. Half of the threads bring the weights, the other half rounds the
// columns.
//
// The kernel brings what `tile` asks for.

#import bytes

var<workgroup> sh_x: array<vec4<u32>, 128>; // [2][64 columns], 16 k each
var<workgroup> sh_w: array<vec4<u32>, 128>; // [2][64 rows]
var<workgroup> sh_scale: array<f32, 128>; // of the rows, then of the columns

// Sums of a thread: columns ty, ty + 16, … of rows tx, tx + 8, …
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32> }

// Row `at` against a column.
fn dot32(at: u32, x0: vec4<u32>, x1: vec4<u32>) -> f32 {
    let w0 = sh_w[at];
    let w1 = sh_w[at + 64u];
    return f32(
        dot4I8Packed(w0.x, x0.x) + dot4I8Packed(w0.y, x0.y) + dot4I8Packed(w0.z, x0.z) + dot4I8Packed(w0.w, x0.w)
        + dot4I8Packed(w1.x, x1.x) + dot4I8Packed(w1.y, x1.y) + dot4I8Packed(w1.z, x1.z) + dot4I8Packed(w1.w, x1.w)
    );
}

// Rows at, at + 8, at + 16, at + 24 against column `i`.
fn dots(at: u32, i: u32) -> vec4<f32> {
    let x0 = sh_x[i];
    let x1 = sh_x[i + 64u];
    let scales = vec4(sh_scale[at], sh_scale[at + 8u], sh_scale[at + 16u], sh_scale[at + 24u]) * sh_scale[64u + i];
    return scales * vec4(dot32(at, x0, x1), dot32(at + 8u, x0, x1), dot32(at + 16u, x0, x1), dot32(at + 24u, x0, x1));
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
    let row = min(first_row + brings, params.rows - 1u);
    let source = column(min(first_column + brings, columns() - 1u));
    let tx = local % 8u;
    let ty = local / 8u;
    var s: Sums;
    for (var block = 0u; block < params.blocks; block++) {
        if local < 64u {
            let f = weights_factor(row, block, params.rows);
            let w = weights_words(weights_block(row, block, params.rows), f);
            sh_w[brings] = w.a;
            sh_w[brings + 64u] = w.b;
            sh_scale[brings] = f.scale;
        } else {
            let k = block * 8u;
            var largest = 0.0;
            for (var i = k; i < k + 8u; i++) {
                largest = max(largest, bytes_largest(fetch(source, i)));
            }
            let inverse = bytes_inverse(largest);
            for (var half = 0u; half < 2u; half++) {
                let i = k + half * 4u;
                sh_x[brings + half * 64u] = vec4(
                    bytes(fetch(source, i), fetch(source, i + 1u), inverse, NATURAL),
                    bytes(fetch(source, i + 2u), fetch(source, i + 3u), inverse, NATURAL),
                );
            }
            sh_scale[brings + 64u] = largest / 127.0;
        }
        workgroupBarrier();
        s.a += dots(tx, ty);
        s.b += dots(tx + 32u, ty);
        s.c += dots(tx, ty + 16u);
        s.d += dots(tx + 32u, ty + 16u);
        s.e += dots(tx, ty + 32u);
        s.f += dots(tx + 32u, ty + 32u);
        s.g += dots(tx, ty + 48u);
        s.h += dots(tx + 32u, ty + 48u);
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

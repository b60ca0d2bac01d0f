// As `tile`, with both sides in int8 and dot products of integers: a tile of 64 columns x 64 rows by a workgroup of 256, 4 x 4
// of it a thread, two blocks of 32 k at a time. Half of the threads bring the weights, the other half rounds the columns.
//
// The kernel brings what `tile` asks for.

#import bytes

var<workgroup> sh_x: array<vec4<u32>, 256>; // [2 blocks][32 k / 16][64 columns]
var<workgroup> sh_w: array<vec4<u32>, 256>; // [2 blocks][32 k / 16][64 rows]
var<workgroup> sh_x_scale: array<f32, 128>; // [2 blocks][64 columns]
var<workgroup> sh_w_scale: array<f32, 128>; // [2 blocks][64 rows]

// A block of a column.
fn put_x(at: u32, i: u32, source: vec2<u32>, k4: u32) {
    var largest = 0.0;
    for (var k = k4; k < k4 + 8u; k++) {
        largest = max(largest, bytes_largest(fetch(source, k)));
    }
    let inverse = bytes_inverse(largest);
    for (var half = 0u; half < 2u; half++) {
        let k = k4 + half * 4u;
        sh_x[at * 128u + half * 64u + i] = vec4(
            bytes(fetch(source, k), fetch(source, k + 1u), inverse, NATURAL),
            bytes(fetch(source, k + 2u), fetch(source, k + 3u), inverse, NATURAL),
        );
    }
    sh_x_scale[at * 64u + i] = largest / 127.0;
}

// A block of a row.
fn put_w(at: u32, i: u32, row: u32, block: u32) {
    let f = weights_factor(row, block, params.rows);
    let w = weights_words(weights_block(row, block, params.rows), f);
    sh_w[at * 128u + i] = w.a;
    sh_w[at * 128u + 64u + i] = w.b;
    sh_w_scale[at * 64u + i] = f.scale;
}

fn dot16(v: vec4<u32>, w: vec4<u32>) -> i32 {
    return dot4I8Packed(v.x, w.x) + dot4I8Packed(v.y, w.y) + dot4I8Packed(v.z, w.z) + dot4I8Packed(v.w, w.w);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_column = group.y * 64u;
    let first_row = group.x * 64u;
    if first_column >= columns() {
        return;
    }
    // What this thread brings: a block of a row (threads below 128) or of a column. Those past the end repeat the last one.
    let brings = local % 64u;
    let role = local / 64u;
    let row = min(first_row + brings, params.rows - 1u);
    let source = column(min(first_column + brings, columns() - 1u));
    // What it computes: columns ty, ty + 16, … of rows tx, tx + 16, …
    let tx = local % 16u;
    let ty = local / 16u;
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    for (var first = 0u; first < params.blocks; first += 2u) {
        let present = min(2u, params.blocks - first);
        if role % 2u < present {
            if role < 2u {
                put_w(role, brings, row, first + role);
            } else {
                put_x(role - 2u, brings, source, (first + role - 2u) * 8u);
            }
        }
        workgroupBarrier();
        for (var at = 0u; at < present; at++) {
            var ia = vec4(0i);
            var ib = vec4(0i);
            var ic = vec4(0i);
            var id = vec4(0i);
            for (var k = at * 128u; k < at * 128u + 128u; k += 64u) {
                let w0 = sh_w[k + tx];
                let w1 = sh_w[k + tx + 16u];
                let w2 = sh_w[k + tx + 32u];
                let w3 = sh_w[k + tx + 48u];
                var v = sh_x[k + ty];
                ia += vec4(dot16(v, w0), dot16(v, w1), dot16(v, w2), dot16(v, w3));
                v = sh_x[k + ty + 16u];
                ib += vec4(dot16(v, w0), dot16(v, w1), dot16(v, w2), dot16(v, w3));
                v = sh_x[k + ty + 32u];
                ic += vec4(dot16(v, w0), dot16(v, w1), dot16(v, w2), dot16(v, w3));
                v = sh_x[k + ty + 48u];
                id += vec4(dot16(v, w0), dot16(v, w1), dot16(v, w2), dot16(v, w3));
            }
            let s = at * 64u + tx;
            let scales = vec4(sh_w_scale[s], sh_w_scale[s + 16u], sh_w_scale[s + 32u], sh_w_scale[s + 48u]);
            let i = at * 64u + ty;
            a += sh_x_scale[i] * scales * vec4<f32>(ia);
            b += sh_x_scale[i + 16u] * scales * vec4<f32>(ib);
            c += sh_x_scale[i + 32u] * scales * vec4<f32>(ic);
            d += sh_x_scale[i + 48u] * scales * vec4<f32>(id);
        }
        workgroupBarrier();
    }
    let i = first_column + ty;
    let r = first_row + tx;
    store_four(i, r, a);
    store_four(i + 16u, r, b);
    store_four(i + 32u, r, c);
    store_four(i + 48u, r, d);
}

#import store_four

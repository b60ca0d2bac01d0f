// Many columns (tokens, pixels) times a matrix, for GPUs: a tile of 64 columns x 64 rows by a workgroup of 256, 4 x 4 of it
// a thread, from slices of 32 k (a block) held in workgroup memory (16 KiB, the WebGPU floor). Half of the threads take the
// weights apart, once per tile; the other half fetches the columns.
//
// The kernel brings `columns()`, `column(i)`, `fetch(column, k4)` (four k of what is multiplied, zeros past the end) and
// `store(i, row, sum)`; its params have `rows` and `blocks`.

// Four k in an element: whole elements are stored, for a store to a component may touch its neighbours.
var<workgroup> sh_x: array<vec4<f32>, 512>; // [32 k / 4][64 columns]
var<workgroup> sh_w: array<vec4<f32>, 512>; // [32 k / 4][64 rows]

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_column = group.y * 64u;
    let first_row = group.x * 64u;
    if first_column >= columns() {
        return;
    }
    // What this thread brings: half a block of a row (threads below 128) or of a column. Those past the end repeat the
    // last one.
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
    for (var block = 0u; block < params.blocks; block++) {
        if role < 2u {
            let w = weights_block(row, block, params.rows);
            let f = weights_factor(row, block, params.rows);
            if role == 0u {
                sh_w[brings] = f.scale * weights_quad(w, 0u, f);
                sh_w[brings + 64u] = f.scale * weights_quad(w, 1u, f);
                sh_w[brings + 128u] = f.scale * weights_quad(w, 2u, f);
                sh_w[brings + 192u] = f.scale * weights_quad(w, 3u, f);
            } else {
                sh_w[brings + 256u] = f.scale * weights_quad(w, 4u, f);
                sh_w[brings + 320u] = f.scale * weights_quad(w, 5u, f);
                sh_w[brings + 384u] = f.scale * weights_quad(w, 6u, f);
                sh_w[brings + 448u] = f.scale * weights_quad(w, 7u, f);
            }
        } else {
            for (var j = (role - 2u) * 4u; j < (role - 1u) * 4u; j++) {
                sh_x[brings + j * 64u] = fetch(source, block * 8u + j);
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 512u; k += 64u) {
            let w0 = sh_w[k + tx];
            let w1 = sh_w[k + tx + 16u];
            let w2 = sh_w[k + tx + 32u];
            let w3 = sh_w[k + tx + 48u];
            var v = sh_x[k + ty];
            a += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
            v = sh_x[k + ty + 16u];
            b += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
            v = sh_x[k + ty + 32u];
            c += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
            v = sh_x[k + ty + 48u];
            d += vec4(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
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

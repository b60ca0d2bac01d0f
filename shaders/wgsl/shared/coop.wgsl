// Many columns (tokens, pixels) times a matrix, for devices with cooperative matrices: a tile of 64 columns x 64 rows by a
// workgroup of 128, from slices of 32 k (one block of weights) held in workgroup memory. A subgroup owns a quarter of the
// tile, 32 x 32 in four fragments of 16 x 16; where there are fewer than four subgroups they take the quarters in turns.
//
// Weights and x are rounded to f16, sums are f32. A larger x is cut to the f16 range. A weight is a few steps of its f16
// scale, and what it was rounded from lay within the range.
//
// The kernel brings what `tile` asks for. The files that import this one bring fragments: `Left` (16 columns x DEPTH k),
// `Right` (16 rows x DEPTH k) and `Sums`, with `left(at)`, `right(at)`, `multiplied(left, right, sums)` and
// `put_sums(sums, at)`.

// Between two rows, in halves: 32, and 8 more so that eight rows lie in different banks.
const STRIDE: u32 = 40u;

var<workgroup> sh_x: array<f16, 2560>; // [64 columns][STRIDE]
var<workgroup> sh_w: array<f16, 2560>; // [64 rows][STRIDE]
var<workgroup> sh_sums: array<f32, 1024>; // one fragment of each quarter: [4][16 columns][16 rows]

fn put_x(at: u32, v: vec4<f32>) {
    let h = vec4<f16>(clamp(v, vec4(-65504.0), vec4(65504.0)));
    sh_x[at] = h.x;
    sh_x[at + 1u] = h.y;
    sh_x[at + 2u] = h.z;
    sh_x[at + 3u] = h.w;
}

fn put_w(at: u32, v: vec4<f32>) {
    let h = vec4<f16>(v);
    sh_w[at] = h.x;
    sh_w[at + 1u] = h.y;
    sh_w[at + 2u] = h.z;
    sh_w[at + 3u] = h.w;
}

@compute @workgroup_size(128)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let first_column = group.y * 64u;
    let first_row = group.x * 64u;
    if first_column >= columns() {
        return;
    }
    // What this thread loads: four k of columns x0, x0 + 16, …, and half a block of a row. Those past the end repeat the
    // last one.
    let last = columns() - 1u;
    let x0 = local / 8u;
    let c0 = column(min(first_column + x0, last));
    let c1 = column(min(first_column + x0 + 16u, last));
    let c2 = column(min(first_column + x0 + 32u, last));
    let c3 = column(min(first_column + x0 + 48u, last));
    let x_at = x0 * STRIDE + local % 8u * 4u;
    let row = min(first_row + local % 64u, params.rows - 1u);
    let w_at = local % 64u * STRIDE;
    for (var before = 0u; before < 4u; before += subgroups) {
        let quarter = before + subgroup;
        let left_at = quarter / 2u * 32u * STRIDE;
        let right_at = quarter % 2u * 32u * STRIDE;
        var s00: Sums;
        var s01: Sums;
        var s10: Sums;
        var s11: Sums;
        for (var block = 0u; block < params.blocks; block++) {
            let k4 = block * 8u + local % 8u;
            let v0 = fetch(c0, k4);
            let v1 = fetch(c1, k4);
            let v2 = fetch(c2, k4);
            let v3 = fetch(c3, k4);
            let w = weights_block(row, block, params.rows);
            let f = weights_factor(row, block, params.rows);
            put_x(x_at, v0);
            put_x(x_at + 16u * STRIDE, v1);
            put_x(x_at + 32u * STRIDE, v2);
            put_x(x_at + 48u * STRIDE, v3);
            if local < 64u {
                put_w(w_at, f.scale * weights_quad(w, 0u, f));
                put_w(w_at + 4u, f.scale * weights_quad(w, 1u, f));
                put_w(w_at + 8u, f.scale * weights_quad(w, 2u, f));
                put_w(w_at + 12u, f.scale * weights_quad(w, 3u, f));
            } else {
                put_w(w_at + 16u, f.scale * weights_quad(w, 4u, f));
                put_w(w_at + 20u, f.scale * weights_quad(w, 5u, f));
                put_w(w_at + 24u, f.scale * weights_quad(w, 6u, f));
                put_w(w_at + 28u, f.scale * weights_quad(w, 7u, f));
            }
            workgroupBarrier();
            if quarter < 4u {
                for (var k = 0u; k < 32u; k += DEPTH) {
                    let l0 = left(left_at + k);
                    let l1 = left(left_at + k + 16u * STRIDE);
                    let r0 = right(right_at + k);
                    let r1 = right(right_at + k + 16u * STRIDE);
                    s00 = multiplied(l0, r0, s00);
                    s01 = multiplied(l0, r1, s01);
                    s10 = multiplied(l1, r0, s10);
                    s11 = multiplied(l1, r1, s11);
                }
            }
            workgroupBarrier();
        }
        let done = vec2(before, before + subgroups);
        if quarter < 4u {
            put_sums(s00, quarter * 256u);
        }
        store_fragments(done, first_column, first_row, local);
        if quarter < 4u {
            put_sums(s01, quarter * 256u);
        }
        store_fragments(done, first_column, first_row + 16u, local);
        if quarter < 4u {
            put_sums(s10, quarter * 256u);
        }
        store_fragments(done, first_column + 16u, first_row, local);
        if quarter < 4u {
            put_sums(s11, quarter * 256u);
        }
        store_fragments(done, first_column + 16u, first_row + 16u, local);
    }
}

// One fragment of each quarter from done.x to done.y, out of workgroup memory: a cooperative store knows no bounds.
fn store_fragments(done: vec2<u32>, column0: u32, row0: u32, local: u32) {
    workgroupBarrier();
    for (var at = local; at < 1024u; at += 128u) {
        let quarter = at / 256u;
        let i = column0 + quarter / 2u * 32u + at % 256u / 16u;
        let row = row0 + quarter % 2u * 32u + at % 16u;
        if quarter >= done.x && quarter < done.y && i < columns() && row < params.rows {
            store(i, row, sh_sums[at]);
        }
    }
    workgroupBarrier();
}

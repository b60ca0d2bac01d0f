// Many columns (tokens, pixels) times a matrix, for CPUs: a thread owns two rows, 32 apart, of eight columns, so that a
// weight is unpacked once for eight and x is loaded once for all lanes, which hand it to each other. Needs subgroups of at
// least eight. Columns vary fastest, so that the weights of a workgroup stay in the cache for the next one.
//
// The kernel brings what `tile` asks for.

#import handed

struct XLane { @builtin(subgroup_invocation_id) index: u32 }

var<private> parts: array<vec4<f32>, 8>; // this lane's vec4 of the block, by column
var<private> sums: array<vec2<f32>, 8>;

// Adds values 4 j .. + 4 of a block; j is a literal.
fn add_quad(j: u32, w0: vec4<f32>, w1: vec4<f32>) {
    for (var t = 0u; t < 8u; t++) {
        let v = handed(parts[t], j);
        sums[t] += vec2(dot(w0, v), dot(w1, v));
    }
}

@compute @workgroup_size(32)
fn main(lane: XLane, @builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_column = group.x * 8u;
    if first_column >= columns() {
        return;
    }
    // Rows past the end repeat the last one; their sums are not stored.
    let row0 = group.y * 64u + local;
    let rows = min(vec2(row0, row0 + 32u), vec2(params.rows - 1u));
    for (var block = 0u; block < params.blocks; block++) {
        let w0 = weights_block(rows.x, block, params.rows);
        let w1 = weights_block(rows.y, block, params.rows);
        let f0 = weights_factor(rows.x, block, params.rows);
        let f1 = weights_factor(rows.y, block, params.rows);
        for (var t = 0u; t < 8u; t++) {
            parts[t] = fetch(column(min(first_column + t, columns() - 1u)), block * 8u + lane.index % 8u);
        }
        add_quad(0u, f0.scale * weights_quad(w0, 0u, f0), f1.scale * weights_quad(w1, 0u, f1));
        add_quad(1u, f0.scale * weights_quad(w0, 1u, f0), f1.scale * weights_quad(w1, 1u, f1));
        add_quad(2u, f0.scale * weights_quad(w0, 2u, f0), f1.scale * weights_quad(w1, 2u, f1));
        add_quad(3u, f0.scale * weights_quad(w0, 3u, f0), f1.scale * weights_quad(w1, 3u, f1));
        add_quad(4u, f0.scale * weights_quad(w0, 4u, f0), f1.scale * weights_quad(w1, 4u, f1));
        add_quad(5u, f0.scale * weights_quad(w0, 5u, f0), f1.scale * weights_quad(w1, 5u, f1));
        add_quad(6u, f0.scale * weights_quad(w0, 6u, f0), f1.scale * weights_quad(w1, 6u, f1));
        add_quad(7u, f0.scale * weights_quad(w0, 7u, f0), f1.scale * weights_quad(w1, 7u, f1));
    }
    for (var t = 0u; t < 8u; t++) {
        let i = first_column + t;
        if i < columns() {
            if row0 < params.rows {
                store(i, row0, sums[t].x);
            }
            if row0 + 32u < params.rows {
                store(i, row0 + 32u, sums[t].y);
            }
        }
    }
}

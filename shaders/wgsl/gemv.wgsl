// One token times a matrix, and times the way down of its adapter: y[r] = sum over k of W[r][k] * x[k], then the rows of
// [A; R] behind those of W. Where x comes with the sums of its squares, y is divided by the root of their mean: the norm
// before a linear costs no dispatch of its own.

#import step
#import x
#import reach
#import weights
#import rows
#import down as down
#import rows as down
#import spread

struct Params {
    rows: u32,        // N
    cols4: u32,       // K / 4
    blocks: u32,      // ceil(K / 32)
    y_offset: u32,    // of row 0 in y: shards of one matrix write side by side
    down_rows: u32,   // of [A; R]
    down_offset: u32, // of its row 0 in y
    parts: u32,       // sums of squares behind x; 0: x is taken as it is
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [N + rows of the adapter]

var<workgroup> sh_squares: array<f32, SPLIT>;

// A share of the sum of the squares of what x was made from.
fn square_of(first: u32) -> f32 {
    var sum = 0.0;
    for (var i = first; i < params.parts; i += SPLIT) {
        sum += x[params.cols4 + i / 4u][i % 4u];
    }
    return sum;
}

@compute @workgroup_size(LANES, SPLIT)
fn main(lane: XLane, @builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let own_groups = (params.rows + LANES * 4u - 1u) / (LANES * 4u);
    let adapts = group.x >= own_groups;
    let end = select(params.rows, params.down_rows, adapts);
    let row0 = (group.x - select(0u, own_groups, adapts)) * LANES * 4u + local.x;
    // Rows past the end repeat the last one; their sums are not stored.
    let rows = min(vec4(row0, row0 + LANES, row0 + 2u * LANES, row0 + 3u * LANES), vec4(end - 1u));
    x_prepare(local.y * LANES + local.x, LANES * SPLIT, params.blocks, select(NATURAL, down_NATURAL, adapts));
    var sums: vec4<f32>;
    if adapts {
        sums = down_rows_dot(rows, lane, first_block(local), SPLIT, params.blocks, end);
    } else {
        sums = rows_dot(rows, lane, first_block(local), SPLIT, params.blocks, end);
    }
    if local.x == 0u {
        sh_squares[local.y] = square_of(local.y);
    }
    sums = joined(sums, local);
    if local.y > 0u {
        return;
    }
    if params.parts > 0u {
        var square = 0.0;
        for (var part = 0u; part < SPLIT; part++) {
            square += sh_squares[part];
        }
        sums *= inverseSqrt(square / f32(params.cols4 * 4u) + params.eps);
    }
    let offset = select(params.y_offset, params.down_offset, adapts);
    for (var i = 0u; i < 4u; i++) {
        let row = row0 + i * LANES;
        if row < end {
            y[offset + row] = sums[i];
        }
    }
}

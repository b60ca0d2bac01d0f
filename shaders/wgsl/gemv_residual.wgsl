// One token times a matrix, added to the residual stream, which is made ready for the norm that follows: times its weight,
// with the sum of squares of every 32 rows behind it. For linears without adapter.

#import step
#import x
#import reach
#import weights
#import rows
#import spread

struct Params {
    rows: u32,   // N, of this shard
    cols4: u32,  // K / 4
    blocks: u32, // ceil(K / 32)
    row0: u32,   // of the shard in the matrix, a multiple of 32
    d: u32,      // rows of the whole matrix
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> stream: array<f32>; // [d]
@group(0) @binding(4) var<storage, read> norm: array<f32>; // [d]
@group(0) @binding(5) var<storage, read_write> normed: array<f32>; // [d + ceil(d / 32)]

var<workgroup> sh_squares: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES, SPLIT)
fn main(lane: XLane, @builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let first = group.x * LANES * 4u;
    let row0 = first + local.x;
    // Rows past the end repeat the last one; their sums are not stored.
    let rows = min(vec4(row0, row0 + LANES, row0 + 2u * LANES, row0 + 3u * LANES), vec4(params.rows - 1u));
    x_prepare(local.y * LANES + local.x, LANES * SPLIT, params.blocks, NATURAL);
    let sums = joined(rows_dot(rows, lane, first_block(local), SPLIT, params.blocks, params.rows), local);
    if local.y == 0u {
        var squares = vec4(0.0);
        for (var i = 0u; i < 4u; i++) {
            let row = row0 + i * LANES;
            if row < params.rows {
                let at = params.row0 + row;
                let value = stream[at] + sums[i];
                stream[at] = value;
                normed[at] = value * norm[at];
                squares[i] = value * value;
            }
        }
        sh_squares[local.x] = squares;
    }
    workgroupBarrier();
    // The workgroup's rows are LANES / 8 times 32, each a thread's to sum.
    let part = local.x;
    if local.y == 0u && part < LANES / 8u && first + part * 32u < params.rows {
        let of_thread = 32u / LANES; // rows of one thread among 32
        var total = 0.0;
        for (var l = 0u; l < LANES; l++) {
            for (var i = part * of_thread; i < (part + 1u) * of_thread; i++) {
                total += sh_squares[l][i];
            }
        }
        normed[params.d + (params.row0 + first) / 32u + part] = total;
    }
}

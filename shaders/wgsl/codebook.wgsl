// Rows of the codebook by code: out[i] = table[codes[i]], the picture of a code grid, channels last.

#import step

struct Params {
    count: u32, // codes of the picture
    cols: u32,  // width of a codebook row
    rows: u32,  // codes of the codebook
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> codes: array<u32>; // [count]
@group(0) @binding(3) var<storage, read> table: array<f32>; // [rows][cols]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [count][cols]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let i = group.y;
    if i >= params.count || id.x >= params.cols {
        return;
    }
    out[i * params.cols + id.x] = table[min(codes[i], params.rows - 1u) * params.cols + id.x];
}

// token[0] = id of the largest logit that may win, the lowest one among equals. One workgroup.
//
// The rows below `count` may win, and the row `step.also`, if there is such a row.

#import step

struct Params {
    count: u32,
    rows: u32,     // logits that there are
    first_id: u32, // id of row 0
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>; // [rows]
@group(0) @binding(3) var<storage, read_write> token: array<u32>; // [1]

var<workgroup> sh_value: array<f32, 256>;
var<workgroup> sh_index: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    var value = -3.4e38;
    var index = 0u;
    for (var i = local; i < params.count; i += 256u) {
        let v = logits[i];
        if v > value {
            value = v;
            index = i;
        }
    }
    if local == 0u && step.also < params.rows {
        let v = logits[step.also];
        if v > value || (v == value && step.also < index) {
            value = v;
            index = step.also;
        }
    }
    sh_value[local] = value;
    sh_index[local] = index;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            let v = sh_value[local + half];
            let i = sh_index[local + half];
            if v > sh_value[local] || (v == sh_value[local] && i < sh_index[local]) {
                sh_value[local] = v;
                sh_index[local] = i;
            }
        }
        workgroupBarrier();
    }
    if local == 0u {
        token[0] = params.first_id + sh_index[0];
    }
}

// token[0] = index of the largest logit, the lowest one among equals. One workgroup.

#import step

struct Params {
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>; // [count]
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
        token[0] = sh_index[0];
    }
}

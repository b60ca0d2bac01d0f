// Sum and maximum over a workgroup of 64 by a tree in workgroup memory: needs no feature.

struct Lane {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> sh_reduce: array<f32, 64>;

fn reduce_sum(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    sh_reduce[lane.index] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if lane.index < half {
            sh_reduce[lane.index] += sh_reduce[lane.index + half];
        }
        workgroupBarrier();
    }
    return sh_reduce[0];
}

fn reduce_max(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    sh_reduce[lane.index] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if lane.index < half {
            sh_reduce[lane.index] = max(sh_reduce[lane.index], sh_reduce[lane.index + half]);
        }
        workgroupBarrier();
    }
    return sh_reduce[0];
}

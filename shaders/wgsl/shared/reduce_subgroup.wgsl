// Sum and maximum over a workgroup of 64 by subgroups of any size, joined through workgroup memory.

struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
}

var<workgroup> sh_reduce: array<f32, 64>; // one element per subgroup; a subgroup may be a single thread

fn reduce_sum(value: f32, lane: Lane) -> f32 {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if lane.subgroup_lane == 0u {
        sh_reduce[lane.subgroup] = part;
    }
    workgroupBarrier();
    var sum = sh_reduce[0];
    for (var i = 1u; i < lane.subgroups; i++) {
        sum += sh_reduce[i];
    }
    return sum;
}

fn reduce_max(value: f32, lane: Lane) -> f32 {
    let part = subgroupMax(value);
    workgroupBarrier();
    if lane.subgroup_lane == 0u {
        sh_reduce[lane.subgroup] = part;
    }
    workgroupBarrier();
    var result = sh_reduce[0];
    for (var i = 1u; i < lane.subgroups; i++) {
        result = max(result, sh_reduce[i]);
    }
    return result;
}

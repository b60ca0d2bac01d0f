// What lane j of the subgroup holds; j is a literal below 8. A broadcast from a literal lane costs next to nothing.
fn handed(part: vec4<f32>, j: u32) -> vec4<f32> {
    switch j {
        case 0u: { return subgroupBroadcast(part, 0u); }
        case 1u: { return subgroupBroadcast(part, 1u); }
        case 2u: { return subgroupBroadcast(part, 2u); }
        case 3u: { return subgroupBroadcast(part, 3u); }
        case 4u: { return subgroupBroadcast(part, 4u); }
        case 5u: { return subgroupBroadcast(part, 5u); }
        case 6u: { return subgroupBroadcast(part, 6u); }
        default: { return subgroupBroadcast(part, 7u); }
    }
}

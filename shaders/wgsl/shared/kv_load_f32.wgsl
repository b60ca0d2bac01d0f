// Loads from a KV cache in f32, or from an activation.

fn k_load(i4: u32) -> vec4<f32> {
    return k_cache[i4];
}

fn v_load(i4: u32) -> vec4<f32> {
    return v_cache[i4];
}

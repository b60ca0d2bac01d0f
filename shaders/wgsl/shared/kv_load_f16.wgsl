// Loads from a KV cache in f16.

fn four(w: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

fn k_load(i4: u32) -> vec4<f32> {
    return four(k_cache[i4]);
}

fn v_load(i4: u32) -> vec4<f32> {
    return four(v_cache[i4]);
}

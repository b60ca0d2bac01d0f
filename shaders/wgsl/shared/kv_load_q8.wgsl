// Loads from a KV cache in int8: all values, then a factor for every 32 of them, as a sum of two f16 (f32 would need a
// bitcast). The kernel's params say where the factors begin: `kv_factors`, in words.

fn factor(word: u32) -> f32 {
    let parts = unpack2x16float(word);
    return parts.x + parts.y;
}

fn k_load(i4: u32) -> vec4<f32> {
    return factor(k_cache[params.kv_factors + i4 / 8u]) * vec4<f32>(unpack4xI8(k_cache[i4]));
}

fn v_load(i4: u32) -> vec4<f32> {
    return factor(v_cache[params.kv_factors + i4 / 8u]) * vec4<f32>(unpack4xI8(v_cache[i4]));
}

// Writing the KV cache in f16; packing needs no f16 feature.

@group(0) @binding(8) var<storage, read_write> k_cache: array<u32>; // [positions][kv_dim/2] f16 pairs
@group(0) @binding(9) var<storage, read_write> v_cache: array<u32>; // [positions][kv_dim/2] f16 pairs

fn k_store(i2: u32, value: vec2<f32>) {
    k_cache[i2] = pack2x16float(clamp(value, vec2(-65504.0), vec2(65504.0)));
}

fn v_store(i2: u32, value: vec2<f32>) {
    v_cache[i2] = pack2x16float(clamp(value, vec2(-65504.0), vec2(65504.0)));
}

// Writing the KV cache in f32.

@group(0) @binding(8) var<storage, read_write> k_cache: array<vec2<f32>>; // [positions][kv_dim/2]
@group(0) @binding(9) var<storage, read_write> v_cache: array<vec2<f32>>; // [positions][kv_dim/2]

fn k_store(i2: u32, value: vec2<f32>) {
    k_cache[i2] = value;
}

fn v_store(i2: u32, value: vec2<f32>) {
    v_cache[i2] = value;
}

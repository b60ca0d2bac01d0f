// Reading and writing the KV cache in f32 by one dispatch.

@group(0) @binding(8) var<storage, read_write> k_cache: array<vec4<f32>>; // [positions][kv_dim / 4]
@group(0) @binding(9) var<storage, read_write> v_cache: array<vec4<f32>>; // [positions][kv_dim / 4]

fn k_load(i4: u32) -> vec4<f32> {
    return k_cache[i4];
}

fn v_load(i4: u32) -> vec4<f32> {
    return v_cache[i4];
}

fn k_store(i4: u32, value: vec4<f32>) {
    k_cache[i4] = value;
}

fn v_store(i4: u32, value: vec4<f32>) {
    v_cache[i4] = value;
}

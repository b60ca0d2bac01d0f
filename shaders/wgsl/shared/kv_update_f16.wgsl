// Reading and writing the KV cache in f16 by one dispatch.

@group(0) @binding(8) var<storage, read_write> k_cache: array<vec2<u32>>; // [positions][kv_dim / 4], four f16 each
@group(0) @binding(9) var<storage, read_write> v_cache: array<vec2<u32>>; // [positions][kv_dim / 4], four f16 each

fn four(w: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

fn halves(value: vec4<f32>) -> vec2<u32> {
    let v = clamp(value, vec4(-65504.0), vec4(65504.0));
    return vec2(pack2x16float(v.xy), pack2x16float(v.zw));
}

fn k_load(i4: u32) -> vec4<f32> {
    return four(k_cache[i4]);
}

fn v_load(i4: u32) -> vec4<f32> {
    return four(v_cache[i4]);
}

fn k_store(i4: u32, value: vec4<f32>) {
    k_cache[i4] = halves(value);
}

fn v_store(i4: u32, value: vec4<f32>) {
    v_cache[i4] = halves(value);
}

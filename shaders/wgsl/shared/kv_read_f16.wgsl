// Reading the KV cache in f16.

@group(0) @binding(8) var<storage, read> k_cache: array<vec2<u32>>; // [positions][stride/4], four f16 each
@group(0) @binding(9) var<storage, read> v_cache: array<vec2<u32>>; // [positions][stride/4], four f16 each

fn k_load(i4: u32) -> vec4<f32> {
    let w = k_cache[i4];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

fn v_load(i4: u32) -> vec4<f32> {
    let w = v_cache[i4];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

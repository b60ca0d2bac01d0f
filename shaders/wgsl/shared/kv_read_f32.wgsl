// Reading keys and values in f32: from the cache, or from an activation.

@group(0) @binding(8) var<storage, read> k_cache: array<vec4<f32>>; // [positions][stride/4]
@group(0) @binding(9) var<storage, read> v_cache: array<vec4<f32>>; // [positions][stride/4]

#import kv_load_f32

// Reading the KV cache in f16.

@group(0) @binding(8) var<storage, read> k_cache: array<vec2<u32>>; // [positions][stride/4], four f16 each
@group(0) @binding(9) var<storage, read> v_cache: array<vec2<u32>>; // [positions][stride/4], four f16 each

#import kv_load_f16

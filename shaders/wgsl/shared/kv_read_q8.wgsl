// Reading the KV cache in int8.

@group(0) @binding(8) var<storage, read> k_cache: array<u32>; // [positions][kv_dim / 4], [positions][kv_dim / 32]
@group(0) @binding(9) var<storage, read> v_cache: array<u32>; // likewise

#import kv_load_q8

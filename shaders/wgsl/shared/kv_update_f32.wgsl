// Reading and writing the KV cache in f32 by one dispatch. The kernel brings `k_own(i4)` and
// `v_own(i4)`, what is to be stored.

@group(0) @binding(8) var<storage, read_write> k_cache: array<vec4<f32>>; // [positions][kv_dim / 4]
@group(0) @binding(9) var<storage, read_write> v_cache: array<vec4<f32>>; // [positions][kv_dim / 4]

#import kv_load_f32

const KV_UNIT4: u32 = 1u; // vec4s that are stored together

// Stores vec4 `from4` of what the kernel has at vec4 `to4` of the cache.
fn k_store(to4: u32, from4: u32) {
    k_cache[to4] = k_own(from4);
}

fn v_store(to4: u32, from4: u32) {
    v_cache[to4] = v_own(from4);
}

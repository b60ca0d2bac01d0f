// Reading and writing the KV cache in int8 by one dispatch; the layout is that of `kv_load_q8`. The kernel brings
// `k_own(i4)` and `v_own(i4)`, what is to be stored.

@group(0) @binding(8) var<storage, read_write> k_cache: array<u32>; // [positions][kv_dim / 4], [positions][kv_dim / 32]
@group(0) @binding(9) var<storage, read_write> v_cache: array<u32>; // likewise

#import kv_load_q8

const KV_UNIT4: u32 = 8u; // vec4s that are stored together: 32 values share a factor

fn largest_of(v: vec4<f32>) -> f32 {
    let m = abs(v);
    return max(max(m.x, m.y), max(m.z, m.w));
}

fn int8_of(v: vec4<f32>, by: f32) -> u32 {
    let scaled = select(vec4(0.0), v / by, by > 0.0);
    return pack4xI8(vec4<i32>(round(clamp(scaled, vec4(-127.0), vec4(127.0)))));
}

var<private> unit: array<vec4<f32>, 8>; // what is being stored

// The factor of the unit, as it is stored.
fn unit_factor() -> u32 {
    var largest = 0.0;
    for (var i = 0u; i < 8u; i++) {
        largest = max(largest, largest_of(unit[i]));
    }
    let wanted = min(largest, 65504.0) / 127.0;
    let high = quantizeToF16(wanted);
    return pack2x16float(vec2(high, wanted - high));
}

// Stores the 32 values from vec4 `from4` of what the kernel has at vec4 `to4` of the cache.
fn k_store(to4: u32, from4: u32) {
    for (var i = 0u; i < 8u; i++) {
        unit[i] = k_own(from4 + i);
    }
    let word = unit_factor();
    k_cache[params.kv_factors + to4 / 8u] = word;
    for (var i = 0u; i < 8u; i++) {
        k_cache[to4 + i] = int8_of(unit[i], factor(word));
    }
}

fn v_store(to4: u32, from4: u32) {
    for (var i = 0u; i < 8u; i++) {
        unit[i] = v_own(from4 + i);
    }
    let word = unit_factor();
    v_cache[params.kv_factors + to4 / 8u] = word;
    for (var i = 0u; i < 8u; i++) {
        v_cache[to4 + i] = int8_of(unit[i], factor(word));
    }
}

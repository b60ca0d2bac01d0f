// The activation vector from a storage buffer.

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [K/4]

fn x4(i: u32) -> vec4<f32> {
    return x[i];
}

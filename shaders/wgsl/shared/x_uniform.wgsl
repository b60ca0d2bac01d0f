// The activation vector from a uniform buffer, K <= 16384: every thread reads the same element, which devices with a
// constant cache, and software devices above all, serve several times faster than a storage load.

@group(0) @binding(2) var<uniform> x: array<vec4<f32>, 4096>; // [K/4], bound at its full 64 KiB

fn x4(i: u32) -> vec4<f32> {
    return x[i];
}

// One token's x in a uniform buffer, K <= 16384: devices with a constant cache, and software devices above all, serve it
// several times faster than a storage buffer.

@group(0) @binding(2) var<uniform> x: array<vec4<f32>, 4096>; // [K/4], bound at its full 64 KiB

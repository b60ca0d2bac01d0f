// One token's x in a storage buffer.

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [K/4]

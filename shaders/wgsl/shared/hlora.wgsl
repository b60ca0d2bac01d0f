// The way up of an H-LoRA adapter for one token, added by whoever reads the linear's output next. The kernel brings
// `u(i)`: (A x, R x), fills the slot `weights` with B, and has in its params
//     rank: u32,        // 0: no adapter
//     experts: u32,
//     up_blocks: u32,   // of 32 that B's rows have
//     hlora_scale: f32, // alpha / rank * experts

override RANK4: u32 = 256u; // a quarter of the rank, in whole blocks: 1 to 256

var<workgroup> sh_v: array<vec4<f32>, RANK4>;

// v[k] = scale * softmax(R x)[k / (rank / experts)] * (A x)[k], by all 64 threads of the workgroup.
fn hlora_load(local: u32) {
    if params.rank > 0u {
        var largest = u(params.rank);
        for (var e = 1u; e < params.experts; e++) {
            largest = max(largest, u(params.rank + e));
        }
        var total = 0.0;
        for (var e = 0u; e < params.experts; e++) {
            total += exp(u(params.rank + e) - largest);
        }
        let per_expert = params.rank / params.experts;
        for (var i = local; i < params.up_blocks * 8u; i += 64u) {
            var v = vec4(0.0);
            for (var c = 0u; c < 4u; c++) {
                let k = i * 4u + c;
                if k < params.rank {
                    v[c] = params.hlora_scale * exp(u(params.rank + k / per_expert) - largest) / total * u(k);
                }
            }
            sh_v[i] = v;
        }
    }
    workgroupBarrier();
}

// B[row] v
fn hlora_up(row: u32, rows: u32) -> f32 {
    var sum = 0.0;
    for (var block = 0u; block < params.up_blocks; block++) {
        let w = weights_block(row, block, rows);
        let f = weights_factor(row, block, rows);
        let i = block * 8u;
        let dots = dot(weights_quad(w, 0u, f), sh_v[i]) + dot(weights_quad(w, 1u, f), sh_v[i + 1u])
            + dot(weights_quad(w, 2u, f), sh_v[i + 2u]) + dot(weights_quad(w, 3u, f), sh_v[i + 3u])
            + dot(weights_quad(w, 4u, f), sh_v[i + 4u]) + dot(weights_quad(w, 5u, f), sh_v[i + 5u])
            + dot(weights_quad(w, 6u, f), sh_v[i + 6u]) + dot(weights_quad(w, 7u, f), sh_v[i + 7u]);
        sum += f.scale * dots;
    }
    return sum;
}

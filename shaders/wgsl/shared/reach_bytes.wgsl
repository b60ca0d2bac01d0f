// The threads of a workgroup turn x into int8, a factor for every 32, and share it.

#import bytes

override RAGGED: bool = false; // K is no multiple of 32

struct XLane { @builtin(local_invocation_index) index: u32 }

var<workgroup> sh_bytes: array<vec4<u32>, 512>; // [K/32][2], K <= 8192
var<workgroup> sh_factors: array<vec2<f32>, 256>; // [K/32]: scale, sum of the integers

// Values 4 i4 .. + 4, zeros past the end.
fn x_four(i4: u32) -> vec4<f32> {
    return select(x[i4], vec4(0.0), RAGGED && i4 >= params.cols4);
}

// Before x is used; by all threads.
fn x_prepare(thread: u32, threads: u32, blocks: u32, natural: bool) {
    const ONES = 0x01010101u;
    for (var block = thread; block < blocks; block += threads) {
        var largest = 0.0;
        for (var i = block * 8u; i < block * 8u + 8u; i++) {
            largest = max(largest, bytes_largest(x_four(i)));
        }
        let inverse = bytes_inverse(largest);
        var total = 0;
        for (var half = block * 2u; half < block * 2u + 2u; half++) {
            let i = half * 4u;
            let words = vec4(
                bytes(x_four(i), x_four(i + 1u), inverse, natural),
                bytes(x_four(i + 2u), x_four(i + 3u), inverse, natural),
            );
            sh_bytes[half] = words;
            total += dot4I8Packed(words.x, ONES) + dot4I8Packed(words.y, ONES)
                + dot4I8Packed(words.z, ONES) + dot4I8Packed(words.w, ONES);
        }
        sh_factors[block] = vec2(largest / 127.0, f32(total));
    }
    workgroupBarrier();
}

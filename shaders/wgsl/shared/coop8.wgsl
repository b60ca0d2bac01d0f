// Fragments of `coop` where the device multiplies 8 x 8: four of those each, a b over c d.

enable f16;
enable wgpu_cooperative_matrix;

#import coop

alias Left8 = coop_mat8x8<f16, A>;
alias Right8 = coop_mat8x8<f16, B>;
alias Sums8 = coop_mat8x8<f32, C>;

struct Left { a: Left8, b: Left8, c: Left8, d: Left8 }

struct Right { a: Right8, b: Right8, c: Right8, d: Right8 }

struct Sums { a: Sums8, b: Sums8, c: Sums8, d: Sums8 }

fn left(at: u32) -> Left {
    let below = at + 8u * STRIDE;
    return Left(
        coopLoadT<Left8>(&sh_x[at], STRIDE), coopLoadT<Left8>(&sh_x[at + 8u], STRIDE),
        coopLoadT<Left8>(&sh_x[below], STRIDE), coopLoadT<Left8>(&sh_x[below + 8u], STRIDE),
    );
}

fn right(at: u32) -> Right {
    // Rows of weights are columns of this matrix.
    let beside = at + 8u * STRIDE;
    return Right(
        coopLoad<Right8>(&sh_w[at], STRIDE), coopLoad<Right8>(&sh_w[beside], STRIDE),
        coopLoad<Right8>(&sh_w[at + 8u], STRIDE), coopLoad<Right8>(&sh_w[beside + 8u], STRIDE),
    );
}

fn multiplied(l: Left, r: Right, s: Sums) -> Sums {
    return Sums(
        coopMultiplyAdd(l.b, r.c, coopMultiplyAdd(l.a, r.a, s.a)),
        coopMultiplyAdd(l.b, r.d, coopMultiplyAdd(l.a, r.b, s.b)),
        coopMultiplyAdd(l.d, r.c, coopMultiplyAdd(l.c, r.a, s.c)),
        coopMultiplyAdd(l.d, r.d, coopMultiplyAdd(l.c, r.b, s.d)),
    );
}

fn put_sums(s: Sums, at: u32) {
    coopStoreT(s.a, &sh_sums[at], 16u);
    coopStoreT(s.b, &sh_sums[at + 8u], 16u);
    coopStoreT(s.c, &sh_sums[at + 128u], 16u);
    coopStoreT(s.d, &sh_sums[at + 136u], 16u);
}

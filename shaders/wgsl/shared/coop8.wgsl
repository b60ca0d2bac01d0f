// Fragments of `coop` where the device multiplies 8 x 8.

enable f16;
enable wgpu_cooperative_matrix;

#import coop

alias Left8 = coop_mat8x8<f16, A>;
alias Right8 = coop_mat8x8<f16, B>;
alias Sums8 = coop_mat8x8<f32, C>;

const DEPTH: u32 = 8u;

struct Left { a: Left8, b: Left8 }

struct Right { a: Right8, b: Right8 }

struct Sums { aa: Sums8, ab: Sums8, ba: Sums8, bb: Sums8 }

fn left(at: u32) -> Left {
    return Left(coopLoadT<Left8>(&sh_x[at], STRIDE), coopLoadT<Left8>(&sh_x[at + 8u * STRIDE], STRIDE));
}

fn right(at: u32) -> Right {
    return Right(coopLoad<Right8>(&sh_w[at], STRIDE), coopLoad<Right8>(&sh_w[at + 8u * STRIDE], STRIDE));
}

fn multiplied(l: Left, r: Right, s: Sums) -> Sums {
    return Sums(
        coopMultiplyAdd(l.a, r.a, s.aa), coopMultiplyAdd(l.a, r.b, s.ab),
        coopMultiplyAdd(l.b, r.a, s.ba), coopMultiplyAdd(l.b, r.b, s.bb),
    );
}

fn put_sums(s: Sums, at: u32) {
    coopStoreT(s.aa, &sh_sums[at], 16u);
    coopStoreT(s.ab, &sh_sums[at + 8u], 16u);
    coopStoreT(s.ba, &sh_sums[at + 128u], 16u);
    coopStoreT(s.bb, &sh_sums[at + 136u], 16u);
}

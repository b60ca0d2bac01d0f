// Fragments of `coop` where the device multiplies 16 x 16.

enable f16;
enable wgpu_cooperative_matrix;

#import coop

const DEPTH: u32 = 16u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

fn left(at: u32) -> Left {
    return coopLoadT<Left>(&sh_x[at], STRIDE);
}

fn right(at: u32) -> Right {
    return coopLoad<Right>(&sh_w[at], STRIDE);
}

fn multiplied(l: Left, r: Right, s: Sums) -> Sums {
    return coopMultiplyAdd(l, r, s);
}

fn put_sums(s: Sums, at: u32) {
    coopStoreT(s, &sh_sums[at], 16u);
}

// No matrix at all: what fills the slot of an adapter where there is none. Never reached.

struct Block { nothing: u32 }

struct Factor { scale: f32 }

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    return Block(0u);
}

fn weights_factor(row: u32, block: u32, rows: u32) -> Factor {
    return Factor(0.0);
}

fn weights_quad(block: Block, j: u32, factor: Factor) -> vec4<f32> {
    return vec4(0.0);
}

const NATURAL: bool = true;

fn weights_dot(block: Block, factor: Factor, a: vec4<u32>, b: vec4<u32>, total: f32) -> f32 {
    return 0.0;
}

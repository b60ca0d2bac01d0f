// No matrix at all: what fills the slot of an adapter where there is none. Never reached.

struct Octet { lo: vec4<f32>, hi: vec4<f32> }

struct Block { a: Octet, b: Octet, c: Octet, d: Octet }

fn weights_octet(row: u32, octet: u32, rows: u32) -> Octet {
    return Octet(vec4(0.0), vec4(0.0));
}

fn weights_block(row: u32, block: u32, rows: u32) -> Block {
    return Block(weights_octet(row, 0u, rows), weights_octet(row, 0u, rows), weights_octet(row, 0u, rows), weights_octet(row, 0u, rows));
}

fn weights_scale(row: u32, block: u32, rows: u32) -> f32 {
    return 0.0;
}

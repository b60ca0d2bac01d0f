//! quantize
fn main() {}

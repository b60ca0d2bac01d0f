// Rows row, row + 8, … of a column of a tile's thread.
fn store_eight(i: u32, row: u32, low: vec4<f32>, high: vec4<f32>) {
    if i >= columns() {
        return;
    }
    for (var r = 0u; r < 4u; r++) {
        if row + r * 8u < params.rows {
            store(i, row + r * 8u, low[r]);
        }
        if row + r * 8u + 32u < params.rows {
            store(i, row + r * 8u + 32u, high[r]);
        }
    }
}

// Rows row, row + 16, … of a column of a tile.
fn store_four(i: u32, row: u32, sums: vec4<f32>) {
    if i >= columns() {
        return;
    }
    for (var r = 0u; r < 4u; r++) {
        if row + r * 16u < params.rows {
            store(i, row + r * 16u, sums[r]);
        }
    }
}

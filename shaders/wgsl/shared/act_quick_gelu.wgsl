// v * sigmoid(1.702 v), as CLIP has it.

fn act(v: f32) -> f32 {
    return v / (1.0 + exp(-clamp(1.702 * v, -87.0, 87.0)));
}

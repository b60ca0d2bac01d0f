//! Weights on the device, as plans see them.

use crate::gpu::Buffer;
use shaders::Format;

/// Rows of a matrix that lie in buffers of their own, so that each fits a binding.
pub struct Shard {
    /// First row.
    pub row0: usize,
    /// Rows.
    pub rows: usize,
    /// Values, scales, zero points; a plane that the format lacks is a dummy where the kernel binds it.
    pub planes: Vec<Buffer>,
}

/// A packed matrix `[rows][cols]` in shards.
pub struct Matrix {
    /// For messages and labels.
    pub name: String,
    /// How it is packed.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its rows.
    pub shards: Vec<Shard>,
}

impl Matrix {
    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().flat_map(|s| &s.planes).map(Buffer::size).sum()
    }
}

/// f32 values: a bias, a norm.
pub struct Vector {
    /// Values.
    pub buffer: Buffer,
    /// How many.
    pub len: usize,
}

/// Weight and bias of a LayerNorm or GroupNorm.
pub struct Norm {
    /// Multiplies.
    pub weight: Vector,
    /// Is added.
    pub bias: Vector,
}

/// A matrix with its bias: a linear of the vision tower, or a convolution.
pub struct Biased {
    /// `[outputs, inputs]`; of a convolution `[out, taps in]`, channels last.
    pub weight: Matrix,
    /// `[outputs]`
    pub bias: Vector,
}

/// An H-LoRA adapter of one linear. Source: HealthGPT §3.
pub struct HLora {
    /// Which of a layer's linears it is for.
    pub linear: &'static str,
    /// `[A; R]`: all experts' A and the router, one operand.
    pub down: Matrix,
    /// All experts' B side by side, padded to whole blocks.
    pub up: Matrix,
    /// Rows of A.
    pub rank: usize,
    /// Rows of R.
    pub experts: usize,
    /// alpha / rank * experts. Applied with the gate, where it costs nothing and is exact; folded into a packed B it
    /// would be rounded.
    pub scale: f32,
}

/// `y = W x (+ adapter)`: a linear of the language model. Borrowed, since the tasks share W and bring their own adapter.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// W.
    pub weight: &'a Matrix,
    /// Trained on top.
    pub hlora: Option<&'a HLora>,
}

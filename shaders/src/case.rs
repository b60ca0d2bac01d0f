//! One shape of one kernel with inputs and expected outputs; tests check it, benches time it.

use crate::kernel::{Choice, Constant, Step};

/// A buffer that the kernel reads.
pub struct Input {
    /// Binding name.
    pub name: &'static str,
    /// Content.
    pub bytes: Vec<u8>,
}

/// A buffer that the kernel writes.
pub struct Output {
    /// Binding name.
    pub name: &'static str,
    /// Content before the dispatch.
    pub initial: Vec<u8>,
    /// Content after it.
    pub expected: Expected,
}

/// What an output must hold.
pub enum Expected {
    /// f32 values within the bound.
    F32(Vec<f32>),
    /// f16 values within the bound, two a word.
    F16(Vec<f32>),
    /// Exactly these words.
    U32(Vec<u32>),
}

/// Workgroups of a case, given the override constants of the variant.
pub type CaseGrid = Box<dyn Fn(&[Constant]) -> [u32; 3]>;

/// A named shape.
pub struct Case {
    /// Says what is special about it.
    pub name: String,
    /// Fills the data imports.
    pub imports: Vec<Choice>,
    /// Override constants that the data decides.
    pub constants: Vec<Constant>,
    /// `Params` as bytes.
    pub params: Vec<u8>,
    /// Values of the run.
    pub step: Step,
    /// Buffers read.
    pub inputs: Vec<Input>,
    /// Buffers written.
    pub outputs: Vec<Output>,
    /// Workgroups.
    pub grid: CaseGrid,
    /// Largest normalised mean square error.
    pub bound: f64,
}

/// Normalised mean square error that f32 arithmetic in another order stays below.
pub const F32_BOUND: f64 = 1e-11;

/// A buffer that the kernel reads, from f32 values.
pub(crate) fn input_f32(name: &'static str, values: &[f32]) -> Input {
    Input { name, bytes: bytemuck::cast_slice(values).to_vec() }
}

/// A buffer that the kernel reads, from words.
pub(crate) fn input_u32(name: &'static str, values: &[u32]) -> Input {
    Input { name, bytes: bytemuck::cast_slice(values).to_vec() }
}

/// An f32 output that starts as zeros.
pub(crate) fn output_f32(name: &'static str, expected: Vec<f32>) -> Output {
    Output { name, initial: vec![0; expected.len() * 4], expected: Expected::F32(expected) }
}

/// Reproducible values, roughly normal with deviation 1, by name.
pub(crate) fn noise(seed: &str, count: usize) -> Vec<f32> {
    let mut state =
        seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    };
    // The sum of four uniform numbers, centred and scaled.
    (0..count).map(|_| (uniform() + uniform() + uniform() + uniform() - 2.0) * 1.732).collect()
}

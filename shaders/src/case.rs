//! One shape of one kernel with inputs and expected outputs; tests check it, benches time it.

use crate::kernel::{Choice, Constant, KvFormat, Step, Variant};
use half::f16;

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
    /// Largest normalised mean square error.
    pub bound: f64,
    /// Whether the x behind it is such that int8 holds it.
    pub whole_x: bool,
}

impl Output {
    /// The bound of a variant.
    pub fn bound_of(&self, variant: &Variant) -> f64 {
        if self.whole_x && variant.rounds_x { self.bound } else { self.bound.max(variant.bound) }
    }

    /// The same with another bound.
    pub(crate) fn within(self, bound: f64) -> Self {
        Output { bound, ..self }
    }
}

/// What an output must hold.
pub enum Expected {
    /// f32 values within the bound.
    F32(Vec<f32>),
    /// f16 values within the bound, two a word.
    F16(Vec<f32>),
    /// Values of a KV cache in int8, within the bound.
    KvQ8(Vec<f32>),
    /// Exactly these words.
    U32(Vec<u32>),
}

/// Workgroups of a case for a variant.
pub type CaseGrid = Box<dyn Fn(&Variant) -> [u32; 3]>;

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
}

/// Normalised mean square error that f32 arithmetic in another order stays below.
pub const F32_BOUND: f64 = 1e-11;

/// That of variants which round x to int8: a step of largest / 127 over sqrt 12, of values that reach about 2.2 deviations.
pub(crate) const BYTES_BOUND: f64 = 1e-4;

/// Whole numbers that int8 holds exactly, the largest in every 32.
pub(crate) fn whole_numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| if i % 32 == 0 { 127.0 } else { (i * 37 % 255) as f32 - 127.0 }).collect()
}

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
    Output {
        name,
        initial: vec![0; expected.len() * 4],
        expected: Expected::F32(expected),
        bound: F32_BOUND,
        whole_x: false,
    }
}

/// A KV cache as a kernel finds it.
pub(crate) fn kv_bytes(format: KvFormat, values: &[f32]) -> Vec<u8> {
    match format {
        KvFormat::F16 => {
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
        KvFormat::F32 => bytemuck::cast_slice(values).to_vec(),
        KvFormat::Q8 => {
            let (mut quants, mut factors) = (Vec::new(), Vec::new());
            for group in values.chunks_exact(KvFormat::GROUP) {
                let factor = f16::from_f32(group.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0);
                quants.extend(group.iter().map(|v| (v / factor.to_f32()).round() as i8 as u8));
                factors.extend([factor.to_le_bytes(), [0, 0]].concat());
            }
            [quants, factors].concat()
        }
    }
}

/// The values of a cache in int8.
pub fn kv_q8_values(bytes: &[u8]) -> Vec<f32> {
    let (quants, factors) = bytes.split_at(bytes.len() / 9 * 8);
    let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    let factor = |group: usize| half(&factors[4 * group..]) + half(&factors[4 * group + 2..]);
    quants.iter().enumerate().map(|(i, q)| factor(i / KvFormat::GROUP) * f32::from(*q as i8)).collect()
}

/// The values that a kernel finds in a cache that was made of `values`.
pub(crate) fn kv_rounded(format: KvFormat, values: Vec<f32>) -> Vec<f32> {
    match format {
        KvFormat::F32 => values,
        KvFormat::F16 => values.into_iter().map(crate::round_to_f16).collect(),
        KvFormat::Q8 => kv_q8_values(&kv_bytes(format, &values)),
    }
}

/// A cache that a kernel changes.
pub(crate) fn kv_output(name: &'static str, format: KvFormat, before: &[f32], after: Vec<f32>) -> Output {
    // Rounding to f16 is 2^-11 / sqrt 3 of a value, 8e-8 squared; in int8 it is a step of largest / 127 over sqrt 12.
    let (expected, bound) = match format {
        KvFormat::F16 => (Expected::F16(after), 2e-7),
        KvFormat::Q8 => (Expected::KvQ8(after), 1e-4),
        KvFormat::F32 => (Expected::F32(after), F32_BOUND),
    };
    Output { name, initial: kv_bytes(format, before), expected, bound, whole_x: false }
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

//! What a kernel declares: bindings, variants, needs. The contract test holds each WGSL text against it.

use crate::case::BYTES_BOUND;
use bytemuck::{Pod, Zeroable};

/// How a kernel sees a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// One buffer of a kernel, in bind group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// `@binding(index)`
    pub index: u32,
    /// Name in the WGSL text.
    pub name: &'static str,
    /// Access mode.
    pub access: Access,
}

/// Slot of the way down of an adapter, which is imported under its own name beside the weights.
pub const DOWN: &str = "down";
/// How much further on the bindings of such an import stand.
pub const ALIAS_SHIFT: u32 = 3;

impl Binding {
    /// As it is imported into the slot [`DOWN`].
    fn aliased(self) -> Self {
        let name = match self.name {
            "quants" => "down_quants",
            "scales" => "down_scales",
            "zero_points" => "down_zero_points",
            other => other,
        };
        Binding { index: self.index + ALIAS_SHIFT, name, ..self }
    }
}

const fn binding(index: u32, name: &'static str, access: Access) -> Binding {
    Binding { index, name, access }
}

/// `var<uniform>` at `index`.
pub(crate) const fn uniform(index: u32, name: &'static str) -> Binding {
    binding(index, name, Access::Uniform)
}

/// `var<storage, read>` at `index`.
pub(crate) const fn read(index: u32, name: &'static str) -> Binding {
    binding(index, name, Access::Read)
}

/// `var<storage, read_write>` at `index`.
pub(crate) const fn write(index: u32, name: &'static str) -> Binding {
    binding(index, name, Access::ReadWrite)
}

/// What a variant asks of a device beyond the WebGPU floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Subgroup operations, in subgroups of at least so many; 0: none.
    pub subgroup: u32,
    /// Cooperative matrices of so many rows and columns, f16 with f32 sums, and f16 itself; 0: none.
    pub coop: u32,
}

impl Needs {
    /// The WebGPU floor.
    pub const NOTHING: Needs = Needs { subgroup: 0, coop: 0 };
}

/// One way of computing a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// The mechanism, never a vendor: `subgroup`, `uniform_x`, `portable`.
    pub name: &'static str,
    /// What `#import KEY` means in this variant, as (key, file).
    pub imports: &'static [Choice],
    /// Override constants that this variant fixes.
    pub constants: &'static [Constant],
    /// Files of data imports that it cannot work with.
    pub refuses: &'static [&'static str],
    /// What the device must have.
    pub needs: Needs,
    /// Largest normalised mean square error where it rounds what the reference does not; 0 where the case's bound holds.
    pub bound: f64,
    /// Whether all that it rounds is x, to int8: on an x that int8 holds the case's bound holds.
    pub rounds_x: bool,
}

impl Variant {
    /// Whether it can work with what the data decides.
    pub fn takes(&self, data: &[Choice]) -> bool {
        !data.iter().any(|(_, file)| self.refuses.contains(file))
    }
}

/// An override constant with its value.
pub type Constant = (&'static str, f64);

/// An import slot with the file that fills it.
pub type Choice = (&'static str, &'static str);

/// The variant that needs nothing.
pub(crate) const PORTABLE: Variant = Variant {
    name: "portable",
    imports: &[],
    constants: &[],
    refuses: &[],
    needs: Needs::NOTHING,
    bound: 0.0,
    rounds_x: false,
};

/// Variants of a kernel whose only freedom is how it reduces over a workgroup.
pub(crate) const REDUCTIONS: &[Variant] = &[
    Variant {
        name: "subgroup",
        imports: &[("reduce", "reduce_subgroup")],
        needs: Needs { subgroup: 1, ..Needs::NOTHING },
        ..PORTABLE
    },
    Variant { imports: &[("reduce", "reduce_workgroup")], ..PORTABLE },
];

/// How many columns (tokens, pixels) are multiplied with a matrix.
pub(crate) const PRODUCTS: &[Variant] = &[
    Variant {
        name: "stripe",
        imports: &[("product", "stripe")],
        needs: Needs { subgroup: 8, ..Needs::NOTHING },
        ..PORTABLE
    },
    Variant { name: "tile", imports: &[("product", "tile")], ..PORTABLE },
];

/// The same with x rounded to int8 and integer dot products; x must be cheap to fetch twice.
pub(crate) const PRODUCT_BYTES: Variant = Variant {
    name: "dp4a",
    imports: &[("product", "tile_bytes")],
    refuses: &["weights_f16"],
    rounds_x: true,
    bound: BYTES_BOUND,
    ..PORTABLE
};

/// The same by cooperative matrices of `side` x `side`, in the file `product`. x is rounded to f16 and so is every weight,
/// each at most 2^-11 off: 8e-8 of the square in each, at most.
pub(crate) const fn coop(name: &'static str, side: u32, product: &'static [Choice]) -> Variant {
    Variant { name, imports: product, needs: Needs { subgroup: 1, coop: side }, bound: 2e-7, ..PORTABLE }
}

/// Workgroups of a variant of [`PRODUCTS`], or of [`coop`].
pub(crate) fn product_grid(variant: &Variant, rows: u32, columns: u32) -> [u32; 3] {
    match variant.name {
        "stripe" => [columns.div_ceil(8), rows.div_ceil(64), 1],
        _ => [rows.div_ceil(64), columns.div_ceil(64), 1],
    }
}

/// A kernel: one WGSL text with its contract.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Stem of the file.
    pub name: &'static str,
    /// WGSL with `#import` lines.
    pub source: &'static str,
    /// Its own bindings; those of imported files come on top.
    pub bindings: &'static [Binding],
    /// Size of `Params` in bytes.
    pub params_bytes: usize,
    /// Import slots that the data decides (weight format, cache format), with the files that may fill each.
    pub data_imports: &'static [(&'static str, &'static [&'static str])],
    /// Best first; the last needs only the WebGPU floor.
    pub variants: &'static [Variant],
    /// Named shapes with expected results.
    pub cases: fn() -> Vec<crate::Case>,
}

impl Kernel {
    /// All bindings of this kernel with the given imports, in order of their index.
    pub fn all_bindings(&self, imports: &[Choice]) -> Vec<Binding> {
        let mut all = self.bindings.to_vec();
        for (slot, file) in imports {
            let bindings = import(file).map_or(&[][..], |i| i.bindings);
            all.extend(bindings.iter().map(|b| if *slot == DOWN { b.aliased() } else { *b }));
        }
        all.push(uniform(1, "step"));
        all.sort_by_key(|b| b.index);
        all
    }
}

/// Workgroups of a kernel that handles an element a thread: `[rows][cols]`.
pub(crate) fn elementwise(cols: u32, rows: u32) -> [u32; 3] {
    [cols.div_ceil(64), rows, 1]
}

/// Values of one run of a plan; mirrors `Step` in `step.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable, Default, PartialEq, Eq)]
pub struct Step {
    /// Position of the first token.
    pub pos: u32,
    /// Tokens in this run.
    pub n: u32,
    /// A row of the head that may win besides the ordinary ones; [`Step::NOTHING`] for none.
    pub also: u32,
    /// Padding.
    pub unused: u32,
}

impl Step {
    /// No row.
    pub const NOTHING: u32 = u32::MAX;

    /// `n` tokens from position `pos` on.
    pub fn new(pos: usize, n: usize) -> Self {
        Step { pos: pos as u32, n: n as u32, also: Step::NOTHING, unused: 0 }
    }
}

/// Storage format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// Half precision.
    F16,
    /// int8 in groups of 32 of a head, with a factor each.
    Q8,
    /// Single precision, for comparisons.
    F32,
}

impl KvFormat {
    /// Values that share a factor: a head must be a multiple of it.
    pub const GROUP: usize = 32;

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F16 => "f16",
            KvFormat::Q8 => "q8",
            KvFormat::F32 => "f32",
        }
    }

    /// Bytes of so many values.
    pub fn bytes(self, values: usize) -> usize {
        match self {
            KvFormat::F16 => 2 * values,
            KvFormat::Q8 => values + values / Self::GROUP * 4,
            KvFormat::F32 => 4 * values,
        }
    }

    /// Where the factors of so many values begin, in words.
    pub fn factors_at(self, values: usize) -> u32 {
        if self == KvFormat::Q8 { values as u32 / 4 } else { 0 }
    }

    /// File behind `#import kv_update`.
    pub fn update_import(self) -> Choice {
        (
            "kv_update",
            match self {
                KvFormat::F16 => "kv_update_f16",
                KvFormat::Q8 => "kv_update_q8",
                KvFormat::F32 => "kv_update_f32",
            },
        )
    }

    /// File behind `#import kv_read`.
    pub fn read_import(self) -> Choice {
        (
            "kv_read",
            match self {
                KvFormat::F16 => "kv_read_f16",
                KvFormat::Q8 => "kv_read_q8",
                KvFormat::F32 => "kv_read_f32",
            },
        )
    }
}

/// A WGSL file that is imported, never dispatched.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    /// Stem of the file.
    pub name: &'static str,
    /// WGSL.
    pub source: &'static str,
    /// Bindings it declares.
    pub bindings: &'static [Binding],
}

macro_rules! imports {
    ($($name:literal: [$($binding:expr),*],)*) => {
        const IMPORTS: &[Import] = &[$(Import {
            name: $name,
            source: include_str!(concat!("../wgsl/shared/", $name, ".wgsl")),
            bindings: &[$($binding),*],
        }),*];
    };
}

imports! {
    "act_gelu": [],
    "act_none": [],
    "act_quick_gelu": [],
    "bytes": [],
    "coop": [],
    "coop16": [],
    "coop8": [],
    "handed": [],
    "hlora": [],
    "kv_load_f16": [],
    "kv_load_f32": [],
    "kv_load_q8": [],
    "kv_read_f16": [read(8, "k_cache"), read(9, "v_cache")],
    "kv_read_f32": [read(8, "k_cache"), read(9, "v_cache")],
    "kv_read_q8": [read(8, "k_cache"), read(9, "v_cache")],
    "kv_update_f16": [write(8, "k_cache"), write(9, "v_cache")],
    "kv_update_f32": [write(8, "k_cache"), write(9, "v_cache")],
    "kv_update_q8": [write(8, "k_cache"), write(9, "v_cache")],
    "reach_bytes": [],
    "reach_direct": [],
    "reach_handed": [],
    "reduce_subgroup": [],
    "reduce_workgroup": [],
    "rotary": [],
    "rows_bytes": [],
    "rows_float": [],
    "split": [],
    "step": [],
    "store_four": [],
    "stripe": [],
    "tile": [],
    "tile_bytes": [],
    "weights_f16": [read(10, "quants")],
    "weights_none": [],
    "weights_q4": [read(10, "quants"), read(11, "scales"), read(12, "zero_points")],
    "weights_q8": [read(10, "quants"), read(11, "scales")],
    "whole": [],
    "x_storage": [read(2, "x")],
    "x_uniform": [uniform(2, "x")],
}

/// The imported file of that name.
pub fn import(name: &str) -> Option<&'static Import> {
    IMPORTS.iter().find(|i| i.name == name)
}

/// Every kernel.
pub fn kernels() -> &'static [&'static Kernel] {
    &[
        &crate::add::KERNEL,
        &crate::argmax::KERNEL,
        &crate::attention::KERNEL,
        &crate::attention_combine::KERNEL,
        &crate::attention_decode::KERNEL,
        &crate::bias_act::KERNEL,
        &crate::codebook::KERNEL,
        &crate::conv::KERNEL,
        &crate::embed::KERNEL,
        &crate::gemm::KERNEL,
        &crate::gemv::KERNEL,
        &crate::gemv_residual::KERNEL,
        &crate::groupnorm_stats::KERNEL,
        &crate::groupnorm_swish::KERNEL,
        &crate::hlora_gate::KERNEL,
        &crate::layernorm::KERNEL,
        &crate::residual_adapted::KERNEL,
        &crate::rmsnorm::KERNEL,
        &crate::rope_append::KERNEL,
        &crate::swiglu::KERNEL,
        &crate::swiglu_adapted::KERNEL,
    ]
}

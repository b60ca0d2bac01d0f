//! A finished model file: opened, checked against its own configuration, its values unpacked some rows at a time.

use crate::Result;
use crate::assemble::shape_of;
use half::f16;
use runtime::file::Container;
use runtime::model::{Config, Header, Kind, Recipe, Spec};
use shaders::{Format, Packed};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// An opened model file.
#[derive(Debug)]
pub struct ModelFile {
    /// The container.
    pub container: Container<'static>,
    /// Dimensions.
    pub config: Config,
    /// Formats.
    pub recipe: Recipe,
    /// Every tensor, in the order of the file.
    pub specs: Vec<Spec>,
    /// What each tensor was made from, as `file: tensor`.
    pub sources: BTreeMap<String, Vec<String>>,
}

/// The values of one tensor.
#[derive(Debug)]
pub enum Values {
    /// A packed matrix.
    Packed(Packed),
    /// Row-major f16 as bytes, with the number of columns.
    Half(Vec<u8>, usize),
    /// Row-major f32, with the number of columns.
    Single(Vec<f32>, usize),
}

impl Values {
    /// The values that kernels compute with, of these rows.
    pub fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        match self {
            Values::Packed(p) => rows.flat_map(|row| (0..p.cols).map(move |k| p.value(row, k))).collect(),
            Values::Half(bytes, cols) => {
                let (halves, _) = bytes.as_chunks::<2>();
                let of = halves.get(rows.start * cols..rows.end * cols).unwrap_or_default();
                of.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            Values::Single(values, cols) => values.get(rows.start * cols..rows.end * cols).unwrap_or_default().to_vec(),
        }
    }
}

impl ModelFile {
    /// Opens a file and checks that it holds every tensor that its configuration asks for.
    ///
    /// *Errors*: what is missing or wrong, with its name.
    pub fn open(path: &Path) -> Result<Self> {
        let container = Container::open(path)?;
        let Header { config, recipe } = Header::read(&container)?;
        let sources = serde_json::from_str(container.metadata("sources")?)
            .map_err(|e| container.wrong(format!("has a damaged `sources`: {e}")))?;
        let specs = config.tensors();
        Ok(ModelFile { container, config, recipe, specs, sources })
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.specs.iter().map(|s| shape_of(s).iter().product::<usize>() as u64).sum()
    }

    /// A tensor's values, its hashes checked.
    ///
    /// *Errors*: a read fault or another hash.
    pub fn values(&self, spec: &Spec) -> Result<Values> {
        let (rows, cols) = match spec.kind {
            Kind::Plain { cols, .. } => {
                let bytes = self.container.read(&spec.name)?;
                return Ok(Values::Single(words(&bytes).map(f32::from_bits).collect(), cols));
            }
            Kind::Table { cols, .. } => return Ok(Values::Half(self.container.read(&spec.name)?, cols)),
            Kind::Matrix { rows, cols, .. } => (rows, cols),
        };
        let mut planes = Vec::new();
        for layout in spec.layouts(&self.recipe) {
            let mut plane = Vec::with_capacity(layout.bytes() as usize / 4);
            self.container.stream(&layout.name, 4, |bytes| {
                plane.extend(words(bytes));
                Ok(())
            })?;
            planes.push(plane);
        }
        let mut planes = planes.into_iter();
        let mut next = || planes.next().unwrap_or_default();
        let (quants, scales, zero_points) = (next(), next(), next());
        Ok(Values::Packed(Packed { format: spec.format(&self.recipe), rows, cols, quants, scales, zero_points }))
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b))
}

/// A format in words: `q4 g32`, `q4 g32 symmetric`, `q8`, `f16`, or `f32` for what is never packed.
pub fn format_name(kind: &Kind, format: Format) -> String {
    match (kind, format) {
        (Kind::Plain { .. }, _) => "f32".into(),
        (_, Format::F16) => "f16".into(),
        (_, Format::Q8) => "q8".into(),
        (_, Format::Q4 { group, zero_points: true }) => format!("q4 g{group}"),
        (_, Format::Q4 { group, zero_points: false }) => format!("q4 g{group} symmetric"),
    }
}

/// The recipe's class, or `table` and `plain`.
pub fn class_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Matrix { class, .. } => class.name(),
        Kind::Table { .. } => "table",
        Kind::Plain { .. } => "plain",
    }
}

/// Whose tensor it is: `shared`, `ask` or `generate`. The picture decoder serves generation alone.
pub fn owner(name: &str) -> &'static str {
    match name.split('.').next() {
        Some("ask") => "ask",
        Some("generate" | "vqgan") => "generate",
        _ => "shared",
    }
}

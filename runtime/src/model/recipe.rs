//! In which format each class of matrices is stored, and how that was arrived at.

use super::tensors::{Class, Kind, Spec};
use crate::file::Layout;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use shaders::Format;
use std::collections::BTreeMap;

/// A model file's `recipe`, and the content of a recipe file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Name: `q4`, `q8`, `f16`, or a recipe file's own.
    pub name: String,
    /// How matrices were rounded: `nearest`, or other steps joined by `+`. Says where the weights came from; computing with
    /// them is the same.
    #[serde(default = "nearest")]
    pub method: String,
    /// Decides the signs of a rotation.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seed: u64,
    /// Format of each class, by the class's name; f16 where a class is not named.
    #[serde(default)]
    pub classes: BTreeMap<String, StoredFormat>,
}

fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

fn nearest() -> String {
    "nearest".into()
}

fn group_of_32() -> usize {
    32
}

fn yes() -> bool {
    true
}

/// [`Format`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase", deny_unknown_fields)]
pub enum StoredFormat {
    /// Half precision.
    F16 {},
    /// int8, groups of 32.
    Q8 {},
    /// 4-bit integers.
    Q4 {
        /// 32, 64 or 128.
        #[serde(default = "group_of_32")]
        group: usize,
        /// Whether each group has an integer zero point.
        #[serde(default = "yes")]
        zero_points: bool,
    },
}

impl StoredFormat {
    fn format(self) -> Format {
        match self {
            StoredFormat::F16 {} => Format::F16,
            StoredFormat::Q8 {} => Format::Q8,
            StoredFormat::Q4 { group, zero_points } => Format::Q4 { group, zero_points },
        }
    }
}

impl From<Format> for StoredFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::F16 => StoredFormat::F16 {},
            Format::Q8 => StoredFormat::Q8 {},
            Format::Q4 { group, zero_points } => StoredFormat::Q4 { group, zero_points },
        }
    }
}

impl Recipe {
    /// The named recipe: `f16`, `q8` or `q4` (with groups of `group`).
    ///
    /// *Errors*: an unknown name.
    pub fn named(name: &str, group: usize) -> Result<Self, String> {
        let classes: &[(Class, Format)] = match name {
            "f16" => &[],
            "q8" => &[(Class::Language, Format::Q8), (Class::Adapter, Format::Q8), (Class::Head, Format::Q8)],
            // int4 in the head doubles the loss and int8 adds nothing; the vision tower is small and sensitive.
            "q4" => &[
                (Class::Language, Format::Q4 { group, zero_points: true }),
                (Class::Adapter, Format::Q8),
                (Class::Head, Format::Q8),
            ],
            _ => return Err(format!("unknown recipe `{name}`; there are q4, q8, f16, or a recipe file (.toml)")),
        };
        let classes = classes.iter().map(|(c, f)| (c.name().to_string(), (*f).into())).collect();
        let recipe = Recipe { name: name.into(), method: nearest(), seed: 0, classes };
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks class names and groups.
    ///
    /// *Errors*: one line that names what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (class, format) in &self.classes {
            if !Class::ALL.iter().any(|c| c.name() == class) {
                let known = Class::ALL.map(Class::name).join(", ");
                return Err(format!("recipe `{}`: unknown class `{class}`; there are {known}", self.name));
            }
            if let StoredFormat::Q4 { group, .. } = format
                && !matches!(group, 32 | 64 | 128)
            {
                return Err(format!("recipe `{}`: group {group} for {class}; 32, 64 or 128 is possible", self.name));
            }
        }
        Ok(())
    }

    /// Whether the linears of the language model are in 4-bit integers.
    pub fn has_q4(&self) -> bool {
        matches!(self.format(Class::Language), Format::Q4 { .. })
    }

    /// Format of a class.
    pub fn format(&self, class: Class) -> Format {
        self.classes.get(class.name()).map_or(Format::F16, |f| f.format())
    }
}

impl Spec {
    /// What the file holds for this tensor: one entry, or the planes of a packed matrix.
    pub fn layouts(&self, recipe: &Recipe) -> Vec<Layout> {
        let layout = |suffix: &str, dtype, shape| Layout { name: format!("{}{suffix}", self.name), dtype, shape };
        let (rows, cols) = match self.kind {
            Kind::Plain { rows: 1, cols } => return vec![layout("", Dtype::F32, vec![cols])],
            Kind::Plain { rows, cols } => return vec![layout("", Dtype::F32, vec![rows, cols])],
            Kind::Table { rows, cols } => return vec![layout("", Dtype::F16, vec![rows, cols])],
            Kind::Matrix { rows, cols, .. } => (rows, cols),
        };
        let blocks = cols.div_ceil(32);
        let [values, scales, zero_points] = Format::PLANES;
        match self.format(recipe) {
            Format::F16 => vec![layout(values, Dtype::F16, vec![blocks * 4, rows, 8])],
            Format::Q8 => vec![
                layout(values, Dtype::I8, vec![blocks * 2, rows, 16]),
                layout(scales, Dtype::F16, vec![blocks.div_ceil(2), rows, 2]),
            ],
            Format::Q4 { group, zero_points: with_zero_points } => {
                let groups = cols.div_ceil(group);
                let mut planes = vec![
                    layout(values, Dtype::U32, vec![blocks, rows, 4]),
                    layout(scales, Dtype::F16, vec![groups.div_ceil(2), rows, 2]),
                ];
                if with_zero_points {
                    planes.push(layout(zero_points, Dtype::U32, vec![groups.div_ceil(8), rows]));
                }
                planes
            }
        }
    }

    /// Format of a matrix; f16 for tables.
    pub fn format(&self, recipe: &Recipe) -> Format {
        match self.kind {
            Kind::Matrix { class, .. } => recipe.format(class),
            Kind::Table { .. } | Kind::Plain { .. } => Format::F16,
        }
    }
}

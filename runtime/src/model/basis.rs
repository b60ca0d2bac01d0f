//! In which basis a file's weights are written. Quantisers change it, so that rounding costs less; the network computes the
//! same. Only who looks inside needs to know: here is the way back.

use super::config::{Config, Language};
use super::rotation::Rotation;
use crate::Result;
use crate::file::Container;
use serde::{Deserialize, Serialize};

/// Where the basis of a file differs from the published one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Seed of the [`Rotation`] of the residual stream. The weights of all norms are then 1, multiplied into the linears
    /// behind them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<u64>,
    /// Whether input channels of the linears are multiplied by factors in the weights, and divided by them where they are
    /// made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled: bool,
}

impl Basis {
    /// Whether it is the published one.
    pub fn is_published(&self) -> bool {
        *self == Basis::default()
    }
}

/// The published weight of the last norm, in a rotated file.
pub const FOLDED_NORM: &str = "language.norm.folded";

/// The factors of a linear's input channels, in a scaled file.
pub fn channel_scale(layer: usize, linear: &str) -> String {
    format!("language.layers.{layer}.{linear}.channel_scale")
}

/// The way back to the published basis, of the stages that a trace names.
pub(crate) struct WayBack {
    rotation: Option<Rotation>,
    /// Weight of the last norm.
    norm: Vec<f32>,
    /// What the values were divided by, by layer: `[kv_heads head_dim]`.
    values: Vec<Vec<f32>>,
}

impl WayBack {
    /// Reads what the file keeps for this purpose; `None` if it is in the published basis.
    ///
    /// *Errors*: a damaged file.
    pub fn read(container: &Container, config: &Config) -> Result<Option<Self>> {
        let basis = &config.basis;
        if basis.is_published() {
            return Ok(None);
        }
        let vector = |name: &str| -> Result<Vec<f32>> { Ok(bytemuck::pod_collect_to_vec(&container.read(name)?)) };
        let rotation = basis.rotation.map(|seed| Rotation::new(config.language.hidden, seed));
        let norm = if rotation.is_some() { vector(FOLDED_NORM)? } else { Vec::new() };
        let layers = if basis.scaled { config.language.layers } else { 0 };
        let values = (0..layers).map(|i| Ok(value_scale(&config.language, &vector(&channel_scale(i, "o"))?)));
        Ok(Some(WayBack { rotation, norm, values: values.collect::<Result<_>>()? }))
    }

    /// Turns the rows of a stage back; what has no basis of its own stays as it is.
    pub fn stage(&self, name: &str, values: &mut [f32], cols: usize) {
        let (layer, stage) = match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stage)) => (layer.parse().ok(), stage),
            None => (None, name),
        };
        match (stage, layer) {
            ("embeds" | "projector.out" | "final_norm", None) | ("out" | "attn_out" | "mlp_out", Some(_)) => {
                let Some(rotation) = &self.rotation else { return };
                values.chunks_exact_mut(cols).for_each(|row| rotation.undo(row, 1));
                if stage == "final_norm" {
                    let rows = values.chunks_exact_mut(cols);
                    rows.for_each(|row| row.iter_mut().zip(&self.norm).for_each(|(v, n)| *v *= n));
                }
            }
            ("qkv", Some(layer)) => {
                let Some(scale) = self.values.get::<usize>(layer) else { return };
                for row in values.chunks_exact_mut(cols) {
                    let v = cols - scale.len();
                    row[v..].iter_mut().zip(scale).for_each(|(v, s)| *v *= s);
                }
            }
            _ => {}
        }
    }
}

/// The factors of the values, from those of the channels that `o` reads: query heads of a group read the same values, so
/// theirs are equal.
pub fn value_scale(l: &Language, o: &[f32]) -> Vec<f32> {
    let shared = l.heads / l.kv_heads;
    let heads = o.chunks_exact(l.head_dim).step_by(shared);
    heads.flatten().copied().collect()
}

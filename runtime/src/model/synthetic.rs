//! A model without a file, for measuring speed: HealthGPT-M3's dimensions, and weights that are made up on their way to
//! the device.

use super::config::{Adapter, Config, Language, TaskConfig, Vision, Vocabulary, Vqgan};
use super::load::Header;
use super::recipe::Recipe;
use crate::Result;
use crate::file::Layout;
use safetensors::Dtype;
use serde_json::json;

/// Made up once per tensor, then repeated.
const PIECE_BYTES: usize = 1 << 20;

impl Header {
    /// HealthGPT-M3 as published, but with `layers` language layers (32 are published), as `quantize` stores it with int4
    /// groups of `group`: 32, 64 or 128.
    ///
    /// *Errors*: another group.
    ///
    /// *Source*: the configuration files of the published parts; HealthGPT appendix, tables 5 to 7.
    pub fn m3(layers: usize, group: usize) -> Result<Self, String> {
        let language = Language {
            layers,
            hidden: 3072,
            heads: 32,
            kv_heads: 32,
            head_dim: 96,
            intermediate: 8192,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            sliding_window: Some(2047),
            max_positions: 4096,
            stop_ids: vec![32_000, 32_001, 32_007],
        };
        let vocabulary = Vocabulary { tokens: 32_011, codes: 8192 };
        let vision = Vision {
            layers: 23,
            hidden: 1024,
            heads: 16,
            intermediate: 4096,
            image: 336,
            patch: 14,
            layer_norm_eps: 1e-5,
            activation: "quick_gelu".into(),
            preprocessor: json!({
                "size": 336,
                "crop_size": 336,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            }),
        };
        let task = |vision_layers, rows, rank| TaskConfig {
            vision_layers,
            embed_rows: rows,
            head_rows: rows,
            adapter: Adapter { rank, experts: 4, scale: 8.0, folded: false },
        };
        let vqgan = Vqgan {
            codes: vocabulary.codes,
            embed: 256,
            z: 256,
            channels: 128,
            multiples: vec![1, 1, 2, 4],
            blocks: 3,
            attention_levels: vec![3],
            grid: 32,
            out_channels: 3,
        };
        let config = Config {
            language,
            vocabulary,
            vision: Some(vision),
            ask: Some(task(23, vocabulary.tokens + 1, 64)),
            generate: Some(task(1, vocabulary.rows(), 256)),
            vqgan: Some(vqgan),
            basis: Default::default(),
        };
        Ok(Header { config, recipe: Recipe::named("q4", group)? })
    }
}

/// Hands over the bytes of a tensor that is not stored anywhere, the same every time: random bits where integers are
/// wanted, numbers of either sign around 0.7 (f32) or 0.0015 (f16, scales included) else, so that what is computed with
/// them stays finite.
pub(super) fn stream(layout: &Layout, unit: usize, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (random, exponent): (u64, u64) = match layout.dtype {
        Dtype::F32 => (0x807f_ffff_807f_ffff, 0x3f00_0000_3f00_0000),
        Dtype::F16 => (0x83ff_83ff_83ff_83ff, 0x1400_1400_1400_1400),
        _ => (u64::MAX, 0),
    };
    let bytes = layout.bytes() as usize;
    let piece_bytes = ((PIECE_BYTES / unit).max(1) * unit).min(bytes);
    // Every tensor begins elsewhere, so that no two are alike.
    let mut state = layout.name.bytes().fold(0x9e37_79b9_7f4a_7c15, |s: u64, b| s.rotate_left(8) ^ u64::from(b));
    let mut piece = Vec::with_capacity(piece_bytes + 8);
    while piece.len() < piece_bytes {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.extend_from_slice(&((state & random) | exponent).to_le_bytes());
    }
    for at in (0..bytes).step_by(piece_bytes.max(1)) {
        take(&piece[..piece_bytes.min(bytes - at)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_is_a_model_that_can_be_loaded() {
        let header = Header::m3(32, 32).unwrap();
        header.config.check().unwrap();
        let bytes: u64 =
            header.config.tensors().iter().flat_map(|s| s.layouts(&header.recipe)).map(|l| l.bytes()).sum();
        // What `quantize` writes for the published files, less header and tokenizer.
        assert_eq!(bytes, 4_034_057_868);
    }

    #[test]
    fn made_up_tensors_have_their_size_and_are_finite() {
        let layout = Layout { name: "a".into(), dtype: Dtype::F16, shape: vec![7, 1_000_003] };
        let mut all = Vec::new();
        let mut whole = true;
        stream(&layout, 6, |piece| {
            assert!(whole, "only the last piece may be a part of the unit");
            whole = piece.len().is_multiple_of(6);
            all.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(all.len() as u64, layout.bytes());
        let values: Vec<half::f16> = bytemuck::pod_collect_to_vec(&all);
        assert!(values.iter().all(|v| (0.0009..0.002).contains(&v.to_f32().abs())));
    }
}

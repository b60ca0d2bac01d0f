//! The picture decoder of a GumbelVQ: from a grid of codes to a picture, channels last.
//!
//! Source: Esser et al. 2021 §3.1, taming-transformers `diffusionmodules/model.py`.

use super::config::Vqgan;
use super::load::Loader;
use crate::Result;
use crate::plan::{Act, Biased, Builder, Norm, Vector};

struct Residual {
    norm1: Norm,
    conv1: Biased, // [out, 9 in]
    norm2: Norm,
    conv2: Biased,            // [out, 9 out]
    shortcut: Option<Biased>, // [out, in], where the width changes
}

struct Attention {
    norm: Norm,
    qkv: [Biased; 3], // [c, c] each
    o: Biased,        // [c, c]
}

struct Level {
    blocks: Vec<(Residual, Option<Attention>)>,
    upsample: Option<Biased>, // [c, 9 c]; the largest picture has none
}

/// Weights of the decoder.
pub(crate) struct Decoder {
    codebook: Vector, // [codes, embed]
    post_quant: Biased,
    conv_in: Biased,
    mid: (Residual, Attention, Residual),
    levels: Vec<Level>, // the smallest picture first
    norm_out: Norm,
    conv_out: Biased,
}

impl Decoder {
    pub fn load(loader: &mut Loader, q: &Vqgan) -> Result<Self> {
        let last = q.multiples.len() - 1;
        let mut width = q.channels * q.multiples[last];
        let mid = (
            Residual::load(loader, "mid.block_1", false)?,
            Attention::load(loader, "mid.attn_1")?,
            Residual::load(loader, "mid.block_2", false)?,
        );
        let mut levels = Vec::new();
        for level in (0..=last).rev() {
            let out = q.channels * q.multiples[level];
            let mut blocks = Vec::new();
            for block in 0..q.blocks {
                let residual = Residual::load(loader, &format!("up.{level}.block.{block}"), width != out)?;
                let attends = q.attention_levels.contains(&level);
                let name = format!("up.{level}.attn.{block}");
                blocks.push((residual, attends.then(|| Attention::load(loader, &name)).transpose()?));
                width = out;
            }
            let upsample = (level > 0).then(|| loader.biased(&format!("vqgan.up.{level}.upsample"))).transpose()?;
            levels.push(Level { blocks, upsample });
        }
        Ok(Decoder {
            codebook: loader.vector("vqgan.codebook")?,
            post_quant: loader.biased("vqgan.post_quant")?,
            conv_in: loader.biased("vqgan.conv_in")?,
            mid,
            levels,
            norm_out: loader.norm("vqgan.norm_out")?,
            conv_out: loader.biased("vqgan.conv_out")?,
        })
    }

    /// `out` `[side * side, 3]` of `codes` `[grid * grid, 1]`, row by row.
    pub fn forward(&self, p: &mut Builder, q: &Vqgan, codes: Act, out: Act) {
        let quant = p.codebook(codes, &self.codebook, q.embed);
        p.tap("vqgan.quant", quant);
        let z = p.conv(&self.post_quant, quant);
        p.tap("vqgan.post_quant", z);
        let x = p.conv(&self.conv_in, z);
        let x = self.mid.0.forward(p, x);
        self.mid.1.forward(p, x);
        let mut x = self.mid.2.forward(p, x);
        p.tap("vqgan.mid", x);
        for (i, level) in self.levels.iter().enumerate() {
            for (residual, attention) in &level.blocks {
                x = residual.forward(p, x);
                if let Some(attention) = attention {
                    attention.forward(p, x);
                }
            }
            if let Some(upsample) = &level.upsample {
                x = p.conv_doubled(upsample, x);
            }
            p.tap(&format!("vqgan.up.{}", self.levels.len() - 1 - i), x);
        }
        let h = p.groupnorm(x, &self.norm_out, Vqgan::GROUPS, Vqgan::EPS, true);
        p.conv_to(&self.conv_out, h, out);
        p.tap("vqgan.out", out);
    }
}

impl Residual {
    fn load(loader: &mut Loader, name: &str, widens: bool) -> Result<Self> {
        let name = format!("vqgan.{name}");
        Ok(Residual {
            norm1: loader.norm(&format!("{name}.norm1"))?,
            conv1: loader.biased(&format!("{name}.conv1"))?,
            norm2: loader.norm(&format!("{name}.norm2"))?,
            conv2: loader.biased(&format!("{name}.conv2"))?,
            shortcut: widens.then(|| loader.biased(&format!("{name}.shortcut"))).transpose()?,
        })
    }

    /// x or its shortcut, plus conv(swish(norm(conv(swish(norm(x)))))); x itself may be changed.
    fn forward(&self, p: &mut Builder, x: Act) -> Act {
        let h = p.groupnorm(x, &self.norm1, Vqgan::GROUPS, Vqgan::EPS, true);
        let h = p.conv(&self.conv1, h);
        let h = p.groupnorm(h, &self.norm2, Vqgan::GROUPS, Vqgan::EPS, true);
        let y = self.shortcut.as_ref().map_or(x, |shortcut| p.conv(shortcut, x));
        p.conv_add(&self.conv2, h, y);
        y
    }
}

impl Attention {
    fn load(loader: &mut Loader, name: &str) -> Result<Self> {
        let name = format!("vqgan.{name}");
        let [q, k, v] = ["q", "k", "v"].map(|part| loader.biased(&format!("{name}.{part}")));
        Ok(Attention {
            norm: loader.norm(&format!("{name}.norm"))?,
            qkv: [q?, k?, v?],
            o: loader.biased(&format!("{name}.o"))?,
        })
    }

    /// `x += o(attention(norm(x)))`, every pixel over every pixel.
    fn forward(&self, p: &mut Builder, x: Act) {
        let h = p.groupnorm(x, &self.norm, Vqgan::GROUPS, Vqgan::EPS, false);
        let qkv = [0, 1, 2].map(|i| p.conv(&self.qkv[i], h));
        let a = p.attention_apart(qkv);
        p.conv_add(&self.o, a, x);
    }
}

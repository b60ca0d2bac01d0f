//! The vision tower: CLIP ViT, as many layers as the task looks at.
//!
//! Source: Radford et al. 2021 §2.4; LLaVA-1.5 for taking an inner layer without the class token.

use super::config::Vision;
use super::load::Loader;
use crate::Result;
use crate::plan::{Act, Biased, Builder, Matrix, Norm, Vector};
use shaders::bias_act;

struct Layer {
    norm1: Norm,
    qkv: Biased, // [3 v, v]
    o: Biased,   // [v, v]
    norm2: Norm,
    fc1: Biased, // [inner, v]
    fc2: Biased, // [v, inner]
}

/// Weights of the tower.
pub(crate) struct Clip {
    patch: Matrix,    // [v, 3 p p]
    position: Vector, // [P + 1, v], class embedding added to row 0
    pre_norm: Norm,
    layers: Vec<Layer>,
}

impl Clip {
    /// The first `layers` layers.
    pub fn load(loader: &mut Loader, layers: usize) -> Result<Self> {
        let layer = |i: usize, loader: &mut Loader| -> Result<Layer> {
            let name = |part: &str| format!("vision.layers.{i}.{part}");
            Ok(Layer {
                norm1: loader.norm(&name("norm1"))?,
                qkv: loader.biased(&name("qkv"))?,
                o: loader.biased(&name("o"))?,
                norm2: loader.norm(&name("norm2"))?,
                fc1: loader.biased(&name("fc1"))?,
                fc2: loader.biased(&name("fc2"))?,
            })
        };
        Ok(Clip {
            patch: loader.matrix("vision.patch")?,
            position: loader.vector("vision.position")?,
            pre_norm: loader.norm("vision.pre_norm")?,
            layers: (0..layers).map(|i| layer(i, loader)).collect::<Result<_>>()?,
        })
    }

    /// Width of a row of patches on the device.
    pub fn patch_cols(&self) -> usize {
        self.patch.cols
    }

    /// `hidden_states[layers]` `[P + 1, v]` of patches `[P + 1, 3 p p]`, whose row 0, the class token's, is zero.
    pub fn forward(&self, p: &mut Builder, v: &Vision, layers: usize, patches: Act) -> Act {
        let gelu = if v.activation == "gelu" { bias_act::Activation::Gelu } else { bias_act::Activation::QuickGelu };
        let embedded = p.matrix(&self.patch, patches); // [P + 1, v]
        p.add_vector(embedded, &self.position);
        let x = p.layernorm(embedded, &self.pre_norm, v.layer_norm_eps);
        p.tap("vision.hidden.0", x);
        for (i, layer) in self.layers[..layers].iter().enumerate() {
            p.scope(format!("vision.layers.{i}"));
            let h = p.layernorm(x, &layer.norm1, v.layer_norm_eps);
            let qkv = p.linear(&layer.qkv, h); // [P + 1, 3 v]
            let a = p.attention_full(qkv, v.heads); // [P + 1, v]
            let o = p.linear(&layer.o, a);
            p.add(x, o);

            let h = p.layernorm(x, &layer.norm2, v.layer_norm_eps);
            let m = p.linear_act(&layer.fc1, h, gelu); // [P + 1, inner]
            let m = p.linear(&layer.fc2, m);
            p.add(x, m);
            p.scope("");
            p.tap(&format!("vision.hidden.{}", i + 1), x);
        }
        x
    }
}

/// From picture features to rows of the language model: Linear, GELU, Linear. One per task.
pub(crate) struct Projector {
    linears: [Biased; 2], // [d, v], [d, d]
}

impl Projector {
    pub fn load(loader: &mut Loader, task: super::Task) -> Result<Self> {
        let [a, b] = [0, 1].map(|i| loader.biased(&format!("{}.projector.{i}", task.name())));
        Ok(Projector { linears: [a?, b?] })
    }

    /// `picture` `[P, d]` of features `[P + 1, v]`; the class token is left out.
    pub fn forward(&self, p: &mut Builder, features: Act, picture: Act) {
        let [first, second] = &self.linears;
        let h = p.linear_skip(first, features, picture.rows, bias_act::Activation::Gelu); // [P, d]
        p.linear_into(second, h, bias_act::Activation::None, picture);
        p.tap("projector.out", picture);
    }
}

//! The whole language model on the CPU, from the weights that a model file really computes with, against the runtime:
//! so that q8 and q4 files are held to their own values, not to the unquantised ones.

use quantize::model::{ModelFile, Values};
use runtime::gpu::{Options, nmse};
use runtime::model::{Config, LINEARS, Task};
use runtime::text::Turn;
use runtime::{Model, OpenOptions, Request, Session, SessionOptions};
use shaders::{KvFormat, attention, embed, hlora_gate, rmsnorm, rope_append, swiglu};
use std::collections::BTreeMap;

/// Dequantised tensors by name, row-major.
struct Weights(BTreeMap<String, Vec<f32>>);

impl Weights {
    fn read(file: &ModelFile, config: &Config) -> Self {
        let wanted = |name: &str| name.starts_with("language.") || name.starts_with("ask.");
        let specs = config.tensors().into_iter().filter(|s| wanted(&s.name));
        Weights(
            specs
                .map(|spec| {
                    let values: Values = file.values(&spec).expect("values");
                    let [rows, _] = quantize::assemble::shape_of(&spec);
                    (spec.name.clone(), values.rows(0..rows))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &[f32] {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// `[n][outputs]` of x `[n][inputs]`.
    fn product(&self, name: &str, x: &[f32], inputs: usize) -> Vec<f32> {
        let dot =
            |(w, x): (&[f32], &[f32])| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32;
        let rows = || self.get(name).chunks_exact(inputs);
        x.chunks_exact(inputs).flat_map(|x| rows().map(move |w| dot((w, x)))).collect()
    }
}

/// y = W x + B (gates * scale * A x), `[n][outputs]`.
fn linear(weights: &Weights, config: &Config, layer: usize, which: usize, x: &[f32]) -> Vec<f32> {
    let (name, _) = LINEARS[which];
    let [_, inputs] = config.linear_shapes()[which];
    let adapter = &config.ask.as_ref().expect("ask").adapter;
    let mut y = weights.product(&format!("language.layers.{layer}.{name}"), x, inputs);
    let u = weights.product(&format!("ask.layers.{layer}.{name}.down"), x, inputs);
    let params = hlora_gate::Params {
        rank: adapter.rank as u32,
        experts: adapter.experts as u32,
        v_cols: adapter.rank as u32,
        scale: adapter.scale,
    };
    let [v, _] = hlora_gate::reference(&params, &u);
    let up = weights.product(&format!("ask.layers.{layer}.{name}.up"), &v, adapter.rank);
    y.iter_mut().zip(up).for_each(|(y, up)| *y += up);
    y
}

/// Residual stream after every layer, then the logits of the last token.
fn run(weights: &Weights, config: &Config, ids: &[u32]) -> (Vec<Vec<f32>>, Vec<f32>) {
    let l = &config.language;
    let (d, hd) = (l.hidden, l.head_dim);
    let mut x = embed::reference(ids, weights.get("ask.embed"), &[], d);
    let rope = rope_append::table(ids.len(), hd, l.rope_theta);
    let mut outs = Vec::new();
    for layer in 0..l.layers {
        let norm = |name: &str| weights.get(&format!("language.layers.{layer}.{name}"));
        let h = rmsnorm::reference(&x, norm("input_norm"), l.rms_norm_eps);
        let qkv = linear(weights, config, layer, 0, &h);
        let params = rope_append::Params {
            heads: l.heads as u32,
            kv_heads: l.kv_heads as u32,
            head_dim: hd as u32,
            kv_factors: 0,
        };
        let [q, k, v] = rope_append::reference(&params, &rope, &qkv, 0);
        let mut a = Vec::new();
        for t in 0..ids.len() {
            for head in 0..l.heads {
                let kv_head = head / (l.heads / l.kv_heads);
                let begin = l.sliding_window.map_or(0, |w| t.saturating_sub(w));
                let rows = |x: &'_ [f32]| -> Vec<Vec<f32>> {
                    (begin..=t).map(|j| x[(j * l.kv_heads + kv_head) * hd..][..hd].to_vec()).collect()
                };
                let (k, v) = (rows(&k), rows(&v));
                let (k, v): (Vec<&[f32]>, Vec<&[f32]>) =
                    (k.iter().map(|r| &r[..]).collect(), v.iter().map(|r| &r[..]).collect());
                let scale = 1.0 / (hd as f64).sqrt();
                a.extend(attention::reference(&q[(t * l.heads + head) * hd..][..hd], &k, &v, scale));
            }
        }
        let o = linear(weights, config, layer, 1, &a);
        x.iter_mut().zip(o).for_each(|(x, o)| *x += o);
        let h = rmsnorm::reference(&x, norm("post_norm"), l.rms_norm_eps);
        let gate_up = linear(weights, config, layer, 2, &h);
        let m = swiglu::reference(&gate_up, l.intermediate);
        let down = linear(weights, config, layer, 3, &m);
        x.iter_mut().zip(down).for_each(|(x, y)| *x += y);
        outs.push(x.clone());
    }
    let last = rmsnorm::reference(&x[x.len() - d..], weights.get("language.norm"), l.rms_norm_eps);
    (outs, weights.product("ask.head", &last, d))
}

#[test]
fn every_recipe_computes_with_the_weights_that_its_file_holds() {
    for recipe in ["f16", "q8", "q4"] {
        let path = tests::tiny(recipe);
        let file = ModelFile::open(path).expect("the model file");
        let device = std::env::var("HEALTHGPT_DEVICE").ok();
        for variants in ["portable", ""] {
            let gpu = Options { device: device.clone(), variants: Some(variants.into()), ..Default::default() };
            let model = Model::open(path, &OpenOptions { tasks: vec![Task::Ask], gpu, ..Default::default() })
                .expect("the model");
            let config = &model.header().config;
            let options = SessionOptions { kv: KvFormat::F32, traced: true, ..Default::default() };
            let mut session = Session::new(&model, options).expect("a session");
            let turns = [Turn { question: "Is there a stone in the gallbladder?".into(), answer: None }];
            let trace = session.trace(&Request { max_tokens: 1, ..Request::new(&turns) }).expect("a trace");
            let ids: Vec<u32> = trace.input_ids.iter().map(|id| *id as u32).collect();
            let (outs, mut logits) = run(&Weights::read(&file, config), config, &ids);
            for (layer, out) in outs.iter().enumerate() {
                let error = nmse(out, trace.tensors[&format!("layers.{layer}.out")].as_f32().expect("f32"));
                assert!(error <= 1e-9, "{recipe} {variants}: layer {layer} is off by NMSE {error:e}");
            }
            // The file's last row is the mean, rounded; added ids get the mean of the others' logits.
            logits.pop();
            let mean = logits.iter().map(|v| f64::from(*v)).sum::<f64>() / logits.len() as f64;
            logits.resize(config.vocabulary.rows(), mean as f32);
            let error = nmse(&logits, trace.tensors["logits.prefill"].as_f32().expect("f32"));
            assert!(error <= 1e-9, "{recipe} {variants}: logits are off by NMSE {error:e}");
        }
    }
}

#[test]
fn fewer_bits_are_further_from_the_reference_but_not_far() {
    // Sanity of the whole chain, not a quality figure: random weights are the worst case for rounding.
    let golden = tests::Golden::read("text_only");
    let (_, wanted) = &golden.stages["logits.prefill"];
    let mut before = 0.0;
    for (recipe, most) in [("f16", 1e-5), ("q8", 1e-2), ("q4", 1.0)] {
        let options = OpenOptions { on: Some(tests::gpu().clone()), ..Default::default() };
        let model = Model::open(tests::tiny(recipe), &options).expect("the model");
        let mut session =
            Session::new(&model, SessionOptions { traced: true, ..Default::default() }).expect("a session");
        let turns = golden.turns();
        let trace = session.trace(&Request { max_tokens: 1, ..Request::new(&turns) }).expect("a trace");
        let error = nmse(wanted, trace.tensors["logits.prefill"].as_f32().expect("f32"));
        assert!(error > before && error < most, "{recipe}: NMSE {error:e} after {before:e}");
        before = error;
    }
}

//! What the reference computed, and how far a trace is from it.

use crate::data;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;

/// A golden case: ids and text, and every saved stage.
pub struct Golden {
    /// The JSON file.
    pub json: Value,
    /// Stages as (shape, values).
    pub stages: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Stages of a trace by name, as (shape, values).
pub type Stages<'a> = BTreeMap<&'a str, (&'a [usize], &'a [f32])>;

/// The f32 stages of a trace.
pub fn stages(trace: &runtime::Trace) -> Stages<'_> {
    trace.tensors.iter().filter_map(|(name, t)| Some((name.as_str(), (&t.shape[..], t.as_f32()?)))).collect()
}

impl Golden {
    /// Reads `tiny/NAME.{json,safetensors}`. Integer tensors (codes, the picture) are left to the tests of pictures out.
    ///
    /// *Panics* if the data is not there.
    pub fn read(name: &str) -> Self {
        let json = std::fs::read(data(&format!("tiny/{name}.json"))).expect("golden JSON");
        let bytes = std::fs::read(data(&format!("tiny/{name}.safetensors"))).expect("golden tensors");
        let tensors = SafeTensors::deserialize(&bytes).expect("golden tensors");
        let mut stages = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            if view.dtype() == safetensors::Dtype::F32 {
                let values =
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                stages.insert(name, (view.shape().to_vec(), values));
            }
        }
        Golden { json: serde_json::from_slice(&json).expect("golden JSON"), stages }
    }

    /// Turns of the conversation: questions and answers alternate, a question last.
    pub fn turns(&self) -> Vec<runtime::text::Turn> {
        let texts: Vec<String> = serde_json::from_value(self.json["turns"].clone()).expect("turns");
        let turn = |pair: &[String]| runtime::text::Turn { question: pair[0].clone(), answer: pair.get(1).cloned() };
        texts.chunks(2).map(turn).collect()
    }

    /// Every stage that is missing, of another shape, or further off than `bound` (normalised mean square error).
    pub fn faults(&self, stages: &Stages, bound: f64) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, (shape, wanted)) in &self.stages {
            match stages.get(name.as_str()) {
                None => faults.push(format!("{name} is missing")),
                Some((found, _)) if found != shape => faults.push(format!("{name} is {found:?}, not {shape:?}")),
                Some((_, values)) => {
                    let error = runtime::gpu::nmse(wanted, values);
                    if error > bound {
                        faults.push(format!("{name} is off by NMSE {error:e}"));
                    }
                }
            }
        }
        faults
    }
}

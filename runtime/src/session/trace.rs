//! A run whose every named stage is kept, for comparison with the reference.

use super::{Request, Session};
use crate::plan::Traced;
use crate::text::Sampler;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A stage.
#[derive(Clone)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// Everything that a request computed on its way.
pub struct Trace {
    /// Stages by the names of the golden data.
    pub tensors: BTreeMap<String, Tensor>,
    /// The prompt.
    pub prompt: String,
    /// Its ids; -200 where the picture's rows go.
    pub input_ids: Vec<i64>,
    /// Ids of the answer, the stop token included.
    pub generated_ids: Vec<u32>,
    /// The answer.
    pub text: String,
}

impl Session {
    /// Answers a question from scratch and keeps every stage. The session must have been made with `traced`.
    ///
    /// *Errors*: as [`Session::ask`].
    pub fn trace(&mut self, request: &Request) -> Result<Trace> {
        if !self.options.traced {
            return Err(Error::Input { what: "trace".into(), problem: "the session was not made to be traced".into() });
        }
        request.sampling.validate()?;
        let positions = self.positions(request.turns, request.picture.is_some())?;
        let mut tensors = BTreeMap::new();
        let mut keep = |t: Traced| {
            // Rows of several chunks follow each other.
            let tensor = tensors.entry(t.name).or_insert(Tensor { shape: vec![0, t.cols], values: Vec::new() });
            tensor.values.extend_from_slice(&t.values);
            tensor.shape[0] = tensor.values.len() / t.cols;
        };
        self.cached.clear();
        self.picture = None;
        let gpu = self.gpu().clone();
        if let Some(picture) = request.picture {
            let rows = self.stage_picture(picture)?;
            if let Some(plan) = &self.vision {
                plan.run_traced(&gpu, rows, &mut keep)?;
            }
            self.picture = Some(picture.id);
        }
        for chunk in positions.ids.chunks(self.chunk) {
            self.stage_chunk(chunk);
            self.prefill.run_traced(&gpu, chunk.len(), &mut keep)?;
            self.cached.extend_from_slice(chunk);
        }
        // Only the last chunk's logits decide anything.
        tensors.remove("logits");
        let vector = |values: Vec<f32>| Tensor { shape: vec![values.len()], values };
        let mut logits = self.logits()?;
        tensors.insert("logits.prefill".into(), vector(logits.clone()));
        if let (Some(picture), Some(v)) = (request.picture, &self.model.header.config.vision) {
            let shape = vec![3, v.image, v.image];
            tensors.insert("pixel_values".into(), Tensor { shape, values: picture.pixel_values.clone() });
        }

        let most = request.max_tokens.min(self.cache.positions - positions.ids.len() + 1);
        let mut sampler = Sampler::new(request.sampling);
        let mut generated_ids = Vec::new();
        let stop_ids = self.model.header.config.language.stop_ids.clone();
        loop {
            let id = sampler.next(&logits);
            generated_ids.push(id);
            if stop_ids.contains(&id) || generated_ids.len() == most {
                break;
            }
            let submission = self.submit_token(self.cached.len(), Some(id), None);
            gpu.wait(submission)?;
            self.cached.push(id);
            logits = self.logits()?;
            tensors.insert(format!("logits.step.{}", generated_ids.len() - 1), vector(logits.clone()));
        }
        let ended = generated_ids.last().is_some_and(|id| stop_ids.contains(id));
        let text = self.model.tokenizer.decode(&generated_ids[..generated_ids.len() - usize::from(ended)]);
        let input_ids = positions.prompt.input_ids();
        Ok(Trace { tensors, prompt: positions.prompt.text, input_ids, generated_ids, text })
    }
}

//! A run whose every named stage is kept, for comparison with the reference.

use super::{Grid, Request, Session};
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
    pub values: Values,
}

/// Elements of a stage.
#[derive(Clone)]
pub enum Values {
    /// Nearly everything.
    F32(Vec<f32>),
    /// Codes.
    I32(Vec<i32>),
    /// The picture.
    U8(Vec<u8>),
}

impl Tensor {
    fn f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Tensor { shape, values: Values::F32(values) }
    }

    fn with_rows(&mut self, change: impl FnOnce(&mut [f32], usize)) {
        let cols = self.shape.last().copied().unwrap_or(1);
        if let Values::F32(values) = &mut self.values {
            change(values, cols);
        }
    }

    /// The values, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            _ => None,
        }
    }
}

/// A picture `[pixels][c]` as `[c, side, side]`.
fn channels_first(values: &[f32], channels: usize) -> Tensor {
    let pixels = values.len() / channels;
    let side = pixels.isqrt();
    let planes = (0..channels).flat_map(|c| (0..pixels).map(move |i| values[i * channels + c])).collect();
    Tensor::f32(vec![channels, side, side], planes)
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
    /// Codes of the picture, of the generation task.
    pub codes: Option<Vec<u32>>,
}

impl Session {
    /// Answers a question from scratch and keeps every stage. The session must have been made with `traced`.
    ///
    /// *Errors*: as [`Session::ask`].
    pub fn trace(&mut self, request: &Request) -> Result<Trace> {
        if !self.options.traced {
            return Err(Error::Input { what: "trace".into(), problem: "the session was not made to be traced".into() });
        }
        self.check(request)?;
        self.pacer.begin(request.timeout);
        let positions = self.positions(request.turns, request.picture.is_some())?;
        let mut stages: BTreeMap<String, (Vec<f32>, usize)> = BTreeMap::new();
        let mut keep = |t: Traced| {
            // Rows of several chunks follow each other.
            stages.entry(t.name).or_insert((Vec::new(), t.cols)).0.extend_from_slice(&t.values);
        };
        self.cached.clear();
        self.picture = None;
        let gpu = self.gpu().clone();
        if let Some(picture) = request.picture {
            let step = self.stage_picture(picture)?;
            if let Some(plan) = &self.vision {
                plan.run_traced(&gpu, step.n as usize, &mut keep)?;
            }
            self.picture = Some(picture.id);
        }
        for chunk in positions.ids.chunks(self.chunk) {
            self.stage_chunk(self.cached.len(), chunk);
            self.prefill.run_traced(&gpu, chunk.len(), &mut keep)?;
            self.cached.extend_from_slice(chunk);
        }
        let mut tensors: BTreeMap<String, Tensor> = stages
            .into_iter()
            .map(|(name, (values, cols))| (name, Tensor::f32(vec![values.len() / cols, cols], values)))
            .collect();
        if let Some(way_back) = &self.model.way_back {
            for (name, tensor) in &mut tensors {
                tensor.with_rows(|values, cols| way_back.stage(name, values, cols));
            }
        }
        // Only the last chunk's logits decide anything.
        tensors.remove("logits");
        let vector = |values: Vec<f32>| Tensor::f32(vec![values.len()], values);
        let mut logits = self.logits()?;
        tensors.insert("logits.prefill".into(), vector(logits.clone()));
        if let (Some(picture), Some(v)) = (request.picture, &self.model.header.config.vision) {
            let shape = vec![3, v.image, v.image];
            tensors.insert("pixel_values".into(), Tensor::f32(shape, picture.pixel_values.clone()));
        }

        let mut drawing = self.drawing();
        let left = self.cache.positions - positions.ids.len() + 1;
        let most = request.max_tokens.min(left);
        let mut sampler = Sampler::new(request.sampling);
        let mut generated_ids = Vec::new();
        let stop_ids = self.model.header.config.language.stop_ids.clone();
        loop {
            let mut allowed = logits.clone();
            if let Some(drawing) = &drawing {
                drawing.mask(self, &mut allowed)?;
            }
            let id = sampler.next(&allowed);
            generated_ids.push(id);
            if let Some(drawing) = &mut drawing {
                drawing.push(self, id)?;
            }
            if stop_ids.contains(&id) || generated_ids.len() >= most {
                break;
            }
            self.feed(self.cached.len(), id)?;
            self.cached.push(id);
            logits = self.logits()?;
            tensors.insert(format!("logits.step.{}", generated_ids.len() - 1), vector(logits.clone()));
        }
        let ended = generated_ids.last().is_some_and(|id| stop_ids.contains(id));
        let text = self.model.tokenizer.decode(&generated_ids[..generated_ids.len() - usize::from(ended)]);
        let codes = drawing.map(|d| d.codes);
        // A drawing that was cut short by `max_tokens` has no picture.
        let whole = self.model.header.config.vqgan.as_ref().map_or(0, |q| q.codes_per_picture());
        if let Some(codes) = codes.as_ref().filter(|c| c.len() == whole) {
            self.trace_decoder(codes, &mut tensors)?;
        }
        let input_ids = positions.prompt.input_ids();
        Ok(Trace { tensors, prompt: positions.prompt.text, input_ids, generated_ids, text, codes })
    }

    fn drawing(&self) -> Option<Drawing> {
        let q = self.model.header.config.vqgan.as_ref().filter(|_| self.decoder.is_some())?;
        Some(Drawing { grid: Grid::new(q.grid), codes: Vec::new(), ended: false })
    }

    fn trace_decoder(&self, codes: &[u32], tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let (Some(q), Some(plan)) = (&self.model.header.config.vqgan, &self.decoder) else { return Ok(()) };
        self.gpu().write(&self.buffers.codes, 0, bytemuck::cast_slice(codes));
        let picture_rows = q.side().pow(2);
        plan.run_traced(self.gpu(), picture_rows, |t| {
            tensors.insert(t.name, channels_first(&t.values, t.cols));
        })?;
        let signed = codes.iter().map(|c| *c as i32).collect();
        tensors.insert("codes".into(), Tensor { shape: vec![codes.len()], values: Values::I32(signed) });
        let picture = self.drawn_picture(q.side(), q.out_channels)?;
        let shape = vec![q.side(), q.side(), 3];
        tensors.insert("image".into(), Tensor { shape, values: Values::U8(picture.pixels) });
        Ok(())
    }
}

/// A picture in the making: codes until it is full, then the end, as a model that behaves would have it.
struct Drawing {
    grid: Grid,
    codes: Vec<u32>,
    ended: bool,
}

impl Drawing {
    /// Takes the chance from every id that may not come next.
    fn mask(&self, session: &Session, logits: &mut [f32]) -> Result<()> {
        if !self.grid.is_full() {
            return session.mask(logits, self.grid);
        }
        let stop_ids = &session.model.header.config.language.stop_ids;
        let end = session.model.tokenizer.end_index();
        for (id, logit) in logits.iter_mut().enumerate() {
            let allowed = if self.ended { stop_ids.contains(&(id as u32)) } else { Some(id as u32) == end };
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn push(&mut self, session: &Session, id: u32) -> Result<()> {
        match session.model.tokenizer.code_of(id).filter(|_| !self.grid.is_full()) {
            Some(code) => {
                self.codes.push(code);
                self.grid = self.grid.with_code();
            }
            None if self.grid.is_full() => self.ended = true,
            None if self.grid.newline_may_follow() => self.grid = self.grid.with_newline(),
            None => {
                let problem = "the model's logits are not numbers; its weights are damaged".into();
                return Err(Error::Input { what: "generate".into(), problem });
            }
        }
        Ok(())
    }
}

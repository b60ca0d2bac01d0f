//! Judging given text: how likely it is, and which of several answers fits best.

use super::{Request, Session, Timings, ms};
use crate::gpu::Usage;
use crate::plan::{Builder, Pool};
use crate::text::{Piece, log_softmax_at};
use crate::{Error, Result};
use std::time::Instant;

/// How a given text is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// As a prompt is, many tokens at once.
    Chunk,
    /// As an answer is, one token after another.
    Token,
}

/// How well the model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Tokens of the text.
    pub tokens: usize,
    /// Sum over all tokens but the first of the negative natural logarithm of their probability.
    pub nll: f64,
}

/// How likely each of several answers is.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// By choice; they sum to 1.
    pub probabilities: Vec<f64>,
    /// Positions of the prompt, picture rows included.
    pub prompt_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

impl Perplexity {
    /// exp of the mean.
    pub fn perplexity(&self) -> f64 {
        (self.nll / (self.tokens - 1) as f64).exp()
    }
}

impl Session {
    /// Probability of a plain text, without any prompt around it. The cache is empty afterwards.
    ///
    /// *Errors*: as [`Session::predict`].
    pub fn perplexity(&mut self, text: &str) -> Result<Perplexity> {
        let mut nll = 0.0;
        let tokens = self.predict(text, By::Chunk, |logits, next| nll -= log_softmax_at(logits, next))?;
        Ok(Perplexity { tokens, nll })
    }

    /// Runs a plain text, without any prompt around it, and hands over the logits `[vocabulary rows]` after each token but
    /// the last, with the token that does follow. Returns the tokens of the text. The cache is empty afterwards.
    ///
    /// *Errors*: [`Error::Input`] for a text of less than two tokens, [`Error::ContextFull`] for one longer than the
    /// cache, [`Error::Cancelled`], those of the device.
    pub fn predict(&mut self, text: &str, by: By, mut take: impl FnMut(&[f32], u32)) -> Result<usize> {
        self.needs_whole_head("text")?;
        let ids = self.model.tokenizer.encode(&[Piece::Text(text)], true)?;
        if ids.len() < 2 {
            return Err(Error::Input { what: "text".into(), problem: "has less than two tokens".into() });
        }
        if ids.len() > self.cache.positions {
            return Err(Error::ContextFull { need: ids.len(), have: self.cache.positions });
        }
        self.pacer.begin(None);
        self.cached.clear();
        match by {
            By::Chunk => self.predict_by_chunk(&ids, take)?,
            By::Token => {
                for (pos, pair) in ids.windows(2).enumerate() {
                    self.feed(pos, pair[0])?;
                    take(&self.logits()?, pair[1]);
                }
            }
        }
        Ok(ids.len())
    }

    fn predict_by_chunk(&mut self, ids: &[u32], mut take: impl FnMut(&[f32], u32)) -> Result<()> {
        let model = self.model.clone();
        let gpu = &model.gpu;
        let task = model.task(self.options.task)?;
        let l = &model.header.config.language;
        let head_rows = task.adapted.head.rows;
        // Logits of every row, so fewer rows at once than for a prompt.
        let rows = self.chunk.min(32);
        let logits = gpu.buffer("all logits", (rows * head_rows * 4) as u64, Usage::Activation)?;
        let mut p = Builder::new(gpu, rows, false);
        let tokens = p.fixed(&self.buffers.chunk_tokens, rows, 1);
        let x = p.embed(tokens, &task.adapted.embed, &self.buffers.picture);
        model.phi3.layers(&mut p, l, &task.adapted, self.options.adapter, &self.cache, x);
        let normed = model.phi3.norm_all(&mut p, l, x);
        let all = p.fixed(&logits, rows, head_rows);
        p.matrix_into(&task.adapted.head, normed, all);
        let mut pool = Pool::default();
        let mut plan = p.finish(&mut pool, &self.buffers.step)?;

        let mut pos = 0;
        for chunk in ids.chunks(rows) {
            let step = self.stage_chunk(pos, chunk);
            self.pacer.run(&mut plan, step)?;
            let bytes = gpu.read(&logits, (chunk.len() * head_rows * 4) as u64)?;
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            for row in values.chunks_exact(head_rows) {
                pos += 1;
                if let Some(next) = ids.get(pos) {
                    take(&self.for_every_id(row.to_vec()), *next);
                }
            }
        }
        Ok(())
    }

    /// Probability of each of `choices` as the whole answer to a question, among these choices.
    ///
    /// *Errors*: as [`Session::ask`]; [`Error::Input`] for an empty choice, or a model that gives none a probability.
    pub fn choose(&mut self, request: &Request, choices: &[String]) -> Result<Judged> {
        self.check(request)?;
        self.pacer.begin(request.timeout);
        let mut timings = Timings::default();
        let began = Instant::now();
        let positions = self.positions(request.turns, request.picture.is_some())?;
        if let Some(picture) = request.picture {
            timings.image_ms = self.see(picture)?;
        }
        let prefill_start = Instant::now();
        self.prefill(&positions.ids)?;
        timings.prefill_ms = ms(prefill_start);
        let start = self.logits()?;
        let at = positions.ids.len();
        let mut scores = Vec::new();
        timings.first_token_ms = ms(began);
        for choice in choices {
            let ids = self.answer_ids(choice)?;
            if ids.is_empty() {
                return Err(Error::Input { what: "--choices".into(), problem: "a choice is empty".into() });
            }
            if at + ids.len() > self.cache.positions {
                return Err(Error::ContextFull { need: at + ids.len(), have: self.cache.positions });
            }
            let mut score = 0.0;
            let mut logits = start.clone();
            for (i, id) in ids.iter().enumerate() {
                score += log_softmax_at(&logits, *id);
                self.feed(at + i, *id)?;
                logits = self.logits()?;
            }
            // The answer must end there, else `no` would be helped by everything that begins with it.
            let stop_ids = &self.model.header.config.language.stop_ids;
            score += stop_ids.iter().map(|id| log_softmax_at(&logits, *id).exp()).sum::<f64>().max(1e-300).ln();
            scores.push(score);
        }
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        if !total.is_finite() || total == 0.0 {
            let problem = "the model's probabilities are not numbers; its weights are damaged".into();
            return Err(Error::Input { what: "--choices".into(), problem });
        }
        let probabilities = scores.into_iter().map(|s| (s - largest).exp() / total).collect();
        Ok(Judged { probabilities, prompt_tokens: at, timings })
    }

    /// Ids of a text that stands as an answer, after the assistant's mark.
    fn answer_ids(&self, text: &str) -> Result<Vec<u32>> {
        let mark = Piece::Template("<|assistant|>\n");
        let before = self.model.tokenizer.encode(&[mark], false)?;
        let all = self.model.tokenizer.encode(&[mark, Piece::Text(text)], false)?;
        let common = before.iter().zip(&all).take_while(|(a, b)| a == b).count();
        Ok(all[common..].to_vec())
    }
}

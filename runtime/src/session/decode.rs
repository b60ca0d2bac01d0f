//! Extending the cache: the vision tower, prompts in chunks, one token at a time.

use super::model::vision_patches;
use super::{Picture, Session, ms};
use crate::gpu::Buffer;
use crate::model::Task;
use crate::plan::Ahead;
use crate::text::{Prompt, Slot, Turn, build};
use crate::{Error, Result};
use shaders::Step;
use shaders::embed::PICTURE_ROW;
use std::time::Instant;

/// A conversation as one run of positions.
pub(super) struct Positions {
    /// Text and ids of the prompt.
    pub prompt: Prompt,
    /// By position: a token id, or a row of the picture.
    pub ids: Vec<u32>,
}

/// An id that the device has chosen, or will have, on its way to the host.
pub(super) struct Coming {
    copied: wgpu::SubmissionIndex,
    slot: usize,
    /// The run that chooses it, if that was not waited for.
    ahead: Option<Ahead>,
}

impl Coming {
    /// Where the id after this one may be copied to.
    pub fn other_slot(&self) -> usize {
        1 - self.slot
    }
}

impl Session {
    pub(super) fn positions(&self, turns: &[Turn], picture: bool) -> Result<Positions> {
        let prompt = build(
            &self.model.tokenizer,
            turns,
            picture,
            self.options.task == Task::Generate,
            self.options.system.as_deref(),
        )?;
        let rows = self.model.header.config.vision.as_ref().map_or(0, |v| v.patches()) as u32;
        let mut ids = Vec::new();
        for slot in &prompt.slots {
            match slot {
                Slot::Token(id) => ids.push(*id),
                Slot::Picture => ids.extend((0..rows).map(|row| PICTURE_ROW | row)),
            }
        }
        // One more is needed for the first token of the answer to be of use.
        if ids.len() >= self.cache.positions {
            return Err(Error::ContextFull { need: ids.len() + 1, have: self.cache.positions });
        }
        Ok(Positions { prompt, ids })
    }

    /// Writes the picture's patches and the values of the run; the vision plan is then ready.
    pub(super) fn stage_picture(&self, picture: &Picture) -> Result<Step> {
        let (Some(v), Some(clip)) = (&self.model.header.config.vision, &self.model.clip) else {
            return Err(Error::Input { what: "picture".into(), problem: "this model has no vision tower".into() });
        };
        let patches = vision_patches(v, clip.patch_cols(), picture);
        self.gpu().write(&self.buffers.patches, 0, bytemuck::cast_slice(&patches));
        Ok(self.set_step(Step::new(0, v.patches() + 1)))
    }

    /// Runs the vision tower unless the picture is there already. Returns the milliseconds that took: 0 if it was there.
    pub(super) fn see(&mut self, picture: &Picture) -> Result<f64> {
        if self.picture == Some(picture.id) {
            return Ok(0.0);
        }
        let start = Instant::now();
        self.forget_picture();
        let step = self.stage_picture(picture)?;
        if let Some(plan) = &mut self.vision {
            self.pacer.run(plan, step)?;
        }
        self.picture = Some(picture.id);
        Ok(ms(start))
    }

    /// The cache holds no rows of a picture any more.
    pub(super) fn forget_picture(&mut self) {
        self.picture = None;
        if let Some(first) = self.cached.iter().position(|id| id & PICTURE_ROW != 0) {
            self.cached.truncate(first);
        }
    }

    /// Computes `ids` but what the cache holds of them already; the last position always, so that its logits are
    /// there afterwards. Returns how many positions were kept.
    ///
    /// *Errors*: [`Error::Cancelled`]; the cache then holds the chunks that were done.
    pub(super) fn prefill(&mut self, ids: &[u32]) -> Result<usize> {
        let common = ids.iter().zip(&self.cached).take_while(|(a, b)| a == b).count();
        let kept = common.min(ids.len() - 1);
        self.cached.truncate(kept);
        for chunk in ids[kept..].chunks(self.chunk) {
            let step = self.stage_chunk(self.cached.len(), chunk);
            self.pacer.run(&mut self.prefill, step)?;
            self.cached.extend_from_slice(chunk);
        }
        Ok(kept)
    }

    /// Writes the tokens of a chunk at `pos` and the values of the run.
    pub(super) fn stage_chunk(&self, pos: usize, chunk: &[u32]) -> Step {
        self.gpu().write(&self.buffers.chunk_tokens, 0, bytemuck::cast_slice(chunk));
        self.set_step(Step::new(pos, chunk.len()))
    }

    /// Writes the values of a run of one token at position `pos`: what the last run chose, or `id` if the host chose. Row
    /// `also` of the head may win besides the ordinary ones.
    fn stage_token(&self, pos: usize, id: Option<u32>, also: u32) -> Step {
        if let Some(id) = id {
            self.gpu().write(&self.buffers.token, 0, &id.to_le_bytes());
        }
        self.set_step(Step { also, ..Step::new(pos, 1) })
    }

    /// Runs the token at position `pos`, which the last run chose, to its end.
    ///
    /// *Errors*: [`Error::Cancelled`], those of the device.
    pub(super) fn run_token(&mut self, pos: usize, also: u32) -> Result<()> {
        let step = self.stage_token(pos, None, also);
        self.pacer.run(&mut self.decode, step)
    }

    /// Submits the same without waiting for what was submitted before, if the pace allows it.
    pub(super) fn token_ahead(&mut self, pos: usize, also: u32, slot: usize) -> Option<Coming> {
        if !self.pacer.may_look_ahead(&self.decode, Step::new(pos, 1)) {
            return None;
        }
        let ahead = self.submit_token(pos, also);
        Some(Coming { ahead: Some(ahead), ..self.coming(slot) })
    }

    /// Submits it whatever the pace is.
    pub(super) fn submit_token(&mut self, pos: usize, also: u32) -> Ahead {
        let step = self.stage_token(pos, None, also);
        self.pacer.submit(&self.decode, step)
    }

    /// The id that the last run chose, on its way to the host.
    pub(super) fn coming(&self, slot: usize) -> Coming {
        let mut encoder = self.gpu().device().create_command_encoder(&Default::default());
        let (token, readback) = (self.buffers.token.raw(), self.buffers.readback[slot].raw());
        encoder.copy_buffer_to_buffer(token, 0, readback, 0, 4);
        Coming { copied: self.gpu().submit(encoder), slot, ahead: None }
    }

    /// Waits for such an id.
    ///
    /// *Errors*: those of the device.
    pub(super) fn arrived(&mut self, coming: Coming) -> Result<u32> {
        let bytes = self.gpu().map(&self.buffers.readback[coming.slot], 4, coming.copied)?;
        if let Some(ahead) = &coming.ahead {
            self.pacer.through(&mut self.decode, ahead);
        }
        Ok(bytemuck::pod_read_unaligned(&bytes))
    }

    /// Runs one token that the host chose, to its end.
    ///
    /// *Errors*: [`Error::ContextFull`], [`Error::Cancelled`], those of the device.
    pub(super) fn feed(&mut self, pos: usize, id: u32) -> Result<()> {
        if pos >= self.cache.positions {
            return Err(Error::ContextFull { need: pos + 1, have: self.cache.positions });
        }
        let step = self.stage_token(pos, Some(id), Step::NOTHING);
        self.pacer.run(&mut self.decode, step)
    }

    /// Logits after the last run, one per loaded row of the head.
    pub(super) fn row_logits(&self) -> Result<Vec<f32>> {
        let rows = self.model.task(self.options.task)?.adapted.head.rows;
        self.read_values(&self.buffers.logits, rows)
    }

    /// The first `count` values of logits or of the picture.
    pub(super) fn read_values(&self, buffer: &Buffer, count: usize) -> Result<Vec<f32>> {
        let readback = &self.buffers.readback[0];
        let bytes = count as u64 * 4;
        let mut encoder = self.gpu().device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer.raw(), 0, readback.raw(), 0, bytes);
        let submission = self.gpu().submit(encoder);
        let bytes = self.gpu().map(readback, bytes, submission)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Logits of every id after the last run, `[vocabulary rows]`; the whole head must be loaded.
    pub(super) fn logits(&self) -> Result<Vec<f32>> {
        Ok(self.for_every_id(self.row_logits()?))
    }

    pub(super) fn for_every_id(&self, logits: Vec<f32>) -> Vec<f32> {
        for_every_id(logits, self.model.header.config.vocabulary.rows())
    }
}

/// Added rows of a head are the mean of the others, so their logit is the mean of the others' logits.
pub(super) fn for_every_id(mut logits: Vec<f32>, rows: usize) -> Vec<f32> {
    let mean = logits.iter().map(|v| f64::from(*v)).sum::<f64>() / logits.len() as f64;
    logits.resize(rows, mean as f32);
    logits
}

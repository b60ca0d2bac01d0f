//! Drawing a picture: exactly as many codes as it has, then the decoder.

use super::decode::Coming;
use super::{Picture, Session, ms};
use crate::image::RgbPicture;
use crate::model::Vqgan;
use crate::text::{Sampler, Sampling, Turn};
use crate::{Error, Result};
use shaders::Step;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What is to be drawn.
#[derive(Clone)]
pub struct Draw<'a> {
    /// The instruction.
    pub instruction: &'a str,
    /// What it is about.
    pub picture: Option<&'a Picture>,
    /// How codes are chosen.
    pub sampling: Sampling,
    /// Whether only what may come next can be drawn. Without it the model may do as it likes, as the published script has
    /// it; that needs the whole head.
    pub masked: bool,
    /// The call ends after that as if it had been cancelled.
    pub timeout: Option<Duration>,
}

impl<'a> Draw<'a> {
    /// Greedy, from the instruction alone.
    pub fn new(instruction: &'a str) -> Self {
        Draw { instruction, picture: None, sampling: Sampling::default(), masked: true, timeout: None }
    }
}

/// A row of codes is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Rows that are complete.
    pub done: usize,
    /// Rows of the picture.
    pub of: usize,
}

/// A picture that was drawn. No `Debug`: it is patients' data.
#[derive(Clone)]
pub struct Generated {
    /// The picture.
    pub picture: RgbPicture,
    /// Its codes, row by row.
    pub codes: Vec<u32>,
    /// Positions of the prompt, picture rows included.
    pub prompt_tokens: usize,
    /// Tokens drawn, `<pixel_newline>` included.
    pub tokens: usize,
    /// Vision tower, prompt, codes, decoder; in milliseconds.
    pub image_ms: f64,
    /// The prompt.
    pub prefill_ms: f64,
    /// The codes.
    pub codes_ms: f64,
    /// The decoder.
    pub decoder_ms: f64,
}

/// How far a grid of codes is, and what may come next: a code, or one `<pixel_newline>` between two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    side: usize,
    count: usize,
    after_newline: bool,
}

impl Grid {
    /// An empty grid of `side * side` codes.
    pub fn new(side: usize) -> Self {
        Grid { side, count: 0, after_newline: false }
    }

    /// Codes drawn.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether every code is there.
    pub fn is_full(&self) -> bool {
        self.count == self.side * self.side
    }

    /// Whether `<pixel_newline>` may come next. Never twice, so that a model that repeats it still gets on; and never in
    /// a grid of one column, where it would stand between any two codes.
    pub fn newline_may_follow(&self) -> bool {
        self.side > 1
            && self.count > 0
            && !self.is_full()
            && self.count.is_multiple_of(self.side)
            && !self.after_newline
    }

    /// The grid after a code.
    pub fn with_code(self) -> Self {
        Grid { count: self.count + 1, after_newline: false, ..self }
    }

    /// The grid after `<pixel_newline>`.
    pub fn with_newline(self) -> Self {
        Grid { after_newline: true, ..self }
    }
}

impl Session {
    /// Draws a picture. `on_row` sees each complete row of codes and may end the drawing.
    ///
    /// *Errors*: [`Error::Cancelled`] by `cancel` or `on_row`, [`Error::ContextFull`], [`Error::Input`] if the model, not
    /// masked, ends early, those of the device.
    pub fn generate(&mut self, draw: &Draw, mut on_row: impl FnMut(Row) -> ControlFlow<()>) -> Result<Generated> {
        draw.sampling.validate()?;
        self.pacer.begin(draw.timeout);
        let model = self.model.clone();
        let Some(q) = model.header.config.vqgan.as_ref().filter(|_| self.decoder.is_some()) else {
            return Err(Error::Input {
                what: "generate".into(),
                problem: "the session was not made to generate".into(),
            });
        };
        let turns = [Turn { question: draw.instruction.into(), answer: None }];
        let positions = self.positions(&turns, draw.picture.is_some())?;
        let prompt_tokens = positions.ids.len();
        // The last token is not fed back, so it needs no position.
        let need = prompt_tokens + q.codes_per_picture() + q.grid - 2;
        if need > self.cache.positions {
            return Err(Error::ContextFull { need, have: self.cache.positions });
        }
        if !draw.masked {
            self.needs_whole_head("drawing without a mask")?;
        }
        let image_ms = draw.picture.map_or(Ok(0.0), |picture| self.see(picture))?;
        let prefill_start = Instant::now();
        self.prefill(&positions.ids)?;
        let prefill_ms = ms(prefill_start);

        let codes_start = Instant::now();
        let mut grid = Grid::new(q.grid);
        let mut codes = Vec::with_capacity(q.codes_per_picture());
        let mut tokens = Vec::new();
        let mut drawn = Drawn::new(self, draw)?;
        while !grid.is_full() {
            let id = drawn.next(self, grid, prompt_tokens + tokens.len())?;
            tokens.push(id);
            match model.tokenizer.code_of(id) {
                Some(code) => {
                    codes.push(code);
                    grid = grid.with_code();
                    let row = Row { done: codes.len() / q.grid, of: q.grid };
                    if codes.len().is_multiple_of(q.grid) && on_row(row).is_break() {
                        return Err(Error::Cancelled);
                    }
                }
                None if model.tokenizer.pixel_newline() == Some(id) && (grid.newline_may_follow() || !draw.masked) => {
                    grid = grid.with_newline();
                }
                // Logits that are no numbers choose anything; without a mask, so may the model.
                None => {
                    let (found, needed) = (codes.len(), q.codes_per_picture());
                    let problem = format!("the model ended after {found} of {needed} codes");
                    return Err(Error::Input { what: "generate".into(), problem });
                }
            }
        }
        self.cached.extend_from_slice(&tokens[..tokens.len() - 1]);
        let tokens = tokens.len();
        let codes_ms = ms(codes_start);

        let decoder_start = Instant::now();
        let picture = self.decode_picture(q, &codes)?;
        let decoder_ms = ms(decoder_start);
        log::info!("{tokens} tokens in {codes_ms:.0} ms, decoder {decoder_ms:.0} ms");
        Ok(Generated { picture, codes, prompt_tokens, tokens, image_ms, prefill_ms, codes_ms, decoder_ms })
    }

    /// The picture of `codes`.
    pub(super) fn decode_picture(&mut self, q: &Vqgan, codes: &[u32]) -> Result<RgbPicture> {
        self.gpu().write(&self.buffers.codes, 0, bytemuck::cast_slice(codes));
        if let Some(plan) = &mut self.decoder {
            self.pacer.run(plan, Step::new(0, codes.len()))?;
        }
        self.drawn_picture(q.side(), q.out_channels)
    }

    /// What the decoder left, as 8-bit RGB: truncated, as published.
    pub(super) fn drawn_picture(&self, side: usize, channels: usize) -> Result<RgbPicture> {
        let values = self.read_values(&self.buffers.drawn, side * side * channels)?;
        let level = |v: f32| (255.0 * ((v.clamp(-1.0, 1.0) + 1.0) / 2.0)) as u8;
        // A picture with one channel is grey.
        let channel = |pixel: &[f32], c: usize| level(pixel[c.min(pixel.len() - 1)]);
        let pixels = values.chunks_exact(channels).flat_map(|pixel| [0, 1, 2].map(|c| channel(pixel, c))).collect();
        Ok(RgbPicture { width: side as u32, height: side as u32, pixels, region: None })
    }
}

/// The tokens of a picture, one by one. Only what may come next can win.
enum Drawn {
    /// Chosen on the device, where the id stays: if the pace allows it, a step is submitted before the id of the one
    /// before is read.
    Device { coming: Option<Coming> },
    /// Chosen by the host from the logits.
    Host { sampler: Sampler, masked: bool, last: Option<u32> },
}

impl Drawn {
    fn new(session: &Session, draw: &Draw) -> Result<Self> {
        // A head with every row is masked by the host.
        let whole = session.model.task(session.options.task)?.rows.newline.is_none();
        if draw.sampling.temperature > 0.0 || whole {
            return Ok(Drawn::Host { sampler: Sampler::new(draw.sampling), masked: draw.masked, last: None });
        }
        Ok(Drawn::Device { coming: Some(session.coming(0)) })
    }

    /// The next token of `grid`, which will stand at position `pos`.
    fn next(&mut self, session: &mut Session, grid: Grid, pos: usize) -> Result<u32> {
        let rows = session.model.task(session.options.task)?.rows;
        let also = |grid: Grid| rows.newline.filter(|_| grid.newline_may_follow()).unwrap_or(Step::NOTHING);
        match self {
            Drawn::Device { coming } => {
                let this = match coming.take() {
                    Some(coming) => coming,
                    None => {
                        session.run_token(pos - 1, also(grid))?;
                        session.coming(0)
                    }
                };
                // The id about to be read is a code unless a newline may follow; after either of the two comes a code,
                // since rows have more than one column.
                let after = if grid.newline_may_follow() { grid.with_newline() } else { grid.with_code() };
                if !after.is_full() {
                    *coming = session.token_ahead(pos, also(after), this.other_slot());
                }
                session.arrived(this)
            }
            Drawn::Host { sampler, masked, last } => {
                if let Some(id) = *last {
                    session.feed(pos - 1, id)?;
                }
                let mut logits = session.row_logits()?;
                if *masked {
                    session.mask(&mut logits, grid)?;
                }
                let id = rows.first_id + sampler.next(&logits);
                *last = Some(id);
                Ok(id)
            }
        }
    }
}

impl Session {
    /// Takes the chance from every row that may not come next.
    pub(super) fn mask(&self, logits: &mut [f32], grid: Grid) -> Result<()> {
        let rows = self.model.task(self.options.task)?.rows;
        let tokenizer = &self.model.tokenizer;
        let newline = tokenizer.pixel_newline().filter(|_| grid.newline_may_follow());
        for (row, logit) in logits.iter_mut().enumerate() {
            let id = rows.first_id + row as u32;
            if tokenizer.code_of(id).is_none() && Some(id) != newline {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_may_stand_once_between_rows_and_nowhere_else() {
        let mut grid = Grid::new(2);
        assert!(!grid.newline_may_follow(), "not before the first code");
        grid = grid.with_code();
        assert!(!grid.newline_may_follow(), "not inside a row");
        grid = grid.with_code();
        assert!(grid.newline_may_follow());
        assert!(!grid.with_newline().newline_may_follow(), "not twice");
        grid = grid.with_newline().with_code().with_code();
        assert!(grid.is_full() && !grid.newline_may_follow(), "not at the end");
    }

    #[test]
    fn a_grid_of_one_column_has_no_newlines() {
        assert!(!Grid::new(1).newline_may_follow());
        assert!(Grid::new(1).with_code().is_full());
    }
}

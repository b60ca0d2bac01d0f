//! How fast a session is, stage by stage and kernel by kernel: what `healthgpt bench` prints.

use super::ask::Chosen;
use super::{Picture, Session, ms};
use crate::plan::{Plan, Timed};
use crate::{Error, Result};
use shaders::Step;
use std::time::Instant;

/// A quantity that was measured several times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// In the middle; of an even number of values the upper one of the middle two.
    pub median: f64,
    /// Largest less smallest value, over the median.
    pub spread: f64,
}

impl Measured {
    /// *Panics* without values.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (median, range) = (values[values.len() / 2], values[values.len() - 1] - values[0]);
        Measured { median, spread: if median > 0.0 { range / median } else { 0.0 } }
    }

    /// The same quantity in another unit.
    fn times(self, factor: f64) -> Self {
        Measured { median: self.median * factor, ..self }
    }
}

/// What a session is measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens decoded after it.
    pub tokens: usize,
    /// Times that each quantity is measured, after a run that does not count.
    pub reps: usize,
    /// Also the vision tower and the picture decoder.
    pub pictures: bool,
}

/// How fast a session is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Vision tower and projector, in milliseconds; `None` without them.
    pub image_ms: Option<Measured>,
    /// Tokens of the prompt per second.
    pub prefill_tokens_per_s: Measured,
    /// Tokens after the first per second, chosen on the device. To generate, each of them is a code.
    pub decode_tokens_per_s: Measured,
    /// The picture decoder, until the picture is on the host, in milliseconds; `None` without it.
    pub decoder_ms: Option<Measured>,
    /// Time of this thread for one token, in microseconds: values of the step, encoding, submitting; no waiting.
    pub encode_us: Measured,
    /// Bytes that a decoded token has to read; see [`Session::bytes_per_token`].
    pub bytes_per_token: u64,
    /// What copying within the device's memory reads and writes, in 10^9 bytes per second.
    pub copy_gb_per_s: Measured,
    /// Of that, what decoding reads.
    pub share_of_bandwidth: Measured,
}

/// What a kernel takes of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Kernel's name.
    pub kernel: &'static str,
    /// Variant's name.
    pub variant: &'static str,
    /// Dispatches of the run.
    pub dispatches: usize,
    /// All of them, in milliseconds.
    pub ms: Measured,
    /// Of all kernels' time.
    pub share: f64,
    /// Bytes of the weights that they bind.
    pub weight_bytes: u64,
}

impl KernelTime {
    /// 10^9 bytes of weights per second; `None` for a kernel that binds none.
    pub fn weight_gb_per_s(&self) -> Option<f64> {
        (self.weight_bytes > 0 && self.ms.median > 0.0).then(|| self.weight_bytes as f64 / self.ms.median / 1e6)
    }
}

/// Where the time of a run goes, by kernel and variant, the slowest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernels {
    /// One decoded token, at the end of the prompt.
    pub decode: Vec<KernelTime>,
    /// The prompt's first chunk.
    pub prefill: Vec<KernelTime>,
    /// Tokens of that chunk.
    pub prefill_tokens: usize,
    /// Whether the device's clock was used; else each dispatch was submitted and waited for, which counts too.
    pub by_device_clock: bool,
}

/// Measures once without counting it, then `reps` times.
fn measured(reps: usize, mut once: impl FnMut() -> Result<f64>) -> Result<Measured> {
    once()?;
    Ok(Measured::of((0..reps).map(|_| once()).collect::<Result<_>>()?))
}

impl Session {
    /// Measures every stage. What the session knew is forgotten.
    ///
    /// *Errors*: [`Error::Input`], [`Error::ContextFull`], [`Error::OutOfMemory`] if there is no room for the copies, those
    /// of the device.
    pub fn measure(&mut self, workload: &Workload) -> Result<Speed> {
        let ids = self.begin(workload)?;
        let Workload { prompt, tokens, reps, pictures } = *workload;
        let image_ms = if pictures { self.image_ms(reps)? } else { None };
        let prefill_tokens_per_s = measured(reps, || {
            self.cached.clear();
            let start = Instant::now();
            self.prefill(&ids)?;
            Ok(prompt as f64 / start.elapsed().as_secs_f64())
        })?;
        let decode_tokens_per_s = measured(reps, || {
            let mut chosen = Chosen::on_device(self, tokens + 2);
            // From the second id on each comes a token after the one before; the first had a head start.
            chosen.next(self)?;
            chosen.next(self)?;
            let start = Instant::now();
            while chosen.next(self)?.is_some() {}
            Ok(tokens as f64 / start.elapsed().as_secs_f64())
        })?;
        let encode_us = measured(reps, || {
            let start = Instant::now();
            let ahead = self.submit_token(prompt, Step::NOTHING);
            let us = ms(start) * 1e3;
            self.gpu().wait(ahead.submission)?;
            Ok(us)
        })?;
        let decoder_ms = if pictures { self.decoder_ms(reps)? } else { None };
        let copy_gb_per_s = Measured::of(self.gpu().copy_gb_per_s(reps)?);
        let bytes_per_token = self.bytes_per_token(workload)?;
        let share_of_bandwidth = decode_tokens_per_s.times(bytes_per_token as f64 / 1e9 / copy_gb_per_s.median);
        self.cached.clear();
        Ok(Speed {
            image_ms,
            prefill_tokens_per_s,
            decode_tokens_per_s,
            decoder_ms,
            encode_us,
            bytes_per_token,
            copy_gb_per_s,
            share_of_bandwidth,
        })
    }

    /// Measures every kernel. What the session knew is forgotten.
    ///
    /// *Errors*: as [`Session::measure`].
    pub fn measure_kernels(&mut self, workload: &Workload) -> Result<Kernels> {
        let ids = self.begin(workload)?;
        let by_kernel = |plan: &Plan, stage: &dyn Fn() -> Step| -> Result<Vec<KernelTime>> {
            let run = || {
                stage();
                plan.run_timed(self.gpu())
            };
            run()?;
            let runs = (0..workload.reps).map(|_| run()).collect::<Result<Vec<_>>>()?;
            Ok(by_kernel(&runs))
        };
        let decode = by_kernel(&self.decode, &|| self.set_step(Step::new(workload.prompt, 1)))?;
        let chunk = &ids[..ids.len().min(self.chunk)];
        let prefill = by_kernel(&self.prefill, &|| self.stage_chunk(0, chunk))?;
        Ok(Kernels { decode, prefill, prefill_tokens: chunk.len(), by_device_clock: self.gpu().facts().timestamps })
    }

    /// Bytes that one decoded token has to read, on average over the measured ones: the weights that the plan binds, of
    /// the embedding table one row, and the keys and values up to the token's own. Activations stay in caches, and what
    /// a token adds to the KV cache is next to nothing: neither is counted.
    ///
    /// *Errors*: none for a session that could be made.
    pub fn bytes_per_token(&self, workload: &Workload) -> Result<u64> {
        let l = &self.model.header.config.language;
        let embed = &self.model.task(self.options.task)?.adapted.embed;
        let row_bytes = embed.cols * 2;
        let position_bytes = l.layers * 2 * self.options.kv.bytes(l.kv_heads * l.head_dim);
        // The first measured token stands one behind the prompt's end.
        let seen = |i: usize| (workload.prompt + i + 2).min(l.sliding_window.map_or(usize::MAX, |w| w + 1));
        let positions: usize = (0..workload.tokens).map(seen).sum();
        let kv_bytes = position_bytes * positions / workload.tokens.max(1);
        Ok(self.decode.weight_bytes() + (row_bytes + kv_bytes) as u64)
    }

    /// Checks the workload, forgets everything, and makes up a prompt.
    fn begin(&mut self, workload: &Workload) -> Result<Vec<u32>> {
        let Workload { prompt, tokens, reps, .. } = *workload;
        for (what, count) in [("--prompt", prompt), ("--gen", tokens), ("--reps", reps)] {
            if count == 0 {
                return Err(Error::Input { what: what.into(), problem: "0; at least 1 is needed".into() });
            }
        }
        // Of the tokens two come before the measured ones, and the last is not fed back.
        let need = prompt.saturating_add(tokens).saturating_add(1);
        if need > self.cache.positions {
            return Err(Error::ContextFull { need, have: self.cache.positions });
        }
        self.pacer.begin(None);
        self.cached.clear();
        self.picture = None;
        let vocabulary = self.model.header.config.vocabulary.tokens;
        // Any ids do; these are spread over the table.
        Ok((0..prompt).map(|i| (i * 7919 % vocabulary) as u32).collect())
    }

    fn image_ms(&mut self, reps: usize) -> Result<Option<Measured>> {
        let Some(v) = self.model.header.config.vision.as_ref().filter(|_| self.vision.is_some()) else {
            return Ok(None);
        };
        let grey = Picture { pixel_values: vec![0.0; 3 * v.image * v.image], id: [0; 32] };
        let image_ms = measured(reps, || {
            self.picture = None;
            self.see(&grey)
        })?;
        self.picture = None;
        Ok(Some(image_ms))
    }

    fn decoder_ms(&mut self, reps: usize) -> Result<Option<Measured>> {
        let model = self.model.clone();
        let Some(q) = model.header.config.vqgan.as_ref().filter(|_| self.decoder.is_some()) else {
            return Ok(None);
        };
        let codes: Vec<u32> = (0..q.codes_per_picture()).map(|i| (i * 7919 % q.codes) as u32).collect();
        let once = || {
            let start = Instant::now();
            self.decode_picture(q, &codes)?;
            Ok(ms(start))
        };
        measured(reps, once).map(Some)
    }
}

/// Sums up the steps of each run by kernel and variant.
fn by_kernel(runs: &[Vec<Timed>]) -> Vec<KernelTime> {
    let name = |t: &Timed| (t.kernel, t.variant);
    let mut names: Vec<_> = runs[0].iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    let mut kernels: Vec<KernelTime> = Vec::new();
    for (kernel, variant) in names {
        let own = |run: &[Timed]| run.iter().filter(|t| name(t) == (kernel, variant)).map(|t| t.seconds).sum::<f64>();
        let ms = Measured::of(runs.iter().map(|run| own(run) * 1e3).collect());
        let steps = runs[0].iter().filter(|t| name(t) == (kernel, variant));
        let (dispatches, weight_bytes) = (steps.clone().count(), steps.map(|t| t.weight_bytes).sum());
        kernels.push(KernelTime { kernel, variant, dispatches, ms, share: 0.0, weight_bytes });
    }
    let total: f64 = kernels.iter().map(|k| k.ms.median).sum();
    for kernel in &mut kernels {
        kernel.share = if total > 0.0 { kernel.ms.median / total } else { 0.0 };
    }
    kernels.sort_by(|a, b| b.ms.median.total_cmp(&a.ms.median));
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_relative_and_does_not_depend_on_the_unit() {
        let measured = Measured::of(vec![5.0, 4.0, 6.0, 4.5, 5.5]);
        assert_eq!(measured, Measured { median: 5.0, spread: 0.4 });
        assert_eq!(measured.times(10.0), Measured { median: 50.0, spread: 0.4 });
    }

    #[test]
    fn kernels_are_summed_up_and_the_slowest_comes_first() {
        let timed = |kernel, weight_bytes, seconds| Timed { kernel, variant: "v", weight_bytes, seconds };
        let run = |slower: f64| vec![timed("a", 0, 1e-3), timed("b", 4_000_000, slower), timed("b", 2_000_000, 1e-3)];
        let kernels = by_kernel(&[run(1e-3), run(2e-3), run(3e-3)]);
        let names: Vec<_> = kernels.iter().map(|k| (k.kernel, k.dispatches)).collect();
        assert_eq!(names, [("b", 2), ("a", 1)]);
        assert_eq!(kernels[0].ms.median, 3.0);
        assert_eq!((kernels[0].share, kernels[1].share), (0.75, 0.25));
        assert_eq!(kernels[0].weight_gb_per_s(), Some(2.0));
        assert_eq!(kernels[1].weight_gb_per_s(), None);
    }
}

//! Answering a question, streamed.

use super::decode::Coming;
use super::{Picture, Session, ms};
use crate::text::{Likely, Sampler, Sampling, Turn};
use crate::{Error, Result};
use shaders::Step;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A question with all that came before it.
#[derive(Clone)]
pub struct Request<'a> {
    /// Earlier turns with their answers, then the question. What the session has computed already is not computed again.
    pub turns: &'a [Turn],
    /// Shown with the first turn.
    pub picture: Option<&'a Picture>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Also compute the probability of what was chosen; costs reading the logits of every token.
    pub probabilities: bool,
    /// The call ends after that as if it had been cancelled.
    pub timeout: Option<Duration>,
}

impl<'a> Request<'a> {
    /// Greedy, up to 512 tokens.
    pub fn new(turns: &'a [Turn]) -> Self {
        Request {
            turns,
            picture: None,
            max_tokens: 512,
            sampling: Sampling::default(),
            probabilities: false,
            timeout: None,
        }
    }
}

/// A token of an answer as it is chosen.
pub struct Token<'a> {
    /// Id.
    pub id: u32,
    /// Text that has become final with it; may be empty.
    pub text: &'a str,
    /// Natural logarithm of its probability, with [`Request::probabilities`].
    pub logprob: Option<f32>,
    /// Entropy of the model's distribution, in nats, likewise.
    pub entropy: Option<f32>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    Stop,
    /// `max_tokens`, or the cache is full.
    Length,
    /// The caller said so.
    Cancelled,
}

impl Finish {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Vision tower and projector; 0 if the picture was known.
    pub image_ms: f64,
    /// The prompt.
    pub prefill_ms: f64,
    /// From the request to the first token.
    pub first_token_ms: f64,
    /// Tokens after the first, per second.
    pub decode_tokens_per_s: f64,
}

/// An answer. No `Debug`: it is patients' data.
#[derive(Clone)]
pub struct Answer {
    /// Text before the stop token.
    pub text: String,
    /// Ids, the stop token included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Positions of the prompt, picture rows included.
    pub prompt_tokens: usize,
    /// Of these, the ones that had been computed before.
    pub reused_tokens: usize,
    /// Mean natural logarithm of the probability of the tokens, if asked for.
    pub logprob_mean: Option<f64>,
    /// Where the time went.
    pub timings: Timings,
}

impl Session {
    /// What every request must keep to.
    pub(super) fn check(&self, request: &Request) -> Result<()> {
        request.sampling.validate()?;
        if request.max_tokens == 0 {
            return Err(Error::Input { what: "-n".into(), problem: "0 tokens; at least 1 is needed".into() });
        }
        self.needs_whole_head("question")
    }

    /// Answers a question. `on_token` sees each token of the answer as it is chosen and may end it; text that only
    /// becomes final with the end comes with the last id once more.
    ///
    /// An answer that was cancelled after its first token is returned as far as it got. However a call ends, the session
    /// answers from then on as if it had not been.
    ///
    /// *Errors*: [`Error::ContextFull`], [`Error::Input`], [`Error::Cancelled`] before the first token, those of the
    /// device.
    pub fn ask(&mut self, request: &Request, mut on_token: impl FnMut(&Token) -> ControlFlow<()>) -> Result<Answer> {
        self.check(request)?;
        self.pacer.begin(request.timeout);
        let start = Instant::now();
        let positions = self.positions(request.turns, request.picture.is_some())?;
        let mut timings = Timings::default();
        if let Some(picture) = request.picture {
            timings.image_ms = self.see(picture)?;
        }
        let prefill_start = Instant::now();
        let reused_tokens = self.prefill(&positions.ids)?;
        timings.prefill_ms = ms(prefill_start);

        let prompt_tokens = positions.ids.len();
        // The last token of an answer is not fed back, so it needs no position.
        let most = request.max_tokens.min(self.cache.positions - prompt_tokens + 1);
        let mut chosen = Chosen::new(self, request, most);
        let stop_ids = self.model.header.config.language.stop_ids.clone();
        let mut stream = self.model.tokenizer.stream();
        let mut answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Length,
            prompt_tokens,
            reused_tokens,
            logprob_mean: None,
            timings,
        };
        let mut decode_start = start;
        let mut logprob = 0.0;
        loop {
            let Choice { id, likely } = match chosen.next(self) {
                Ok(Some(choice)) => choice,
                Ok(None) => break,
                Err(Error::Cancelled) if !answer.tokens.is_empty() => {
                    answer.finish = Finish::Cancelled;
                    break;
                }
                Err(error) => return Err(error),
            };
            if answer.tokens.is_empty() {
                answer.timings.first_token_ms = ms(start);
                decode_start = Instant::now();
            }
            answer.tokens.push(id);
            logprob += likely.map_or(0.0, |l| l.logprob);
            if stop_ids.contains(&id) {
                answer.finish = Finish::Stop;
                break;
            }
            let text = stream.push(id);
            answer.text.push_str(&text);
            let token = Token {
                id,
                text: &text,
                logprob: likely.map(|l| l.logprob as f32),
                entropy: likely.map(|l| l.entropy as f32),
            };
            if on_token(&token).is_break() {
                answer.finish = Finish::Cancelled;
                break;
            }
        }
        let rest = stream.finish();
        if !rest.is_empty() {
            answer.text.push_str(&rest);
            let id = answer.tokens.last().copied().unwrap_or_default();
            // Too late to end the answer.
            let _ = on_token(&Token { id, text: &rest, logprob: None, entropy: None });
        }
        let fed = answer.tokens.len().saturating_sub(1);
        self.cached.extend_from_slice(&answer.tokens[..fed]);
        if fed > 0 {
            answer.timings.decode_tokens_per_s = fed as f64 / decode_start.elapsed().as_secs_f64();
        }
        answer.logprob_mean = request.probabilities.then(|| logprob / answer.tokens.len().max(1) as f64);
        Ok(answer)
    }
}

/// The tokens of an answer, one by one.
pub(super) enum Chosen {
    /// Chosen on the device, where the id stays: if the pace allows it, a step is submitted before the id of the one
    /// before is read.
    Device { at: usize, left: usize, coming: Option<Coming> },
    /// Chosen by the host from the logits.
    Host { at: usize, left: usize, sampler: Sampler, last: Option<u32> },
}

/// A token that was chosen.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub id: u32,
    /// `None` where it is not computed.
    pub likely: Option<Likely>,
}

impl Chosen {
    fn new(session: &Session, request: &Request, most: usize) -> Self {
        if request.sampling.temperature > 0.0 || request.probabilities {
            let at = session.cached.len();
            return Chosen::Host { at, left: most, sampler: Sampler::new(request.sampling), last: None };
        }
        Self::on_device(session, most)
    }

    /// The most likely ones.
    pub fn on_device(session: &Session, most: usize) -> Self {
        Chosen::Device { at: session.cached.len(), left: most, coming: Some(session.coming(0)) }
    }

    /// The next token.
    ///
    /// *Errors*: [`Error::Cancelled`], those of the device.
    pub fn next(&mut self, session: &mut Session) -> Result<Option<Choice>> {
        match self {
            Chosen::Host { at, left, sampler, last } => {
                if *left == 0 {
                    return Ok(None);
                }
                if let Some(id) = *last {
                    session.feed(*at, id)?;
                    *at += 1;
                }
                let logits = session.logits()?;
                let id = sampler.next(&logits);
                *left -= 1;
                *last = Some(id);
                Ok(Some(Choice { id, likely: Some(Likely::of(&logits, id)) }))
            }
            Chosen::Device { at, left, coming } => {
                if *left == 0 {
                    return Ok(None);
                }
                *left -= 1;
                let this = match coming.take() {
                    Some(coming) => coming,
                    None => {
                        session.run_token(*at, Step::NOTHING)?;
                        *at += 1;
                        session.coming(0)
                    }
                };
                if *left > 0 {
                    *coming = session.token_ahead(*at, Step::NOTHING, this.other_slot());
                    *at += usize::from(coming.is_some());
                }
                Ok(Some(Choice { id: session.arrived(this)?, likely: None }))
            }
        }
    }
}

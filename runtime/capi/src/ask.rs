//! Questions and answers.

use crate::callback::{Tokens, UserData};
use crate::entry;
use crate::error::{Failure, HGPT_CANCELLED, Result, hgpt_status};
use crate::handle::Ref;
use crate::runtime::only;
use crate::session::{
    HGPT_FINISH_CANCELLED, HGPT_FINISH_FULL, HGPT_FINISH_LENGTH, HGPT_FINISH_STOP, State, hgpt_session, micros,
    micros_of_ms, needs_task, sampling,
};
use crate::strings::{NUL_TERMINATED, Out, Text, TextOut};
use crate::structs::{self, In, OutRecord, record};
use runtime::model::Task;
use runtime::text::Turn;
use runtime::{Finish, Request};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A token of an answer. logprob and entropy are the model's own opinion: they are not calibrated, and no probability of
/// being right.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_token {
    /// sizeof(hgpt_token).
    pub struct_size: u32,
    /// Its number in the model's vocabulary.
    pub id: u32,
    /// Where its text begins in the answer, in bytes.
    pub offset: u32,
    /// Bytes of its text. Whole characters only: a token that is part of one has none, the last part has all.
    pub length: u32,
    /// Natural logarithm of the probability of this token; NaN without HGPT_ASK_PROBABILITIES.
    pub logprob: f32,
    /// Entropy of the distribution that it was chosen from, in nats; NaN without HGPT_ASK_PROBABILITIES.
    pub entropy: f32,
    /// Its text, with a NUL behind: valid until the callback returns. NULL from hgpt_session_token.
    pub text: *const c_char,
}

record! {
    hgpt_token { id, offset, length, logprob, entropy, text } = hgpt_token {
        struct_size: 0,
        id: 0,
        offset: 0,
        length: 0,
        logprob: f32::NAN,
        entropy: f32::NAN,
        text: std::ptr::null(),
    }
}

/// Gets the tokens of an answer as they are chosen, on the thread that asked. Not 0 stops the answer, as
/// hgpt_session_cancel does. May come once more with the last token, for text that becomes whole only at the end.
pub type hgpt_token_fn = Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, token: *const hgpt_token) -> i32>;

/// Compute logprob and entropy of each token. Costs a transfer of a few hundred kilobytes a token.
pub const HGPT_ASK_PROBABILITIES: u32 = 1;

/// How a question is answered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_ask_options {
    /// sizeof(hgpt_ask_options).
    pub struct_size: u32,
    /// Most tokens of the answer, 512 by default; 0 for as many as the context holds.
    pub max_tokens: u32,
    /// 0 for the most likely token each time: the same answer each time. Up to about 1 for varied ones.
    pub temperature: f32,
    /// With a temperature: choose among the most likely tokens that have this share of the probability together, above 0
    /// and at most 1; 0 as 1.
    pub top_p: f32,
    /// With a temperature: equal seeds give equal answers.
    pub seed: u64,
    /// The call ends as if cancelled when this time has passed, in milliseconds, wherever it is, paused or not; 0 for no
    /// limit.
    pub timeout_ms: u32,
    /// HGPT_ASK_*.
    pub flags: u32,
    /// Gets the tokens; may be NULL.
    pub on_token: hgpt_token_fn,
    /// Handed to `on_token`.
    pub user_data: *mut c_void,
}

record! {
    hgpt_ask_options { max_tokens, temperature, top_p, seed, timeout_ms, flags, on_token, user_data } = hgpt_ask_options {
        struct_size: 0,
        max_tokens: 512,
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
        timeout_ms: 0,
        flags: 0,
        on_token: None,
        user_data: std::ptr::null_mut(),
    }
}

/// Most choices of hgpt_session_score.
pub const HGPT_MAX_CHOICES: u32 = 1024;

/// Sets options to their defaults: up to 512 of the most likely tokens, no time limit, no callback.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_ask_options_init(options: *mut hgpt_ask_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_ask_options_init", || unsafe { structs::init(options, size) });
}

/// Answers a question about the session's picture, or without one. Asked again, it is a follow-up: earlier questions and
/// answers count, and neither they nor the picture are computed again.
///
/// `question` is UTF-8 of `length` bytes, or HGPT_NUL_TERMINATED. What it says is text to the model, never a command to the
/// program. `options` may be NULL for the defaults. The answer is read with hgpt_session_answer, and comes through
/// `on_token` while it grows.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// Stops for hgpt_session_cancel, `timeout_ms` and `on_token`, and waits for hgpt_session_pause, within a slice, wherever
/// it is.
/// On failure, HGPT_CANCELLED included: the session is as before, the last answer with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_ask(
    session: *mut hgpt_session,
    question: *const c_char,
    length: usize,
    options: *const hgpt_ask_options,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, question, options) = unsafe { (Ref::new(session), Text::new(question, length), In::new(options)) };
    entry::call("hgpt_session_ask", session, |session| {
        let question = not_empty("question", question.get("question")?)?;
        let options = options.read()?;
        only("flags", options.flags, HGPT_ASK_PROBABILITIES)?;
        let mut state = session.state()?;
        needs_task(&state, Task::Ask)?;
        state.measured(|state| state.ask(question, &options))
    })
}

/// The last answer that is complete.
///
/// Writes at most `capacity` bytes, the final NUL included, cut between two characters; `*needed` is what the whole answer
/// takes, with its NUL. With less capacity (or `text` NULL) the result is HGPT_BUFFER_TOO_SMALL. Before the first answer
/// it is empty.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_answer(
    session: *mut hgpt_session,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, text, needed) = unsafe { (Ref::new(session), TextOut::new(text, capacity), Out::new(needed, 0)) };
    entry::call("hgpt_session_answer", session, |session| {
        needed.require("needed")?;
        text.write_all(&session.state()?.answered.text, &needed)
    })
}

/// A token of that answer by its index, below hgpt_stats.answer_tokens. `out->struct_size` must be set; `out->text` is
/// NULL, the text is `length` bytes of the answer from `offset`.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_token(
    session: *mut hgpt_session,
    index: u32,
    out: *mut hgpt_token,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, out) = unsafe { (Ref::new(session), OutRecord::new(out)) };
    entry::call("hgpt_session_token", session, |session| {
        out.clear()?;
        let state = session.state()?;
        let tokens = &state.answered.tokens;
        let token = tokens.get(index as usize).ok_or_else(|| {
            Failure::argument("index", format!("{index} is not there; the answer has {} tokens", tokens.len()))
        })?;
        out.set(&token.with_text(std::ptr::null()))
    })
}

/// How probable each of some answers is to a question, among these: "yes" and "no", say. This, not the text of a free
/// answer, is the number to hold against a threshold; it is relative to the choices and not calibrated.
///
/// `choices` are 1 to HGPT_MAX_CHOICES texts with a NUL; `probability` gets as many numbers, which sum to 1. Earlier
/// questions and answers count.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// Stops for hgpt_session_cancel and waits for hgpt_session_pause, within a slice.
/// The session is as before, in any case. On failure: every probability is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_score(
    session: *mut hgpt_session,
    question: *const c_char,
    length: usize,
    choices: *const *const c_char,
    choice_count: u32,
    probability: *mut f32,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, question) = unsafe { (Ref::new(session), Text::new(question, length)) };
    let count = if choice_count <= HGPT_MAX_CHOICES { choice_count as usize } else { 0 };
    let places: Vec<Out<f32>> = if probability.is_null() {
        Vec::new()
    } else {
        // SAFETY: `choice_count` numbers are there, the header says.
        (0..count).map(|i| unsafe { Out::new(probability.add(i), 0.0) }).collect()
    };
    entry::call("hgpt_session_score", session, |session| {
        let question = not_empty("question", question.get("question")?)?;
        if choices.is_null() || probability.is_null() {
            return Err(Failure::argument("choices or probability", "is NULL"));
        }
        if count == 0 {
            let problem = format!("is {choice_count}; 1 to {HGPT_MAX_CHOICES} are possible");
            return Err(Failure::argument("choice_count", problem));
        }
        let choice = |i: usize| {
            // SAFETY: `choice_count` pointers are there, each NULL or to a text with a NUL.
            let text = unsafe { Text::new(choices.add(i).read_unaligned(), NUL_TERMINATED) };
            let name = format!("choices[{i}]");
            not_empty(&name, text.get(&name)?).map(str::to_string)
        };
        let texts = (0..count).map(choice).collect::<Result<Vec<_>>>()?;
        let mut state = session.state()?;
        needs_task(&state, Task::Ask)?;
        let probabilities = state.measured(|state| state.score(question, &texts))?;
        for (place, probability) in places.iter().zip(probabilities) {
            place.set(probability as f32);
        }
        Ok(())
    })
}

/// An answer.
#[derive(Default)]
pub(crate) struct Answered {
    pub text: String,
    pub tokens: Vec<Kept>,
}

/// A token of an answer, without a pointer to its text.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    id: u32,
    offset: u32,
    length: u32,
    logprob: f32,
    entropy: f32,
}

impl Kept {
    /// For C, with its text or NULL.
    fn with_text(self, text: *const c_char) -> hgpt_token {
        let Kept { id, offset, length, logprob, entropy } = self;
        hgpt_token { struct_size: size_of::<hgpt_token>() as u32, id, offset, length, logprob, entropy, text }
    }
}

/// *Errors*: nothing but white space.
pub(crate) fn not_empty<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    if text.trim().is_empty() { Err(Failure::argument(what, "is empty")) } else { Ok(text) }
}

/// A time limit; 0 is none.
pub(crate) fn timeout(ms: u32) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms.into()))
}

/// Why a call was cancelled, in words.
pub(crate) fn cancelled(start: Instant, limit: Option<Duration>) -> Failure {
    let text = match limit {
        Some(limit) if start.elapsed() >= limit => format!("the time limit of {} ms has passed", limit.as_millis()),
        _ => "cancelled".into(),
    };
    Failure::new(HGPT_CANCELLED, text)
}

impl State {
    fn turns_with(&self, question: &str) -> Vec<Turn> {
        let mut turns = self.turns.clone();
        turns.push(Turn { question: question.into(), answer: None });
        turns
    }

    fn ask(&mut self, question: &str, options: &hgpt_ask_options) -> Result {
        let start = Instant::now();
        let sampling = sampling(options.temperature, options.top_p, options.seed)?;
        let max_tokens = if options.max_tokens == 0 { usize::MAX } else { options.max_tokens as usize };
        let mut turns = self.turns_with(question);
        let image = self.image.clone();
        let limit = timeout(options.timeout_ms);
        let request = Request {
            picture: image.as_ref().map(|image| &image.picture),
            max_tokens,
            sampling,
            probabilities: options.flags & HGPT_ASK_PROBABILITIES != 0,
            timeout: limit,
            ..Request::new(&turns)
        };
        let listener = Tokens { function: options.on_token, user_data: UserData(options.user_data) };
        let mut streamed = Streamed::default();
        let answer = self.session.ask(&request, |token| match streamed.add(token, &listener) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        });
        let answer = answer.map_err(|error| match error {
            runtime::Error::Cancelled => cancelled(start, limit),
            error => error.into(),
        })?;

        let tokens = streamed.tokens(answer.tokens.len() - usize::from(answer.finish == Finish::Stop));
        let stats = &mut self.stats;
        stats.prompt_tokens = answer.prompt_tokens as u32;
        stats.reused_tokens = answer.reused_tokens as u32;
        stats.answer_tokens = tokens.len() as u32;
        stats.image_us = micros_of_ms(answer.timings.image_ms);
        stats.prompt_us = micros_of_ms(answer.timings.prefill_ms);
        stats.first_token_us = micros_of_ms(answer.timings.first_token_ms);
        stats.answer_us = micros(start.elapsed()).saturating_sub(stats.first_token_us);
        let logprobs = || tokens.iter().map(|t| t.logprob);
        stats.mean_logprob = logprobs().sum::<f32>() / tokens.len() as f32;
        stats.min_logprob = logprobs().fold(f32::NAN, f32::min);
        stats.finish = match answer.finish {
            Finish::Stop => HGPT_FINISH_STOP,
            Finish::Length if answer.tokens.len() >= max_tokens => HGPT_FINISH_LENGTH,
            Finish::Length => HGPT_FINISH_FULL,
            Finish::Cancelled => HGPT_FINISH_CANCELLED,
        };
        if answer.finish == Finish::Cancelled {
            return Err(cancelled(start, limit));
        }
        if let Some(turn) = turns.last_mut() {
            turn.answer = Some(answer.text.clone());
        }
        self.turns = turns;
        self.answered = Answered { text: answer.text, tokens };
        Ok(())
    }

    fn score(&mut self, question: &str, choices: &[String]) -> Result<Vec<f64>> {
        let turns = self.turns_with(question);
        let image = self.image.clone();
        let request = Request { picture: image.as_ref().map(|image| &image.picture), ..Request::new(&turns) };
        let judged = self.session.choose(&request, choices)?;
        self.stats.prompt_tokens = judged.prompt_tokens as u32;
        self.stats.image_us = micros_of_ms(judged.timings.image_ms);
        self.stats.prompt_us = micros_of_ms(judged.timings.prefill_ms);
        self.stats.first_token_us = micros_of_ms(judged.timings.first_token_ms);
        self.stats.finish = HGPT_FINISH_STOP;
        Ok(judged.probabilities)
    }
}

/// An answer as it comes.
#[derive(Default)]
struct Streamed {
    tokens: Vec<Kept>,
    bytes: u32,
    /// The text of the token at hand, with a NUL.
    text: Vec<u8>,
    ended: bool,
}

impl Streamed {
    /// Keeps a token and hands it over. Returns whether to go on.
    fn add(&mut self, token: &runtime::Token, listener: &Tokens) -> bool {
        let length = token.text.len() as u32;
        let new = Kept {
            id: token.id,
            offset: self.bytes,
            length,
            logprob: token.logprob.unwrap_or(f32::NAN),
            entropy: token.entropy.unwrap_or(f32::NAN),
        };
        self.bytes += length;
        self.tokens.push(new);
        self.text.clear();
        self.text.extend(token.text.bytes().map(|b| if b == 0 { b' ' } else { b }));
        self.text.push(0);
        self.ended = self.ended || !listener.tell(&new.with_text(self.text.as_ptr().cast()));
        !self.ended
    }

    /// The tokens, `count` of them: the rest of the text came with the last one once more.
    fn tokens(mut self, count: usize) -> Vec<Kept> {
        for rest in self.tokens.split_off(count.min(self.tokens.len())) {
            if let Some(last) = self.tokens.last_mut() {
                last.length += rest.length;
            }
        }
        self.tokens
    }
}

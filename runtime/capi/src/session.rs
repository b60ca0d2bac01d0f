//! Sessions: a conversation about a picture, and its share of the device.

use crate::ask::Answered;
use crate::entry;
use crate::error::{Failure, HGPT_ERROR_ARGUMENT, HGPT_ERROR_BUSY, HGPT_ERROR_TASK, Result, hgpt_status};
use crate::handle::{self, Handle, Inner, Poison, Ref};
use crate::image::{Image, hgpt_image};
use crate::model::{HGPT_TASK_ASK, HGPT_TASK_GENERATE, Model, hgpt_model};
use crate::records::Sink;
use crate::strings::{NUL_TERMINATED, Out, Text, TextOut};
use crate::structs::{self, In, OutRecord, record};
use runtime::model::Task;
use runtime::text::Turn;
use runtime::{Control, Footprint, Pace, SessionOptions};
use serde_json::json;
use shaders::KvFormat;
use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// A session: a conversation with a model, about one picture or none. All the device memory that it needs is reserved when
/// it is made. It keeps its model alive.
pub struct hgpt_session {
    _opaque: [u8; 0],
}

/// Formats of the cache of what was said: 16 bits.
pub const HGPT_KV_F16: u32 = 0;
/// 8 bits: a little more than half the memory.
pub const HGPT_KV_Q8: u32 = 1;

/// As slice_us: no limit but what a submission holds anyway.
pub const HGPT_SLICE_UNLIMITED: u32 = u32::MAX;

/// How a session is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_session_options {
    /// sizeof(hgpt_session_options).
    pub struct_size: u32,
    /// Tokens that picture, questions and answers may take together, all reserved at once; 0 for what the model was
    /// made for, at most 2,048.
    pub context_tokens: u32,
    /// HGPT_KV_*.
    pub kv_format: u32,
    /// Longest time of the device in one piece, in microseconds: live imaging waits no longer than that for its turn.
    /// Work is cut to stay below, from what is measured; one dispatch is never cut. 0 for what is known to suit the
    /// device (4,000 where nothing is), HGPT_SLICE_UNLIMITED to be quickest.
    pub slice_us: u32,
    /// Idle time of the device between two pieces, in microseconds.
    pub gap_us: u32,
    /// HGPT_TASK_ASK or HGPT_TASK_GENERATE; 0 for the first of them that the model was opened for.
    pub task: u32,
    /// What the model is told that it is; NULL for the text that it was trained with. Read during the call.
    pub system_text: *const c_char,
}

record! {
    hgpt_session_options { context_tokens, kv_format, slice_us, gap_us, task, system_text } = hgpt_session_options {
        struct_size: 0,
        context_tokens: 0,
        kv_format: HGPT_KV_F16,
        slice_us: 0,
        gap_us: 0,
        task: 0,
        system_text: std::ptr::null(),
    }
}

/// Why an answer ended: the model said so.
pub const HGPT_FINISH_STOP: u32 = 1;
/// max_tokens were reached.
pub const HGPT_FINISH_LENGTH: u32 = 2;
/// The call was stopped, by whatever means, or failed.
pub const HGPT_FINISH_CANCELLED: u32 = 3;
/// The context is full.
pub const HGPT_FINISH_FULL: u32 = 4;

/// What the last hgpt_session_encode, _ask, _score or _generate did, whether or not it succeeded. Times in microseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct hgpt_stats {
    /// sizeof(hgpt_stats).
    pub struct_size: u32,
    /// HGPT_FINISH_*; 0 before the first call.
    pub finish: u32,
    /// Tokens of the prompt, those of the picture included.
    pub prompt_tokens: u32,
    /// Of these, the ones that earlier calls had computed.
    pub reused_tokens: u32,
    /// Tokens of the answer, without the one that ends it; after _generate those of the picture.
    pub answer_tokens: u32,
    /// Pieces of work that the device was given.
    pub submissions: u32,
    /// The vision tower; 0 if the picture was encoded before.
    pub image_us: u64,
    /// The prompt.
    pub prompt_us: u64,
    /// From the call to the first token.
    pub first_token_us: u64,
    /// From the first token to the last; after _generate all codes and the picture decoder.
    pub answer_us: u64,
    /// The whole call, pauses included.
    pub total_us: u64,
    /// Time on the device, by its own clock where it has one.
    pub gpu_us: u64,
    /// The longest piece, likewise.
    pub longest_slice_us: u64,
    /// Device bytes that the model and all its sessions hold: all is reserved beforehand, so there is no more in between.
    pub memory_peak: u64,
    /// Mean of hgpt_token.logprob; NaN without HGPT_ASK_PROBABILITIES. No calibrated probability of being right.
    pub mean_logprob: f32,
    /// The least hgpt_token.logprob; likewise.
    pub min_logprob: f32,
    /// 1 if HGPT_MODEL_LOW_PRIORITY was granted. No back end of this version can.
    pub low_priority_granted: u32,
    /// 0.
    pub reserved: u32,
}

record! {
    hgpt_stats {
        finish, prompt_tokens, reused_tokens, answer_tokens, submissions, image_us, prompt_us, first_token_us, answer_us,
        total_us, gpu_us, longest_slice_us, memory_peak, mean_logprob, min_logprob, low_priority_granted, reserved,
    } = hgpt_stats {
        struct_size: 0,
        finish: 0,
        prompt_tokens: 0,
        reused_tokens: 0,
        answer_tokens: 0,
        submissions: 0,
        image_us: 0,
        prompt_us: 0,
        first_token_us: 0,
        answer_us: 0,
        total_us: 0,
        gpu_us: 0,
        longest_slice_us: 0,
        memory_peak: 0,
        mean_logprob: f32::NAN,
        min_logprob: f32::NAN,
        low_priority_granted: 0,
        reserved: 0,
    }
}

/// Sets options to their defaults: the model's context in 16 bits, the device's own slice, no gap.
///
/// Thread: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_options_init(options: *mut hgpt_session_options, size: usize) {
    // SAFETY: `size` bytes are there, the header says.
    entry::quietly("hgpt_session_options_init", || unsafe { structs::init(options, size) });
}

/// Makes a session: compiles what it needs (seconds, the first time) and reserves its memory. No call on it allocates more.
/// `options` may be NULL for the defaults.
///
/// Thread: any.
/// On failure: `*out` is NULL, and nothing stays reserved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_create(
    model: *mut hgpt_model,
    options: *const hgpt_session_options,
    out: *mut *mut hgpt_session,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (model, options, out) = unsafe { (Ref::new(model), In::new(options), Out::new(out, std::ptr::null_mut())) };
    entry::call("hgpt_session_create", model, |model| {
        out.require("out")?;
        let options = session_options(&options.read()?, model.first_task())?;
        out.set(handle::create(Session::new(model, options)?));
        Ok(())
    })
}

/// Starts over with another picture; NULL for none. The picture must be of the session's model. Nothing is computed yet.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// On failure: the session is as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_set_image(session: *mut hgpt_session, image: *mut hgpt_image) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, image) = unsafe { (Ref::new(session), Ref::<hgpt_image>::new(image)) };
    entry::call("hgpt_session_set_image", session, |session| {
        let image = image.optional()?;
        if image.as_ref().is_some_and(|image| !Arc::ptr_eq(&image.model, &session.model)) {
            return Err(Failure::argument("image", "was made for another model"));
        }
        let mut state = session.state()?;
        state.forget();
        state.session.reset(true);
        state.image = image;
        Ok(())
    })
}

/// Runs the vision tower on the session's picture now, while the question is still being typed; else the first question
/// does. Does nothing where that is done, or where there is no picture.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// Stops for hgpt_session_cancel and waits for hgpt_session_pause, within a slice.
/// On failure: the session is as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_encode(session: *mut hgpt_session) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_encode", session, |session| session.state()?.encode())
}

/// Forgets the conversation; the picture stays if `keep_image` is not 0, and need not be encoded again.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_reset(session: *mut hgpt_session, keep_image: u32) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_reset", session, |session| {
        let mut state = session.state()?;
        state.forget();
        state.session.reset(keep_image != 0);
        if keep_image == 0 {
            state.image = None;
        }
        Ok(())
    })
}

/// Stops the call that runs on the session, if one does: it returns HGPT_CANCELLED, within a slice and what the device
/// takes to finish that, and leaves the session as it was before. Also ends a pause. Without a running call it does
/// nothing, so it may come too early: a worker should also look at a flag of its own before it calls.
///
/// Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_cancel(session: *mut hgpt_session) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_cancel", session, |session| {
        session.control.cancel();
        Ok(())
    })
}

/// Gives the device nothing more to do from the next slice on; what it has been given, it finishes. The call that runs
/// stays open, and later ones wait, until hgpt_session_resume. For the moment between freeze and live.
///
/// Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_pause(session: *mut hgpt_session) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_pause", session, |session| {
        session.control.pause();
        Ok(())
    })
}

/// Goes on after hgpt_session_pause. One call ends any number of pauses.
///
/// Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_resume(session: *mut hgpt_session) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_resume", session, |session| {
        session.control.resume();
        Ok(())
    })
}

/// Changes how the session shares the device, from its next slice on; values as in hgpt_session_options.
///
/// Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_set_pace(session: *mut hgpt_session, slice_us: u32, gap_us: u32) -> hgpt_status {
    // SAFETY: NULL or as the header says.
    let session = unsafe { Ref::new(session) };
    entry::call("hgpt_session_set_pace", session, |session| {
        session.control.set_pace(pace(slice_us, gap_us));
        Ok(())
    })
}

/// Figures of the last call. `out->struct_size` must be set.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
/// On failure: the rest of `*out` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_stats(session: *mut hgpt_session, out: *mut hgpt_stats) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, out) = unsafe { (Ref::new(session), OutRecord::new(out)) };
    entry::call("hgpt_session_stats", session, |session| {
        out.clear()?;
        out.set(&session.state()?.stats)
    })
}

/// What the answers depend on besides the question, as JSON, to be kept with them: {"device", "driver", "profile",
/// "model", "recipe", "context_tokens", "kernels": {name: [variant]}}. Equal reports, equal questions and temperature 0
/// give equal tokens.
///
/// Writes at most `capacity` bytes, the final NUL included, cut between two characters; `*needed` is what the whole text
/// takes, with its NUL. With less capacity (or `text` NULL) the answer is HGPT_BUFFER_TOO_SMALL.
///
/// Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_report(
    session: *mut hgpt_session,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> hgpt_status {
    // SAFETY: pointers are NULL or as the header says.
    let (session, text, needed) = unsafe { (Ref::new(session), TextOut::new(text, capacity), Out::new(needed, 0)) };
    entry::call("hgpt_session_report", session, |session| {
        needed.require("needed")?;
        text.write_all(&session.state()?.report(), &needed)
    })
}

/// Ends a session and gives its memory back; NULL is fine. A call that still runs on another thread is cancelled, and the
/// memory goes when it has returned.
///
/// Thread: any one, once; not from inside a callback of this session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hgpt_session_destroy(session: *mut hgpt_session) {
    entry::quietly("hgpt_session_destroy", || {
        // SAFETY: NULL or a handle that nobody uses any more.
        if let Some(session) = unsafe { handle::destroy(session) } {
            session.control.cancel();
        }
    });
}

/// Behind a `hgpt_session`.
pub(crate) struct Session {
    poison: Poison,
    pub model: Arc<Model>,
    /// Needs no turn.
    pub control: Control,
    /// Only ever tried: nobody waits for it, so nothing can hang on it, callbacks included.
    state: Mutex<State>,
    footprint: Footprint,
}

/// What one call at a time may touch.
pub(crate) struct State {
    pub session: runtime::Session,
    pub image: Option<Arc<Image>>,
    /// Answered ones.
    pub turns: Vec<Turn>,
    pub answered: Answered,
    pub stats: hgpt_stats,
}

impl Handle for hgpt_session {
    type Inner = Session;
    const MARK: u64 = u64::from_le_bytes(*b"hgpt_ses");
    const NAME: &'static str = "session";
}

impl Inner for Session {
    fn poison(&self) -> &Poison {
        &self.poison
    }

    fn sink(&self) -> Option<&Sink> {
        self.model.sink()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.model.count_session(&self.footprint, false);
    }
}

impl Session {
    fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Arc<Self>> {
        let session = runtime::Session::new(&model.model, options)?;
        let control = session.control().clone();
        let footprint = session.footprint();
        model.count_session(&footprint, true);
        let state = State {
            session,
            image: None,
            turns: Vec::new(),
            answered: Answered::default(),
            stats: structs::Record::defaults(),
        };
        let (poison, model) = (Poison::default(), model.clone());
        Ok(Arc::new(Session { poison, model, control, state: Mutex::new(state), footprint }))
    }

    /// The turn of this call.
    ///
    /// *Errors*: another call has it.
    pub fn state(&self) -> Result<MutexGuard<'_, State>> {
        self.state.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Failure::new(HGPT_ERROR_BUSY, "another call is running on this session"),
            // A call that panicked; the handle is poisoned too.
            TryLockError::Poisoned(_) => {
                Failure::new(crate::HGPT_ERROR_POISONED, "the session had an internal error in an earlier call")
            }
        })
    }
}

impl State {
    /// Ends the conversation.
    fn forget(&mut self) {
        self.turns.clear();
        self.answered = Answered::default();
        self.stats = structs::Record::defaults();
    }

    fn encode(&mut self) -> Result {
        let Some(image) = self.image.clone() else { return Ok(()) };
        self.measured(|state| {
            let start = std::time::Instant::now();
            state.session.encode(&image.picture)?;
            state.stats.image_us = micros(start.elapsed());
            state.stats.finish = HGPT_FINISH_STOP;
            Ok(())
        })
    }

    /// Runs a call of which statistics are kept.
    pub fn measured<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        self.stats = hgpt_stats { finish: HGPT_FINISH_CANCELLED, ..structs::Record::defaults() };
        let start = std::time::Instant::now();
        let result = work(self);
        let submissions = self.session.submissions();
        self.stats.total_us = micros(start.elapsed());
        self.stats.submissions = submissions.count as u32;
        self.stats.gpu_us = micros(submissions.device);
        self.stats.longest_slice_us = micros(submissions.longest);
        self.stats.memory_peak = self.session.model().gpu().allocated_bytes();
        result
    }

    fn report(&self) -> String {
        let model = self.session.model();
        let gpu = model.gpu();
        let mut kernels = BTreeMap::<_, Vec<_>>::new();
        for (kernel, variant) in self.session.variants() {
            kernels.entry(kernel).or_default().push(variant);
        }
        json!({
            "device": gpu.facts().name,
            "driver": format!("{} {}", gpu.facts().driver, gpu.facts().driver_info).trim(),
            "profile": gpu.profile().name,
            "model": model.sha256(),
            "recipe": model.header().recipe.name,
            "context_tokens": self.session.context(),
            "kernels": kernels,
        })
        .to_string()
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn micros_of_ms(ms: f64) -> u64 {
    (ms * 1e3).round() as u64
}

fn pace(slice_us: u32, gap_us: u32) -> Pace {
    let slice = match slice_us {
        0 => None,
        HGPT_SLICE_UNLIMITED => Pace::UNLIMITED.slice,
        us => Some(Duration::from_micros(us.into())),
    };
    Pace { slice, gap: Duration::from_micros(gap_us.into()) }
}

/// What the caller's options mean; `first` is the task where they name none.
pub(crate) fn session_options(options: &hgpt_session_options, first: Task) -> Result<SessionOptions> {
    let task = match options.task {
        0 => first,
        HGPT_TASK_ASK => Task::Ask,
        HGPT_TASK_GENERATE => Task::Generate,
        other => {
            return Err(Failure::argument("task", format!("{other} is neither HGPT_TASK_ASK nor HGPT_TASK_GENERATE")));
        }
    };
    let kv = match options.kv_format {
        HGPT_KV_F16 => KvFormat::F16,
        HGPT_KV_Q8 => KvFormat::Q8,
        other => return Err(Failure::argument("kv_format", format!("{other} is no HGPT_KV_*"))),
    };
    // SAFETY: NULL or a text with a NUL, the header says.
    let system = unsafe { Text::new(options.system_text, NUL_TERMINATED) };
    let control = Control::new();
    control.set_pace(pace(options.slice_us, options.gap_us));
    Ok(SessionOptions {
        task,
        context: (options.context_tokens != 0).then_some(options.context_tokens as usize),
        kv,
        system: system.optional("system_text")?.map(str::to_string),
        control,
        ..Default::default()
    })
}

/// *Errors*: the session is for the other task.
pub(crate) fn needs_task(state: &State, task: Task) -> Result {
    if state.session.task() == task {
        return Ok(());
    }
    let text = format!("the session was not made to {}; see hgpt_session_options.task", task.name());
    Err(Failure::new(HGPT_ERROR_TASK, text))
}

/// *Errors*: a temperature or a share that cannot be.
pub(crate) fn sampling(temperature: f32, top_p: f32, seed: u64) -> Result<runtime::text::Sampling> {
    // A struct of zeros means no restriction.
    let top_p = if top_p == 0.0 { 1.0 } else { top_p };
    let sampling = runtime::text::Sampling { temperature, top_p, seed };
    sampling.validate().map_err(|e| Failure { status: HGPT_ERROR_ARGUMENT, ..Failure::from(e) })?;
    Ok(sampling)
}

//! The device: finding it, its facts, pipelines, buffers, waiting. The only place that talks to wgpu about anything
//! but dispatches. Knows nothing of models.

mod adapter;
mod buffer;
mod cache;
mod clock;
mod pipeline;
mod probe;
mod trusted;

pub use adapter::{Found, Options, Search, list, search};
pub use buffer::{Buffer, Usage};
pub use pipeline::Pipeline;
pub use probe::{Outcome, nmse};

use crate::{Error, Result};
use cache::Cache;
use devices::{Facts, Forced, Profile};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A submission that shows no end for this long counts as a lost device.
const PATIENCE: Duration = Duration::from_secs(1800);

/// An open device. Clones share it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

/// Where a pipeline stands once somebody has compiled it.
type Place = Arc<Mutex<Option<Arc<Pipeline>>>>;

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    facts: Facts,
    profile: &'static Profile,
    forced: Forced,
    fault: Arc<OnceLock<String>>,
    pipelines: Mutex<HashMap<String, Place>>,
    /// Pipelines of earlier processes.
    cache: Option<Cache>,
    /// Whether a variant that must be proven gives the right answers here, by its pipeline.
    proven: Mutex<HashMap<String, bool>>,
    /// Held while submitting and while polling. wgpu 30 panics if a wait times out just when another thread empties the
    /// queue (gfx-rs/wgpu pull request 9958).
    queue_turn: Mutex<()>,
    allocated_bytes: Arc<AtomicU64>,
    memory_bytes: Option<u64>,
}

impl Gpu {
    /// Opens the device that the options ask for, or the best one there is.
    ///
    /// *Errors*: [`Error::NoDevice`], [`Error::Input`] for an unknown profile or variant.
    pub fn open(options: &Options) -> Result<Self> {
        let opened = adapter::open(options)?;
        let fault = Arc::new(OnceLock::new());
        // Sticky: whatever goes wrong first is what the caller hears.
        let on_error = fault.clone();
        opened.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let _ = on_error.set(one_line(&error.to_string()));
        }));
        let on_loss = fault.clone();
        opened.device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let _ = on_loss.set(one_line(&message));
            }
        });
        log::info!("device {} ({}), profile {}", opened.facts.name, opened.facts.driver, opened.profile.name);
        Ok(Gpu {
            inner: Arc::new(Inner {
                device: opened.device,
                queue: opened.queue,
                facts: opened.facts,
                profile: opened.profile,
                forced: opened.forced,
                fault,
                pipelines: Mutex::new(HashMap::new()),
                cache: opened.cache,
                proven: Mutex::new(HashMap::new()),
                queue_turn: Mutex::new(()),
                allocated_bytes: Arc::new(AtomicU64::new(0)),
                memory_bytes: options.memory_bytes,
            }),
        })
    }

    /// What the device has.
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }

    /// Its profile.
    pub fn profile(&self) -> &'static Profile {
        self.inner.profile
    }

    /// Bytes allocated on the device now.
    pub fn allocated_bytes(&self) -> u64 {
        self.inner.allocated_bytes.load(Ordering::Relaxed)
    }

    /// Whether anything has gone wrong on the device; it is then of no more use.
    pub fn is_lost(&self) -> bool {
        self.check().is_err()
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// *Errors*: [`Error::DeviceLost`] once anything has gone wrong on the device.
    pub(crate) fn check(&self) -> Result<()> {
        match self.inner.fault.get() {
            Some(message) => Err(Error::DeviceLost(message.clone())),
            None => Ok(()),
        }
    }

    /// Submits, in order with everything before.
    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.submit_all([encoder.finish()])
    }

    pub(crate) fn submit_all(&self, buffers: impl IntoIterator<Item = wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        let _turn = self.inner.queue_turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.queue.submit(buffers)
    }

    pub(crate) fn poll(&self, how: wgpu::PollType) -> std::result::Result<wgpu::PollStatus, wgpu::PollError> {
        let _turn = self.inner.queue_turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.device.poll(how)
    }

    /// Waits for a submission.
    ///
    /// *Errors*: [`Error::DeviceLost`].
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let start = Instant::now();
        loop {
            let wait = wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                // Short, for other threads take turns.
                timeout: Some(Duration::from_millis(20)),
            };
            let polled = self.poll(wait);
            self.check()?;
            match polled {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) if start.elapsed() < PATIENCE => {}
                Err(error) => return Err(Error::DeviceLost(one_line(&error.to_string()))),
            }
        }
    }
}

/// wgpu's messages span lines; ours do not.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! The device: finding it, its facts, pipelines, buffers, waiting. The only place that talks to wgpu about anything
//! but dispatches. Knows nothing of models.

mod adapter;
mod bandwidth;
mod buffer;
mod cache;
mod clock;
mod memory;
mod pipeline;
mod probe;
mod proofs;
mod selftest;
mod trusted;
mod turns;
mod upload;

pub use adapter::{Found, Options, Search, list, search};
pub use buffer::{Buffer, Usage};
pub(crate) use clock::Clock;
pub use pipeline::Pipeline;
pub use probe::{Outcome, nmse};
pub(crate) use upload::Upload;

use crate::{Error, Result};
use cache::Cache;
use devices::{Facts, Forced, Profile};
use proofs::Proofs;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use turns::Turns;

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
    /// `None` for a device that is only thought of.
    opened: Option<(wgpu::Device, wgpu::Queue)>,
    facts: Facts,
    profile: &'static Profile,
    forced: Forced,
    fault: Arc<OnceLock<String>>,
    pipelines: Mutex<HashMap<String, Place>>,
    /// Pipelines of earlier processes.
    cache: Option<Cache>,
    /// What kernels have shown here.
    proofs: Proofs,
    /// Held while submitting and while polling. wgpu 30 panics if a wait times out just when another thread empties the
    /// queue (gfx-rs/wgpu pull request 9958).
    queue_turn: Turns,
    allocated_bytes: Arc<AtomicU64>,
    ceiling: Option<Ceiling>,
    #[cfg(feature = "faults")]
    faulty_kernel: Mutex<Option<String>>,
}

impl Inner {
    fn new(
        opened: Option<(wgpu::Device, wgpu::Queue)>,
        facts: Facts,
        profile: &'static Profile,
        forced: Forced,
    ) -> Self {
        Inner {
            opened,
            facts,
            profile,
            forced,
            fault: Arc::default(),
            pipelines: Mutex::default(),
            cache: None,
            proofs: Proofs::default(),
            queue_turn: Turns::default(),
            allocated_bytes: Arc::default(),
            ceiling: None,
            #[cfg(feature = "faults")]
            faulty_kernel: Mutex::default(),
        }
    }
}

/// What may be allocated, and who says so.
#[derive(Clone, Copy)]
struct Ceiling {
    bytes: u64,
    said_by: &'static str,
}

impl Gpu {
    /// Opens the device that the options ask for, or the best one there is.
    ///
    /// *Errors*: [`Error::NoDevice`], [`Error::Input`] for an unknown profile or variant.
    pub fn open(options: &Options) -> Result<Self> {
        let opened = adapter::open(options)?;
        let proofs = Proofs::open(options.cache_dir.as_deref(), &opened.facts);
        let fault = Arc::new(OnceLock::new());
        // Sticky: whatever goes wrong first is what the caller hears.
        let on_error = fault.clone();
        opened.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let _ = on_error.set(one_line(&error.to_string()));
        }));
        let on_loss = fault.clone();
        // Called for a device that is dropped too, when nobody asks any more.
        opened.device.set_device_lost_callback(move |_, message| {
            let _ = on_loss.set(one_line(&message));
        });
        log::info!("device {} ({}), profile {}", opened.facts.name, opened.facts.driver, opened.profile.name);
        let ceiling = |bytes, said_by| Ceiling { bytes, said_by };
        let asked = options.memory_bytes.map(|bytes| ceiling(bytes, "given with --memory"));
        let allowed = opened.profile.ceiling_bytes(&opened.facts);
        let allowed = allowed.map(|bytes| ceiling(bytes, "that profile and free memory allow (--memory overrides it)"));
        Ok(Gpu {
            inner: Arc::new(Inner {
                fault,
                cache: opened.cache,
                proofs,
                ceiling: asked.or(allowed),
                ..Inner::new(Some((opened.device, opened.queue)), opened.facts, opened.profile, opened.forced)
            }),
        })
    }

    /// A device that is only thought of, and has no ceiling: what is allocated on it is counted and nothing more. Models
    /// and sessions can be made on it, to learn what they would take and which kernels they would use.
    ///
    /// *Errors*: [`Error::Input`] for an unknown profile or variant.
    pub(crate) fn imagined(facts: &Facts, options: &Options) -> Result<Self> {
        let input = |what: &str, problem| Error::Input { what: what.into(), problem };
        let forced = Forced::parse(options.variants.as_deref().unwrap_or_default()).map_err(|e| input("variant", e))?;
        let facts = options.no_more_than.iter().fold(facts.clone(), Facts::no_more_than);
        let profile = devices::profile(&facts, options.profile.as_deref()).map_err(|e| input("profile", e))?;
        Ok(Gpu { inner: Arc::new(Inner::new(None, facts, profile, forced)) })
    }

    /// An imagined device like this one, on which the same variants are chosen.
    pub(crate) fn imagined_like_this(&self) -> Self {
        let Inner { facts, profile, forced, proofs, .. } = &*self.inner;
        let inner = Inner::new(None, facts.clone(), profile, forced.clone());
        Gpu { inner: Arc::new(Inner { proofs: Proofs::like(proofs), ..inner }) }
    }

    /// Whether it is only thought of.
    pub(crate) fn is_imagined(&self) -> bool {
        self.inner.opened.is_none()
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

    /// Bytes that may be allocated on the device: what the caller said, else what its profile allows.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.inner.ceiling.map(|c| c.bytes)
    }

    /// Whether anything has gone wrong on the device; it is then of no more use.
    pub fn is_lost(&self) -> bool {
        self.check().is_err()
    }

    /// *Panics* on an imagined device: nothing is compiled, bound or run there.
    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.opened().0
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.opened().1
    }

    fn opened(&self) -> &(wgpu::Device, wgpu::Queue) {
        self.inner.opened.as_ref().expect("a device that is open")
    }

    /// Loses the device, as a driver does that was reset: for tests.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.device().destroy();
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
        let _turn = self.inner.queue_turn.take();
        self.queue().submit(buffers)
    }

    pub(crate) fn poll(&self, how: wgpu::PollType) -> std::result::Result<wgpu::PollStatus, wgpu::PollError> {
        let _turn = self.inner.queue_turn.take();
        self.device().poll(how)
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

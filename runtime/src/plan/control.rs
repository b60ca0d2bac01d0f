//! What other threads may say to a session while it works.

use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much of the device a session takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Longest time that a submission is to take on the device; `None`: the profile's. A dispatch is never cut, so one that
    /// alone takes longer does.
    pub slice: Option<Duration>,
    /// Idle time between submissions.
    pub gap: Duration,
}

impl Pace {
    /// Everything at once: for a device that does nothing else, and has no watchdog.
    pub const UNLIMITED: Pace = Pace { slice: Some(Duration::MAX), gap: Duration::ZERO };
}

/// What other threads may say to a session while it works: stop, wait, go on, take less. Clones share it. It is looked at
/// between submissions, so whatever is said takes effect when the current one is through.
///
/// One control is for one session: each call of the session begins by forgetting an earlier [`Control::cancel`].
#[derive(Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Said {
    cancelled: bool,
    paused: bool,
    pace: Pace,
}

impl Control {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the call that runs, also one that is paused; without one it does nothing.
    pub fn cancel(&self) {
        self.say(|said| said.cancelled = true);
    }

    /// From now on nothing is submitted; the call stays open. A pause outlasts the call.
    pub fn pause(&self) {
        self.say(|said| said.paused = true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.say(|said| said.paused = false);
    }

    /// Counts from the next submission on.
    pub fn set_pace(&self, pace: Pace) {
        self.say(|said| said.pace = pace);
    }

    /// The pace that was set.
    pub fn pace(&self) -> Pace {
        self.said().pace
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, say: impl FnOnce(&mut Said)) {
        say(&mut self.said());
        self.shared.changed.notify_all();
    }

    /// The pace that counts now; `None` if the call is to wait or to end.
    pub(crate) fn free(&self, deadline: Option<Instant>) -> Option<Pace> {
        let said = *self.said();
        let stopped = said.cancelled || said.paused || deadline.is_some_and(|d| d <= Instant::now());
        (!stopped).then_some(said.pace)
    }

    /// A call begins.
    pub(crate) fn begin(&self) {
        self.said().cancelled = false;
    }

    /// Between two submissions: waits while paused, and until `idle` is reached. The pace that counts now.
    ///
    /// *Errors*: [`Error::Cancelled`] if the call is to end, or at `deadline`.
    pub(crate) fn boundary(&self, idle: Option<Instant>, deadline: Option<Instant>) -> Result<Pace> {
        let mut said = self.said();
        loop {
            let now = Instant::now();
            if said.cancelled || deadline.is_some_and(|d| d <= now) {
                return Err(Error::Cancelled);
            }
            let wake = if said.paused {
                deadline
            } else {
                match idle.filter(|i| *i > now) {
                    None => return Ok(said.pace),
                    Some(idle) => Some(deadline.map_or(idle, |d| d.min(idle))),
                }
            };
            let changed = &self.shared.changed;
            said = match wake {
                None => changed.wait(said).unwrap_or_else(PoisonError::into_inner),
                Some(at) => changed.wait_timeout(said, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

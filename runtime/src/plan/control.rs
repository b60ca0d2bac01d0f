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
    /// The call that runs has stopped at the pause.
    waiting: bool,
    #[cfg(feature = "faults")]
    faults: Faults,
}

/// What tests make happen at a place that no clock finds again.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Default)]
struct Faults {
    /// The call is cancelled when it has been asked so often.
    cancel_in: Option<usize>,
    /// The clock is so much ahead.
    ahead: Duration,
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

    /// Whether the call that runs has stopped at a pause: nothing of it is on the device.
    pub fn is_waiting(&self) -> bool {
        self.said().waiting
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
        let mut said = self.said();
        let stopped = said.is_over(deadline) || said.paused;
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
            said.waiting = false;
            if said.is_over(deadline) {
                return Err(Error::Cancelled);
            }
            let now = Instant::now();
            let wake = if said.paused {
                deadline
            } else {
                match idle.filter(|i| *i > now) {
                    None => return Ok(said.pace),
                    Some(idle) => Some(deadline.map_or(idle, |d| d.min(idle))),
                }
            };
            said.waiting = said.paused;
            let changed = &self.shared.changed;
            said = match wake {
                None => changed.wait(said).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    changed.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Said {
    /// Whether the call is to end.
    fn is_over(&mut self, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        #[cfg(feature = "faults")]
        let now = now + self.faults.ahead;
        #[cfg(feature = "faults")]
        if let Some(left) = &mut self.faults.cancel_in {
            self.cancelled |= *left == 0;
            *left = left.saturating_sub(1);
        }
        self.cancelled || deadline.is_some_and(|d| d <= now)
    }
}

/// In test builds only.
#[cfg(feature = "faults")]
impl Control {
    /// Cancels the call that runs, or the next one, where it looks at the control for the `n`th time, counted from 0;
    /// `None`: does not.
    pub fn cancel_at(&self, n: Option<usize>) {
        self.say(|said| said.faults.cancel_in = n);
    }

    /// Lets time pass, as far as timeouts are concerned.
    pub fn let_pass(&self, time: Duration) {
        self.say(|said| said.faults.ahead += time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{spawn, yield_now};

    fn in_a_pause(end: impl FnOnce(&Control)) -> Result<Pace> {
        let control = Control::new();
        control.pause();
        let waiting = control.clone();
        let thread = spawn(move || waiting.boundary(None, None));
        while !control.is_waiting() {
            yield_now();
        }
        assert!(!thread.is_finished());
        end(&control);
        let ended = thread.join().unwrap();
        assert!(!control.is_waiting());
        ended
    }

    #[test]
    fn a_pause_ends_by_resume_or_cancel() {
        assert_eq!(in_a_pause(Control::resume), Ok(Pace::default()));
        assert_eq!(in_a_pause(Control::cancel), Err(Error::Cancelled));
    }

    #[test]
    fn a_pause_and_a_gap_end_by_the_deadline() {
        let control = Control::new();
        let soon = |ms| Some(Instant::now() + Duration::from_millis(ms));
        control.pause();
        assert_eq!(control.boundary(None, soon(1)), Err(Error::Cancelled));
        control.resume();
        assert_eq!(control.boundary(soon(60_000), soon(1)), Err(Error::Cancelled));
        assert_eq!(control.boundary(soon(1), soon(60_000)), Ok(Pace::default()));
    }

    #[test]
    fn what_was_said_before_a_call_counts_but_for_cancel() {
        let control = Control::new();
        control.cancel();
        control.pause();
        control.set_pace(Pace::UNLIMITED);
        control.begin();
        assert_eq!(control.free(None), None);
        control.resume();
        assert_eq!(control.free(None), Some(Pace::UNLIMITED));
        assert_eq!(control.free(Some(Instant::now())), None);
        control.cancel();
        assert_eq!(control.free(None), None);
    }
}

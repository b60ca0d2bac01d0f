//! What goes along when other threads work for the one that called: a companion, of which the runtime knows nothing. The C
//! library finds by it whose log lines are whose.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// Anything that threads may share.
pub type Companion = Arc<dyn Any + Send + Sync>;

thread_local! {
    static COMPANION: RefCell<Option<Companion>> = const { RefCell::new(None) };
}

/// What accompanies this thread now.
pub fn companion() -> Option<Companion> {
    // A thread that is ending has none.
    COMPANION.try_with(|c| c.borrow().clone()).ok().flatten()
}

/// Runs `work` with a companion, for it and for all threads that the runtime starts on the way.
pub fn accompanied<R>(companion: Option<Companion>, work: impl FnOnce() -> R) -> R {
    /// Brings the one before back, whatever happens.
    struct Back(Option<Companion>);
    impl Drop for Back {
        fn drop(&mut self) {
            COMPANION.set(self.0.take());
        }
    }
    let _back = Back(COMPANION.replace(companion));
    work()
}

/// [`Scope::spawn`] with this thread's companion.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let companion = companion();
    scope.spawn(move || accompanied(companion, work))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> Option<i32> {
        companion()?.downcast_ref().copied()
    }

    #[test]
    fn a_companion_goes_along_and_leaves_in_time() {
        let found = accompanied(Some(Arc::new(1)), || {
            let inside = accompanied(Some(Arc::new(2)), || std::thread::scope(|s| spawn(s, number).join()));
            (inside.ok().flatten(), number())
        });
        assert_eq!((found, number()), ((Some(2), Some(1)), None));
        let panicked = std::panic::catch_unwind(|| accompanied(Some(Arc::new(3)), || panic!("told to")));
        assert!(panicked.is_err() && number().is_none());
    }
}

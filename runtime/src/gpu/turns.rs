//! A lock that is handed on in the order in which it was asked for. With a mutex a session that comes back at once would
//! mostly go first, and others on the same device would starve.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Turns {
    tickets: Mutex<Tickets>,
    called: Condvar,
}

#[derive(Default)]
struct Tickets {
    /// The next to be drawn.
    next: u64,
    /// Whose turn it is.
    called: u64,
}

/// Ends when it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all that came before.
    pub fn take(&self) -> Turn<'_> {
        let mut tickets = self.tickets();
        let own = tickets.next;
        tickets.next += 1;
        while tickets.called != own {
            tickets = self.called.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.tickets().called += 1;
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{scope, yield_now};

    #[test]
    fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let turns = Turns::default();
        let order = Mutex::new(Vec::new());
        scope(|threads| {
            let first = turns.take();
            for i in 0..8 {
                let (turns, order) = (&turns, &order);
                threads.spawn(move || {
                    let _turn = turns.take();
                    order.lock().unwrap().push(i);
                });
                while turns.tickets().next < i + 2 {
                    yield_now();
                }
            }
            assert!(order.lock().unwrap().is_empty());
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), (0..8).collect::<Vec<u64>>());
    }
}

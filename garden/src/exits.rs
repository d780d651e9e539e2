//! Who waits for which child's end.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use garden_sys::supervisor::{Ended, Exit};

type Listener = Box<dyn FnOnce(Exit) + Send>;

/// Listeners by ticket. Listen before the child is made, or look at the ledger after; an end that
/// nobody listens to is nobody's, and one that is reported twice is heard once.
#[derive(Default)]
pub struct Exits {
    listeners: Mutex<HashMap<u64, Listener>>,
}

impl fmt::Debug for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exits").finish_non_exhaustive()
    }
}

impl Exits {
    fn listeners(&self) -> MutexGuard<'_, HashMap<u64, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `listener` when the child ends.
    pub fn listen(&self, ticket: u64, listener: impl FnOnce(Exit) + Send + 'static) {
        self.listeners().insert(ticket, Box::new(listener));
    }

    /// Forgets a listener: its child never was.
    pub fn forget(&self, ticket: u64) {
        self.listeners().remove(&ticket);
    }

    /// Delivers an end.
    pub fn report(&self, ended: Ended) {
        let listener = self.listeners().remove(&ended.ticket);
        if let Some(listener) = listener {
            listener(ended.exit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_end_is_heard_once_and_by_its_listener_only() {
        let exits = Exits::default();
        let (sender, heard) = mpsc::channel();
        for ticket in [1, 2, 3] {
            let sender = sender.clone();
            exits.listen(ticket, move |exit| sender.send((ticket, exit)).unwrap());
        }
        exits.forget(3);
        for ticket in [1, 1, 3, 4] {
            exits.report(Ended { ticket, exit: Exit::Status(3) });
        }
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [(1, Exit::Status(3))]);
    }
}

//! At most one operation at a time for each guid.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use executor::Guid;

use crate::sync::Operation;

/// The operations under way, and for each guid at most one that waits.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<HashMap<Guid, Option<Operation>>>,
}

impl Queue {
    /// Adds an operation. Some: it is to be carried out now, by the caller, who then asks for the
    /// [`Queue::next`]. A newer operation replaces one that waits; only a cancellation stays.
    pub fn push(&self, guid: &str, operation: Operation) -> Option<Operation> {
        let mut waiting = self.lock();
        match waiting.get_mut(guid) {
            None => {
                waiting.insert(guid.to_owned(), None);
                Some(operation)
            }
            Some(Some(Operation::Cancel)) => None,
            Some(slot) => {
                *slot = Some(operation);
                None
            }
        }
    }

    /// What is to be carried out after an operation of this guid has been.
    pub fn next(&self, guid: &str) -> Option<Operation> {
        let mut waiting = self.lock();
        let next = waiting.get_mut(guid).and_then(Option::take);
        if next.is_none() {
            waiting.remove(guid);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Guid, Option<Operation>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_waits_and_cancellations_stay() {
        let queue = Queue::default();
        assert_eq!(queue.push("a", Operation::Container), Some(Operation::Container));
        assert_eq!(queue.push("a", Operation::Container), None);
        assert_eq!(queue.push("a", Operation::ResidualTask), None);
        assert_eq!(queue.push("b", Operation::Container), Some(Operation::Container));
        assert_eq!(queue.next("a"), Some(Operation::ResidualTask));
        assert_eq!(queue.push("a", Operation::Cancel), None);
        assert_eq!(queue.push("a", Operation::Container), None);
        assert_eq!(queue.next("a"), Some(Operation::Cancel));
        assert_eq!(queue.next("a"), None);
        assert_eq!(queue.push("a", Operation::Container), Some(Operation::Container));
    }
}

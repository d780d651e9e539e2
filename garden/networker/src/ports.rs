//! The pool of host ports for `NetIn` without a host port.
//!
//! First in, first out: a released port goes to the end of the queue, so reuse is as late as
//! possible, and the queue's head survives restarts as an offset.

use std::collections::{BTreeSet, VecDeque};

/// Garden's default first port.
pub const DEFAULT_START: u16 = 61001;
/// Garden's default number of ports.
pub const DEFAULT_SIZE: u16 = 4534;

/// Why the pool refused. Texts are those of Garden's server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// All in use.
    #[error("port pool is exhausted")]
    Exhausted,
    /// Already acquired or removed.
    #[error("port already acquired: {0}")]
    Taken(u16),
    /// `start + size` exceeds 65535.
    #[error("port pool of {size} ports from {start} ends beyond 65535")]
    TooLarge {
        /// First port.
        start: u16,
        /// Number of ports.
        size: u16,
    },
}

/// Ports `start..start + size`.
#[derive(Clone, Debug)]
pub struct PortPool {
    start: u16,
    size: u16,
    free: VecDeque<u16>,
    taken: BTreeSet<u16>,
}

impl PortPool {
    /// All free, the queue beginning `offset` ports after `start` (modulo the size).
    pub fn new(start: u16, size: u16, offset: u16) -> Result<Self, PortError> {
        if start.checked_add(size).is_none() {
            return Err(PortError::TooLarge { start, size });
        }
        let mut free: VecDeque<u16> = (start..start + size).collect();
        if size > 0 {
            free.rotate_left(usize::from(offset % size));
        }
        Ok(Self { start, size, free, taken: BTreeSet::new() })
    }

    /// Takes the port at the head of the queue.
    pub fn acquire(&mut self) -> Result<u16, PortError> {
        let port = self.free.pop_front().ok_or(PortError::Exhausted)?;
        self.taken.insert(port);
        Ok(port)
    }

    /// Takes `port`, as recorded by an earlier life of the daemon. Ports outside the pool are
    /// nobody's business.
    pub fn remove(&mut self, port: u16) -> Result<(), PortError> {
        if !self.covers(port) {
            return Ok(());
        }
        if !self.taken.insert(port) {
            return Err(PortError::Taken(port));
        }
        self.free.retain(|free| *free != port);
        Ok(())
    }

    /// Gives `port` back, to the end of the queue; nothing happens if it was not taken.
    pub fn release(&mut self, port: u16) {
        if self.taken.remove(&port) {
            self.free.push_back(port);
        }
    }

    /// Where the queue's head is, for [`PortPool::new`] of the next life.
    #[must_use]
    pub fn offset(&self) -> u16 {
        self.free.front().map_or(0, |port| port - self.start)
    }

    fn covers(&self, port: u16) -> bool {
        port.checked_sub(self.start).is_some_and(|index| index < self.size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn released_ports_come_back_last() {
        let mut pool = PortPool::new(61001, 3, 0).unwrap();
        assert_eq!(pool.acquire(), Ok(61001));
        pool.release(61001);
        assert_eq!(
            [pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire()],
            [Ok(61002), Ok(61003), Ok(61001), Err(PortError::Exhausted)]
        );
        assert_eq!(PortError::Exhausted.to_string(), "port pool is exhausted");
    }

    #[test]
    fn a_restart_continues_where_the_queue_was() {
        let mut pool = PortPool::new(61001, 3, 0).unwrap();
        pool.acquire().unwrap();
        pool.release(61001);
        let mut next = PortPool::new(61001, 3, pool.offset()).unwrap();
        assert_eq!(next.acquire(), Ok(61002));
        assert_eq!(next.remove(61002), Err(PortError::Taken(61002)));
        assert_eq!(next.remove(80), Ok(()));
    }

    #[test]
    fn the_default_ends_at_the_last_port() {
        assert!(PortPool::new(DEFAULT_START, DEFAULT_SIZE, 0).is_ok());
        assert!(PortPool::new(DEFAULT_START, DEFAULT_SIZE + 1, 0).is_err());
        assert_eq!(PortPool::new(1, 0, 9).unwrap().acquire(), Err(PortError::Exhausted));
    }

    proptest! {
        #[test]
        fn every_port_is_free_or_taken_once(
            steps in prop::collection::vec((any::<u8>(), any::<u16>()), 1..200),
            offset in any::<u16>(),
        ) {
            let mut pool = PortPool::new(100, 7, offset).unwrap();
            let mut held: Vec<u16> = Vec::new();
            for (kind, number) in steps {
                match kind % 3 {
                    0 => match pool.acquire() {
                        Ok(port) => {
                            prop_assert!((100..107).contains(&port) && !held.contains(&port));
                            held.push(port);
                        }
                        Err(_) => prop_assert_eq!(held.len(), 7),
                    },
                    1 => {
                        let port = 98 + number % 12;
                        let expected = if held.contains(&port) {
                            Err(PortError::Taken(port))
                        } else {
                            Ok(())
                        };
                        prop_assert_eq!(pool.remove(port), expected.clone());
                        if expected.is_ok() && (100..107).contains(&port) {
                            held.push(port);
                        }
                    }
                    _ if !held.is_empty() => {
                        let port = held.swap_remove(usize::from(number) % held.len());
                        pool.release(port);
                        pool.release(port);
                    }
                    _ => {}
                }
            }
        }
    }
}

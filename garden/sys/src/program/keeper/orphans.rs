//! Children that an earlier keeper has made: taken up, and watched until it is known how they ended.

use core::sync::atomic::Ordering::Relaxed;

use super::super::ledger::State;
use super::super::raw::{self, Errno};
use super::super::store;
use super::{Foreign, Keeper, LOST_AFTER, name, topic};

impl Keeper {
    /// Makes sense of a ledger that an earlier keeper left in the middle of something.
    pub(super) fn adopt(&mut self) {
        let ledger = self.ledger;
        for (index, slot) in ledger.slots().iter().enumerate() {
            let pid = slot.pid.load(Relaxed);
            match slot.state() {
                State::Free => store::forget(index, store::ALL),
                // Killed before the clone: the child never was.
                State::Reserved if pid == 0 => self.free(index),
                State::Reserved | State::Live => {
                    slot.set_state(State::Live);
                    self.adopt_child(index, pid);
                }
                State::Ended | State::Lost => self.untold[index] = true,
            }
        }
    }

    fn adopt_child(&mut self, index: usize, pid: i32) {
        let pidfd = store::place(index, store::PIDFD);
        if raw::pidfd_signal(pidfd, 0) == Err(Errno::EBADF) {
            match raw::pidfd_open(pid) {
                Ok(opened) => self.keep_pidfd(index, opened),
                // Gone and reaped; whoever reaped it wrote its status first.
                Err(_) => {
                    self.lose(index);
                    return;
                }
            }
        }
        if raw::peek_ended(pid) == Err(Errno::ECHILD) {
            self.foreign[index] = Foreign::Watched;
            let _ = raw::epoll_add(self.epoll, pidfd, name(topic::PIDFD, index));
        }
    }

    pub(super) fn hear_anchor(&mut self) {
        let mut bytes = [0; store::NOTE];
        loop {
            match raw::receive(store::KEEPER_END, &mut bytes, false) {
                Ok(received) if received.length > 0 => received.close_all(),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                // The anchor is dead. We have everything it had: be the anchor.
                _ => {
                    raw::execute(store::PROGRAM, &[c"bloomery-anchor", c"anchor-again"]);
                    raw::exit(1);
                }
            }
        }
        let ledger = self.ledger;
        for (index, foreign) in
            self.foreign.iter_mut().enumerate().filter(|(_, f)| **f != Foreign::No)
        {
            if ledger.slots().get(index).is_some_and(|slot| !slot.is_current()) {
                self.untold[index] = true;
                raw::epoll_remove(self.epoll, store::place(index, store::PIDFD));
                *foreign = Foreign::No;
            }
        }
    }

    /// A child of the anchor, or of nobody here, has ended.
    pub(super) fn foreign_ended(&mut self, index: usize) {
        raw::epoll_remove(self.epoll, store::place(index, store::PIDFD));
        if self.foreign[index] == Foreign::Watched {
            self.foreign[index] = Foreign::EndedAt(raw::now());
        }
    }

    /// The anchor writes the status of its own children. For others the kernel may still know it;
    /// where it does not, the status is lost once nobody can be about to write it.
    pub(super) fn look_after_foreign(&mut self) {
        for index in 0..self.ledger.slots().len() {
            let Foreign::EndedAt(since) = self.foreign[index] else { continue };
            let pidfd = store::place(index, store::PIDFD);
            let pid = self.ledger.slots()[index].pid.load(Relaxed);
            let status = raw::zombie_status(pid, pidfd).or_else(|| raw::reaped_status(pidfd));
            let patience_over = raw::now() - since >= LOST_AFTER;
            if !self.ledger.slots()[index].is_current() {
                self.untold[index] = true;
            } else if let Some(status) = status {
                self.end(index, status);
            } else if raw::pidfd_signal(pidfd, 0).is_err() || patience_over {
                self.lose(index);
            } else {
                continue;
            }
            self.foreign[index] = Foreign::No;
        }
    }

    fn lose(&mut self, index: usize) {
        let slot = &self.ledger.slots()[index];
        // The status may have been written between our look and now.
        if slot.is_current() {
            slot.set_state(State::Lost);
        }
        self.untold[index] = true;
    }
}

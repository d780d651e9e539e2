//! Children that an earlier keeper has made: taken up, and watched until it is known how they ended.
//!
//! ```text
//!  keeper dies ──> its children are the anchor's, which writes their statuses before it reaps them
//!  anchor dies ──> they are process 1's, which tells nobody
//! ```
//!
//! For the second case there is, in this order: the zombie's `/proc/<pid>/stat`, for as long as it
//! is one; from Linux 6.15 on, the pidfd; before, the kernel's process events, to which we listen
//! from the moment that a child is not our own.

use core::sync::atomic::Ordering::Relaxed;

use super::super::ledger::{Slot, State, flag};
use super::super::raw::{self, Errno};
use super::super::store::{self, Note};
use super::upgrade::become_anchor;
use super::{Foreign, Keeper, LOST_AFTER, name, topic};

impl Keeper {
    /// Makes sense of a ledger that an earlier keeper left in the middle of something.
    pub(super) fn adopt(&mut self) {
        let ledger = self.ledger;
        for (index, slot) in ledger.slots().enumerate() {
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
            self.listen_to_exits();
        }
    }

    pub(super) fn hear_anchor(&mut self) {
        let mut bytes = [0; store::NOTE];
        loop {
            match raw::receive(store::KEEPER_END, &mut bytes, false) {
                Ok(received) if received.length > 0 => received.close_all(),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                _ => become_anchor(),
            }
        }
        let ledger = self.ledger;
        for (index, foreign) in
            self.foreign.iter_mut().enumerate().filter(|(_, f)| **f != Foreign::No)
        {
            if !ledger.slot(index).is_current() {
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
        for index in 0..self.ledger.used() {
            let Foreign::EndedAt(since) = self.foreign[index] else { continue };
            let pidfd = store::place(index, store::PIDFD);
            let pid = self.ledger.slot(index).pid.load(Relaxed);
            let status = raw::zombie_status(pid, pidfd)
                .or_else(|| raw::reaped_status(pidfd))
                .or_else(|| heard(self.ledger.slot(index)));
            let patience_over = raw::now() - since >= LOST_AFTER;
            if !self.ledger.slot(index).is_current() {
                self.untold[index] = true;
            } else if let Some(status) = status {
                self.end(index, status);
            } else if patience_over || !self.hears_exits && raw::pidfd_signal(pidfd, 0).is_err() {
                self.lose(index);
            } else {
                continue;
            }
            self.foreign[index] = Foreign::No;
        }
        if self.hears_exits && self.foreign.iter().all(|foreign| *foreign == Foreign::No) {
            self.stop_listening_to_exits();
        }
    }

    fn listen_to_exits(&mut self) {
        if self.hears_exits || raw::pidfds_tell_exits() {
            return;
        }
        // Where the kernel does not tell us, a status may be unknown.
        let Ok(socket) = raw::exit_events() else { return };
        self.hears_exits = raw::dup3(socket, store::EXITS, false).is_ok();
        raw::close(socket);
        if self.hears_exits {
            let _ = Note::KeepExits.send(store::KEEPER_END, &[store::EXITS]);
            let _ = raw::epoll_add(self.epoll, store::EXITS, name(topic::EXITS, 0));
        }
    }

    /// The anchor first: a keeper that dies in between leaves a socket that is still listened to.
    fn stop_listening_to_exits(&mut self) {
        let _ = Note::DropExits.send(store::KEEPER_END, &[]);
        let _ = raw::ask_for_events(store::EXITS, false);
        raw::epoll_remove(self.epoll, store::EXITS);
        store::vacate(store::EXITS);
        self.hears_exits = false;
    }

    /// Writes down how watched children's threads have ended, then takes the news from the socket,
    /// in this order.
    pub(super) fn hear_exits(&mut self) {
        for _ in 0..256 {
            match raw::next_exit(store::EXITS, false) {
                Ok(Some(exit)) => self.note_exit(exit),
                Ok(None) => {}
                // Nobody knows what was dropped.
                Err(Errno::ENOBUFS) => {
                    self.doubt_all();
                    continue;
                }
                Err(_) => return,
            }
            let _ = raw::next_exit(store::EXITS, true);
        }
    }

    fn note_exit(&self, exit: raw::ThreadExit) {
        let Some((index, slot)) = self.ledger.find_child(exit.process) else { return };
        if self.foreign[index] == Foreign::No {
            return;
        }
        if exit.leader {
            slot.status.store(exit.status, Relaxed);
            slot.set(flag::HEARD);
        } else if slot.has(flag::HEARD) && slot.status.load(Relaxed) != exit.status {
            slot.set(flag::DOUBTFUL);
        }
    }

    fn doubt_all(&self) {
        for (slot, foreign) in self.ledger.slots().zip(self.foreign) {
            if foreign != Foreign::No && slot.has(flag::HEARD) {
                slot.set(flag::DOUBTFUL);
            }
        }
    }

    fn lose(&mut self, index: usize) {
        let slot = self.ledger.slot(index);
        // The status may have been written between our look and now.
        if slot.is_current() {
            slot.set_state(State::Lost);
        }
        self.untold[index] = true;
    }
}

/// What the kernel has said of a process that has ended, where that is sure.
fn heard(slot: &Slot) -> Option<i32> {
    (slot.has(flag::HEARD) && !slot.has(flag::DOUBTFUL)).then(|| slot.status.load(Relaxed))
}

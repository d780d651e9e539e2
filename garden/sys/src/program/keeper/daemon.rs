//! The keeper's side of the conversation with the daemon.
//!
//! There is one daemon at a time: who connects last. Each request is carried out before the next
//! one is read, and none waits for a child. [`wire`] says how requests look; this is what they do:
//!
//! | request | what the keeper does | refused with |
//! |---|---|---|
//! | HELLO | stops draining, gives ledger and rings, tells all ends again | |
//! | PARK, LAUNCH, LAUNCH_PEA | writes the child down, has the anchor hold its streams, clones it | EEXIST: the ticket is known; ENOSPC: no slot; EAGAIN: 64 children have not yet left our table |
//! | TAKE | gives duplicates of what is kept for a child | ENOENT |
//! | END_INPUT | closes our and the anchor's end of its stdin; the daemon's own end is the last one then | ENOENT |
//! | EMPTY | frees its rings, whose content the daemon has read | ENOENT |
//! | KILL | SIGKILL by its pidfd, for a child that the daemon never got hold of; one that has ended is no error | ENOENT |
//! | RELEASE | forgets an ended child: descriptors, rings, slot | ENOENT, EBUSY: it has not ended |
//! | LEAVE | ends, and the anchor with it, once this daemon has gone, if nothing is kept then | |
//! | UPGRADE | see `upgrade`; answered before the new program runs | EBUSY: another is being looked at; what the new program says, or ENOEXEC |
//!
//! ENDED goes the other way, unasked, until the child is released.

use core::sync::atomic::Ordering::Relaxed;

use super::super::ledger::{KEPT, State};
use super::super::raw::{self, Errno, Fd};
use super::super::store;
use super::super::wire::{self, Message, flag, operation};
use super::{Keeper, name, topic};

impl Keeper {
    /// The newest daemon is the one: an older connection is one whose daemon is dying.
    pub(super) fn meet_daemon(&mut self) {
        let Ok(socket) = raw::accept(store::LISTEN) else { return };
        self.part_from_daemon();
        self.dismissed = false;
        if raw::epoll_add(self.epoll, socket, name(topic::DAEMON, 0)).is_ok() {
            self.daemon = Some(socket);
        } else {
            raw::close(socket);
        }
    }

    fn part_from_daemon(&mut self) {
        if let Some(socket) = self.daemon.take() {
            raw::epoll_remove(self.epoll, socket);
            raw::close(socket);
        }
        self.greeted = false;
        self.alone_since = raw::now();
    }

    pub(super) fn hear_daemon(&mut self) {
        for _ in 0..64 {
            let Some(socket) = self.daemon else { return };
            let mut bytes = [0; wire::MESSAGE];
            match raw::receive(socket, &mut bytes, false) {
                Ok(received) if received.length > 0 => {
                    let Some(request) = Message::decode(&bytes[..received.length]) else {
                        received.close_all();
                        return self.part_from_daemon();
                    };
                    self.serve(socket, request, received.descriptors());
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                _ => return self.part_from_daemon(),
            }
        }
    }

    /// Carries out one request. Its descriptors are ours to close.
    fn serve(&mut self, socket: Fd, request: Message, descriptors: &[Fd]) {
        let mut answer = Message { pid: 0, slot: 0, status: 0, errno: 0, ..request };
        let mut given: [Fd; KEPT] = [-1; KEPT];
        let mut giving = 0;
        let mut keep_open = false;
        let outcome = match request.operation {
            operation::HELLO => {
                self.greeted = true;
                self.stop_draining();
                self.mark_all_untold();
                given[..2].copy_from_slice(&[store::LEDGER, store::RINGS]);
                giving = 2;
                answer.pid = raw::getpid();
                answer.slot = u32::try_from(self.ledger.capacity()).unwrap_or(0);
                Ok(())
            }
            operation::PARK | operation::LAUNCH | operation::LAUNCH_PEA => {
                let made = if request.operation == operation::PARK {
                    self.park(&request, descriptors)
                } else {
                    self.launch(&request, descriptors)
                };
                keep_open = made.is_ok();
                made.map(|(slot, pid)| {
                    answer.pid = pid;
                    answer.slot = u32::try_from(slot).unwrap_or(0);
                })
            }
            operation::RELEASE => self.release(request.ticket),
            operation::TAKE => self.take(request.ticket).map(|(slot, kept)| {
                for which in (0..KEPT).filter(|which| kept & (1 << which) != 0) {
                    given[giving] = store::place(slot, which);
                    giving += 1;
                }
                answer.slot = u32::try_from(slot).unwrap_or(0);
                answer.flags = kept;
            }),
            operation::EMPTY => self.empty(request.ticket),
            operation::KILL => self.kill(request.ticket),
            operation::END_INPUT => self.end_input(request.ticket),
            operation::LEAVE => {
                self.dismissed = true;
                Ok(())
            }
            operation::UPGRADE => match self.check_upgrade(request, descriptors) {
                // Answered when the new program has said whether it can go on from here.
                Ok(()) => return,
                Err(errno) => Err(errno),
            },
            _ => Err(Errno::EPROTO),
        };
        answer.errno = outcome.err().map_or(0, |errno| errno.0);
        let sent = raw::send(socket, &answer.encode(), &given[..giving]);
        if !keep_open {
            descriptors.iter().copied().for_each(raw::close);
        }
        if sent.is_err() {
            self.part_from_daemon();
        }
    }

    /// Tells the daemon who has ended.
    pub(super) fn tell(&mut self) {
        let (Some(socket), true) = (self.daemon, self.greeted) else { return };
        let ledger = self.ledger;
        for (index, untold) in self.untold.iter_mut().enumerate().filter(|(_, untold)| **untold) {
            let slot = ledger.slot(index);
            let lost = slot.state() == State::Lost;
            let message = Message {
                operation: operation::ENDED,
                flags: if lost { flag::LOST } else { 0 },
                ticket: slot.ticket.load(Relaxed),
                slot: u32::try_from(index).unwrap_or(0),
                status: slot.status.load(Relaxed),
                ..Message::default()
            };
            // A daemon that does not read now is told at the next turn.
            if raw::send(socket, &message.encode(), &[]).is_err() {
                return;
            }
            *untold = false;
        }
    }

    fn mark_all_untold(&mut self) {
        for (slot, untold) in self.ledger.slots().zip(self.untold.iter_mut()) {
            *untold = matches!(slot.state(), State::Ended | State::Lost);
        }
    }
}

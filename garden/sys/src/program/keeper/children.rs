//! The keeper's own children: made, recorded when they end, forgotten when the daemon says so.

use core::sync::atomic::Ordering::Relaxed;

use super::super::init;
use super::super::launch::{self, Launch};
use super::super::ledger::{self, STREAMS, State};
use super::super::raw::{self, Answer, Errno, Fd};
use super::super::store::{self, Note};
use super::super::wire::{Message, flag, launch_descriptor as at, operation};
use super::{Foreign, InFlight, Keeper, MOST_LAUNCH_DESCRIPTORS, tell_anchor};

impl Keeper {
    pub(super) fn park(&mut self, request: &Message, descriptors: &[Fd]) -> Answer<(usize, i32)> {
        use raw::clone::{NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS};
        let with_cgroup = request.flags & flag::CGROUP != 0;
        let (&[control], rest) = descriptors.split_at_checked(1).ok_or(Errno::EPROTO)? else {
            return Err(Errno::EPROTO);
        };
        let (cgroup, joins) = split_optional(rest, with_cgroup)?;
        let user = if request.flags & flag::PRIVILEGED == 0 { NEWUSER } else { 0 };
        let flags = user | NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET;
        let (ledger, unshared) = (self.ledger, self.unshared);
        self.make(request.ticket, ledger::flag::INIT, &[], descriptors, |index| {
            let slot = ledger.slot(index);
            // SAFETY: this process has one thread.
            unsafe {
                launch::spawn(flags, cgroup, slot, || init::parked(control, joins, slot, unshared))
            }
        })
    }

    pub(super) fn launch(&mut self, request: &Message, descriptors: &[Fd]) -> Answer<(usize, i32)> {
        let terminal = request.flags & flag::TERMINAL != 0;
        let kept_count = if terminal { 1 } else { 3 };
        let (head, rest) = descriptors.split_at_checked(at::KEPT).ok_or(Errno::EPROTO)?;
        let (kept, rest) = rest.split_at_checked(kept_count).ok_or(Errno::EPROTO)?;
        let (cgroup, rest) = split_optional(rest, request.flags & flag::CGROUP != 0)?;
        let (image, rest) = split_optional(rest, request.flags & flag::IMAGE != 0)?;
        let (root, joins) = split_optional(rest, request.operation == operation::LAUNCH_PEA)?;
        let launch = Launch {
            init: head[at::INIT],
            plan: head[at::PLAN],
            standard: [head[at::STANDARD], head[at::STANDARD + 1], head[at::STANDARD + 2]],
            result: head[at::RESULT],
            image,
            root,
            joins,
            unshared: self.unshared,
            terminal,
            privileged: request.flags & flag::PRIVILEGED != 0,
        };
        let (ledger, own_pids) = (self.ledger, self.own_pids);
        let flags = if terminal { ledger::flag::TERMINAL } else { 0 };
        self.make(request.ticket, flags, kept, descriptors, |index| {
            let slot = ledger.slot(index);
            raw::setns(launch.init, raw::clone::NEWPID)?;
            // SAFETY: this process has one thread.
            let child = unsafe { launch::spawn(0, cgroup, slot, || launch::child(&launch, slot)) };
            if raw::setns(own_pids, raw::clone::NEWPID).is_err() {
                // The next container must not be born inside this one. The anchor starts us anew.
                raw::exit(1);
            }
            child
        })
    }

    /// Writes the child down, gives the anchor its descriptors, clones it.
    fn make(
        &mut self,
        ticket: u64,
        flags: u32,
        kept: &[Fd],
        descriptors: &[Fd],
        clone: impl FnOnce(usize) -> Answer<(i32, Fd)>,
    ) -> Answer<(usize, i32)> {
        if descriptors.len() > MOST_LAUNCH_DESCRIPTORS {
            return Err(Errno::E2BIG);
        }
        let flight = self.in_flight.iter().position(Option::is_none).ok_or(Errno::EAGAIN)?;
        if self.ledger.find(ticket).is_some() {
            return Err(Errno::EEXIST);
        }
        let mask = (1_u32 << kept.len()) - 1;
        let flags = flags | (mask | 1 << store::PIDFD) << ledger::flag::KEPT_SHIFT;
        let ledger = self.ledger;
        let (index, slot) = ledger.reserve(ticket, flags).ok_or(Errno::ENOSPC)?;
        let cloned = (|| {
            if mask != 0 {
                store::keep(index, mask, kept)?;
                tell_anchor(Note::Keep { slot: index, mask }, kept)?;
            }
            clone(index)
        })();
        let (pid, pidfd) = match cloned {
            Ok(child) => child,
            Err(errno) => {
                self.free(index);
                return Err(errno);
            }
        };
        let mut held = InFlight {
            slot: index,
            count: descriptors.len(),
            descriptors: [-1; MOST_LAUNCH_DESCRIPTORS],
        };
        held.descriptors[..descriptors.len()].copy_from_slice(descriptors);
        self.in_flight[flight] = Some(held);
        slot.set_state(State::Live);
        self.keep_pidfd(index, pidfd);
        Ok((index, pid))
    }

    pub(super) fn keep_pidfd(&self, index: usize, pidfd: Fd) {
        let _ = raw::dup3(pidfd, store::place(index, store::PIDFD), false);
        let _ =
            Note::Keep { slot: index, mask: 1 << store::PIDFD }.send(store::KEEPER_END, &[pidfd]);
        raw::close(pidfd);
    }

    /// Closes what children that have their own descriptors no longer need from ours.
    pub(super) fn close_unshared(&mut self) {
        let mut count = [0; 8];
        let _ = raw::read(self.unshared, &mut count);
        self.close_finished_flights();
    }

    fn close_finished_flights(&mut self) {
        for flight in &mut self.in_flight {
            let Some(held) = *flight else { continue };
            let slot = self.ledger.slot(held.slot);
            if slot.has(ledger::flag::UNSHARED) || !slot.is_current() {
                held.descriptors[..held.count].iter().copied().for_each(raw::close);
                *flight = None;
            }
        }
    }

    /// Records each ended child in the ledger, then reaps it, in this order.
    pub(super) fn reap(&mut self) {
        let mut info = [0_u8; 128];
        while raw::read(self.signals, &mut info).is_ok() {}
        let mut checked = None;
        while let Ok(Some(ended)) = raw::peek_ended(0) {
            if let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.check == ended.pid) {
                checked = Some((upgrade, ended.status));
            }
            if let Some((index, _)) = self.ledger.find_child(ended.pid) {
                self.end(index, ended.status);
            }
            let _ = raw::reap(ended.pid);
        }
        self.close_finished_flights();
        // Last: the next keeper hears of no child whose signal has been read here.
        if let Some((upgrade, status)) = checked {
            self.finish_upgrade(upgrade, status);
        }
    }

    pub(super) fn end(&mut self, index: usize, status: i32) {
        let slot = self.ledger.slot(index);
        slot.status.store(status, Relaxed);
        slot.set_state(State::Ended);
        self.untold[index] = true;
    }

    pub(super) fn kill(&self, ticket: u64) -> Answer<()> {
        const SIGKILL: i32 = 9;
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.is_current() {
            raw::pidfd_signal(store::place(index, store::PIDFD), SIGKILL)?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, ticket: u64) -> Answer<()> {
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.is_current() {
            return Err(Errno::EBUSY);
        }
        self.free(index);
        Ok(())
    }

    /// Descriptors first, the slot last: a keeper that dies in between finds a slot to free.
    pub(super) fn free(&mut self, index: usize) {
        self.untold[index] = false;
        self.foreign[index] = Foreign::No;
        let slot = self.ledger.slot(index);
        for stream in 0..STREAMS {
            self.empty_ring(index, stream);
        }
        store::forget(index, store::ALL);
        let _ = Note::Drop { slot: index, mask: store::ALL }.send(store::KEEPER_END, &[]);
        slot.set_state(State::Free);
    }
}

fn split_optional(descriptors: &[Fd], present: bool) -> Answer<(Option<Fd>, &[Fd])> {
    if !present {
        return Ok((None, descriptors));
    }
    let (first, rest) = descriptors.split_first().ok_or(Errno::EPROTO)?;
    Ok((Some(*first), rest))
}

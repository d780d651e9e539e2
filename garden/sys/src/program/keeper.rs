//! The keeper: makes every container and process, knows when they end, and keeps their output
//! while no daemon listens. One thread, one loop, no memory of its own beyond the ledger.

use core::sync::atomic::Ordering::Relaxed;

use super::init;
use super::launch::{self, Launch};
use super::ledger::{self, KEPT, Ledger, MOST_SLOTS, RING, STREAMS, State};
use super::raw::{self, Answer, Errno, Event, Fd, signal_bit};
use super::store::{self, Note};
use super::wire::{self, Message, flag, launch_descriptor as at, operation};

/// SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGCHLD: only SIGKILL ends the supervisor.
pub const BLOCKED_SIGNALS: u64 =
    signal_bit(1) | signal_bit(2) | signal_bit(13) | signal_bit(15) | signal_bit(SIGCHLD);
const SIGCHLD: u32 = 17;
/// How long a daemon may be away before its processes' output is drained into the rings.
const DRAIN_AFTER: u64 = 300;
/// How long the supervisor outlives its last container and daemon.
const LEAVE_AFTER: u64 = 5000;
/// How long a process may be neither a zombie nor reaped after its pidfd said that it has ended.
const LOST_AFTER: u64 = 2000;
const MOST_IN_FLIGHT: usize = 64;
const MOST_LAUNCH_DESCRIPTORS: usize = 6 + 3 + 2 + wire::MOST_JOINS;

/// What an event is about; the low half of its data is a slot or a stream.
mod topic {
    pub const LISTEN: u64 = 0;
    pub const DAEMON: u64 = 1;
    pub const ANCHOR: u64 = 2;
    pub const SIGNAL: u64 = 3;
    pub const UNSHARED: u64 = 4;
    pub const PIDFD: u64 = 5;
    pub const STREAM: u64 = 6;
}

fn name(topic: u64, index: usize) -> u64 {
    topic << 32 | index as u64
}

/// Descriptors that a child still reads from our table.
#[derive(Clone, Copy)]
struct InFlight {
    slot: usize,
    count: usize,
    descriptors: [Fd; MOST_LAUNCH_DESCRIPTORS],
}

struct Keeper {
    ledger: Ledger,
    epoll: Fd,
    signals: Fd,
    unshared: Fd,
    own_pids: Fd,
    daemon: Option<Fd>,
    /// The daemon has said HELLO.
    greeted: bool,
    draining: bool,
    /// When there was last a reason to stay.
    busy_at: u64,
    /// When the daemon left.
    alone_since: u64,
    /// Ended children whose end the daemon has not been told.
    untold: [bool; MOST_SLOTS],
    /// Children of others, and when their pidfd said that they have ended.
    foreign: [Foreign; MOST_SLOTS],
    in_flight: [Option<InFlight>; MOST_IN_FLIGHT],
    upgrade: Option<Upgrade>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Foreign {
    No,
    Watched,
    EndedAt(u64),
}

#[derive(Clone, Copy)]
struct Upgrade {
    check: i32,
    program: Fd,
    request: Message,
}

static mut KEEPER: core::mem::MaybeUninit<Keeper> = core::mem::MaybeUninit::uninit();

/// Runs until nothing is left to keep (`Errno(0)`), or answers why it could not start.
pub fn run() -> Errno {
    raw::set_name(c"bloomery-keeper");
    raw::set_signal_mask(BLOCKED_SIGNALS);
    store::occupy();
    let keeper = match Keeper::start() {
        Ok(keeper) => keeper,
        Err(errno) => return errno,
    };
    // Static, because it is larger than what is comfortable on a stack.
    let place = &raw mut KEEPER;
    // SAFETY: `run` is called once, by the only thread; the reference is the only one ever made.
    let keeper = unsafe { (*place).write(keeper) };
    keeper.adopt();
    loop {
        if let Some(errno) = keeper.turn() {
            return errno;
        }
    }
}

impl Keeper {
    fn start() -> Answer<Self> {
        let ledger = store::open_ledger()?;
        let epoll = raw::epoll_create()?;
        let signals = raw::signalfd(signal_bit(SIGCHLD))?;
        let unshared = raw::eventfd()?;
        let own_pids = raw::open(raw::AT_FDCWD, c"/proc/self/ns/pid", raw::flag::RDONLY, 0)?;
        raw::epoll_add(epoll, store::LISTEN, name(topic::LISTEN, 0))?;
        raw::epoll_add(epoll, store::KEEPER_END, name(topic::ANCHOR, 0))?;
        raw::epoll_add(epoll, signals, name(topic::SIGNAL, 0))?;
        raw::epoll_add(epoll, unshared, name(topic::UNSHARED, 0))?;
        let now = raw::now();
        Ok(Self {
            ledger,
            epoll,
            signals,
            unshared,
            own_pids,
            daemon: None,
            greeted: false,
            draining: false,
            busy_at: now,
            alone_since: now,
            untold: [false; MOST_SLOTS],
            foreign: [Foreign::No; MOST_SLOTS],
            in_flight: [None; MOST_IN_FLIGHT],
            upgrade: None,
        })
    }

    /// Makes sense of a ledger that an earlier keeper left in the middle of something.
    fn adopt(&mut self) {
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

    fn keep_pidfd(&self, index: usize, pidfd: Fd) {
        let _ = raw::dup3(pidfd, store::place(index, store::PIDFD), false);
        let _ =
            Note::Keep { slot: index, mask: 1 << store::PIDFD }.send(store::KEEPER_END, &[pidfd]);
        raw::close(pidfd);
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> Option<Errno> {
        let mut events = [Event::default(); 64];
        let ready = raw::epoll_wait(self.epoll, &mut events, self.patience());
        for event in &events[..ready] {
            let data = event.data;
            #[expect(clippy::cast_possible_truncation, reason = "the low half is the index")]
            let index = data as u32 as usize;
            match data >> 32 {
                topic::LISTEN => self.meet_daemon(),
                topic::DAEMON => self.hear_daemon(),
                topic::ANCHOR => self.hear_anchor(),
                topic::UNSHARED => self.close_unshared(),
                topic::PIDFD => self.foreign_ended(index),
                topic::STREAM => self.drain(index / STREAMS, index % STREAMS),
                _ => self.reap(),
            }
        }
        self.look_after_foreign();
        self.tell();
        if self.daemon.is_none() && !self.draining && raw::now() - self.alone_since >= DRAIN_AFTER {
            self.start_draining();
        }
        self.leave_when_idle()
    }

    /// Milliseconds until something is due.
    fn patience(&self) -> i32 {
        if self.foreign.iter().any(|foreign| matches!(foreign, Foreign::EndedAt(_))) {
            return 20;
        }
        match (self.daemon, self.draining) {
            (Some(_), _) => -1,
            (None, false) => 50,
            (None, true) => 1000,
        }
    }

    fn leave_when_idle(&mut self) -> Option<Errno> {
        let now = raw::now();
        if self.daemon.is_some()
            || self.ledger.slots().iter().any(|slot| slot.state() != State::Free)
        {
            self.busy_at = now;
        }
        if now - self.busy_at < LEAVE_AFTER {
            return None;
        }
        let _ = Note::Leave.send(store::KEEPER_END, &[]);
        Some(Errno(0))
    }

    // --- The daemon ---------------------------------------------------------------------------

    /// The newest daemon is the one: an older connection is one whose daemon is dying.
    fn meet_daemon(&mut self) {
        let Ok(socket) = raw::accept(store::LISTEN) else { return };
        self.part_from_daemon();
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

    fn hear_daemon(&mut self) {
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
                answer.slot = u32::try_from(self.ledger.slots().len()).unwrap_or(0);
                Ok(())
            }
            operation::PARK | operation::LAUNCH => {
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
    fn tell(&mut self) {
        let (Some(socket), true) = (self.daemon, self.greeted) else { return };
        let ledger = self.ledger;
        for (index, untold) in self.untold.iter_mut().enumerate().filter(|(_, untold)| **untold) {
            let Some(slot) = ledger.slots().get(index) else { return };
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
        for (slot, untold) in self.ledger.slots().iter().zip(self.untold.iter_mut()) {
            *untold = matches!(slot.state(), State::Ended | State::Lost);
        }
    }

    // --- Children -----------------------------------------------------------------------------

    fn park(&mut self, request: &Message, descriptors: &[Fd]) -> Answer<(usize, i32)> {
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
            let slot = &ledger.slots()[index];
            // SAFETY: this process has one thread.
            unsafe {
                launch::spawn(flags, cgroup, slot, || init::parked(control, joins, slot, unshared))
            }
        })
    }

    fn launch(&mut self, request: &Message, descriptors: &[Fd]) -> Answer<(usize, i32)> {
        let terminal = request.flags & flag::TERMINAL != 0;
        let kept_count = if terminal { 1 } else { 3 };
        let (head, rest) = descriptors.split_at_checked(at::KEPT).ok_or(Errno::EPROTO)?;
        let (kept, rest) = rest.split_at_checked(kept_count).ok_or(Errno::EPROTO)?;
        let (cgroup, rest) = split_optional(rest, request.flags & flag::CGROUP != 0)?;
        let (image, joins) = split_optional(rest, request.flags & flag::IMAGE != 0)?;
        let launch = Launch {
            init: head[at::INIT],
            plan: head[at::PLAN],
            standard: [head[at::STANDARD], head[at::STANDARD + 1], head[at::STANDARD + 2]],
            result: head[at::RESULT],
            image,
            joins,
            unshared: self.unshared,
            terminal,
            privileged: request.flags & flag::PRIVILEGED != 0,
        };
        let (ledger, own_pids) = (self.ledger, self.own_pids);
        let flags = if terminal { ledger::flag::TERMINAL } else { 0 };
        self.make(request.ticket, flags, kept, descriptors, |index| {
            let slot = &ledger.slots()[index];
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

    /// Closes what children that have their own descriptors no longer need from ours.
    fn close_unshared(&mut self) {
        let mut count = [0; 8];
        let _ = raw::read(self.unshared, &mut count);
        self.close_finished_flights();
    }

    fn close_finished_flights(&mut self) {
        for flight in &mut self.in_flight {
            let Some(held) = *flight else { continue };
            let slot = &self.ledger.slots()[held.slot];
            if slot.has(ledger::flag::UNSHARED) || !slot.is_current() {
                held.descriptors[..held.count].iter().copied().for_each(raw::close);
                *flight = None;
            }
        }
    }

    /// Records each ended child in the ledger, then reaps it, in this order.
    fn reap(&mut self) {
        let mut info = [0_u8; 128];
        while raw::read(self.signals, &mut info).is_ok() {}
        while let Ok(Some(ended)) = raw::peek_ended(0) {
            let checked = self.upgrade.filter(|upgrade| upgrade.check == ended.pid);
            if let Some((index, _)) = self.ledger.find_child(ended.pid) {
                self.end(index, ended.status);
            }
            let _ = raw::reap(ended.pid);
            if let Some(upgrade) = checked {
                self.upgrade = None;
                self.finish_upgrade(upgrade, ended.status);
            }
        }
        self.close_finished_flights();
    }

    fn end(&mut self, index: usize, status: i32) {
        let slot = &self.ledger.slots()[index];
        slot.status.store(status, Relaxed);
        slot.set_state(State::Ended);
        self.untold[index] = true;
    }

    fn lose(&mut self, index: usize) {
        let slot = &self.ledger.slots()[index];
        // The status may have been written between our look and now.
        if slot.is_current() {
            slot.set_state(State::Lost);
        }
        self.untold[index] = true;
    }

    fn hear_anchor(&mut self) {
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
    fn foreign_ended(&mut self, index: usize) {
        raw::epoll_remove(self.epoll, store::place(index, store::PIDFD));
        if self.foreign[index] == Foreign::Watched {
            self.foreign[index] = Foreign::EndedAt(raw::now());
        }
    }

    /// The anchor writes the status of its own children. For others the kernel may still know it;
    /// where it does not, the status is lost once nobody can be about to write it.
    fn look_after_foreign(&mut self) {
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

    fn kill(&self, ticket: u64) -> Answer<()> {
        const SIGKILL: i32 = 9;
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.is_current() {
            raw::pidfd_signal(store::place(index, store::PIDFD), SIGKILL)?;
        }
        Ok(())
    }

    fn release(&mut self, ticket: u64) -> Answer<()> {
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.is_current() {
            return Err(Errno::EBUSY);
        }
        self.free(index);
        Ok(())
    }

    /// Descriptors first, the slot last: a keeper that dies in between finds a slot to free.
    fn free(&mut self, index: usize) {
        self.untold[index] = false;
        self.foreign[index] = Foreign::No;
        let slot = &self.ledger.slots()[index];
        for stream in 0..STREAMS {
            self.empty_ring(index, stream);
        }
        store::forget(index, store::ALL);
        let _ = Note::Drop { slot: index, mask: store::ALL }.send(store::KEEPER_END, &[]);
        slot.set_state(State::Free);
    }

    // --- Output -------------------------------------------------------------------------------

    /// Which of the kept descriptors a stream is.
    fn source(&self, index: usize, stream: usize) -> Option<Fd> {
        let slot = &self.ledger.slots()[index];
        let which = match (slot.has(ledger::flag::TERMINAL), stream) {
            (true, 0) => 0,
            (true, _) => return None,
            (false, stream) => 1 + stream,
        };
        (slot.state() != State::Free && slot.kept() & (1 << which) != 0)
            .then(|| store::place(index, which))
    }

    fn start_draining(&mut self) {
        self.draining = true;
        for index in 0..self.ledger.slots().len() {
            for stream in 0..STREAMS {
                if let Some(source) = self.source(index, stream) {
                    let _ = raw::epoll_add(
                        self.epoll,
                        source,
                        name(topic::STREAM, index * STREAMS + stream),
                    );
                }
            }
        }
    }

    fn stop_draining(&mut self) {
        if !core::mem::replace(&mut self.draining, false) {
            return;
        }
        for index in 0..self.ledger.slots().len() {
            for stream in 0..STREAMS {
                if let Some(source) = self.source(index, stream) {
                    raw::epoll_remove(self.epoll, source);
                }
            }
        }
    }

    /// Moves what can be read at once into the ring; the oldest bytes give way.
    fn drain(&mut self, index: usize, stream: usize) {
        if !self.draining || index >= self.ledger.slots().len() {
            return;
        }
        let Some(source) = self.source(index, stream) else { return };
        let mut buffer = [0; 16 * 1024];
        match raw::read(source, &mut buffer) {
            Ok(length) if length > 0 => self.append(index, stream, &buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // End of file, or EIO of a terminal that nobody holds.
            _ => raw::epoll_remove(self.epoll, source),
        }
    }

    fn append(&mut self, index: usize, stream: usize, mut bytes: &[u8]) {
        let drained = &self.ledger.slots()[index].drained[stream];
        let start = ledger::ring_offset(index, stream);
        let mut total = drained.load(Relaxed);
        while !bytes.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
            let into = total as usize % RING;
            let length = bytes.len().min(RING - into);
            if raw::write_at(store::RINGS, &bytes[..length], start + into).is_err() {
                return;
            }
            bytes = &bytes[length..];
            total += length as u64;
            drained.store(total, core::sync::atomic::Ordering::Release);
        }
    }

    fn take(&self, ticket: u64) -> Answer<(usize, u32)> {
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        Ok((index, slot.kept()))
    }

    /// Closes our ends of a child's stdin, for good.
    fn end_input(&mut self, ticket: u64) -> Answer<()> {
        const INPUT: u32 = 1;
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.has(ledger::flag::TERMINAL) || slot.kept() & INPUT == 0 {
            return Ok(());
        }
        slot.unset(INPUT << ledger::flag::KEPT_SHIFT);
        store::forget(index, INPUT);
        tell_anchor(Note::Drop { slot: index, mask: INPUT }, &[])
    }

    fn empty(&mut self, ticket: u64) -> Answer<()> {
        let (index, _) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        for stream in 0..STREAMS {
            self.empty_ring(index, stream);
        }
        Ok(())
    }

    fn empty_ring(&self, index: usize, stream: usize) {
        let drained = &self.ledger.slots()[index].drained[stream];
        if drained.swap(0, core::sync::atomic::Ordering::AcqRel) > 0 {
            let _ = raw::punch_hole(store::RINGS, ledger::ring_offset(index, stream), RING);
        }
    }

    // --- Upgrade ------------------------------------------------------------------------------

    /// Lets the new program look at the ledger, in a child, before anything is given up.
    fn check_upgrade(&mut self, request: Message, descriptors: &[Fd]) -> Answer<()> {
        let &[program] = descriptors else { return Err(Errno::EPROTO) };
        if self.upgrade.is_some() {
            return Err(Errno::EBUSY);
        }
        // SAFETY: this process has one thread; the child only execs.
        let check = unsafe { raw::fork() }?;
        if check == 0 {
            raw::execute(program, &[c"bloomery-check", c"check"]);
            raw::exit(125);
        }
        self.upgrade = Some(Upgrade { check, program, request });
        Ok(())
    }

    fn finish_upgrade(&mut self, upgrade: Upgrade, status: i32) {
        let Upgrade { program, request, .. } = upgrade;
        let mut answer =
            Message { errno: if status == 0 { 0 } else { Errno::EINVAL.0 }, status, ..request };
        if status == 0 {
            let taken = Note::Upgrade.send(store::KEEPER_END, &[program]);
            let placed = taken.and_then(|()| raw::dup3(program, store::PROGRAM, false));
            answer.errno = placed.err().map_or(0, |errno| errno.0);
        }
        if let Some(socket) = self.daemon {
            let _ = raw::send(socket, &answer.encode(), &[]);
        }
        raw::close(program);
        if answer.errno == 0 {
            // Everything but what is kept closes on exec; the daemon connects again.
            raw::execute(store::PROGRAM, &[c"bloomery-keeper", c"keeper"]);
            raw::exit(1);
        }
    }
}

/// An anchor that is dead needs to be told nothing: this keeper has all that it had, and is about
/// to be the anchor.
fn tell_anchor(note: Note, descriptors: &[Fd]) -> Answer<()> {
    match note.send(store::KEEPER_END, descriptors) {
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        other => other,
    }
}

fn split_optional(descriptors: &[Fd], present: bool) -> Answer<(Option<Fd>, &[Fd])> {
    if !present {
        return Ok((None, descriptors));
    }
    let (first, rest) = descriptors.split_first().ok_or(Errno::EPROTO)?;
    Ok((Some(*first), rest))
}

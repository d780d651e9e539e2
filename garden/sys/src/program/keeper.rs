//! The keeper: makes every container and process, knows when they end, and keeps their output
//! while no daemon listens. One thread, one loop, no memory of its own beyond the ledger.

mod children;
mod daemon;
mod orphans;
mod output;
mod upgrade;

use super::ledger::{Ledger, MOST_SLOTS, STREAMS, State};
use super::raw::{self, Answer, Errno, Event, Fd, signal_bit};
use super::store::{self, Note};
use super::wire::{self, Message};

/// SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGCHLD: only SIGKILL ends the supervisor.
pub const BLOCKED_SIGNALS: u64 =
    signal_bit(1) | signal_bit(2) | signal_bit(13) | signal_bit(15) | signal_bit(SIGCHLD);
const SIGCHLD: u32 = 17;
/// How long a daemon may be away before its processes' output is drained into the rings.
const DRAIN_AFTER: u64 = 300;
/// How long the supervisor outlives its last container and daemon, if that has not said LEAVE.
const LEAVE_AFTER: u64 = 5000;
/// How long a process may be neither a zombie nor reaped after its pidfd said that it has ended.
const LOST_AFTER: u64 = 2000;
const MOST_IN_FLIGHT: usize = 64;
const MOST_LAUNCH_DESCRIPTORS: usize = 6 + 3 + 3 + wire::MOST_JOINS;

/// What an event is about; the low half of its data is a slot or a stream.
mod topic {
    pub const LISTEN: u64 = 0;
    pub const DAEMON: u64 = 1;
    pub const ANCHOR: u64 = 2;
    pub const SIGNAL: u64 = 3;
    pub const UNSHARED: u64 = 4;
    pub const PIDFD: u64 = 5;
    pub const STREAM: u64 = 6;
    pub const EXITS: u64 = 7;
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
    /// The last daemon has said LEAVE.
    dismissed: bool,
    /// When the daemon left.
    alone_since: u64,
    /// Ended children whose end the daemon has not been told.
    untold: [bool; MOST_SLOTS],
    /// Children of others, and when their pidfd said that they have ended.
    foreign: [Foreign; MOST_SLOTS],
    /// [`store::EXITS`] is open.
    hears_exits: bool,
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
    // Inherited from an earlier keeper, or from the anchor; else something else would be there soon.
    let hears_exits = raw::is_open(store::EXITS);
    store::occupy();
    let started = upgrade::wait_for_ledger().and_then(|ledger| Keeper::start(ledger, hears_exits));
    let keeper = match started {
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
    fn start(ledger: Ledger, hears_exits: bool) -> Answer<Self> {
        let epoll = raw::epoll_create()?;
        let signals = raw::signalfd(signal_bit(SIGCHLD))?;
        let unshared = raw::eventfd()?;
        let own_pids = raw::open(raw::AT_FDCWD, c"/proc/self/ns/pid", raw::flag::RDONLY, 0)?;
        raw::epoll_add(epoll, store::LISTEN, name(topic::LISTEN, 0))?;
        raw::epoll_add(epoll, store::KEEPER_END, name(topic::ANCHOR, 0))?;
        raw::epoll_add(epoll, signals, name(topic::SIGNAL, 0))?;
        raw::epoll_add(epoll, unshared, name(topic::UNSHARED, 0))?;
        if hears_exits {
            raw::epoll_add(epoll, store::EXITS, name(topic::EXITS, 0))?;
            raw::ask_for_events(store::EXITS, true)?;
        }
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
            dismissed: false,
            alone_since: now,
            untold: [false; MOST_SLOTS],
            foreign: [Foreign::No; MOST_SLOTS],
            hears_exits,
            in_flight: [None; MOST_IN_FLIGHT],
            upgrade: None,
        })
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
                topic::EXITS => self.hear_exits(),
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
        let is_busy =
            self.daemon.is_some() || self.ledger.slots().any(|slot| slot.state() != State::Free);
        if is_busy {
            self.busy_at = now;
        }
        let patience = if self.dismissed { 0 } else { LEAVE_AFTER };
        if is_busy || now - self.busy_at < patience {
            return None;
        }
        let _ = Note::Leave.send(store::KEEPER_END, &[]);
        Some(Errno(0))
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

//! Children, as the daemon sees them, and what makes them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::root::RootPlan;
use crate::program::ledger::{self, State};
use crate::program::wire;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Exit code, or 128 + signal.
    Status(i32),
    /// It is gone, and nobody can know how it ended.
    Unknown,
}

/// A child's end, as reported to the daemon. May be reported again after a reconnection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub ticket: u64,
    /// How.
    pub exit: Exit,
}

/// What the ledger says about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name between daemon and keeper.
    pub ticket: u64,
    /// Its pid in the keeper's pid namespace; 0 before the clone.
    pub pid: i32,
    /// A container's process 1.
    pub init: bool,
    /// Its streams are a terminal.
    pub terminal: bool,
    /// `None` while it may run.
    pub exit: Option<Exit>,
}

/// What a launched process gets. All descriptors stay the caller's.
#[derive(Debug)]
pub struct Launch<'a> {
    /// pidfd of the container's process 1.
    pub init: BorrowedFd<'a>,
    /// The sealed plan.
    pub plan: BorrowedFd<'a>,
    /// What becomes the process's descriptors 0, 1, 2.
    pub standard: [BorrowedFd<'a>; 3],
    /// The other ends, which the supervisor keeps: a terminal's master, or stdin, stdout, stderr.
    pub kept: Kept<'a>,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// v1 cgroup `tasks` files, open for writing.
    pub joins: Vec<BorrowedFd<'a>>,
    /// An executable to run instead of the plan's PROGRAM.
    pub image: Option<BorrowedFd<'a>>,
    /// A root of its own, which the process builds in a mount namespace of its own.
    pub root: Option<&'a RootPlan>,
    /// The container has no user namespace.
    pub privileged: bool,
}

/// The daemon's ends of a process's streams.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// The master of a terminal.
    Terminal(BorrowedFd<'a>),
    /// Write end of stdin, read ends of stdout and stderr.
    Pipes([BorrowedFd<'a>; 3]),
}

/// A process that has executed its program, or not.
#[derive(Debug)]
pub struct Launched {
    /// Its pid, as the keeper sees it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Arc<OwnedFd>,
}

/// Why a launched child did not execute its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub step: wire::Step,
    /// Why.
    pub errno: i32,
    /// Which one, for the steps that say so.
    pub detail: u32,
}

pub(super) fn child_of(slot: &ledger::Slot) -> Option<Child> {
    let exit = match slot.state() {
        State::Free => return None,
        State::Reserved | State::Live => None,
        State::Ended => Some(Exit::Status(slot.status.load(Ordering::Relaxed))),
        State::Lost => Some(Exit::Unknown),
    };
    Some(Child {
        ticket: slot.ticket.load(Ordering::Relaxed),
        pid: slot.pid.load(Ordering::Relaxed),
        init: slot.has(ledger::flag::INIT),
        terminal: slot.has(ledger::flag::TERMINAL),
        exit,
    })
}

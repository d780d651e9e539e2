//! Going on as another program, under the same pids.
//!
//! ```text
//!  daemon ─UPGRADE─> keeper ──fork──> new program looks at the ledger and makes room ──status──┐
//!                    old keeper <──────────────────────────────────────────────────────────────┘
//!                      │ failed: answered with its errno, nothing has changed
//!                      │ fine:   sends the anchor the program, answers, executes it
//!                    new keeper: touches nothing while the ledger has an older layout
//!                    new anchor: converts the ledger, says so
//! ```
//!
//! Whoever is killed on the way: a dead anchor's place is taken by the keeper, which then converts; a
//! dead keeper is replaced by the anchor, by whichever program that runs. The ledger is of one
//! layout or the other at every instant.

use super::super::ledger::Ledger;
use super::super::raw::{self, Answer, Errno, Fd};
use super::super::store::{self, Note};
use super::super::wire::Message;
use super::{Keeper, Upgrade};

/// What a program that cannot be executed leaves as its status.
const NOT_EXECUTED: i32 = 125;

/// The ledger, once it has this program's layout: an upgraded keeper may be here before its anchor,
/// which until then writes the old one.
pub(super) fn wait_for_ledger() -> Answer<Ledger> {
    loop {
        let ledger = store::open_ledger()?;
        if ledger.is_current() {
            return Ok(ledger);
        }
        let mut bytes = [0; store::NOTE];
        match raw::receive(store::KEEPER_END, &mut bytes, true) {
            Ok(received) if received.length > 0 => received.close_all(),
            Err(Errno::EINTR) => {}
            _ => become_anchor(),
        }
    }
}

/// The anchor is dead, and we have everything it had.
pub(super) fn become_anchor() -> ! {
    raw::execute(store::PROGRAM, &[c"bloomery-anchor", c"anchor-again"]);
    raw::exit(1)
}

impl Keeper {
    /// Lets the new program look at the ledger, in a child, before anything is given up.
    pub(super) fn check_upgrade(&mut self, request: Message, descriptors: &[Fd]) -> Answer<()> {
        let &[program] = descriptors else { return Err(Errno::EPROTO) };
        if self.upgrade.is_some() {
            return Err(Errno::EBUSY);
        }
        // SAFETY: this process has one thread; the child only execs.
        let check = unsafe { raw::fork() }?;
        if check == 0 {
            raw::execute(program, &[c"bloomery-check", c"check"]);
            raw::exit(NOT_EXECUTED);
        }
        self.upgrade = Some(Upgrade { check, program, request });
        Ok(())
    }

    pub(super) fn finish_upgrade(&mut self, upgrade: Upgrade, status: i32) {
        let Upgrade { program, request, .. } = upgrade;
        const ENOEXEC: i32 = 8;
        let errno = match status {
            0..NOT_EXECUTED => status,
            NOT_EXECUTED => ENOEXEC,
            _ => Errno::EINVAL.0,
        };
        let mut answer = Message { errno, status, ..request };
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

//! Going on as another program, under the same pids.

use super::super::raw::{self, Answer, Errno, Fd};
use super::super::store::{self, Note};
use super::super::wire::Message;
use super::{Keeper, Upgrade};

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
            raw::exit(125);
        }
        self.upgrade = Some(Upgrade { check, program, request });
        Ok(())
    }

    pub(super) fn finish_upgrade(&mut self, upgrade: Upgrade, status: i32) {
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

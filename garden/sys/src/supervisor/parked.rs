//! A parked process 1, and what it is told.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::child::Failure;
use super::error::{Error, errno_error, io_error};
use super::socket::{receive, send, wait_readable};
use crate::program::{init_order, wire};

/// A parked process 1. Ends when dropped, until [`ParkedInit::commit`].
#[derive(Debug)]
pub struct ParkedInit {
    /// Its name between daemon and keeper.
    pub ticket: u64,
    /// Its pid, as the keeper sees it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Arc<OwnedFd>,
    pub(super) control: OwnedFd,
}

impl ParkedInit {
    /// Writes the user namespace's id maps (user_namespaces(7)); needed once, before `setup`.
    pub fn map_ids(&self, users: &str, groups: &str) -> Result<(), Error> {
        for (file, map) in [("uid_map", users), ("gid_map", groups)] {
            let path = format!("/proc/{}/{file}", self.pid);
            fs::write(&path, map).map_err(io_error(format!("write {path}")))?;
        }
        Ok(())
    }

    /// Whether it still waits: somebody may have killed it.
    pub fn is_alive(&self) -> bool {
        [self.pidfd.as_fd(), self.control.as_fd()]
            .into_iter()
            .all(|end| wait_readable(end, Duration::ZERO) == Err(rustix::io::Errno::TIMEDOUT))
    }

    /// One of its namespaces (`net`, `user`, `mnt`, ...), by the name in `/proc/<pid>/ns`.
    pub fn namespace(&self, kind: &str) -> Result<OwnedFd, Error> {
        let path = format!("/proc/{}/ns/{kind}", self.pid);
        File::open(&path).map(OwnedFd::from).map_err(io_error(format!("open {path}")))
    }

    /// Has it build the container's root, or go on with it: a plan that attaches nothing at `/` is
    /// followed in the root that there is. `descriptors` are those that the plan's ATTACH records
    /// count from 1 on. The inner result is the init's own; after a failure it is of no more use.
    pub fn setup(
        &self,
        plan: BorrowedFd<'_>,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Result<(), Failure>, Error> {
        let all: Vec<_> = std::iter::once(plan).chain(descriptors.iter().copied()).collect();
        send(self.control.as_fd(), &[init_order::SETUP], &all)
            .map_err(errno_error(format!("send process 1 {} its plan", self.pid)))?;
        let mut bytes = [0; wire::RESULT];
        wait_readable(self.control.as_fd(), patience)
            .and_then(|()| receive(self.control.as_fd(), &mut bytes))
            .map_err(errno_error(format!("hear from process 1 {}", self.pid)))
            .and_then(|(length, _)| match wire::decode_result(&bytes[..length]) {
                _ if length == wire::RESULT && bytes == [0; wire::RESULT] => Ok(Ok(())),
                Some((step, errno, detail)) => Ok(Err(Failure { step, errno, detail })),
                None => Err(Error::Disconnected { attempt: "build a container's root" }),
            })
    }

    /// Lets it live on without us. Call before the container is written down as created.
    pub fn commit(self) -> Result<(), Error> {
        send(self.control.as_fd(), &[init_order::COMMIT], &[])
            .map_err(errno_error(format!("commit process 1 {}", self.pid)))
    }
}

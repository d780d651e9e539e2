//! Roots that processes build for themselves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::error::{Error, errno_error};
use super::socket::send;
use crate::program::init_order;

/// The plan of a process's own root, and what the root is made of, on their way: they wait in a socket
/// until the process that is started with it takes them out. So it needs nobody's answer, and no daemon.
#[derive(Debug)]
pub struct RootPlan {
    theirs: OwnedFd,
}

impl RootPlan {
    /// Sends a plan as [`super::ParkedInit::setup`] does; its first ATTACH is at `/`.
    pub fn send(plan: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> Result<Self, Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(errno_error("make a socket for the plan of a root"))?;
        let all: Vec<_> = std::iter::once(plan).chain(descriptors.iter().copied()).collect();
        send(ours.as_fd(), &[init_order::SETUP], &all)
            .map_err(errno_error("send the plan of a root"))?;
        Ok(Self { theirs })
    }
}

impl AsFd for RootPlan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }
}

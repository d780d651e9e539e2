//! Having children made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::child::{Failure, Kept, Launch, Launched};
use super::error::{Error, errno_error, io_error};
use super::parked::ParkedInit;
use super::socket::wait_readable;
use super::{Held, PATIENCE, Supervisor, lock};
use crate::program::wire::{self, Message, flag, operation};
use crate::program::{raw, store};

impl Supervisor {
    /// Clones a process 1 with namespaces of its own and parks it.
    pub fn park(
        &self,
        ticket: u64,
        privileged: bool,
        cgroup: Option<BorrowedFd<'_>>,
        joins: &[BorrowedFd<'_>],
    ) -> Result<ParkedInit, Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(errno_error("make a socket for process 1"))?;
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(cgroup);
        descriptors.extend_from_slice(joins);
        let flags = if privileged { flag::PRIVILEGED } else { 0 }
            | if cgroup.is_some() { flag::CGROUP } else { 0 };
        let message = Message { operation: operation::PARK, flags, ticket, ..Message::default() };
        let answer = self.make_child("park a process 1", message, &descriptors)?;
        let held = self.hold(ticket, &answer, None);
        let pidfd = held.inspect_err(|_| self.abandon(ticket))?;
        Ok(ParkedInit { ticket, pid: answer.pid, pidfd, control: ours })
    }

    /// Starts a process in a container and waits until it has executed its program, or failed to.
    /// On failure the child has been released. Waits as long as the tenant's file system takes.
    pub fn launch(
        &self,
        ticket: u64,
        launch: &Launch<'_>,
    ) -> Result<Result<Launched, Failure>, Error> {
        let (result, result_theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(errno_error("make a pipe for a launch's result"))?;
        let mut descriptors = vec![launch.init, launch.plan];
        descriptors.extend_from_slice(&launch.standard);
        descriptors.push(result_theirs.as_fd());
        let terminal = match launch.kept {
            Kept::Terminal(master) => {
                descriptors.push(master);
                flag::TERMINAL
            }
            Kept::Pipes(pipes) => {
                descriptors.extend_from_slice(&pipes);
                0
            }
        };
        descriptors.extend(launch.cgroup);
        descriptors.extend(launch.image);
        descriptors.extend(launch.root.map(AsFd::as_fd));
        descriptors.extend_from_slice(&launch.joins);
        let flags = terminal
            | if launch.privileged { flag::PRIVILEGED } else { 0 }
            | if launch.cgroup.is_some() { flag::CGROUP } else { 0 }
            | if launch.image.is_some() { flag::IMAGE } else { 0 };
        let (attempt, operation) = match launch.root {
            None => ("start a process", operation::LAUNCH),
            Some(_) => ("start a process with a root of its own", operation::LAUNCH_PEA),
        };
        let message = Message { operation, flags, ticket, ..Message::default() };
        let answer = self.make_child(attempt, message, &descriptors)?;
        drop(result_theirs);
        let followed = self.follow_launch(ticket, &answer, launch.kept, &result);
        followed.inspect_err(|_| self.abandon(ticket))
    }

    /// Waits until a cloned child has executed its program, or failed to.
    fn follow_launch(
        &self,
        ticket: u64,
        answer: &Message,
        kept: Kept<'_>,
        result: &OwnedFd,
    ) -> Result<Result<Launched, Failure>, Error> {
        let pidfd = self.hold(ticket, answer, Some(kept))?;
        let mut record = [0; wire::RESULT];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(result, &mut record))
            .map_err(errno_error("read a launch's result"))?;
        let Some((step, errno, detail)) = wire::decode_result(&record[..length]) else {
            return Ok(Ok(Launched { pid: answer.pid, pidfd }));
        };
        // The child ends by itself at once; only then can its slot be released.
        wait_readable(pidfd.as_fd(), PATIENCE)
            .map_err(errno_error("wait for a failed launch to end"))?;
        self.release(ticket)?;
        Ok(Err(Failure { step, errno, detail }))
    }

    /// Has a child cloned, once. Where a keeper was lost the next one's ledger says whether it was;
    /// if it never was, it is asked for again.
    fn make_child(
        &self,
        attempt: &'static str,
        message: Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Message, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match self.inner.ask(attempt, message, descriptors) {
                Err(error @ Error::Disconnected { .. }) => error,
                other => return other.map(|(answer, _)| answer),
            };
            let link = self.inner.current_link(PATIENCE)?;
            if let Some((index, slot)) = link.ledger.find(message.ticket) {
                let slot_number = u32::try_from(index).unwrap_or(0);
                let pid = slot.pid.load(Ordering::Relaxed);
                return Ok(Message { pid, slot: slot_number, ..message });
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    /// Kills and forgets a child that this daemon cannot look after.
    pub fn abandon(&self, ticket: u64) {
        let message = Message { operation: operation::KILL, ticket, ..Message::default() };
        // Where even this fails, the next daemon finds a child that no record has, and removes it.
        let _ = self.inner.ask_again("kill a child", message, &[]);
        let _ = self.release(ticket);
    }

    /// Holds duplicates of a child's descriptors, as anchor and keeper do; answers its pidfd.
    fn hold(
        &self,
        ticket: u64,
        answer: &Message,
        kept: Option<Kept<'_>>,
    ) -> Result<Arc<OwnedFd>, Error> {
        let duplicate = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map(|fd| Some(Arc::new(fd)))
                .map_err(io_error("duplicate a stream's descriptor"))
        };
        let mut descriptors = [None, None, None, None];
        match kept {
            Some(Kept::Terminal(master)) => descriptors[0] = duplicate(master)?,
            Some(Kept::Pipes(pipes)) => {
                for (place, pipe) in descriptors.iter_mut().zip(pipes) {
                    *place = duplicate(pipe)?;
                }
            }
            None => {}
        }
        let pidfd = match raw::pidfd_open(answer.pid) {
            // SAFETY: pidfd_open answers a new descriptor that nobody else knows.
            Ok(fd) => Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }),
            // Ended and reaped already: the keeper's own pidfd still refers to it.
            Err(raw::Errno::ESRCH) => Arc::new(self.take_pidfd(ticket)?),
            Err(errno) => {
                let source = io::Error::from_raw_os_error(errno.0);
                return Err(io_error("open a child's pidfd")(source));
            }
        };
        descriptors[store::PIDFD] = Some(Arc::clone(&pidfd));
        lock(&self.inner.held).insert(ticket, Held { slot: answer.slot, descriptors });
        Ok(pidfd)
    }
}

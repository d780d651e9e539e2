//! Starting a supervisor where there is none.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, socketpair,
};
use rustix::process::{Resource, getrlimit};

use super::error::{Error, errno_error, io_error};
use super::socket::send;
use super::{Inner, lock};
use crate::plan::sealed_file;
use crate::program::ledger::{self, Ledger};
use crate::program::{PROGRAM, raw, store};

impl Inner {
    /// Starts an anchor. After a disaster (anchor and keeper both dead) the last ledger and the
    /// descriptors that this daemon holds are its birthright.
    pub(super) fn start(&self, path: &Path) -> Result<(), Error> {
        let listener = self.open_listener(path)?;
        let (ledger_file, rings) = match lock(&self.last).take() {
            Some(last) => last,
            None => new_ledger()?,
        };
        let program = sealed_file("supervisor", PROGRAM)
            .map_err(io_error("write the supervisor's program"))?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(errno_error("make a socket for the anchor"))?;
        let log_path = self.directory.join("supervisor.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(io_error(format!("open {}", log_path.display())))?;
        // What we inherited from who started us is not for children that outlive us: a lock file
        // would stay locked for as long as a container lives.
        raw::close_range_on_exec(3, u32::MAX).map_err(|errno| {
            io_error("keep inherited descriptors from the anchor")(io::Error::from_raw_os_error(
                errno.0,
            ))
        })?;
        let mut anchor = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("bloomery-anchor")
            .arg("anchor")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(io_error("start the anchor"))?;
        // It forks once it has been told everything.
        let told = self
            .housing
            .take_in(anchor.id().cast_signed())
            .and_then(|()| self.bequeath(ours.as_fd(), &listener, &ledger_file, &program, &rings));
        drop(ours);
        let status = anchor.wait().map_err(io_error("wait for the anchor's start"))?;
        told?;
        if status.success() {
            return Ok(());
        }
        let source = match status.code() {
            Some(errno) if errno > 0 => io::Error::from_raw_os_error(errno),
            _ => io::Error::other(status.to_string()),
        };
        Err(Error::Io { attempt: "start the anchor".into(), source })
    }

    fn open_listener(&self, path: &Path) -> Result<OwnedFd, Error> {
        let failed = || format!("listen on {}", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(failed())(error));
            }
            _ => {}
        }
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(errno_error(failed()))?;
        let address = SocketAddrUnix::new(path).map_err(errno_error(failed()))?;
        bind(&socket, &address).map_err(errno_error(failed()))?;
        listen(&socket, 16).map_err(errno_error(failed()))?;
        Ok(socket)
    }

    fn bequeath(
        &self,
        socket: BorrowedFd<'_>,
        listener: &OwnedFd,
        ledger: &OwnedFd,
        program: &OwnedFd,
        rings: &OwnedFd,
    ) -> Result<(), Error> {
        let failed = "tell the anchor what it is to keep";
        let start = store::Note::Start.encode();
        let four = [listener.as_fd(), ledger.as_fd(), program.as_fd(), rings.as_fd()];
        send(socket, &start, &four).map_err(errno_error(failed))?;
        for held in lock(&self.held).values() {
            let mut mask = 0;
            let mut descriptors = Vec::with_capacity(ledger::KEPT);
            for (which, descriptor) in held.descriptors.iter().enumerate() {
                if let Some(descriptor) = descriptor {
                    mask |= 1 << which;
                    descriptors.push(descriptor.as_fd());
                }
            }
            let note = store::Note::Keep { slot: held.slot as usize, mask };
            send(socket, &note.encode(), &descriptors).map_err(errno_error(failed))?;
        }
        send(socket, &start, &[]).map_err(errno_error(failed))
    }
}

/// A new ledger and ring file, sized for this process's descriptor limit.
fn new_ledger() -> Result<(OwnedFd, OwnedFd), Error> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let spare = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(store::BASE.unsigned_abs() as usize);
    let slots = (spare / ledger::KEPT).min(ledger::MOST_SLOTS);
    let made = (|| {
        let ledger_file = memfd_create("ledger", MemfdFlags::CLOEXEC)?;
        let rings = memfd_create("rings", MemfdFlags::CLOEXEC)?;
        ftruncate(&ledger_file, ledger::size(slots) as u64)?;
        ftruncate(&rings, ledger::rings_size(slots) as u64)?;
        Ok((ledger_file, rings))
    })();
    let (ledger_file, rings) = made.map_err(errno_error("make the ledger"))?;
    let length = ledger::size(slots);
    let at = raw::map_shared(ledger_file.as_raw_fd(), length)
        .map_err(|errno| io_error("map the ledger")(io::Error::from_raw_os_error(errno.0)))?;
    // SAFETY: `length` bytes are mapped at a page boundary, and nobody else has the file yet.
    let created = unsafe { Ledger::create(at, length, slots) };
    // SAFETY: the `Ledger` made above is not used; the memory file keeps the content.
    let _ = unsafe { raw::unmap(at, length) };
    created.map(|_| (ledger_file, rings)).ok_or(Error::Disconnected { attempt: "make the ledger" })
}

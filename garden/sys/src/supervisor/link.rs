//! The connection to the keeper: requests, answers, news, and finding the next keeper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::child::{Ended, Exit};
use super::error::{Error, errno_error, io_error};
use super::socket::{receive, send, wait_readable};
use super::{Inner, PATIENCE, lock};
use crate::program::ledger::{Ledger, Unreadable, layout};
use crate::program::raw;
use crate::program::wire::{self, Message, flag, operation};

pub(super) type Answered = Option<(Message, Vec<OwnedFd>)>;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: Arc<OwnedFd>,
    pub(super) ledger: Ledger,
    pub(super) rings: File,
}

impl Inner {
    fn socket_path(&self) -> PathBuf {
        self.directory.join("keeper.sock")
    }

    /// Asks again when the keeper was lost: only for requests that may be carried out twice.
    pub(super) fn ask_again(
        &self,
        attempt: &'static str,
        message: Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Message, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(attempt, message, descriptors) {
                Err(Error::Disconnected { .. }) if Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    pub(super) fn ask(
        &self,
        attempt: &'static str,
        message: Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Message, Vec<OwnedFd>), Error> {
        let link = self.current_link(PATIENCE)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        lock(&self.waiting).insert(sequence, sender);
        let message = Message { sequence, ..message };
        let sent = send(link.socket.as_fd(), &message.encode(), descriptors);
        if let Err(errno) = sent {
            lock(&self.waiting).remove(&sequence);
            return match errno {
                rustix::io::Errno::PIPE
                | rustix::io::Errno::CONNRESET
                | rustix::io::Errno::NOTCONN => {
                    self.wait_for_other_link(&link);
                    Err(Error::Disconnected { attempt })
                }
                errno => Err(errno_error(format!("send the keeper a request to {attempt}"))(errno)),
            };
        }
        // The link may have been replaced between our look and the send; its waiters were woken
        // then, and we were not among them. Who is not waited for any more has been answered.
        let replaced =
            !lock(&self.link).as_ref().is_some_and(|current| Arc::ptr_eq(current, &link));
        if replaced && lock(&self.waiting).remove(&sequence).is_some() {
            return Err(Error::Disconnected { attempt });
        }
        match receiver.recv() {
            Ok(Some((answer, _))) if answer.errno != 0 => {
                Err(Error::Refused { attempt, source: io::Error::from_raw_os_error(answer.errno) })
            }
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Error::Disconnected { attempt }),
        }
    }

    pub(super) fn current_link(&self, patience: Duration) -> Result<Arc<Link>, Error> {
        let (link, _) = self
            .linked
            .wait_timeout_while(lock(&self.link), patience, |link| link.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        link.clone().ok_or(Error::Disconnected { attempt: "answer" })
    }

    /// After a failed send the listener is about to notice as well.
    pub(super) fn wait_for_other_link(&self, old: &Arc<Link>) {
        let same =
            |link: &mut Option<Arc<Link>>| link.as_ref().is_some_and(|link| Arc::ptr_eq(link, old));
        let _ = self.linked.wait_timeout_while(lock(&self.link), PATIENCE, same);
    }

    /// The listening thread: hands out answers and news until the value is dropped.
    pub(super) fn listen(&self, mut link: Arc<Link>, ended: &dyn Fn(Ended)) {
        loop {
            self.read_all(&link, ended);
            *lock(&self.link) = None;
            lock(&self.waiting).drain().for_each(|(_, waiter)| drop(waiter.send(None)));
            drop(link);
            link = loop {
                if self.closing.load(Ordering::SeqCst) {
                    return;
                }
                match self.connect() {
                    Ok(link) => break link,
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            self.losses.fetch_add(1, Ordering::Relaxed);
            *lock(&self.link) = Some(Arc::clone(&link));
            self.linked.notify_all();
        }
    }

    fn read_all(&self, link: &Link, ended: &dyn Fn(Ended)) {
        let mut bytes = [0; wire::MESSAGE];
        while let Ok((length @ 1.., descriptors)) = receive(link.socket.as_fd(), &mut bytes) {
            let Some(message) = Message::decode(&bytes[..length]) else { return };
            if message.operation == operation::ENDED {
                let exit = if message.flags & flag::LOST != 0 {
                    Exit::Unknown
                } else {
                    Exit::Status(message.status)
                };
                ended(Ended { ticket: message.ticket, exit });
            } else if let Some(waiter) = lock(&self.waiting).remove(&message.sequence) {
                let _ = waiter.send(Some((message, descriptors)));
            }
        }
    }

    /// Connects to the keeper, starting one where nobody holds the socket.
    pub(super) fn connect(&self) -> Result<Arc<Link>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let path = self.socket_path();
        loop {
            let attempt = self.greet();
            match attempt {
                Ok(link) => return Ok(Arc::new(link)),
                Err(error @ Error::TooNew { .. }) => return Err(error),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(Error::Io { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                    ) =>
                {
                    self.start(&path)?;
                }
                // It accepted and went away: one that was leaving, or was killed.
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn greet(&self) -> Result<Link, Error> {
        let path = self.socket_path();
        let failed = || format!("connect to the keeper at {}", path.display());
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(errno_error(failed()))?;
        let address = SocketAddrUnix::new(&path).map_err(errno_error(failed()))?;
        connect(&socket, &address).map_err(errno_error(failed()))?;
        let hello = Message { operation: operation::HELLO, ..Message::default() };
        send(socket.as_fd(), &hello.encode(), &[]).map_err(errno_error(failed()))?;
        let mut bytes = [0; wire::MESSAGE];
        wait_readable(socket.as_fd(), PATIENCE).map_err(errno_error(failed()))?;
        let (length, mut descriptors) =
            receive(socket.as_fd(), &mut bytes).map_err(errno_error(failed()))?;
        let answer = Message::decode(&bytes[..length]).filter(|answer| answer.errno == 0);
        let (Some(_), Some(rings), Some(ledger_file)) =
            (answer, descriptors.pop(), descriptors.pop())
        else {
            return Err(Error::Disconnected { attempt: "say hello" });
        };
        let ledger = map_ledger(ledger_file.as_fd())?;
        let copies = ledger_file.try_clone().and_then(|ledger| Ok((ledger, rings.try_clone()?)));
        *lock(&self.last) = Some(copies.map_err(io_error("duplicate the ledger's descriptor"))?);
        Ok(Link { socket: Arc::new(socket), ledger, rings: File::from(rings) })
    }
}

/// Maps a ledger of this build's layout or an older one.
fn map_ledger(file: BorrowedFd<'_>) -> Result<Ledger, Error> {
    let failed = |errno: raw::Errno| {
        io_error("map the keeper's ledger")(io::Error::from_raw_os_error(errno.0))
    };
    let length = raw::file_size(file.as_raw_fd()).map_err(failed)?;
    let at = raw::map_shared(file.as_raw_fd(), length).map_err(failed)?;
    // SAFETY: `length` bytes are mapped at a page boundary and stay so until this process ends;
    // everybody changes them through atomics only.
    unsafe { Ledger::open(at, length) }.map_err(|unreadable| match unreadable {
        Unreadable::Version(found) => Error::TooNew { found, newest: layout::CURRENT.version },
        Unreadable::Broken => failed(raw::Errno::EPROTO),
    })
}

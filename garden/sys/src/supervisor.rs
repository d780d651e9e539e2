//! The daemon's side of the supervisor: starting it, talking to it, finding it again.
//!
//! All calls block and may come from any thread. The connection is an implementation detail: when
//! keeper or anchor die, calls in progress answer [`Error::Disconnected`] and later ones wait for
//! the next keeper. Whether an interrupted launch happened is for [`Supervisor::child`] to say.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recvmsg, sendmsg, socket_with, socketpair,
};
use rustix::process::{Resource, getrlimit};

use crate::plan::sealed_file;
use crate::program::ledger::{self, Ledger, STREAMS, State};
use crate::program::wire::{self, Message, flag, operation};
use crate::program::{PROGRAM, init_order, raw, store};

/// Why the supervisor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something of the daemon's own side.
    #[error("cannot {attempt}")]
    Io {
        /// What was tried, on what.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The keeper answered with an errno.
    #[error("the keeper cannot {attempt}")]
    Refused {
        /// What was asked.
        attempt: &'static str,
        /// The keeper's errno.
        source: io::Error,
    },
    /// The keeper went away before it answered; it may have done what was asked.
    #[error("the keeper went away while it was asked to {attempt}")]
    Disconnected {
        /// What was asked.
        attempt: &'static str,
    },
}

impl Error {
    /// The errno behind the error, where there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Disconnected { .. } => None,
        }
    }
}

fn io_error(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |source| Error::Io { attempt, source }
}

fn errno_error(attempt: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Error {
    let attempt = attempt.into();
    move |errno| Error::Io { attempt, source: errno.into() }
}

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

/// Duplicates of the daemon's ends, for a daemon that has come back.
#[derive(Debug)]
pub enum Taken {
    /// The master of a terminal.
    Terminal(OwnedFd),
    /// Write end of stdin unless that has been ended, read ends of stdout and stderr.
    Pipes {
        /// Write end.
        input: Option<OwnedFd>,
        /// Read end.
        output: OwnedFd,
        /// Read end.
        error: OwnedFd,
    },
    /// A process 1 has no streams.
    Nothing,
}

/// Output that was drained while no daemon listened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// The newest bytes, at most 256 KiB.
    pub bytes: Vec<u8>,
    /// How many older ones were dropped.
    pub dropped: u64,
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

/// A parked process 1. Ends when dropped, until [`ParkedInit::commit`].
#[derive(Debug)]
pub struct ParkedInit {
    /// Its name between daemon and keeper.
    pub ticket: u64,
    /// Its pid, as the keeper sees it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Arc<OwnedFd>,
    control: OwnedFd,
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

    /// Has it build the container's root. `descriptors` are those that the plan's ATTACH records
    /// count from 1 on. The inner result is the init's own.
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

type Answered = Option<(Message, Vec<OwnedFd>)>;

/// Descriptors of one child, as the daemon holds them.
#[derive(Debug)]
struct Held {
    slot: u32,
    /// stdin or terminal, stdout, stderr, pidfd.
    descriptors: [Option<Arc<OwnedFd>>; ledger::KEPT],
}

#[derive(Debug)]
struct Link {
    socket: Arc<OwnedFd>,
    ledger: Ledger,
    rings: File,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    link: Mutex<Option<Arc<Link>>>,
    linked: Condvar,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Answered>>>,
    held: Mutex<HashMap<u64, Held>>,
    /// Ledger and rings of the last link, for a supervisor that must be started again.
    last: Mutex<Option<(OwnedFd, OwnedFd)>>,
    sequence: AtomicU64,
    closing: std::sync::atomic::AtomicBool,
}

/// A connection to the keeper of one directory, which is started if there is none.
#[derive(Debug)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Finds or starts the supervisor of `directory` (made with mode 0700). `ended` is called from
    /// a thread of this value's for every child that ends or had ended unreleased.
    pub fn attach(directory: &Path, ended: impl Fn(Ended) + Send + 'static) -> Result<Self, Error> {
        fs::create_dir_all(directory)
            .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
            .map_err(io_error(format!(
                "make the supervisor's directory {}",
                directory.display()
            )))?;
        let inner = Arc::new(Inner {
            directory: directory.to_path_buf(),
            link: Mutex::new(None),
            linked: Condvar::new(),
            waiting: Mutex::new(HashMap::new()),
            held: Mutex::new(HashMap::new()),
            last: Mutex::new(None),
            sequence: AtomicU64::new(1),
            closing: std::sync::atomic::AtomicBool::new(false),
        });
        let link = inner.connect()?;
        *lock(&inner.link) = Some(Arc::clone(&link));
        let reader = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("keeper-link".into())
            .spawn(move || reader.listen(link, &ended))
            .map_err(io_error("start the thread that listens to the keeper"))?;
        Ok(Self { inner })
    }

    /// Every child that the ledger knows.
    pub fn children(&self) -> Result<Vec<Child>, Error> {
        let link = self.inner.current_link(PATIENCE)?;
        Ok(link.ledger.slots().iter().filter_map(child_of).collect())
    }

    /// What the ledger says about one child; `None` when it never was, or has been released.
    pub fn child(&self, ticket: u64) -> Result<Option<Child>, Error> {
        let link = self.inner.current_link(PATIENCE)?;
        Ok(link.ledger.find(ticket).and_then(|(_, slot)| child_of(slot)))
    }

    /// A ticket greater than any that the ledger knows.
    pub fn highest_ticket(&self) -> Result<u64, Error> {
        Ok(self.children()?.iter().map(|child| child.ticket).max().unwrap_or(0))
    }

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
        descriptors.extend_from_slice(&launch.joins);
        let flags = terminal
            | if launch.privileged { flag::PRIVILEGED } else { 0 }
            | if launch.cgroup.is_some() { flag::CGROUP } else { 0 }
            | if launch.image.is_some() { flag::IMAGE } else { 0 };
        let message = Message { operation: operation::LAUNCH, flags, ticket, ..Message::default() };
        let answer = self.make_child("start a process", message, &descriptors)?;
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
    fn abandon(&self, ticket: u64) {
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

    /// Asks for duplicates of all of a child's descriptors: which there are, and these.
    fn take_all(&self, ticket: u64) -> Result<(Message, Vec<OwnedFd>), Error> {
        let message = Message { operation: operation::TAKE, ticket, ..Message::default() };
        let attempt = "hand over a child's descriptors";
        let (answer, descriptors) = self.inner.ask_again(attempt, message, &[])?;
        if descriptors.len() < answer.flags.count_ones() as usize {
            // The kernel leaves out what has no place in our table.
            return Err(errno_error("take a child's descriptors")(rustix::io::Errno::MFILE));
        }
        Ok((answer, descriptors))
    }

    fn take_pidfd(&self, ticket: u64) -> Result<OwnedFd, Error> {
        let (_, mut descriptors) = self.take_all(ticket)?;
        descriptors.pop().ok_or(Error::Disconnected { attempt: "hand over a pidfd" })
    }

    /// Duplicates of a child's streams, and its pidfd, for a daemon that has come back.
    pub fn take(&self, ticket: u64) -> Result<(Taken, Arc<OwnedFd>), Error> {
        const PARTIAL: Error =
            Error::Disconnected { attempt: "hand over all of a child's descriptors" };
        let (answer, descriptors) = self.take_all(ticket)?;
        let mut places = [None, None, None, None];
        let mut held = Held { slot: answer.slot, descriptors: [None, None, None, None] };
        let mut descriptors = descriptors.into_iter();
        for which in (0..ledger::KEPT).filter(|which| answer.flags & (1 << which) != 0) {
            let descriptor = descriptors.next().ok_or(PARTIAL)?;
            let copy =
                descriptor.try_clone().map_err(io_error("duplicate a stream's descriptor"))?;
            held.descriptors[which] = Some(Arc::new(copy));
            places[which] = Some(descriptor);
        }
        let [first, output, error, pidfd] = places;
        let pidfd = Arc::new(pidfd.ok_or(PARTIAL)?);
        held.descriptors[store::PIDFD] = Some(Arc::clone(&pidfd));
        let taken = match (first, output, error) {
            (None, None, None) => Taken::Nothing,
            (Some(master), None, None) => Taken::Terminal(master),
            (input, Some(output), Some(error)) => Taken::Pipes { input, output, error },
            _ => return Err(PARTIAL),
        };
        lock(&self.inner.held).insert(ticket, held);
        Ok((taken, pidfd))
    }

    /// Closes the supervisor's ends of a process's stdin, so that closing the daemon's own is the
    /// end of its input.
    pub fn end_input(&self, ticket: u64) -> Result<(), Error> {
        if let Some(held) = lock(&self.inner.held).get_mut(&ticket) {
            held.descriptors[0] = None;
        }
        let message = Message { operation: operation::END_INPUT, ticket, ..Message::default() };
        match self.inner.ask_again("end a process's input", message, &[]) {
            Err(error) if error.raw_os_error() == Some(raw::Errno::ENOENT.0) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Reads a child's rings, stdout (or terminal) first, and empties them.
    pub fn drained(&self, ticket: u64) -> Result<[Drained; STREAMS], Error> {
        let link = self.inner.current_link(PATIENCE)?;
        let mut streams = [Drained::default(), Drained::default()];
        let Some((index, slot)) = link.ledger.find(ticket) else { return Ok(streams) };
        for (stream, into) in streams.iter_mut().enumerate() {
            let total = slot.drained[stream].load(Ordering::Acquire);
            *into = read_ring(&link.rings, index, stream, total)
                .map_err(io_error("read output that was kept while no daemon listened"))?;
        }
        if streams.iter().any(|stream| !stream.bytes.is_empty()) {
            let message = Message { operation: operation::EMPTY, ticket, ..Message::default() };
            self.inner.ask_again("empty a child's rings", message, &[])?;
        }
        Ok(streams)
    }

    /// Forgets an ended child. Forgetting one that is not known is no error.
    pub fn release(&self, ticket: u64) -> Result<(), Error> {
        lock(&self.inner.held).remove(&ticket);
        let message = Message { operation: operation::RELEASE, ticket, ..Message::default() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.inner.ask_again("forget a child", message, &[]) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(raw::Errno::ENOENT.0) => return Ok(()),
                // Dead but not yet reaped.
                Err(error)
                    if error.raw_os_error() == Some(raw::Errno::EBUSY.0)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Pids of keeper and anchor.
    pub fn pids(&self) -> Result<(i32, i32), Error> {
        let message = Message { operation: operation::HELLO, ..Message::default() };
        let (answer, _) = self.inner.ask_again("say who it is", message, &[])?;
        let path = format!("/proc/{}/stat", answer.pid);
        let stat = fs::read_to_string(&path).map_err(io_error(format!("read {path}")))?;
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        Ok((answer.pid, parent.unwrap_or(0)))
    }

    /// Whether the supervisor runs the program that this library embeds.
    pub fn is_current(&self) -> Result<bool, Error> {
        let (keeper, _) = self.pids()?;
        let path = format!("/proc/{keeper}/exe");
        Ok(fs::read(&path).map_err(io_error(format!("read {path}")))? == PROGRAM)
    }

    /// Replaces keeper and anchor by `program`, under the same pids. An error means that the old
    /// ones go on.
    pub fn upgrade(&self, program: &[u8]) -> Result<(), Error> {
        let file = sealed_file("supervisor", program)
            .map_err(io_error("write the supervisor's program"))?;
        let message = Message { operation: operation::UPGRADE, ..Message::default() };
        self.inner.ask("run another program", message, &[file.as_fd()]).map(drop)
    }
}

impl Drop for Supervisor {
    /// Parts from the keeper, which goes on and drains.
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        if let Some(link) = lock(&self.inner.link).as_ref() {
            let _ = rustix::net::shutdown(&link.socket, rustix::net::Shutdown::Both);
        }
    }
}

fn child_of(slot: &ledger::Slot) -> Option<Child> {
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

fn read_ring(rings: &File, index: usize, stream: usize, total: u64) -> io::Result<Drained> {
    let ring = ledger::RING as u64;
    let offset = ledger::ring_offset(index, stream) as u64;
    if total <= ring {
        let mut bytes = vec![0; usize::try_from(total).unwrap_or(0)];
        rings.read_exact_at(&mut bytes, offset)?;
        return Ok(Drained { bytes, dropped: 0 });
    }
    let mut whole = vec![0; ledger::RING];
    rings.read_exact_at(&mut whole, offset)?;
    whole.rotate_left(usize::try_from(total % ring).unwrap_or(0));
    Ok(Drained { bytes: whole, dropped: total - ring })
}

impl Inner {
    fn socket_path(&self) -> PathBuf {
        self.directory.join("keeper.sock")
    }

    /// Asks again when the keeper was lost: only for requests that may be carried out twice.
    fn ask_again(
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

    fn ask(
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

    fn current_link(&self, patience: Duration) -> Result<Arc<Link>, Error> {
        let (link, _) = self
            .linked
            .wait_timeout_while(lock(&self.link), patience, |link| link.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        link.clone().ok_or(Error::Disconnected { attempt: "answer" })
    }

    /// After a failed send the listener is about to notice as well.
    fn wait_for_other_link(&self, old: &Arc<Link>) {
        let same =
            |link: &mut Option<Arc<Link>>| link.as_ref().is_some_and(|link| Arc::ptr_eq(link, old));
        let _ = self.linked.wait_timeout_while(lock(&self.link), PATIENCE, same);
    }

    /// The listening thread: hands out answers and news until the value is dropped.
    fn listen(&self, mut link: Arc<Link>, ended: &dyn Fn(Ended)) {
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
    fn connect(&self) -> Result<Arc<Link>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let path = self.socket_path();
        loop {
            let attempt = self.greet();
            match attempt {
                Ok(link) => return Ok(Arc::new(link)),
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
        let ledger = map_ledger(ledger_file.as_fd()).map_err(|errno| {
            io_error("map the keeper's ledger")(io::Error::from_raw_os_error(errno.0))
        })?;
        let copies = ledger_file.try_clone().and_then(|ledger| Ok((ledger, rings.try_clone()?)));
        *lock(&self.last) = Some(copies.map_err(io_error("duplicate the ledger's descriptor"))?);
        Ok(Link { socket: Arc::new(socket), ledger, rings: File::from(rings) })
    }

    /// Starts an anchor. After a disaster (anchor and keeper both dead) the last ledger and the
    /// descriptors that this daemon holds are its birthright.
    fn start(&self, path: &Path) -> Result<(), Error> {
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
        let told = self.bequeath(ours.as_fd(), &listener, &ledger_file, &program, &rings);
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

fn map_ledger(file: BorrowedFd<'_>) -> Result<Ledger, raw::Errno> {
    let length = raw::file_size(file.as_raw_fd())?;
    let at = raw::map_shared(file.as_raw_fd(), length)?;
    // SAFETY: `length` bytes are mapped at a page boundary and stay so until this process ends;
    // everybody changes them through atomics only.
    unsafe { Ledger::open(at, length) }.ok_or(raw::Errno::EPROTO)
}

/// Waits until a descriptor can be read, or its other end is gone; `TIMEDOUT` after `patience`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, patience: Duration) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: patience.as_secs().cast_signed(),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut waited = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut waited, Some(&timeout)))? {
        0 => Err(rustix::io::Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 64 + descriptors.len() * 4];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); 64 + raw::MOST_DESCRIPTORS * 4];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

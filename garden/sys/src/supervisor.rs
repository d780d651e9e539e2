//! The daemon's side of the supervisor: starting it, talking to it, finding it again.
//!
//! All calls block and may come from any thread. The connection is an implementation detail: when
//! keeper or anchor die, calls in progress answer [`Error::Disconnected`] and later ones wait for
//! the next keeper. Whether an interrupted launch happened is for [`Supervisor::child`] to say.

mod birth;
mod child;
mod error;
mod launch;
mod link;
mod parked;
mod root;
mod socket;
mod streams;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

pub use child::{Child, Ended, Exit, Failure, Kept, Launch, Launched};
pub use error::Error;
pub use parked::ParkedInit;
pub use root::RootPlan;
pub(crate) use socket::wait_readable;
pub use streams::{Drained, Taken};

use crate::plan::sealed_file;
use crate::program::wire::{Message, operation};
use crate::program::{PROGRAM, ledger, raw};
use child::child_of;
use error::io_error;
use link::{Answered, Link};

/// Descriptors of one child, as the daemon holds them.
#[derive(Debug)]
struct Held {
    slot: u32,
    /// stdin or terminal, stdout, stderr, pidfd.
    descriptors: [Option<Arc<OwnedFd>>; ledger::KEPT],
}

/// Where keeper and anchor are to live: called with the pid of each.
struct Housing(Box<dyn Fn(i32) -> io::Result<()> + Send + Sync>);

impl fmt::Debug for Housing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Housing")
    }
}

impl Housing {
    fn take_in(&self, pid: i32) -> Result<(), Error> {
        (self.0)(pid).map_err(io_error("give the supervisor a cgroup of its own"))
    }
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    housing: Housing,
    link: Mutex<Option<Arc<Link>>>,
    linked: Condvar,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Answered>>>,
    held: Mutex<HashMap<u64, Held>>,
    /// Ledger and rings of the last link, for a supervisor that must be started again.
    last: Mutex<Option<(OwnedFd, OwnedFd)>>,
    sequence: AtomicU64,
    /// How often a keeper was lost and the next one found.
    losses: AtomicU64,
    closing: AtomicBool,
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
    /// Finds or starts the supervisor of `directory` (made with mode 0700). `house` is called with the
    /// pid of an anchor before it starts a keeper, and with those of a supervisor that is found; it
    /// puts them where nothing reaches them that is meant for the daemon. `ended` is called from a
    /// thread of this value's for every child that ends or had ended unreleased.
    pub fn attach(
        directory: &Path,
        house: impl Fn(i32) -> io::Result<()> + Send + Sync + 'static,
        ended: impl Fn(Ended) + Send + 'static,
    ) -> Result<Self, Error> {
        fs::create_dir_all(directory)
            .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
            .map_err(io_error(format!(
                "make the supervisor's directory {}",
                directory.display()
            )))?;
        let inner = Arc::new(Inner {
            directory: directory.to_path_buf(),
            housing: Housing(Box::new(house)),
            link: Mutex::new(None),
            linked: Condvar::new(),
            waiting: Mutex::new(HashMap::new()),
            held: Mutex::new(HashMap::new()),
            last: Mutex::new(None),
            sequence: AtomicU64::new(1),
            losses: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let link = inner.connect()?;
        *lock(&inner.link) = Some(Arc::clone(&link));
        let reader = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("keeper-link".into())
            .spawn(move || reader.listen(link, &ended))
            .map_err(io_error("start the thread that listens to the keeper"))?;
        let supervisor = Self { inner };
        let (keeper, anchor) = supervisor.pids()?;
        [anchor, keeper].into_iter().try_for_each(|pid| supervisor.inner.housing.take_in(pid))?;
        Ok(supervisor)
    }

    /// Every child that the ledger knows.
    pub fn children(&self) -> Result<Vec<Child>, Error> {
        let link = self.inner.current_link(PATIENCE)?;
        Ok(link.ledger.slots().filter_map(child_of).collect())
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

    /// How often the keeper was lost and found again since this value was made: it or the anchor
    /// died, or was replaced by another program.
    pub fn losses(&self) -> u64 {
        self.inner.losses.load(Ordering::Relaxed)
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

    /// Has keeper and anchor end as soon as this is dropped, if nothing is kept then, instead of some
    /// seconds later. Those of an earlier build refuse it.
    pub fn dismiss(&self) -> Result<(), Error> {
        let message = Message { operation: operation::LEAVE, ..Message::default() };
        self.inner.ask_again("leave with the daemon", message, &[]).map(drop)
    }

    /// Whether the supervisor runs the program that this library embeds.
    pub fn is_current(&self) -> Result<bool, Error> {
        let (keeper, _) = self.pids()?;
        let path = format!("/proc/{keeper}/exe");
        Ok(fs::read(&path).map_err(io_error(format!("read {path}")))? == PROGRAM)
    }

    /// Replaces keeper and anchor by `program`, under the same pids; a ledger of an older layout is
    /// converted. An error means that the old ones go on.
    pub fn upgrade(&self, program: &[u8]) -> Result<(), Error> {
        let file = sealed_file("supervisor", program)
            .map_err(io_error("write the supervisor's program"))?;
        let message = Message { operation: operation::UPGRADE, ..Message::default() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let link = self.inner.current_link(PATIENCE)?;
            match self.inner.ask("run another program", message, &[file.as_fd()]) {
                Ok(_) => {
                    // What the old keeper's link shows is of no use any more.
                    self.inner.wait_for_other_link(&link);
                    return Ok(());
                }
                // To do it twice does no harm.
                Err(Error::Disconnected { .. }) if Instant::now() < deadline => {}
                Err(Error::Refused { source, .. })
                    if source.raw_os_error() == Some(raw::Errno::EPROTO.0) =>
                {
                    let attempt = "run a program that does not know its ledger's layout";
                    return Err(Error::Refused { attempt, source });
                }
                Err(error) => return Err(error),
            }
        }
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

//! Notices of memory running out, for many slots in one place.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::time::Timespec;

use crate::directory::{Directory, ignore_gone};
use crate::error::{Error, is_gone};
use crate::hierarchy::Controller;
use crate::metrics::Table;
use crate::slot::{Home, Slot};

/// v2: counts of the slot and all below, with a notification.
const EVENTS: &str = "memory.events";
/// v1: the number of kills in this very cgroup, since Linux 4.13.
const CONTROL: &str = "memory.oom_control";

pub(crate) fn kills(slot: &Slot) -> Result<u64, Error> {
    match slot.home(Controller::Memory) {
        Some(Home::V2(directory)) => Ok(kills_in(&directory.read(EVENTS)?)),
        Some(Home::V1(directory)) => kills_below(directory),
        None => Ok(0),
    }
}

/// What [`kills`] counts of a leaf and will not count once that is gone: v2 tells of all below, also of
/// what has been removed.
pub(crate) fn kills_of_leaf(slot: &Slot, name: &str) -> Result<u64, Error> {
    match slot.home(Controller::Memory) {
        Some(Home::V1(directory)) => match ignore_gone(directory.child(name))? {
            Some(leaf) => kills_below(&leaf),
            None => Ok(0),
        },
        _ => Ok(0),
    }
}

fn kills_below(directory: &Directory) -> Result<u64, Error> {
    let mut kills = 0;
    for directory in directory.subtree()? {
        kills += directory.read_if_present(CONTROL)?.map_or(0, |text| kills_in(&text));
    }
    Ok(kills)
}

/// Both files call it the same.
fn kills_in(text: &str) -> u64 {
    Table::parse(text).get("oom_kill")
}

/// Waits for any of many slots to run out of memory. One thread waits; any
/// thread adds and removes.
#[derive(Debug)]
pub struct OomWatch {
    epoll: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    slots: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    slot: u32,
    /// [`EVENTS`] or [`CONTROL`]; reads of it fail once the cgroup is gone.
    file: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// v2 tells of other events by the same file, so kills are compared.
    Kills(u64),
    /// v1 signals an eventfd, also when the cgroup is removed.
    Eventfd(OwnedFd),
}

impl OomWatch {
    /// Watches nothing yet.
    pub fn new() -> Result<Self, Error> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(cannot("make an epoll"))?;
        Ok(Self { epoll, watched: Mutex::default() })
    }

    /// Watches a slot until it is removed from the host or from here. A slot
    /// added twice is told of twice. Kills before this call are not told of; ask
    /// [`Slot::oom_kills`]. Without a memory controller nothing will ever
    /// happen.
    pub fn add(&self, slot: &Slot) -> Result<(), Error> {
        let (entry, interest) = match slot.home(Controller::Memory) {
            None => return Ok(()),
            Some(Home::V2(directory)) => {
                let file = directory.file(EVENTS, OFlags::RDONLY)?;
                let kills = kills_in(&read(&file).map_err(cannot("read memory.events"))?);
                let entry = Entry { slot: slot.number(), file, source: Source::Kills(kills) };
                (entry, EventFlags::PRI)
            }
            Some(Home::V1(directory)) => {
                let file = directory.file(CONTROL, OFlags::RDONLY)?;
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(cannot("make an eventfd"))?;
                let line = format!("{} {}", number(&event), number(&file));
                directory.write("cgroup.event_control", &line)?;
                let source = Source::Eventfd(event);
                (Entry { slot: slot.number(), file, source }, EventFlags::IN)
            }
        };
        let mut watched = self.watched();
        let token = watched.next;
        watched.next += 1;
        let fd = match &entry.source {
            Source::Kills(_) => &entry.file,
            Source::Eventfd(event) => event,
        };
        epoll::add(&self.epoll, fd, EventData::new_u64(token), interest)
            .map_err(cannot("watch a cgroup for OOM"))?;
        watched.slots.insert(token, entry);
        Ok(())
    }

    /// Stops watching a slot; descriptors of a slot that is gone are given up
    /// without this too.
    pub fn remove(&self, slot: u32) {
        self.watched().slots.retain(|_, entry| entry.slot != slot);
    }

    /// The slots that ran out of memory since the last call, as soon as there is
    /// one; none after `timeout` (for ever without one), and sometimes earlier.
    ///
    /// A v1 kernel tells before it has chosen and counted a victim, so the count
    /// belongs to whoever sees a process die.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u32>, Error> {
        const BATCH: usize = 64;
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = Vec::with_capacity(BATCH);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(cannot("wait for OOM")(errno)),
        }
        let mut watched = self.watched();
        let mut slots = Vec::new();
        for event in events {
            let token = event.data.u64();
            let Some(entry) = watched.slots.get_mut(&token) else { continue };
            match entry.happened() {
                Ok(true) => slots.push(entry.slot),
                Ok(false) => {}
                Err(errno) => {
                    // Closing the descriptors takes them out of the epoll.
                    watched.slots.remove(&token);
                    if !is_gone(&errno.into()) {
                        return Err(cannot("read an OOM counter")(errno));
                    }
                }
            }
        }
        Ok(slots)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Every change to the map is one insertion or removal.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Reading also rearms the notification.
    fn happened(&mut self) -> rustix::io::Result<bool> {
        let text = read(&self.file)?;
        match &mut self.source {
            Source::Kills(seen) => {
                let before = std::mem::replace(seen, kills_in(&text));
                Ok(*seen > before)
            }
            Source::Eventfd(event) => match rustix::io::read(&*event, &mut [0; 8]) {
                Ok(_) => Ok(true),
                Err(rustix::io::Errno::AGAIN) => Ok(false),
                Err(errno) => Err(errno),
            },
        }
    }
}

fn read(file: &OwnedFd) -> rustix::io::Result<String> {
    let mut buffer = [0; 1024];
    let len = rustix::io::pread(file, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn number(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_fd().as_raw_fd()
}

fn cannot(action: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Watch { action, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_of_both_kinds() {
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"), 3);
        assert_eq!(kills_in("low 0\nhigh 0\nmax 12\noom 4\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\n"), 0);
    }
}

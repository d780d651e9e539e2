//! Children's streams, for a daemon that has come back.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{Error, errno_error, io_error};
use super::{Held, PATIENCE, Supervisor, lock};
use crate::program::ledger::{self, STREAMS};
use crate::program::wire::{Message, operation};
use crate::program::{raw, store};

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

impl Supervisor {
    /// Duplicates of a child's streams, and its pidfd, for a daemon that has come back.
    /// [`Error::Incomplete`] for a child whose launch nobody has been told of.
    pub fn take(&self, ticket: u64) -> Result<(Taken, Arc<OwnedFd>), Error> {
        let (answer, descriptors) = self.take_all(ticket)?;
        let mut places = [None, None, None, None];
        let mut held = Held { slot: answer.slot, descriptors: [None, None, None, None] };
        let mut descriptors = descriptors.into_iter();
        for which in (0..ledger::KEPT).filter(|which| answer.flags & (1 << which) != 0) {
            let descriptor = descriptors.next().ok_or(Error::Incomplete)?;
            let copy =
                descriptor.try_clone().map_err(io_error("duplicate a stream's descriptor"))?;
            held.descriptors[which] = Some(Arc::new(copy));
            places[which] = Some(descriptor);
        }
        let [first, output, error, pidfd] = places;
        let pidfd = Arc::new(pidfd.ok_or(Error::Incomplete)?);
        held.descriptors[store::PIDFD] = Some(Arc::clone(&pidfd));
        let taken = match (first, output, error) {
            (None, None, None) => Taken::Nothing,
            (Some(master), None, None) => Taken::Terminal(master),
            (input, Some(output), Some(error)) => Taken::Pipes { input, output, error },
            _ => return Err(Error::Incomplete),
        };
        lock(&self.inner.held).insert(ticket, held);
        Ok((taken, pidfd))
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

    pub(super) fn take_pidfd(&self, ticket: u64) -> Result<OwnedFd, Error> {
        let (_, mut descriptors) = self.take_all(ticket)?;
        descriptors.pop().ok_or(Error::Incomplete)
    }

    /// Puts output into a child's ring that was taken from its stream and that nobody has had, for the
    /// next daemon. Only a daemon may that is about to leave and has read what was in the ring.
    pub fn give_back(&self, ticket: u64, stream: usize, mut bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let link = self.inner.current_link(PATIENCE)?;
        let Some((index, slot)) = link.ledger.find(ticket) else { return Ok(()) };
        let drained = &slot.drained[stream];
        while !bytes.is_empty() {
            let total = drained.load(Ordering::Acquire);
            let into = usize::try_from(total % ledger::RING as u64).unwrap_or(0);
            let (now, later) = bytes.split_at(bytes.len().min(ledger::RING - into));
            let offset = ledger::ring_offset(index, stream) + into;
            link.rings
                .write_all_at(now, offset as u64)
                .map_err(io_error("keep output for the next daemon"))?;
            drained.store(total + now.len() as u64, Ordering::Release);
            bytes = later;
        }
        Ok(())
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

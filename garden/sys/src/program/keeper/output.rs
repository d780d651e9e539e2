//! Output that no daemon reads: drained into the rings, given away once.

use core::sync::atomic::Ordering::Relaxed;

use super::super::ledger::{self, RING, STREAMS, State};
use super::super::raw::{self, Answer, Errno, Fd};
use super::super::store::{self, Note};
use super::{Keeper, name, tell_anchor, topic};

impl Keeper {
    /// Which of the kept descriptors a stream is.
    fn source(&self, index: usize, stream: usize) -> Option<Fd> {
        let slot = self.ledger.slot(index);
        let which = match (slot.has(ledger::flag::TERMINAL), stream) {
            (true, 0) => 0,
            (true, _) => return None,
            (false, stream) => 1 + stream,
        };
        (slot.state() != State::Free && slot.kept() & (1 << which) != 0)
            .then(|| store::place(index, which))
    }

    pub(super) fn start_draining(&mut self) {
        self.draining = true;
        for index in 0..self.ledger.used() {
            for stream in 0..STREAMS {
                if let Some(source) = self.source(index, stream) {
                    let _ = raw::epoll_add(
                        self.epoll,
                        source,
                        name(topic::STREAM, index * STREAMS + stream),
                    );
                }
            }
        }
    }

    pub(super) fn stop_draining(&mut self) {
        if !core::mem::replace(&mut self.draining, false) {
            return;
        }
        for index in 0..self.ledger.used() {
            for stream in 0..STREAMS {
                if let Some(source) = self.source(index, stream) {
                    raw::epoll_remove(self.epoll, source);
                }
            }
        }
    }

    /// Moves what can be read at once into the ring; the oldest bytes give way.
    pub(super) fn drain(&mut self, index: usize, stream: usize) {
        if !self.draining || index >= self.ledger.used() {
            return;
        }
        let Some(source) = self.source(index, stream) else { return };
        let mut buffer = [0; 16 * 1024];
        match raw::read(source, &mut buffer) {
            Ok(length) if length > 0 => self.append(index, stream, &buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // End of file, or EIO of a terminal that nobody holds.
            _ => raw::epoll_remove(self.epoll, source),
        }
    }

    fn append(&mut self, index: usize, stream: usize, mut bytes: &[u8]) {
        let drained = &self.ledger.slot(index).drained[stream];
        let start = ledger::ring_offset(index, stream);
        let mut total = drained.load(Relaxed);
        while !bytes.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
            let into = total as usize % RING;
            let length = bytes.len().min(RING - into);
            if raw::write_at(store::RINGS, &bytes[..length], start + into).is_err() {
                return;
            }
            bytes = &bytes[length..];
            total += length as u64;
            drained.store(total, core::sync::atomic::Ordering::Release);
        }
    }

    /// What is kept for a child. Of one whose launch was broken off, by the death of a keeper that had
    /// not yet passed its descriptors to the anchor, not all is there that the ledger names.
    pub(super) fn take(&self, ticket: u64) -> Answer<(usize, u32)> {
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        let there = |which: &usize| raw::is_open(store::place(index, *which));
        let open = (0..ledger::KEPT).filter(there).fold(0_u32, |mask, which| mask | 1 << which);
        Ok((index, slot.kept() & open))
    }

    /// Closes our ends of a child's stdin, for good.
    pub(super) fn end_input(&mut self, ticket: u64) -> Answer<()> {
        const INPUT: u32 = 1;
        let (index, slot) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        if slot.has(ledger::flag::TERMINAL) || slot.kept() & INPUT == 0 {
            return Ok(());
        }
        slot.unset(INPUT << ledger::flag::KEPT_SHIFT);
        store::forget(index, INPUT);
        tell_anchor(Note::Drop { slot: index, mask: INPUT }, &[])
    }

    pub(super) fn empty(&mut self, ticket: u64) -> Answer<()> {
        let (index, _) = self.ledger.find(ticket).ok_or(Errno::ENOENT)?;
        for stream in 0..STREAMS {
            self.empty_ring(index, stream);
        }
        Ok(())
    }

    pub(super) fn empty_ring(&self, index: usize, stream: usize) {
        let drained = &self.ledger.slot(index).drained[stream];
        if drained.swap(0, core::sync::atomic::Ordering::AcqRel) > 0 {
            let _ = raw::punch_hole(store::RINGS, ledger::ring_offset(index, stream), RING);
        }
    }
}

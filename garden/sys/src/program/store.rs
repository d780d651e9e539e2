//! Where anchor and keeper keep descriptors, and what they say to each other about them.
//!
//! Both use the same numbers, so that either can be executed anew, or become the other, without
//! writing anything down: what a number holds follows from the ledger.

use super::ledger::{self, KEPT, Ledger, Unreadable};
use super::raw::{self, Answer, Errno, Fd};

/// Socket that daemons connect to.
pub const LISTEN: Fd = 3;
/// The ledger's memory file.
pub const LEDGER: Fd = 4;
/// The program itself, to be executed again.
pub const PROGRAM: Fd = 5;
/// Between keeper and anchor, the keeper's end.
pub const KEEPER_END: Fd = 6;
/// The ring file.
pub const RINGS: Fd = 7;
/// Between anchor and keeper, the anchor's end.
pub const ANCHOR_END: Fd = 8;
/// Socket on which the kernel tells of processes that end, open while there are children that
/// nobody here is the parent of. Both parts hold it: what waits in it outlives either.
pub const EXITS: Fd = 9;
/// First descriptor with no fixed meaning.
pub const FIRST_FREE: Fd = 10;
/// First number of the kept descriptors; everything between is in flight.
pub const BASE: Fd = 1024;
/// Which of a slot's descriptors is the pidfd.
pub const PIDFD: usize = 3;

/// Number of a slot's kept descriptor.
pub fn place(slot: usize, which: usize) -> Fd {
    BASE + Fd::try_from(slot * KEPT + which).unwrap_or(0)
}

/// Says something about a slot's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Keep these: bit mask of which, the descriptors come along in order.
    Keep {
        /// Whose.
        slot: usize,
        /// Bit 0 is the first of the kept descriptors.
        mask: u32,
    },
    /// Close these of a slot's.
    Drop {
        /// Whose.
        slot: usize,
        /// As in `Keep`.
        mask: u32,
    },
    /// Run this program from now on.
    Upgrade,
    /// Keep this as [`EXITS`].
    KeepExits,
    /// Close [`EXITS`].
    DropExits,
    /// Nothing is left to keep: end.
    Leave,
    /// Anchor to keeper: the ledger has news.
    News,
    /// Daemon to anchor, at birth: all is there, start.
    Start,
}

/// Bytes of a [`Note`].
pub const NOTE: usize = 12;

impl Note {
    /// The note's bytes.
    pub fn encode(self) -> [u8; NOTE] {
        let (kind, slot, mask) = match self {
            Self::Keep { slot, mask } => (1_u32, slot, mask),
            Self::Drop { slot, mask } => (2, slot, mask),
            Self::Upgrade => (3, 0, 0),
            Self::Leave => (4, 0, 0),
            Self::News => (5, 0, 0),
            Self::Start => (6, 0, 0),
            Self::KeepExits => (7, 0, 0),
            Self::DropExits => (8, 0, 0),
        };
        let mut bytes = [0; NOTE];
        bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(slot).unwrap_or(u32::MAX).to_ne_bytes());
        bytes[8..12].copy_from_slice(&mask.to_ne_bytes());
        bytes
    }

    /// Reads a note; `None` for anything that no side writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let slot = word(4) as usize;
        if slot >= ledger::MOST_SLOTS {
            return None;
        }
        match word(0) {
            1 if word(8) < 1 << KEPT => Some(Self::Keep { slot, mask: word(8) }),
            2 if word(8) < 1 << KEPT => Some(Self::Drop { slot, mask: word(8) }),
            3 => Some(Self::Upgrade),
            4 => Some(Self::Leave),
            5 => Some(Self::News),
            6 => Some(Self::Start),
            7 => Some(Self::KeepExits),
            8 => Some(Self::DropExits),
            _ => None,
        }
    }

    /// Sends the note and descriptors without waiting.
    pub fn send(self, socket: Fd, descriptors: &[Fd]) -> Answer<()> {
        raw::send(socket, &self.encode(), descriptors)
    }
}

/// Occupies every fixed place that is empty, so that no other descriptor ever gets its number.
/// Descriptor 0 is /dev/null by now.
pub fn occupy() {
    for fixed in 0..FIRST_FREE {
        if !raw::is_open(fixed) {
            vacate(fixed);
        }
    }
}

/// Closes what is in a fixed place, and keeps the place occupied.
pub fn vacate(fixed: Fd) {
    let _ = raw::dup3(0, fixed, true);
}

/// Puts descriptors into their places, as the mask says; they are duplicated, not closed.
pub fn keep(slot: usize, mask: u32, descriptors: &[Fd]) -> Answer<()> {
    let places = (0..KEPT).filter(|which| mask & (1 << which) != 0);
    if descriptors.len() != mask.count_ones() as usize {
        return Err(Errno::EPROTO);
    }
    for (which, descriptor) in places.zip(descriptors) {
        raw::dup3(*descriptor, place(slot, which), false)?;
    }
    Ok(())
}

/// Mask of all of a slot's descriptors.
pub const ALL: u32 = (1 << KEPT) - 1;

/// Closes those of a slot's descriptors that the mask names.
pub fn forget(slot: usize, mask: u32) {
    if mask == ALL {
        let _ = raw::close_range(place(slot, 0), place(slot, PIDFD).cast_unsigned(), false);
        return;
    }
    for which in (0..KEPT).filter(|which| mask & (1 << which) != 0) {
        raw::close(place(slot, which));
    }
}

/// Maps the ledger behind [`LEDGER`], whatever its layout; EPROTO where that is unknown.
pub fn open_ledger() -> Answer<Ledger> {
    map_ledger().map(|(ledger, _)| ledger)
}

/// The same, with the number of bytes that are mapped.
fn map_ledger() -> Answer<(Ledger, usize)> {
    let length = raw::file_size(LEDGER)?;
    let at = raw::map_shared(LEDGER, length)?;
    // SAFETY: `length` bytes are mapped at a page boundary and stay so until this process ends;
    // everybody changes them through atomics only.
    match unsafe { Ledger::open(at, length) } {
        Ok(ledger) => Ok((ledger, length)),
        Err(Unreadable::Version(_)) => Err(Errno::EPROTO),
        Err(Unreadable::Broken) => Err(Errno::EINVAL),
    }
}

/// Sees to it that [`convert_ledger`] will not fail, without changing anything.
pub fn prepare_ledger() -> Answer<()> {
    let ledger = open_ledger()?;
    if ledger.is_current() {
        return Ok(());
    }
    raw::allocate(LEDGER, ledger.converted_size())
}

/// Brings the ledger to this program's layout. Nobody else may write to it meanwhile.
pub fn convert_ledger() -> Answer<Ledger> {
    prepare_ledger()?;
    let (ledger, length) = map_ledger()?;
    if ledger.is_current() {
        return Ok(ledger);
    }
    ledger.convert(length).ok_or(Errno::EINVAL)
}

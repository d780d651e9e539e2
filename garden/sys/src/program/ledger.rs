//! The ledger: what the supervisor knows about its children, in memory that outlives its writers.
//!
//! A memory file (memfd_create(2)) that anchor, keeper and daemon map. The keeper writes a slot
//! before the child exists and the kernel itself stores the child's pid in it
//! (CLONE_PARENT_SETTID), so that there is no instant in which a child lives and is not written
//! down. Whoever reaps a child writes its status *before* reaping; killed in between, the next one
//! sees the same zombie again.
//!
//! ```text
//!         reserve           clone3              peek + record           release
//!  Free ──────────> Reserved ─────> Live ───────────────────> Ended ──────────────> Free
//!                      │              └──(no parent left, kernel < 6.15)──> Lost ──> Free
//!                      └─(keeper died before the clone)─> Free
//! ```

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// First word of every ledger.
pub const MAGIC: u64 = 0x626c_6f6f_6d65_7279;
/// Layout version; a program opens only what it knows.
pub const VERSION: u32 = 1;
/// Most children at a time: 4 descriptors each stay below a descriptor limit of 20,000.
pub const MOST_SLOTS: usize = 4096;
/// Bytes before the first slot.
const HEADER: usize = 4096;
/// Descriptors kept for a slot: stdin or terminal, stdout, stderr, pidfd.
pub const KEPT: usize = 4;
/// Bytes of one stream's ring.
pub const RING: usize = 256 * 1024;
/// Rings of a slot: stdout (or the terminal) and stderr.
pub const STREAMS: usize = 2;

/// Bytes of a ledger with `slots` slots.
pub const fn size(slots: usize) -> usize {
    HEADER + slots * size_of::<Slot>()
}

/// Bytes of the ring file for `slots` slots; sparse, pages exist only where output waits.
pub const fn rings_size(slots: usize) -> usize {
    slots * STREAMS * RING
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Unused.
    Free = 0,
    /// Written down, its child perhaps cloned.
    Reserved = 1,
    /// Its child runs, or is a zombie that nobody has looked at.
    Live = 2,
    /// Its child's status is in the slot.
    Ended = 3,
    /// Its child is gone and nobody can know how it ended.
    Lost = 4,
}

impl State {
    fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Reserved,
            2 => Self::Live,
            3 => Self::Ended,
            4 => Self::Lost,
            _ => Self::Free,
        }
    }
}

/// Bits of [`Slot::flags`].
pub mod flag {
    /// The child is a container's process 1.
    pub const INIT: u32 = 1;
    /// The first kept descriptor is a terminal's master.
    pub const TERMINAL: u32 = 2;
    /// The child has its own descriptor table now.
    pub const UNSHARED: u32 = 4;
    /// The child's descriptors have their final numbers.
    pub const MOVED: u32 = 8;
    /// `status` is what the kernel has said of the end of the process's first thread.
    pub const HEARD: u32 = 16;
    /// Another thread, ending later, has said otherwise: nobody can know.
    pub const DOUBTFUL: u32 = 32;
    /// Shift of the bit mask of kept descriptors.
    pub const KEPT_SHIFT: u32 = 8;
}

/// One child.
#[repr(C)]
#[derive(Debug)]
pub struct Slot {
    /// Given by the daemon, never used twice in a depot; what the daemon's records refer to.
    pub ticket: AtomicU64,
    state: AtomicU32,
    /// Stored by the kernel in clone3; 0 before.
    pub pid: AtomicI32,
    /// Exit code or 128 + signal, valid in `Ended`, and a hint before with [`flag::HEARD`].
    pub status: AtomicI32,
    /// See [`flag`].
    pub flags: AtomicU32,
    /// Bytes drained into each ring since the daemon last emptied it.
    pub drained: [AtomicU64; STREAMS],
    reserved: [u64; 3],
}

impl Slot {
    /// The slot's state.
    pub fn state(&self) -> State {
        State::from_word(self.state.load(Ordering::Acquire))
    }

    /// Moves on; everything written to the slot before is visible with it.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Sets a flag.
    pub fn set(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
    }

    /// Clears a flag.
    pub fn unset(&self, flag: u32) {
        self.flags.fetch_and(!flag, Ordering::AcqRel);
    }

    /// Which of the [`KEPT`] descriptors exist.
    pub fn kept(&self) -> u32 {
        self.flags.load(Ordering::Acquire) >> flag::KEPT_SHIFT
    }

    /// Whether its child may still be alive.
    pub fn is_current(&self) -> bool {
        matches!(self.state(), State::Reserved | State::Live)
    }
}

#[repr(C)]
#[derive(Debug)]
struct Top {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
}

/// A mapped ledger. Copies refer to the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    at: *const u8,
    slots: usize,
}

// SAFETY: the mapping is never unmapped while a `Ledger` exists (the constructor's contract), and
// everything in it is reached through atomics only.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// Takes a mapping that an earlier process initialised. `None` when it is not a ledger of this
    /// version or does not hold as many slots as it says.
    ///
    /// # Safety
    /// `at` must be the page-aligned start of `length` mapped bytes that stay mapped for as long as
    /// any copy of the result is used and that others change only through atomics.
    pub unsafe fn open(at: *const u8, length: usize) -> Option<Self> {
        if length < HEADER {
            return None;
        }
        // SAFETY: within the mapping, aligned, and made of atomics.
        let top = unsafe { &*at.cast::<Top>() };
        let slots = top.slots.load(Ordering::Relaxed) as usize;
        let known = top.magic.load(Ordering::Relaxed) == MAGIC
            && top.version.load(Ordering::Relaxed) == VERSION;
        (known && slots <= MOST_SLOTS && size(slots) <= length).then_some(Self { at, slots })
    }

    /// Turns zeroed memory into an empty ledger.
    ///
    /// # Safety
    /// As for [`Ledger::open`].
    pub unsafe fn create(at: *const u8, length: usize, slots: usize) -> Option<Self> {
        if slots > MOST_SLOTS || size(slots) > length {
            return None;
        }
        // SAFETY: within the mapping, aligned, and made of atomics.
        let top = unsafe { &*at.cast::<Top>() };
        top.slots.store(u32::try_from(slots).ok()?, Ordering::Relaxed);
        top.version.store(VERSION, Ordering::Relaxed);
        top.magic.store(MAGIC, Ordering::Release);
        Some(Self { at, slots })
    }

    /// All slots; a slot's index names its descriptors and rings.
    pub fn slots(&self) -> &[Slot] {
        // SAFETY: `open` and `create` checked that so many slots lie in the mapping; HEADER is a
        // multiple of the slot's alignment; slots consist of atomics and unused words.
        unsafe { core::slice::from_raw_parts(self.at.add(HEADER).cast::<Slot>(), self.slots) }
    }

    /// Index and slot of a ticket, whatever its state but `Free`.
    pub fn find(&self, ticket: u64) -> Option<(usize, &Slot)> {
        self.slots().iter().enumerate().find(|(_, slot)| {
            slot.ticket.load(Ordering::Relaxed) == ticket && slot.state() != State::Free
        })
    }

    /// Index and slot of a child that has not been recorded as ended.
    pub fn find_child(&self, pid: i32) -> Option<(usize, &Slot)> {
        self.slots()
            .iter()
            .enumerate()
            .find(|(_, slot)| slot.pid.load(Ordering::Relaxed) == pid && slot.is_current())
    }

    /// Takes a free slot for `ticket`; `None` when there is none.
    pub fn reserve(&self, ticket: u64, flags: u32) -> Option<(usize, &Slot)> {
        let (index, slot) =
            self.slots().iter().enumerate().find(|(_, slot)| slot.state() == State::Free)?;
        slot.pid.store(0, Ordering::Relaxed);
        slot.status.store(0, Ordering::Relaxed);
        slot.flags.store(flags, Ordering::Relaxed);
        slot.drained.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        slot.ticket.store(ticket, Ordering::Relaxed);
        slot.set_state(State::Reserved);
        Some((index, slot))
    }
}

/// Offset of a stream's ring in the ring file.
pub const fn ring_offset(index: usize, stream: usize) -> usize {
    (index * STREAMS + stream) * RING
}

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
//!
//! Builds may differ in how a ledger lies in its file, see [`layout`].

pub mod layout;

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use layout::Layout;

/// First word of every ledger.
pub const MAGIC: u64 = 0x626c_6f6f_6d65_7279;
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
    HEADER + slots * layout::CURRENT.stride
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

/// One child. Slots of every layout begin like this.
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

    fn copy(&self, from: &Self) {
        self.ticket.store(from.ticket.load(Ordering::Relaxed), Ordering::Relaxed);
        self.pid.store(from.pid.load(Ordering::Relaxed), Ordering::Relaxed);
        self.status.store(from.status.load(Ordering::Relaxed), Ordering::Relaxed);
        self.flags.store(from.flags.load(Ordering::Relaxed), Ordering::Relaxed);
        for (drained, from) in self.drained.iter().zip(&from.drained) {
            drained.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.set_state(from.state());
    }
}

/// The first words of the file. Whatever changes in a ledger, the first three mean the same.
#[repr(C)]
#[derive(Debug)]
struct Top {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
    /// Where the first slot is; of a marked layout only.
    table: AtomicU32,
    /// Slots from here on have never held a child; of a marked layout only.
    used: AtomicU32,
}

/// Why a mapping is no ledger for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is none, or is cut short.
    Broken,
    /// It has a layout that this build does not know.
    Version(u32),
}

/// A mapped ledger. Copies refer to the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    at: *const u8,
    slots: usize,
    table: usize,
    layout: Layout,
}

// SAFETY: the mapping is never unmapped while a `Ledger` exists (the constructor's contract), and
// everything in it is reached through atomics only.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// Takes a mapping that an earlier process initialised, in any layout that this build knows.
    ///
    /// # Safety
    /// `at` must be the page-aligned start of `length` mapped bytes that stay mapped for as long as
    /// any copy of the result is used and that others change only through atomics.
    pub unsafe fn open(at: *const u8, length: usize) -> Result<Self, Unreadable> {
        if length < HEADER {
            return Err(Unreadable::Broken);
        }
        // SAFETY: within the mapping, aligned, and made of atomics.
        let top = unsafe { &*at.cast::<Top>() };
        if top.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Unreadable::Broken);
        }
        let version = top.version.load(Ordering::Acquire);
        let layout = *layout::KNOWN
            .iter()
            .find(|layout| layout.version == version)
            .ok_or(Unreadable::Version(version))?;
        let slots = top.slots.load(Ordering::Relaxed) as usize;
        let table = if layout.marked { top.table.load(Ordering::Relaxed) as usize } else { HEADER };
        let ledger = Self { at, slots, table, layout };
        let sound = slots <= MOST_SLOTS
            && table >= HEADER
            && table.is_multiple_of(align_of::<Slot>())
            && ledger.end() <= length
            && (!layout.marked || top.used.load(Ordering::Relaxed) as usize <= slots);
        sound.then_some(ledger).ok_or(Unreadable::Broken)
    }

    /// Turns zeroed memory into an empty ledger.
    ///
    /// # Safety
    /// As for [`Ledger::open`].
    pub unsafe fn create(at: *const u8, length: usize, slots: usize) -> Option<Self> {
        if slots > MOST_SLOTS || size(slots) > length {
            return None;
        }
        let ledger = Self { at, slots, table: HEADER, layout: layout::CURRENT };
        let top = ledger.top();
        top.slots.store(u32::try_from(slots).ok()?, Ordering::Relaxed);
        top.table.store(u32::try_from(HEADER).ok()?, Ordering::Relaxed);
        top.version.store(layout::CURRENT.version, Ordering::Relaxed);
        top.magic.store(MAGIC, Ordering::Release);
        Some(ledger)
    }

    fn top(&self) -> &Top {
        // SAFETY: within the mapping (`open` and `create` checked its length), aligned, and made of
        // atomics.
        unsafe { &*self.at.cast::<Top>() }
    }

    /// Bytes up to the last slot's end.
    fn end(&self) -> usize {
        self.table + self.slots * self.layout.stride
    }

    /// Most children at a time.
    pub fn capacity(&self) -> usize {
        self.slots
    }

    /// How many slots have ever held a child.
    pub fn used(&self) -> usize {
        if !self.layout.marked {
            return self.slots;
        }
        (self.top().used.load(Ordering::Acquire) as usize).min(self.slots)
    }

    /// The slot of an index, which names its descriptors and rings too.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn slot(&self, index: usize) -> &Slot {
        assert!(index < self.slots);
        // SAFETY: so many slots lie in the mapping (`open`, `create` and `convert` checked it); the
        // table's start and stride are multiples of a slot's alignment. A slot of any layout begins
        // with a `Slot`, which consists of atomics.
        unsafe { &*self.at.add(self.table + index * self.layout.stride).cast::<Slot>() }
    }

    /// All slots that have ever held a child, by index.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        (0..self.used()).map(|index| self.slot(index))
    }

    /// Index and slot of a ticket, whatever its state but `Free`.
    pub fn find(&self, ticket: u64) -> Option<(usize, &Slot)> {
        self.slots().enumerate().find(|(_, slot)| {
            slot.ticket.load(Ordering::Relaxed) == ticket && slot.state() != State::Free
        })
    }

    /// Index and slot of a child that has not been recorded as ended.
    pub fn find_child(&self, pid: i32) -> Option<(usize, &Slot)> {
        self.slots()
            .enumerate()
            .find(|(_, slot)| slot.pid.load(Ordering::Relaxed) == pid && slot.is_current())
    }

    /// Takes a free slot for `ticket`; `None` when there is none.
    pub fn reserve(&self, ticket: u64, flags: u32) -> Option<(usize, &Slot)> {
        let free = self.slots().position(|slot| slot.state() == State::Free);
        let index = free.or_else(|| self.use_another())?;
        let slot = self.slot(index);
        slot.pid.store(0, Ordering::Relaxed);
        slot.status.store(0, Ordering::Relaxed);
        slot.flags.store(flags, Ordering::Relaxed);
        slot.drained.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        slot.ticket.store(ticket, Ordering::Relaxed);
        slot.set_state(State::Reserved);
        Some((index, slot))
    }

    /// Moves the mark on by one slot.
    fn use_another(&self) -> Option<usize> {
        let next = self.used();
        if !self.layout.marked || next == self.slots {
            return None;
        }
        self.top().used.store(u32::try_from(next + 1).ok()?, Ordering::Release);
        Some(next)
    }

    /// Whether this is the layout that this build writes.
    pub fn is_current(&self) -> bool {
        self.layout == layout::CURRENT
    }

    /// Where the table of the layout that this build writes goes, and where it ends.
    fn next_table(&self) -> (usize, usize) {
        let table = self.end().next_multiple_of(HEADER);
        (table, table + self.slots * layout::CURRENT.stride)
    }

    /// Bytes that the file must have for [`Ledger::convert`].
    pub fn converted_size(&self) -> usize {
        self.next_table().1
    }

    /// Brings the ledger to the layout that this build writes; `None` if `length`, the bytes that
    /// are mapped, do not suffice. The new table is written behind the old one, and one store makes
    /// it the ledger's: who is killed before has changed nothing. Nobody else may write meanwhile,
    /// but children on their way to execve(2), whose flags only the program that made them reads.
    pub fn convert(self, length: usize) -> Option<Self> {
        let (table, end) = self.next_table();
        if end > length {
            return None;
        }
        let new = Self { table, layout: layout::CURRENT, ..self };
        let mut used = 0;
        for index in 0..self.slots {
            let from = self.slot(index);
            // A conversion that was interrupted may have written here.
            new.slot(index).copy(from);
            if from.state() != State::Free {
                used = index + 1;
            }
        }
        let top = self.top();
        top.table.store(u32::try_from(table).ok()?, Ordering::Relaxed);
        top.used.store(u32::try_from(used).ok()?, Ordering::Relaxed);
        top.version.store(layout::CURRENT.version, Ordering::Release);
        Some(new)
    }
}

/// Offset of a stream's ring in the ring file.
pub const fn ring_offset(index: usize, stream: usize) -> usize {
    (index * STREAMS + stream) * RING
}

#[cfg(test)]
mod tests;

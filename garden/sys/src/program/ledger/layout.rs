//! Layouts of the ledger, and so of all that a supervisor hands on to the next build: what is in
//! which descriptor follows from the slots.
//!
//! The first build of a layout converts a ledger of an older one when it takes over; see
//! `anchor::guard` for when. A build that does not know a layout refuses it, and the supervisor that
//! wrote it goes on. To add one: give it a version of its own, put it first in [`KNOWN`], and keep
//! the others.

/// How a ledger lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its number in the file.
    pub version: u32,
    /// Bytes from a slot to the next one.
    pub stride: usize,
    /// The file says where the slots are and how many have ever been used. Otherwise they follow the
    /// first page, and any may have been.
    pub marked: bool,
}

/// The first one: a cache line for each slot.
const FIRST: Layout = Layout { version: 1, stride: 64, marked: false };

/// Only what is used, so that a keeper of few children does not look through thousands of slots at
/// every turn.
#[cfg(not(previous_state))]
const MARKED: Layout = Layout { version: 2, stride: size_of::<super::Slot>(), marked: true };

/// What this build reads; it writes the first one.
#[cfg(not(previous_state))]
pub const KNOWN: &[Layout] = &[MARKED, FIRST];
/// What the build before read: a build of this, made with `--cfg previous_state`, is what upgrades are
/// tested with.
#[cfg(previous_state)]
pub const KNOWN: &[Layout] = &[FIRST];

/// What this build writes.
pub const CURRENT: Layout = KNOWN[0];

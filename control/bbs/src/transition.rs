//! What may become of actual LRPs: pure functions from rows to rows.
//!
//! ```text
//!                  claim            start
//!    UNCLAIMED ───────────> CLAIMED ───────> RUNNING
//!     ^ ^ ^ └──────────────────┼───────────────^ │
//!     │ │ └──── unclaim ───────┴─────────────────┤
//!     │ └────── crash 1, 2 ────┬─────────────────┤
//!     └─ convergence ─ CRASHED <── crash 3.. ────┘
//! ```
//!
//! Only the row with presence ORDINARY moves through these states. Beside it there may be a row
//! EVACUATING and a row SUSPECT, which only serve until they go. `now` is in nanoseconds since the
//! epoch; an `epoch` is a fresh guid for the modification tag of a row that is created.

mod evacuation;
mod lifecycle;
mod presence;

pub use evacuation::{
    Evacuated, Evacuee, evacuate, evacuate_claimed, evacuate_crashed, evacuate_stopped,
    remove_evacuating,
};
pub use lifecycle::{Crashed, Started, claim, crash, create, fail, remove, start, unclaim};
pub use presence::{promote, suspend};

/// Bytes that a reason may have on the board.
const MAXIMUM_REASON: usize = 1024;
const CUT: &str = "(truncated)";

/// A reason, cut where it is longer than the board keeps.
pub(crate) fn reason(text: &str) -> String {
    if text.len() <= MAXIMUM_REASON {
        return text.into();
    }
    let end = (0..=MAXIMUM_REASON - CUT.len()).rev().find(|&end| text.is_char_boundary(end));
    format!("{}{CUT}", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod table;

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_long_reason_is_cut_to_1024_bytes() {
        assert_eq!(reason(&"x".repeat(1024)).len(), 1024);
        let cut = reason(&"x".repeat(1025));
        assert_eq!((cut.len(), &cut[1010..]), (1024, "xxx(truncated)"));
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        let cut = reason(&"ä".repeat(600));
        assert_eq!(cut.len(), 1012 + 11);
        assert!(cut.ends_with("ä(truncated)"));
    }
}

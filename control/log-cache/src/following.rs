//! Readers that wait for what is written next.
//!
//! A cf CLI that follows a log asks four times a second, and again at once after each answer with
//! lines. An answer that waits for a line instead is there when the line is, which counts at the end
//! of staging: the CLI stops looking as soon as it knows that the build has ended.

use std::time::Duration;

use tokio::time::Instant;

use crate::selection::Selection;
use crate::store::{Entry, Store};

/// How long an answer waits for a line. The CLI has no limit of its own.
const HOLD: Duration = Duration::from_secs(20);
/// Between a line and the answer, so that what is written together is read together.
const GATHER: Duration = Duration::from_millis(20);

/// What [`Store::walk`] sees, once that is something, or nothing when the time is up. A reader that
/// goes away is no longer waited for.
pub(crate) async fn follow(store: &Store, source_id: &str, selection: &Selection) -> Vec<Entry> {
    let deadline = Instant::now() + HOLD;
    let mut waited = false;
    loop {
        let written = store.written(source_id);
        let mut written = std::pin::pin!(written.notified());
        written.as_mut().enable();
        let entries = store.walk(source_id, selection);
        match (entries.is_empty(), waited) {
            (true, _) => {}
            (false, false) => return entries,
            (false, true) => {
                tokio::time::sleep(GATHER).await;
                return store.walk(source_id, selection);
            }
        }
        waited = true;
        tokio::select! {
            () = &mut written => {}
            () = tokio::time::sleep_until(deadline) => return entries,
        }
    }
}

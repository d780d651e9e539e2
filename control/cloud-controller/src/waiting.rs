//! Answers that are held until what they tell about changes.
//!
//! The CLI looks at a job, build or package every three seconds; an answer that waits for the change
//! instead is there at once. A waiter registers first and reads the state then, so no change is missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Who waits for which guid.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, Arc<Notify>>>);

impl Waiting {
    /// What is notified at the next change of `guid`.
    pub fn on(&self, guid: &str) -> Arc<Notify> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Entries that nobody holds any more go here, so that the map stays as small as its use.
        waiting.retain(|_, notify| Arc::strong_count(notify) > 1);
        Arc::clone(waiting.entry(guid.to_owned()).or_default())
    }

    /// `guid` has changed, and the change is committed.
    pub fn changed(&self, guid: &str) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(guid) {
            notify.notify_waiters();
        }
    }
}

/// Calls `look` until it says that the state is final, at each change of `guid`, for at most `hold`.
/// The last look is returned.
pub(crate) async fn hold<T, E, F>(
    controller: &crate::CloudController,
    guid: &str,
    hold: std::time::Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<(T, bool), E>>,
{
    let notify = controller.waiting.on(guid);
    let deadline = tokio::time::Instant::now() + hold;
    loop {
        let mut changed = std::pin::pin!(notify.notified());
        changed.as_mut().enable();
        let (seen, done) = look().await?;
        if done {
            return Ok(seen);
        }
        tokio::select! {
            () = &mut changed => {}
            () = tokio::time::sleep_until(deadline) => return Ok(seen),
            () = controller.stop.cancelled() => return Ok(seen),
        }
    }
}

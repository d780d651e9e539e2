//! Answers that are held until what they tell about changes.
//!
//! The CLI looks at a job, build or package every three seconds; an answer that waits for the change
//! instead is there at once. A waiter registers first and reads the state then, so no change is missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Who waits for which guid.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, Arc<Notify>>>);

impl Waiting {
    /// What is notified at the next change of `guid`.
    fn on(&self, guid: &str) -> Arc<Notify> {
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

    /// Calls `look` until it says that the state is final, at each change of `guid`, for at most `most`
    /// or until `stop` is cancelled. The last look is returned.
    pub async fn hold<T, E, F>(
        &self,
        guid: &str,
        most: Duration,
        stop: &CancellationToken,
        mut look: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<(T, bool), E>>,
    {
        let notify = self.on(guid);
        let deadline = tokio::time::Instant::now() + most;
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
                () = stop.cancelled() => return Ok(seen),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// For what comes at once, on the busiest host; and for what never comes.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);

    /// Something whose state is final at 2.
    #[derive(Default)]
    struct Thing {
        state: AtomicU32,
        looks: AtomicU32,
    }

    impl Thing {
        async fn look(&self) -> Result<(u32, bool), Infallible> {
            self.looks.fetch_add(1, Ordering::SeqCst);
            let state = self.state.load(Ordering::SeqCst);
            Ok((state, state == 2))
        }

        fn change(&self, waiting: &Waiting, state: u32) {
            self.state.store(state, Ordering::SeqCst);
            waiting.changed("thing");
        }

        async fn held(&self, waiting: &Waiting, most: Duration, stop: &CancellationToken) -> u32 {
            let held = waiting.hold("thing", most, stop, || self.look());
            tokio::time::timeout(LONG / 2, held).await.expect("in time").unwrap()
        }

        /// Waits until it has been looked at so often.
        async fn looked_at(&self, times: u32) {
            while self.looks.load(Ordering::SeqCst) < times {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn what_is_final_already_is_not_waited_for() {
        let (thing, waiting, stop) = <(Thing, Waiting, CancellationToken)>::default();
        thing.change(&waiting, 2);
        assert_eq!(thing.held(&waiting, LONG, &stop).await, 2);
        assert_eq!(thing.looks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn all_who_wait_are_told_of_the_final_state_and_of_no_other() {
        let (thing, waiting, stop) = <(Thing, Waiting, CancellationToken)>::default();
        let changes = async {
            thing.looked_at(2).await;
            thing.change(&waiting, 1);
            waiting.changed("another");
            thing.looked_at(4).await;
            thing.change(&waiting, 2);
        };
        let held = || thing.held(&waiting, LONG, &stop);
        let (one, other, ()) = tokio::join!(held(), held(), changes);
        assert_eq!((one, other), (2, 2));
        assert_eq!(thing.looks.load(Ordering::SeqCst), 6, "looked at when it had changed");
    }

    #[tokio::test]
    async fn a_change_during_the_look_is_not_missed() {
        let (thing, waiting, stop) = <(Thing, Waiting, CancellationToken)>::default();
        let look = || async {
            let seen = thing.look().await;
            if thing.looks.load(Ordering::SeqCst) == 1 {
                thing.change(&waiting, 2);
            }
            seen
        };
        let held = tokio::time::timeout(LONG / 2, waiting.hold("thing", LONG, &stop, look));
        assert_eq!(held.await.expect("in time"), Ok(2));
    }

    #[tokio::test]
    async fn what_does_not_change_is_told_in_the_end() {
        let (thing, waiting, stop) = <(Thing, Waiting, CancellationToken)>::default();
        let begun = std::time::Instant::now();
        assert_eq!(thing.held(&waiting, SHORT, &stop).await, 0);
        assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
        // Nobody is remembered who does not wait.
        drop(waiting.on("another"));
        assert_eq!(waiting.0.lock().unwrap().keys().collect::<Vec<_>>(), ["another"]);
    }

    #[tokio::test]
    async fn a_stop_lets_go_of_all_who_wait() {
        let (thing, waiting, stop) = <(Thing, Waiting, CancellationToken)>::default();
        let stopped = async {
            thing.looked_at(1).await;
            stop.cancel();
        };
        assert_eq!(tokio::join!(thing.held(&waiting, LONG, &stop), stopped).0, 0);
    }
}

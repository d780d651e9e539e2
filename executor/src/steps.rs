//! Actions as they run (diego.md 10.7).
//!
//! An action is a tree; [`Steps::run`] walks it. Each leaf has a path in the tree, such as
//! `action/0/1`, and leaves that have succeeded are written down under it at Garden. An executor
//! that takes a container up again walks the same tree: what is written down is over, a process that
//! runs under its path is attached to, and the rest is done again, which is safe for files.

mod latch;
mod process;
mod transfer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bbs_models::Action;
use bloomery_garden::client::Client;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::absence::{self, Absence};
use crate::cache::Cache;
use crate::container::Network;
use crate::fetch::Transfers;
use crate::logs::Streamer;

pub(crate) use latch::Latch;
pub(crate) use transfer::{Untaken, chain, take_file};

/// The property that says how far the leaves are: a [`Progress`].
pub(crate) const PROGRESS: &str = "executor:progress";

/// Paths of leaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Processes that were started, or were about to be.
    begun: BTreeSet<String>,
    /// What has succeeded.
    done: BTreeSet<String>,
}

/// What is written down of a leaf.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Begun,
    Done,
}

impl Progress {
    /// Whether anything has been done: then a process may be there already.
    pub(crate) fn is_begun(&self) -> bool {
        !self.begun.is_empty() || !self.done.is_empty()
    }
}

/// What paths of monitors begin with.
pub(crate) const MONITOR: &str = "monitor-";

/// Why a step did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was told to stop.
    Cancelled,
    /// In words for the user.
    Failed(String),
}

impl Failure {
    fn text(&self) -> &str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed(text) => text,
        }
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// What every step of one container shares.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) garden: Client,
    pub(crate) handle: String,
    pub(crate) network: Network,
    pub(crate) log: Streamer,
    pub(crate) cache: Cache,
    pub(crate) transfers: Transfers,
    pub(crate) uploads: Arc<Semaphore>,
    /// For files on their way.
    pub(crate) scratch: PathBuf,
    /// Between TERM and KILL.
    pub(crate) grace: Duration,
    /// The container was begun by an earlier executor.
    pub(crate) resumed: bool,
    pub(crate) progress: Mutex<Progress>,
    /// Serializes writing [`PROGRESS`].
    pub(crate) recording: tokio::sync::Mutex<()>,
}

impl Steps {
    /// Runs `action`, which is at `path`, until it is over or `stop` is cancelled. `ready` opens
    /// once its processes have been started.
    pub(crate) fn run<'a>(
        &'a self,
        action: &'a Action,
        path: String,
        ready: Latch,
        stop: CancellationToken,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if stop.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            if let Some(run) = action.run_action.as_option() {
                return self.process(run, &path, &ready, &stop).await;
            }
            if let Some(download) = action.download_action.as_option() {
                let outcome = self.leaf(&path, &stop, self.download(download)).await;
                ready.open();
                return outcome;
            }
            if let Some(upload) = action.upload_action.as_option() {
                let outcome = self.leaf(&path, &stop, self.upload(upload)).await;
                ready.open();
                return outcome;
            }
            if let Some(timeout) = action.timeout_action.as_option() {
                let limit = limit(timeout.timeout_ms, timeout.deprecated_timeout_ns);
                return self.timeout(&timeout.action, limit, path, ready, stop).await;
            }
            if let Some(progress) = action.emit_progress_action.as_option() {
                return self.emit_progress(progress, path, ready, stop).await;
            }
            if let Some(attempt) = action.try_action.as_option() {
                let outcome = self.run(&attempt.action, path, ready, stop.clone()).await;
                return if stop.is_cancelled() { outcome } else { Ok(()) };
            }
            if let Some(parallel) = action.parallel_action.as_option() {
                return self.parallel(&parallel.actions, path, &ready, &stop).await;
            }
            if let Some(serial) = action.serial_action.as_option() {
                return self.serial(&serial.actions, path, ready, stop).await;
            }
            if let Some(codependent) = action.codependent_action.as_option() {
                return self.codependent(&codependent.actions, path, &ready, &stop).await;
            }
            Err(Failure::Failed("there is no action of this kind".into()))
        })
    }

    async fn timeout(
        &self,
        action: &Action,
        limit: Duration,
        path: String,
        ready: Latch,
        stop: CancellationToken,
    ) -> Outcome {
        let inner = stop.child_token();
        let running = self.run(action, path, ready, inner.clone());
        tokio::pin!(running);
        tokio::select! {
            outcome = &mut running => outcome,
            () = tokio::time::sleep(limit) => {
                inner.cancel();
                let outcome = running.await;
                if stop.is_cancelled() {
                    return Err(Failure::Cancelled);
                }
                let exceeded = format!("exceeded {} timeout", go_duration(limit));
                Err(Failure::Failed(match outcome {
                    Err(Failure::Failed(more)) => format!("{exceeded}; {more}"),
                    _ => exceeded,
                }))
            }
        }
    }

    async fn emit_progress(
        &self,
        action: &bbs_models::EmitProgressAction,
        path: String,
        ready: Latch,
        stop: CancellationToken,
    ) -> Outcome {
        let say = |is_error, message: &str| {
            if !message.is_empty() {
                self.log.platform(&action.log_source, is_error, message);
            }
        };
        say(false, &action.start_message);
        let outcome = self.run(&action.action, path, ready, stop).await;
        match &outcome {
            Ok(()) => say(false, &action.success_message),
            Err(failure) if !action.failure_message_prefix.is_empty() => {
                say(true, &format!("{}: {}", action.failure_message_prefix, failure.text()));
            }
            Err(_) => {}
        }
        outcome
    }

    async fn serial(
        &self,
        actions: &[Action],
        path: String,
        ready: Latch,
        stop: CancellationToken,
    ) -> Outcome {
        for (index, action) in actions.iter().enumerate() {
            // The whole is ready when its last step is.
            let last = index + 1 == actions.len();
            let ready = if last { ready.clone() } else { Latch::default() };
            self.run(action, format!("{path}/{index}"), ready, stop.clone()).await?;
        }
        Ok(())
    }

    async fn parallel(
        &self,
        actions: &[Action],
        path: String,
        ready: &Latch,
        stop: &CancellationToken,
    ) -> Outcome {
        let latches: Vec<Latch> = actions.iter().map(|_| Latch::default()).collect();
        let steps = actions.iter().enumerate().map(|(index, action)| {
            self.run(action, format!("{path}/{index}"), latches[index].clone(), stop.clone())
        });
        let outcomes = Latch::when_all(&latches, ready, join_all(steps)).await;
        joined(outcomes)
    }

    async fn codependent(
        &self,
        actions: &[Action],
        path: String,
        ready: &Latch,
        stop: &CancellationToken,
    ) -> Outcome {
        let latches: Vec<Latch> = actions.iter().map(|_| Latch::default()).collect();
        let together = stop.child_token();
        let mut steps: FuturesUnordered<_> = actions
            .iter()
            .enumerate()
            .map(|(index, action)| {
                self.run(
                    action,
                    format!("{path}/{index}"),
                    latches[index].clone(),
                    together.clone(),
                )
            })
            .collect();
        let all = async {
            let mut failures = Vec::new();
            let mut exited = false;
            while let Some(outcome) = steps.next().await {
                exited |= outcome.is_ok() && !together.is_cancelled();
                together.cancel();
                failures.push(outcome);
            }
            (failures, exited)
        };
        let (failures, exited) = Latch::when_all(&latches, ready, all).await;
        if stop.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        match joined(failures) {
            // An end without a failure is one all the same: the others had to go for it.
            Ok(()) | Err(Failure::Cancelled) if exited => {
                Err(Failure::Failed("Codependent step exited".into()))
            }
            outcome => outcome,
        }
    }

    /// A leaf that is not a process: not done again once it is written down as over.
    async fn leaf(
        &self,
        path: &str,
        stop: &CancellationToken,
        work: impl Future<Output = Outcome>,
    ) -> Outcome {
        if self.is_done(path) {
            return Ok(());
        }
        tokio::select! {
            outcome = work => outcome?,
            () = stop.cancelled() => return Err(Failure::Cancelled),
        }
        self.record(Mark::Done, path).await;
        Ok(())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self, path: &str) -> bool {
        self.progress().done.contains(path)
    }

    fn was_begun(&self, path: &str) -> bool {
        self.progress().begun.contains(path)
    }

    /// Writes down how far a leaf is. If Garden cannot be asked it is only done again after a
    /// restart.
    async fn record(&self, mark: Mark, path: &str) {
        let _recording = self.recording.lock().await;
        let json = {
            let mut progress = self.progress();
            let marked = match mark {
                Mark::Begun => &mut progress.begun,
                Mark::Done => &mut progress.done,
            };
            if !marked.insert(path.to_owned()) {
                return;
            }
            serde_json::to_string(&*progress).expect("texts are always JSON")
        };
        let recorded = Absence::new(&self.handle, absence::OF_CALLS)
            .answer(|| self.garden.set_property(&self.handle, PROGRESS, &json));
        if let Err(error) = recorded.await {
            let error = chain(&error);
            tracing::debug!(handle = self.handle, error, "a step's progress is not recorded");
        }
    }
}

/// One failure of all, in the words of each.
fn joined(outcomes: Vec<Outcome>) -> Outcome {
    let failures: Vec<Failure> = outcomes.into_iter().filter_map(Result::err).collect();
    let texts: Vec<&str> = failures
        .iter()
        .filter(|failure| **failure != Failure::Cancelled)
        .map(Failure::text)
        .collect();
    if !texts.is_empty() {
        return Err(Failure::Failed(texts.join("; ")));
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Cancelled) }
}

fn limit(milliseconds: i64, nanoseconds: i64) -> Duration {
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    if milliseconds > 0 {
        Duration::from_millis(positive(milliseconds))
    } else {
        Duration::from_nanos(positive(nanoseconds))
    }
}

/// A duration in Go's notation, as users know it from the platform: `15m0s`, `1.5s`, `100ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let trimmed = |value: f64, unit: &str| {
        let text = format!("{value:.9}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return trimmed(duration.as_secs_f64() * 1e6, "µs");
    }
    if nanos < 1_000_000_000 {
        return trimmed(duration.as_secs_f64() * 1e3, "ms");
    }
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = (duration - Duration::from_secs(duration.as_secs() / 60 * 60)).as_secs_f64();
    let seconds = trimmed(seconds, "s");
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        _ => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Failure, go_duration, joined};

    #[test]
    fn durations_are_written_as_go_does() {
        let text = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(900_000_000_000), "15m0s");
        assert_eq!(text(61_745_000_000), "1m1.745s");
        assert_eq!(text(1_500_000_000), "1.5s");
        assert_eq!(text(100_000_000), "100ms");
        assert_eq!(text(3_600_000_000_000), "1h0m0s");
        assert_eq!(text(1_500), "1.5µs");
    }

    #[test]
    fn failures_are_told_together_and_cancellations_not_at_all() {
        let failed = |text: &str| Err(Failure::Failed(text.into()));
        assert_eq!(joined(vec![Ok(()), Ok(())]), Ok(()));
        assert_eq!(joined(vec![Ok(()), Err(Failure::Cancelled)]), Err(Failure::Cancelled));
        assert_eq!(joined(vec![failed("a"), Err(Failure::Cancelled), failed("b")]), failed("a; b"));
    }
}

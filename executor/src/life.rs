//! The life of a created container: its setup, then its processes and its checks side by side.
//!
//! ```text
//! setup ──> action ─┐ any end ends the others
//!           sidecars ┤
//!           checks ──┘ startup, then running; then liveness and readiness
//! ```

use bbs_models::Action;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::run_info::RunInfo;
use crate::steps::{Failure, Latch, Outcome, Steps};

/// What becomes known of a container while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It has become healthy.
    Healthy,
    /// It wants requests, or it does not.
    Routable(bool),
}

/// Lives it to its end. `was_healthy`: an earlier executor has seen it become healthy.
pub(crate) async fn live(
    steps: &Steps,
    run: &RunInfo,
    health: &Health<'_>,
    was_healthy: bool,
    announce: impl Fn(Sign),
    stop: &CancellationToken,
) -> Outcome {
    if let Some(setup) = &run.setup {
        steps.run(setup, "setup".into(), Latch::default(), stop.clone()).await?;
    }
    let together = stop.child_token();
    let started = Latch::default();
    let work = work(steps, run, &started, &together);
    let watch = async {
        if was_healthy {
            started.opened().await;
        } else {
            health.startup(&started, &together).await?;
        }
        if !health.checks.has_readiness() {
            announce(Sign::Routable(true));
        }
        announce(Sign::Healthy);
        tokio::select! {
            failure = health.liveness(&together) => Err::<(), _>(failure),
            () = health.readiness(|routable| announce(Sign::Routable(routable))) => Ok(()),
        }
    };
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => outcome,
        Err(failure) = watch => {
            together.cancel();
            let outcome = work.await;
            match failure {
                Failure::Cancelled => outcome,
                Failure::Failed(_) => Err(failure),
            }
        }
    }
}

/// The action, and the sidecars with it.
async fn work(
    steps: &Steps,
    run: &RunInfo,
    started: &Latch,
    together: &CancellationToken,
) -> Outcome {
    let nothing = Action::default();
    let action = run.action.as_ref().unwrap_or(&nothing);
    let mut processes = FuturesUnordered::new();
    processes.push(steps.run(action, "action".into(), started.clone(), together.clone()));
    for (index, sidecar) in run.sidecars.iter().enumerate() {
        let path = format!("sidecar/{index}");
        processes.push(steps.run(&sidecar.action, path, Latch::default(), together.clone()));
    }
    let mut outcome = Ok(());
    while let Some(ended) = processes.next().await {
        together.cancel();
        // The first failure says why; what follows from it says nothing.
        if outcome.is_ok() || outcome == Err(Failure::Cancelled) {
            outcome = match ended {
                Err(failure) => Err(failure),
                Ok(()) => outcome,
            };
        }
    }
    outcome
}

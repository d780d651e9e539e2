//! Whether an app answers (diego.md 10.8).
//!
//! A check is made from the cell, at the container's address, or by the `healthcheck` program inside
//! the container. From the cell it costs no process; inside, it needs no route from the cell to the
//! container, which a foreign Garden's network may not give.

mod helper;
mod probe;

use std::time::{Duration, Instant};

use bbs_models::{Action, Check, CheckDefinition};
use futures_util::future::{BoxFuture, join_all, select_all};
use tokio_util::sync::CancellationToken;

use crate::steps::{Failure, Latch, MONITOR, Steps, go_duration};
pub use helper::Helper;
pub(crate) use helper::{Helpers, INSIDE};
use probe::Probe;

/// From where checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the cell, at the container's address.
    Cell,
    /// By the helper program in the container.
    Container,
}

/// A cell's settings for checks.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// From where; none: from the cell if Garden is Bloomery's own, else in the container.
    pub from: Option<From>,
    /// Between checks of a healthy app, where the app does not say.
    pub healthy: Duration,
    /// Between checks of one that is not healthy yet, at most.
    pub unhealthy: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { from: None, healthy: Duration::from_secs(30), unhealthy: Duration::from_secs(2) }
    }
}

/// The first pause between two probes from the cell; pauses double up to [`Settings::unhealthy`].
const QUICK: Duration = Duration::from_millis(10);

/// How an app is to be checked.
#[derive(Debug)]
pub(crate) enum Checks<'a> {
    /// It is healthy once its processes have been started.
    None,
    /// An action that is run again and again.
    Monitor(&'a Action),
    /// Ports and paths.
    Defined(&'a CheckDefinition),
}

impl<'a> Checks<'a> {
    pub(crate) fn of(definition: Option<&'a CheckDefinition>, monitor: Option<&'a Action>) -> Self {
        match (definition, monitor) {
            (Some(definition), _)
                if !definition.checks.is_empty() || !definition.readiness_checks.is_empty() =>
            {
                Self::Defined(definition)
            }
            (_, Some(monitor)) => Self::Monitor(monitor),
            _ => Self::None,
        }
    }

    fn source(&self) -> &str {
        match self {
            Self::Defined(definition) => &definition.log_source,
            Self::Monitor(_) | Self::None => "",
        }
    }

    /// Whether the app must pass something before requests are routed to it.
    pub(crate) fn has_readiness(&self) -> bool {
        matches!(self, Self::Defined(definition) if !definition.readiness_checks.is_empty())
    }
}

/// The checks of one container.
#[derive(Debug)]
pub(crate) struct Health<'a> {
    pub(crate) steps: &'a Steps,
    pub(crate) checks: Checks<'a>,
    /// From where this container is checked: it has the helper, or it has not.
    pub(crate) from: From,
    pub(crate) helpers: Helpers,
    pub(crate) settings: Settings,
    /// Zero: it may take for ever.
    pub(crate) start_timeout: Duration,
}

impl Health<'_> {
    /// Returns when the app is healthy for the first time; `started` opens when its processes run.
    pub(crate) async fn startup(
        &self,
        started: &Latch,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let attempt = async {
            if !matches!(self.checks, Checks::None) {
                self.say(false, "Starting health monitoring of container");
            }
            match &self.checks {
                Checks::None => {
                    started.opened().await;
                    Ok(())
                }
                Checks::Monitor(action) => self.monitor_until(action, true, stop).await,
                Checks::Defined(definition) => {
                    started.opened().await;
                    self.all_pass(definition, begun, stop).await
                }
            }
        };
        let detail = match attempt.await {
            Ok(()) => {
                if !matches!(self.checks, Checks::None) {
                    self.say(false, "Container became healthy");
                }
                return Ok(());
            }
            Err(Failure::Cancelled) => return Err(Failure::Cancelled),
            Err(Failure::Failed(detail)) => detail,
        };
        let took = go_duration(Duration::from_millis(millis(begun.elapsed())));
        self.say(true, &format!("Failed after {took}: startup health check never passed."));
        Err(Failure::Failed(format!("Instance never healthy after {took}: {detail}")))
    }

    /// Returns when the app, which was healthy, is not any more.
    pub(crate) async fn liveness(&self, stop: &CancellationToken) -> Failure {
        let failed = match &self.checks {
            Checks::None => std::future::pending().await,
            Checks::Monitor(action) => self.monitor_until(action, false, stop).await,
            Checks::Defined(definition) if definition.checks.is_empty() => {
                std::future::pending().await
            }
            Checks::Defined(definition) => {
                let checks = definition.checks.iter().enumerate();
                let failing = checks.map(|(index, check)| -> BoxFuture<'_, _> {
                    Box::pin(self.until_fails("liveness", index, check))
                });
                // What was told to stop may close its port before it ends.
                match stop.run_until_cancelled(select_all(failing)).await {
                    Some((detail, ..)) => Err(Failure::Failed(detail)),
                    None => Err(Failure::Cancelled),
                }
            }
        };
        match failed {
            Err(Failure::Failed(detail)) => {
                self.say(true, "Container became unhealthy");
                Failure::Failed(format!("Instance became unhealthy: {detail}"))
            }
            Ok(()) | Err(Failure::Cancelled) => Failure::Cancelled,
        }
    }

    /// Tells `routable` each time it changes whether the app wants requests. Never returns.
    pub(crate) async fn readiness(&self, routable: impl Fn(bool)) {
        let Checks::Defined(definition) = &self.checks else { return std::future::pending().await };
        if definition.readiness_checks.is_empty() {
            return std::future::pending().await;
        }
        self.say(false, "Starting readiness health monitoring of container");
        let checks = || definition.readiness_checks.iter().enumerate();
        loop {
            join_all(checks().map(|(index, check)| self.until_ready(index, check))).await;
            self.say(
                false,
                "Container passed the readiness health check. Container marked ready and added to \
                 route pool.",
            );
            routable(true);
            let failing = checks().map(|(index, check)| -> BoxFuture<'_, _> {
                Box::pin(self.until_fails("readiness", index, check))
            });
            select_all(failing).await;
            self.say(
                true,
                "Container failed the readiness health check. Container marked not ready and \
                 removed from route pool.",
            );
            routable(false);
        }
    }

    fn say(&self, is_error: bool, message: &str) {
        self.steps.log.platform(self.checks.source(), is_error, message);
    }

    /// Runs the monitor until it succeeds (`passing`) or until it fails.
    async fn monitor_until(
        &self,
        action: &Action,
        passing: bool,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let pause = if passing { self.settings.unhealthy } else { self.settings.healthy };
        loop {
            // Every run is a process of its own, and a leaf that is never over.
            let path = format!("{MONITOR}{}", uuid::Uuid::new_v4().simple());
            let outcome = self.steps.run(action, path, Latch::default(), stop.child_token()).await;
            match outcome {
                Err(Failure::Cancelled) => return Err(Failure::Cancelled),
                Ok(()) if passing => return Ok(()),
                Err(failure) if !passing || self.is_late(begun) => return Err(failure),
                Ok(()) | Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Err(Failure::Cancelled),
            }
        }
    }

    fn is_late(&self, begun: Instant) -> bool {
        !self.start_timeout.is_zero() && begun.elapsed() >= self.start_timeout
    }

    async fn all_pass(
        &self,
        definition: &CheckDefinition,
        begun: Instant,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let checks = definition.checks.iter().enumerate();
        let passing =
            join_all(checks.map(|(index, check)| self.until_started(index, check, begun)));
        tokio::select! {
            results = passing => {
                let details: Vec<String> = results.into_iter().filter_map(Result::err).collect();
                if details.is_empty() { Ok(()) } else { Err(Failure::Failed(details.join("; "))) }
            }
            () = stop.cancelled() => Err(Failure::Cancelled),
        }
    }

    async fn until_started(
        &self,
        index: usize,
        check: &Check,
        begun: Instant,
    ) -> Result<(), String> {
        if self.from == From::Container {
            let timeout = go_duration(self.start_timeout);
            let interval = go_duration(self.settings.unhealthy);
            let mode =
                [format!("-startup-interval={interval}"), format!("-startup-timeout={timeout}")];
            return self.helper("startup", index, check, &mode).await;
        }
        let probe = self.probe(check);
        let mut pause = QUICK;
        loop {
            match probe.attempt().await {
                Ok(()) => return Ok(()),
                Err(detail) if self.is_late(begun) => return Err(detail),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.settings.unhealthy);
        }
    }

    async fn until_ready(&self, index: usize, check: &Check) {
        if self.from == From::Container {
            let mode = [format!("-until-ready-interval={}", go_duration(self.settings.unhealthy))];
            while self.helper("until-ready", index, check, &mode).await.is_err() {
                tokio::time::sleep(self.settings.unhealthy).await;
            }
            return;
        }
        let probe = self.probe(check);
        let mut pause = QUICK;
        while probe.attempt().await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.settings.unhealthy);
        }
    }

    /// Probes at the check's interval until one fails; says why.
    async fn until_fails(&self, what: &'static str, index: usize, check: &Check) -> String {
        let probe = self.probe(check);
        let interval = probe.interval.unwrap_or(self.settings.healthy);
        if self.from == From::Container {
            let mode = [format!("-{what}-interval={}", go_duration(interval))];
            loop {
                // Only a failing helper says something of the app; one that ends otherwise was
                // ended, and another takes its place.
                if let Err(detail) = self.helper(what, index, check, &mode).await {
                    return detail;
                }
            }
        }
        loop {
            tokio::time::sleep(interval).await;
            if let Err(detail) = probe.attempt().await {
                return detail;
            }
        }
    }

    fn probe(&self, check: &Check) -> Probe {
        let address = self.steps.network.internal_ip.clone();
        Probe::new(check, address)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

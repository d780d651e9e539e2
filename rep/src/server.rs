//! The rep's parts, put together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bbs_models::{ActualLRPsRequest, TasksRequest};
use executor::{Event, Executor, Sink};
use locket::Presence;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::service_fn;
use transport::{Server, TraceId};

use crate::config::{Config, Listeners};
use crate::error::Error;
use crate::evacuation::{self, Evacuation, Patience};
use crate::http::{Admin, Network};
use crate::operations::{Found, Rep};
use crate::queue::Queue;
use crate::sync::{self, Operation};
use crate::usage::Measured;

/// For what is left of a drained cell, beyond the time that its containers have for their end.
const CLEANUP: Duration = Duration::from_secs(5);

/// The file in the cell's directory that keeps its name at Locket.
const OWNER: &str = "presence-owner";

/// Runs a cell until it is told to stop, or until it has been drained.
///
/// Told to stop it leaves all containers as they are, and its presence to end by itself: a rep that
/// is started on the same directory in time goes on with both. A drained cell takes its presence
/// back, and has no containers.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) -> Result<(), Error> {
    boxed(config, listeners, sink, stop).await
}

/// Compiled once, here, and not again with every program that serves a cell.
fn boxed(
    config: Config,
    listeners: Listeners,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    Box::pin(run(config, listeners, sink, stop))
}

async fn run(
    config: Config,
    listeners: Listeners,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) -> Result<(), Error> {
    config.check()?;
    let (network, admin) = config.listen(listeners).await?;
    let stop = stop.child_token();
    // However this function ends, nothing of it goes on.
    let _stop = stop.clone().drop_guard();
    let started = Executor::start(
        config.executor(),
        config.garden()?,
        config.transfers()?,
        config.authority()?,
        Arc::clone(&sink),
        stop.clone(),
    );
    let executor = match started.await {
        Ok(executor) => executor,
        // It was waiting for Garden.
        Err(_) if stop.is_cancelled() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let rep = Arc::new(Rep {
        cell: config.cell(&network)?,
        recipes: config.recipes()?,
        preferred_address: config.preferred_address(),
        bbs: config.bbs()?,
        evacuation: Evacuation::default(),
        queue: Queue::default(),
        under_way: TaskTracker::new(),
        stop: stop.clone(),
        found: Found::by(&executor),
        executor,
    });
    let measured = Arc::new(Measured::default());
    let presence = match config.locket()? {
        Some(locket) => {
            let owner = locket::owner_kept_in(&config.cache_path.join(OWNER))?;
            let value = rep.cell.presence(rep.executor.total());
            let timing = config.presence_timing();
            Some(Presence::keep(locket, &rep.cell.id, &owner, &value, timing))
        }
        None => None,
    };
    tracing::info!(cell = rep.cell.id, url = rep.cell.rep_url, "the cell is ready");

    let calls = Network { rep: Arc::clone(&rep), measured: Arc::clone(&measured) };
    let calls = service_fn(move |request| calls.clone().answer(request));
    let own_calls = Admin { rep: Arc::clone(&rep) };
    let own_calls = service_fn(move |request| own_calls.clone().answer(request));
    let patience = Patience {
        polling: config.evacuation_polling_interval,
        timeout: config.evacuation_timeout,
        cleanup: config.graceful_shutdown_interval + CLEANUP,
    };
    let work = async {
        tokio::join!(
            Server::new(network).serve(calls, stop.clone()),
            Server::new(admin).serve(own_calls, stop.clone()),
            until(&stop, follow_events(&rep)),
            until(&stop, async {
                until_present(presence.as_ref(), &config).await;
                compare(&rep, &config).await;
            }),
            until(&stop, measure(&rep, &measured, &*sink, &config)),
            async {
                let drained = evacuation::until_drained(&rep, patience);
                let is_drained = stop.run_until_cancelled(drained).await.is_some();
                stop.cancel();
                is_drained
            }
        )
    };
    let (.., is_drained) = work.await;
    if is_drained && let Some(presence) = presence {
        presence.withdraw().await;
    }
    rep.under_way.close();
    rep.under_way.wait().await;
    Ok(())
}

async fn until(stop: &CancellationToken, work: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(work).await;
}

/// Sees to containers as soon as something becomes of them.
async fn follow_events(rep: &Arc<Rep>) {
    let mut events = rep.executor.events();
    loop {
        match events.recv().await {
            // Whoever reserved it sees to it.
            Ok(Event::Reserved(_)) => {}
            Ok(Event::Running(guid) | Event::Complete(guid)) => {
                rep.enqueue(&guid, Operation::Container, None);
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events were missed: all containers are looked at");
                for container in rep.executor.containers() {
                    rep.enqueue(&container.guid, Operation::Container, None);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// What the first comparison gives back is auctioned at once, and may only come here if the cell is
/// known. A Locket that is away is not waited for longer than for any comparison.
async fn until_present(presence: Option<&Presence>, config: &Config) {
    if let Some(presence) = presence {
        let _ = tokio::time::timeout(config.polling_interval, presence.known()).await;
    }
}

/// Compares everything, again and again; at once and more often when the cell is being drained.
async fn compare(rep: &Arc<Rep>, config: &Config) {
    loop {
        if let Err(error) = compare_once(rep).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the cell cannot be compared with the BBS");
        }
        if rep.evacuation.has_begun() {
            tokio::time::sleep(config.evacuation_polling_interval).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(config.polling_interval) => {}
                () = rep.evacuation.begun() => {}
            }
        }
    }
}

async fn compare_once(rep: &Arc<Rep>) -> Result<(), bbs_client::Error> {
    let cell_id = rep.cell.id.clone();
    let rows = rep.bbs.actual_lrps(ActualLRPsRequest { cell_id, ..Default::default() });
    let cell_id = rep.cell.id.clone();
    let tasks = rep.bbs.tasks(TasksRequest { cell_id, ..Default::default() });
    let (rows, tasks) = tokio::try_join!(rows, tasks)?;
    // The containers last: one that the BBS has heard of meanwhile is among them.
    let containers = rep.executor.containers();
    for (guid, operation) in sync::plan(&containers, &rows, &tasks) {
        rep.enqueue(&guid, operation, Some(TraceId::default()));
    }
    Ok(())
}

/// How long after it began to run a container is measured more often.
const YOUNG: Duration = Duration::from_secs(4);
/// Between two measurements then, unless they take more than a tenth of it.
const OFTEN: Duration = Duration::from_secs(1);

/// Measures containers, again and again, and more often while one is young: who has started an app
/// looks at it then.
async fn measure(rep: &Rep, measured: &Measured, sink: &dyn Sink, config: &Config) {
    let interval = config.container_metrics_report_interval;
    let mut events = rep.executor.events();
    let (mut due, mut young, mut often) = (Instant::now(), Instant::now(), OFTEN);
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            event = events.recv() => {
                match event {
                    Ok(Event::Running(_)) | Err(RecvError::Lagged(_)) => {
                        young = Instant::now() + YOUNG;
                        due = due.min(Instant::now() + often);
                    }
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                }
                continue;
            }
        }
        let began = Instant::now();
        match rep.executor.metrics().await {
            Ok(metrics) => {
                for usage in measured.take(&rep.executor.containers(), &metrics) {
                    sink.usage(usage);
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what containers use is not known");
            }
        }
        often = OFTEN.max(began.elapsed() * 10);
        due = Instant::now() + if began < young { often.min(interval) } else { interval };
    }
}

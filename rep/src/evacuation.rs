//! Draining the cell: it takes no more work, and offers its instances to others.

use std::time::Duration;

use bbs_models::{ActualLRPsRequest, actual_lrp};
use executor::{Executor, Guid, State};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::operations::Rep;

/// Whether the cell is being drained. Once it is, it stays so.
#[derive(Debug)]
pub struct Evacuation(watch::Sender<bool>);

impl Default for Evacuation {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Evacuation {
    /// Begins.
    pub fn begin(&self) {
        if !self.0.send_replace(true) {
            tracing::info!("the cell is being drained");
        }
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}

/// How a drained cell goes.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two looks at what is left.
    pub polling: Duration,
    /// For all instances to run elsewhere.
    pub timeout: Duration,
    /// For what is left then to be deleted.
    pub cleanup: Duration,
}

/// Waits until an evacuation begins and then until the cell is empty, or for as long as is given.
/// What is left then is deleted.
pub async fn until_drained(rep: &Rep, patience: Patience) {
    rep.evacuation.begun().await;
    let deadline = Instant::now() + patience.timeout;
    let mut looks = interval(patience.polling);
    loop {
        looks.tick().await;
        let left = rep.executor.containers().len();
        if left == 0 {
            tracing::info!("the cell is drained");
            break;
        }
        if Instant::now() >= deadline {
            tracing::warn!(left, "the cell is not drained in time");
            break;
        }
    }
    if tokio::time::timeout(patience.cleanup, clean_up(rep)).await.is_err() {
        tracing::warn!("what is left on the cell is not deleted in time");
    }
}

async fn clean_up(rep: &Rep) {
    let on_cell = ActualLRPsRequest { cell_id: rep.cell.id.clone(), ..Default::default() };
    match rep.bbs.actual_lrps(on_cell).await {
        Ok(rows) => {
            let evacuating = actual_lrp::Presence::EVACUATING;
            let stranded = rows.into_iter().filter(|row| row.presence == evacuating);
            for row in stranded {
                let (key, instance) =
                    ((*row.actual_lrp_key).clone(), (*row.actual_lrp_instance_key).clone());
                let guid = instance.instance_guid.clone();
                tracing::warn!(guid, "an instance is stranded: no other cell runs it yet");
                if let Err(error) = rep.bbs.remove_evacuating_actual_lrp(key, instance).await {
                    tracing::warn!(guid, %error, "it is not removed from the BBS");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "stranded instances are not known"),
    }
    let mut deletions = JoinSet::new();
    for container in rep.executor.containers() {
        deletions.spawn(end(rep.executor.clone(), container.guid));
    }
    while deletions.join_next().await.is_some() {}
}

/// A container is told to end in its own time before it is destroyed.
async fn end(executor: Executor, guid: Guid) {
    let mut events = executor.events();
    if executor.stop(&guid).is_ok() {
        while executor.container(&guid).is_ok_and(|now| now.state != State::Completed) {
            // Whatever is told, the state says more.
            let _ = events.recv().await;
        }
    }
    match executor.delete(&guid).await {
        Ok(()) | Err(executor::Error::NotFound(_)) => {}
        Err(error) => tracing::warn!(guid, %error, "a container is not deleted"),
    }
}

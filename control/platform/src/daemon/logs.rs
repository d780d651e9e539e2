//! Where a daemon alone sends what it says of apps.

use log_cache::{Agent, Ingress};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Cause;
use crate::logs::Logs;

/// The settings for it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    loggregator: Agent,
}

/// Runs `work` with logs that go to the configured server, and to nobody if there is none. What waits
/// to be sent at its end is sent.
pub async fn with_logs<E: Into<Cause>, F: Future<Output = Result<(), E>>>(
    Told { loggregator }: Told,
    work: impl FnOnce(Logs) -> F,
) -> Result<(), Cause> {
    let Some((ingress, delivery)) = loggregator.ingress()? else {
        tracing::warn!("loggregator: logs and metrics of apps go nowhere");
        return work(Logs::new(Ingress::nowhere())).await.map_err(Into::into);
    };
    let over = CancellationToken::new();
    let working = async {
        let ended = work(Logs::new(ingress)).await;
        over.cancel();
        ended.map_err(Into::into)
    };
    let (ended, ()) = tokio::join!(working, delivery.deliver(over.clone()));
    ended
}

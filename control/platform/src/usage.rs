//! What instances use, as their cells have told Log Cache.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloud_controller::{Metrics, Usage};
use log_cache::{Latest, Reader, Store};

/// Cells measure each 15 s; what is older than two of those is no use any more.
const MEASURED: Duration = Duration::from_secs(40);

/// From a log-cache in this process.
pub fn in_store(store: Store) -> Metrics {
    Metrics::new(move |app| std::future::ready(usages(store.latest(app, since()))))
}

/// From one elsewhere. While it does not answer, nothing is known.
pub fn at(reader: Reader) -> Metrics {
    Metrics::new(move |app| {
        let (reader, app) = (reader.clone(), app.to_owned());
        async move {
            match reader.latest(&app, since()).await {
                Ok(latest) => usages(latest),
                Err(status) => {
                    let (code, error) = (status.code(), status.message());
                    tracing::warn!(app, %code, error, "Log Cache does not say what an app uses");
                    Vec::new()
                }
            }
        }
    })
}

/// Nanoseconds since the epoch.
fn since() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(MEASURED).as_nanos()).unwrap_or(i64::MAX)
}

fn usages(latest: Vec<Latest>) -> Vec<Usage> {
    let usages = latest.into_iter().filter_map(|latest| {
        let index = latest.instance_id.parse().ok()?;
        let time = latest.numbers.values().map(|number| number.timestamp).max()?;
        let gauge = |name: &str| latest.numbers.get(name).map(|number| number.value);
        Usage::of_gauges(&latest.process_id, index, time, gauge)
    });
    usages.collect()
}

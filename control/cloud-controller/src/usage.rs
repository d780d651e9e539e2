//! What instances use, as their cells measure it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

/// What one instance uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Guid of the process, without a version.
    pub process_guid: String,
    /// Index of the instance.
    pub index: u32,
    /// When it was measured, in nanoseconds since the epoch.
    pub time: i64,
    /// Percent of one core.
    pub cpu: f64,
    /// Percent of what it is entitled to.
    pub cpu_entitlement: Option<f64>,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub disk: u64,
    /// Bytes a second.
    pub log_rate: u64,
}

impl Usage {
    /// From the gauges that cells emit under their names; `None` until there are all that every cell
    /// emits.
    pub fn of_gauges(
        process_guid: &str,
        index: u32,
        time: i64,
        gauge: impl Fn(&str) -> Option<f64>,
    ) -> Option<Self> {
        // Bytes are whole and not negative, whatever a float can say.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = |name| gauge(name).map(|value: f64| value as u64);
        Some(Self {
            process_guid: process_guid.into(),
            index,
            time,
            cpu: gauge("cpu")?,
            cpu_entitlement: gauge("cpu_entitlement"),
            memory: whole("memory")?,
            disk: whole("disk")?,
            log_rate: whole("log_rate").unwrap_or(0),
        })
    }

    /// As the API shows it: fractions of a core instead of percent.
    pub(crate) fn show(&self) -> Value {
        json!({
            "time": crate::time::show(self.time / 1000),
            "cpu": self.cpu / 100.0,
            "cpu_entitlement": self.cpu_entitlement.map(|percent| percent / 100.0),
            "mem": self.memory,
            "disk": self.disk,
            "log_rate": self.log_rate,
        })
    }
}

type OfApp = dyn Fn(&str) -> BoxFuture<'static, Vec<Usage>> + Send + Sync;

/// Tells what the instances of an app use: log-cache. A clone asks the same.
#[derive(Clone)]
pub struct Metrics(Arc<OfApp>);

impl Metrics {
    /// `of_app` gets an app's guid. What cannot be told is left out, within the time that somebody
    /// waits for an answer.
    pub fn new<F>(of_app: impl Fn(&str) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<Usage>> + Send + 'static,
    {
        Self(Arc::new(move |app| Box::pin(of_app(app))))
    }

    pub(crate) async fn of(&self, app_guid: &str) -> Vec<Usage> {
        (self.0)(app_guid).await
    }
}

impl Default for Metrics {
    /// Knows nothing.
    fn default() -> Self {
        Self::new(|_| std::future::ready(Vec::new()))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

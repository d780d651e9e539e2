//! Logs and metrics of everything, on their way to Log Cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloud_controller::{AppLog, Line};
use executor::{Log, LogConfig, Sink, Usage};
use log_cache::v2::Envelope;
use log_cache::{AppMetrics, Ingress, Origin};
use router::{AccessLog, Record};

/// Takes what cell, router and Cloud Controller say of apps. A clone writes to the same place.
#[derive(Clone, Debug)]
pub struct Logs {
    ingress: Ingress,
    /// Bytes that instances have logged since they were last measured.
    logged: Arc<Mutex<HashMap<(String, String), Logged>>>,
}

#[derive(Debug)]
struct Logged {
    bytes: u64,
    since: Instant,
}

/// An instance that was not measured for so long is gone.
const GONE: Duration = Duration::from_secs(300);

impl Logs {
    pub fn new(ingress: Ingress) -> Self {
        Self { ingress, logged: Arc::default() }
    }

    /// For Cloud Controller.
    pub fn of_cloud_controller(&self) -> AppLog {
        let ingress = self.ingress.clone();
        AppLog::new(move |Line { source_id, source_type, text }| {
            let origin = Origin {
                source_id,
                instance_id: "0".into(),
                tags: std::collections::BTreeMap::new(),
            };
            ingress.send(Envelope::line(origin, source_type, false, text));
        })
    }

    fn count_bytes(&self, log: &Log) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = logged
            .entry((log.source_id.clone(), log.instance_id.clone()))
            .or_insert_with(|| Logged { bytes: 0, since: Instant::now() });
        entry.bytes += log.message.len() as u64;
    }

    /// Bytes a second since the last time.
    fn rate(&self, source_id: &str, instance_id: &str) -> f64 {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, entry| now.duration_since(entry.since) < GONE);
        let fresh = Logged { bytes: 0, since: now };
        let last = logged.insert((source_id.to_owned(), instance_id.to_owned()), fresh);
        let Some(last) = last else { return 0.0 };
        // A rate needs no more than 52 bits.
        #[allow(clippy::cast_precision_loss)]
        let bytes = last.bytes as f64;
        bytes / now.duration_since(last.since).as_secs_f64().max(0.001)
    }
}

fn origin(source: &LogConfig) -> Origin {
    Origin {
        source_id: source.guid.clone(),
        instance_id: source.index.to_string(),
        tags: source.tags.clone(),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Sink for Logs {
    fn log(&self, log: Log) {
        self.count_bytes(&log);
        let Log { source_id, instance_id, source_type, tags, is_error, message } = log;
        let origin = Origin { source_id, instance_id, tags };
        self.ingress.send(Envelope::line(origin, &source_type, is_error, message));
    }

    fn count(&self, source: &LogConfig, name: &'static str) {
        self.ingress.send(Envelope::counter(origin(source), name, 1));
    }

    fn usage(&self, usage: Usage) {
        let mut origin = origin(&usage.source);
        origin.tags.extend(usage.tags);
        // Limits are whole numbers far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let log_rate_limit = usage.log_rate_limit as f64;
        let metrics = AppMetrics {
            cpu: 100.0 * usage.cpu_fraction,
            cpu_entitlement: usage.cpu_entitlement_fraction.map(|fraction| 100.0 * fraction),
            memory: usage.memory_bytes,
            memory_quota: usage.memory_quota_bytes,
            disk: usage.disk_bytes,
            disk_quota: usage.disk_quota_bytes,
            log_rate: self.rate(&origin.source_id, &origin.instance_id),
            log_rate_limit,
            absolute_usage: nanoseconds(usage.cpu_used),
            absolute_entitlement: nanoseconds(usage.cpu_entitled),
            container_age: nanoseconds(usage.age),
        };
        for envelope in Envelope::app_metrics(&origin, &metrics) {
            self.ingress.send(envelope);
        }
    }
}

impl AccessLog for Logs {
    fn log(&self, record: Record) {
        if record.app_id.is_empty() {
            return;
        }
        let mut tags = record.tags.clone();
        tags.insert("origin".into(), "gorouter".into());
        let origin = Origin {
            source_id: record.app_id.clone(),
            instance_id: record.app_index.clone(),
            tags,
        };
        self.ingress.send(Envelope::line(origin, "RTR", false, record.to_string()));
    }
}

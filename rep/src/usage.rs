//! What containers use, measured now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use executor::{Container, Guid, Usage};
use garden_api::Metrics;
use rep_api::{ContainerMetrics, ContainerMetricsCollection, List, LrpMetrics, TaskMetrics};

use crate::label::{Label, Owner};

/// CPU time that was used, CPU time that was due, and the age at which they were read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    used: Duration,
    entitled: Duration,
    age: Duration,
}

/// The newest measurement.
#[derive(Debug, Default)]
pub struct Measured {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    readings: BTreeMap<Guid, Reading>,
    lrps: Vec<LrpMetrics>,
    tasks: Vec<TaskMetrics>,
}

impl Measured {
    /// Takes a measurement in; returns what it says of each container that has a log.
    pub fn take(&self, containers: &[Container], metrics: &BTreeMap<Guid, Metrics>) -> Vec<Usage> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Last::default();
        let mut usages = Vec::new();
        for container in containers {
            let Some(measured) = metrics.get(&container.guid) else { continue };
            let (Some(label), Some(run)) = (Label::of(container), container.run.as_ref()) else {
                continue;
            };
            let age = Duration::from_nanos(u64::try_from(measured.age.0).unwrap_or(0));
            let reading = Reading {
                used: Duration::from_nanos(measured.cpu.usage),
                entitled: Duration::from_nanos(measured.cpu_entitlement),
                age,
            };
            let before = last.readings.get(&container.guid).copied();
            let source = run.metric_tags.get("source_id").unwrap_or(&run.log.guid).clone();
            let mib = |mib: i32| u64::try_from(mib).unwrap_or(0) << 20;
            let metrics = ContainerMetrics {
                metric_guid: source,
                cpu_usage_fraction: fraction(before, reading),
                disk_usage_bytes: measured.disk.exclusive_bytes_used,
                disk_quota_bytes: mib(container.resource.disk_mb),
                memory_usage_bytes: measured.memory.total_usage_toward_limit,
                memory_quota_bytes: mib(container.resource.memory_mb),
                rx_bytes: measured.network.map(|network| network.rx_bytes),
                tx_bytes: measured.network.map(|network| network.tx_bytes),
            };
            if !run.log.guid.is_empty() {
                usages.push(Usage {
                    source: run.log.clone(),
                    tags: run.metric_tags.clone(),
                    age,
                    cpu_fraction: metrics.cpu_usage_fraction,
                    cpu_entitled: reading.entitled,
                    cpu_entitlement_fraction: entitlement_fraction(before, reading),
                    cpu_used: reading.used,
                    memory_bytes: metrics.memory_usage_bytes,
                    memory_quota_bytes: metrics.memory_quota_bytes,
                    disk_bytes: metrics.disk_usage_bytes,
                    disk_quota_bytes: metrics.disk_quota_bytes,
                    rx_bytes: metrics.rx_bytes,
                    tx_bytes: metrics.tx_bytes,
                    log_rate_limit: run.log_rate_limit,
                });
            }
            next.readings.insert(container.guid.clone(), reading);
            match label.owner {
                Owner::Lrp { process_guid, index } => next.lrps.push(LrpMetrics {
                    instance_guid: container.guid.clone(),
                    process_guid,
                    index,
                    metrics,
                }),
                Owner::Task => {
                    next.tasks.push(TaskMetrics { task_guid: container.guid.clone(), metrics });
                }
            }
        }
        *last = next;
        usages
    }

    /// The answer to `GET /container_metrics`.
    pub fn collection(&self, cell_id: &str) -> ContainerMetricsCollection {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        ContainerMetricsCollection {
            cell_id: cell_id.to_owned(),
            lrps: List::from(last.lrps.clone()),
            tasks: List::from(last.tasks.clone()),
        }
    }
}

/// Cores in use between two readings; 0 where there is only one.
fn fraction(before: Option<Reading>, now: Reading) -> f64 {
    let since = |before: Reading| part(now.used, before.used, now.age, before.age);
    before.and_then(since).unwrap_or(0.0)
}

/// What was used of what was due between two readings; 0 where there is only one, since what a start
/// takes is more than is due for the moment of it. None: nothing is ever due.
fn entitlement_fraction(before: Option<Reading>, now: Reading) -> Option<f64> {
    let since = |before: Reading| part(now.used, before.used, now.entitled, before.entitled);
    (!now.entitled.is_zero()).then(|| before.and_then(since).unwrap_or(0.0))
}

fn part(now: Duration, before: Duration, of_now: Duration, of_before: Duration) -> Option<f64> {
    let of = of_now.saturating_sub(of_before);
    (!of.is_zero()).then(|| now.saturating_sub(before).div_duration_f64(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(used: u64, entitled: u64, age: u64) -> Reading {
        let [used, entitled] = [used, entitled].map(Duration::from_millis);
        Reading { used, entitled, age: Duration::from_secs(age) }
    }

    #[test]
    fn cores_are_counted_between_readings() {
        assert!(fraction(None, reading(5, 0, 1)).abs() < 1e-9);
        let half = fraction(Some(reading(0, 0, 10)), reading(7_500, 0, 25));
        assert!((half - 0.5).abs() < 1e-9);
        // A reading that goes back is no use at all.
        assert!(fraction(Some(reading(9, 0, 3)), reading(1, 0, 2)).abs() < 1e-9);
    }

    #[test]
    fn an_entitlement_is_used_between_readings() {
        // A start: two seconds of a core where 30 ms were due.
        let start = reading(2_000, 30, 1);
        assert_eq!(entitlement_fraction(None, start), Some(0.0));
        let then = entitlement_fraction(Some(start), reading(2_225, 480, 16)).unwrap();
        assert!((then - 0.5).abs() < 1e-9, "{then}");
        assert_eq!(entitlement_fraction(Some(start), start), Some(0.0));
        assert_eq!(entitlement_fraction(None, reading(2_000, 0, 1)), None);
    }
}

//! The meters as Prometheus reads them (its text format, version 0.0.4).

use std::fmt::{Display, Write};
use std::fs;

use super::{BOUNDS, Counter, Histogram, METERS, Operation, STATUSES};
use crate::gardener::Gardener;
use crate::process::held_output;
use crate::server::route_names;

/// What the format calls itself.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in their order.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.value(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.value(name, "", value);
    }

    /// Buckets are cumulative in the format.
    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let mut below = 0;
        let bounds = BOUNDS.iter().map(|bound| seconds(bound * 1000)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.buckets) {
            below += count.get();
            self.value(name, &format!("_bucket{{{labels},le=\"{bound}\"}}"), below);
        }
        let total = seconds(histogram.nanoseconds.get());
        self.value(name, &format!("_sum{{{labels}}}"), total);
        self.value(name, &format!("_count{{{labels}}}"), below);
    }

    fn operations(&mut self, operations: &[(&str, &Operation)]) {
        let name = "garden_operation_duration_seconds";
        self.head(name, "histogram", "How long creates, destroys and runs take, by outcome.");
        for (operation, meter) in operations {
            for (outcome, histogram) in [("ok", &meter.done), ("error", &meter.failed)] {
                let labels = format!("operation=\"{operation}\",outcome=\"{outcome}\"");
                self.histogram(name, &labels, histogram);
            }
        }
        let name = "garden_operations_in_flight";
        self.head(name, "gauge", "Creates, destroys and runs under way.");
        for (operation, meter) in operations {
            self.value(name, &format!("{{operation=\"{operation}\"}}"), meter.under_way.get());
        }
    }

    fn requests(&mut self) {
        let name = "garden_http_requests_total";
        self.head(name, "counter", "Answered requests by route and status.");
        for (route, counts) in route_names().zip(&METERS.requests.counts) {
            for (status, count) in STATUSES.iter().zip(counts) {
                let status = if *status == 0 { "other".to_owned() } else { status.to_string() };
                // What never happened has no line.
                if let count @ 1.. = Counter::get(count) {
                    let labels = format!("{{route=\"{route}\",status=\"{status}\"}}");
                    self.value(name, &labels, count);
                }
            }
        }
        let name = "garden_http_requests_in_flight";
        let help = "Requests that are not answered yet, and clients of processes.";
        self.gauge(name, help, METERS.requests_under_way.get());
    }
}

/// Exact, as a float would not be.
fn seconds(nanoseconds: u64) -> String {
    let (whole, part) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:09}").trim_end_matches('0').to_owned()
}

/// All metrics of a Garden and its process at this moment.
pub(crate) fn expose(gardener: &Gardener) -> String {
    let mut out = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    out.head("garden_build_info", "gauge", "The build, as a label.");
    out.value("garden_build_info", &format!("{{version=\"{version}\"}}"), 1);
    let census = gardener.census();
    out.gauge(
        "garden_containers",
        "Containers, those being made and destroyed among them.",
        census.containers,
    );
    out.gauge("garden_processes", "Processes of containers that have not ended.", census.processes);
    out.gauge(
        "garden_max_containers",
        "Most containers that there may be.",
        census.most_containers,
    );
    out.operations(&[
        ("create", &METERS.creates),
        ("destroy", &METERS.destroys),
        ("run", &METERS.runs),
    ]);
    out.gauge("garden_pool_parked", "Parked containers.", census.parked);
    out.gauge("garden_pool_size", "Parked containers that are kept ready.", census.pool_size);
    let hits = "Creates that found a parked container.";
    out.counter("garden_pool_hits_total", hits, METERS.pool_hits.get());
    let misses = "Creates that had one made while they waited, privileged ones among them.";
    out.counter("garden_pool_misses_total", misses, METERS.pool_misses.get());
    let failures = "Parked containers that could not be made.";
    out.counter("garden_pool_failures_total", failures, METERS.pool_failures.get());
    let leavings = "Destroyed containers whose cgroup, mounts and volume are still to be removed.";
    out.gauge("garden_leavings", leavings, census.leavings);
    let kills = "Processes that the kernel killed for want of memory.";
    out.counter("garden_oom_kills_total", kills, METERS.memory_kills.get());
    out.counter("garden_process_exits_total", "Ended processes.", METERS.exits.get());
    let unknown = "Ended processes whose status nobody can know.";
    out.counter("garden_process_exits_unknown_total", unknown, METERS.unknown_exits.get());
    let losses =
        "Times that the keeper was lost and found again: it or the anchor died, or was replaced.";
    out.counter("garden_keeper_losses_total", losses, census.keeper_losses);
    let held = "Bytes of output that wait for clients.";
    out.gauge("garden_output_held_bytes", held, held_output());
    let dropped = "Bytes of output that no client has read in time.";
    out.counter("garden_output_dropped_bytes_total", dropped, METERS.dropped_output.get());
    out.requests();
    out.gauge("garden_volumes", "Writable layers in the store.", census.volumes);
    let layers = census.layers.unwrap_or_default();
    out.gauge("garden_layers", "Unpacked layers in the store.", layers.layers);
    out.gauge("garden_layers_bytes", "Bytes that unpacked layers take.", layers.bytes);
    if let Some(disk) = census.disk {
        out.gauge("garden_store_size_bytes", "Size of the store's file system.", disk.size);
        out.gauge("garden_store_free_bytes", "Free there for root.", disk.free);
    }
    process(&mut out);
    out.0
}

/// What every exporter tells of its process, by the names that all have.
fn process(out: &mut Exposition) {
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is this look itself.
        let open = open.count().saturating_sub(1);
        out.gauge("process_open_fds", "Open descriptors.", open);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        out.gauge("process_max_fds", "Most descriptors that may be open.", limit);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    if let Some(kibibytes) = field("VmRSS:") {
        out.gauge("process_resident_memory_bytes", "Resident memory.", kibibytes * 1024);
    }
    if let Some(threads) = field("Threads:") {
        out.gauge("process_threads", "Threads.", threads);
    }
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanoseconds = used.tv_sec.unsigned_abs() * 1_000_000_000 + used.tv_nsec.unsigned_abs();
    out.counter("process_cpu_seconds_total", "CPU time.", seconds(nanoseconds));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (nanoseconds, text) in
            [(0, "0"), (500_000, "0.0005"), (20_000_000_000, "20"), (1_000_000_001, "1.000000001")]
        {
            assert_eq!(seconds(nanoseconds), text);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let (histogram, mut out) = (Histogram::new(), Exposition::default());
        for micros in [400, 900, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        out.histogram("d", "x=\"y\"", &histogram);
        let lines: Vec<_> = out.0.lines().collect();
        assert_eq!(lines[0], "d_bucket{x=\"y\",le=\"0.0005\"} 1");
        assert_eq!(lines[1], "d_bucket{x=\"y\",le=\"0.001\"} 2");
        assert_eq!(lines[12], "d_bucket{x=\"y\",le=\"20\"} 2");
        assert_eq!(lines[13], "d_bucket{x=\"y\",le=\"+Inf\"} 3");
        assert_eq!(lines[14], "d_sum{x=\"y\"} 60.0013");
        assert_eq!(lines[15], "d_count{x=\"y\"} 3");
        assert_eq!(lines.len(), 16);
    }
}

//! What a server tells, as tables for people or as JSON for programs.

use std::fmt::Write;

use anyhow::Context;
use bloomery_garden::client::Client;
use garden_api::{
    BulkEntry, BulkMetrics, ContainerState, DiskLimitScope, Metrics, Properties,
    RequestedDiskLimits,
};
use serde::Serialize;

use super::{complain, explain, print};

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(&format!("{text}\n"))
}

/// Bytes in the largest unit that leaves a number of at least one.
fn bytes(number: u64) -> String {
    const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    for (shift, unit) in UNITS {
        if number >> shift > 0 {
            let tenths = (u128::from(number) * 10) >> shift;
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
    }
    number.to_string()
}

/// Nanoseconds as a time that people read.
fn time(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}.{:02}s", nanoseconds / 10_000_000 % 100),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn limit(number: u64, unit: impl Fn(u64) -> String) -> String {
    if number == 0 { "none".into() } else { unit(number) }
}

/// Empty where the server does not say.
fn disk_limit(RequestedDiskLimits { requested, enforced }: RequestedDiskLimits) -> String {
    let Some(requested) = requested else { return String::new() };
    if requested.byte_hard == 0 {
        return "none".into();
    }
    let scope = match requested.scope {
        DiskLimitScope::Exclusive => " without the image",
        // The server knows no third one; it is taken for the default.
        DiskLimitScope::Total | DiskLimitScope::Other(_) => "",
    };
    let effect = if enforced { "" } else { ", not enforced" };
    format!("{}{scope}{effect}", bytes(requested.byte_hard))
}

/// `bloomery ctl info`
pub async fn info(client: &Client, handle: &str, json: bool) -> anyhow::Result<()> {
    let info = client.info(handle).await.map_err(explain)?;
    if json {
        return print_json(&info);
    }
    let memory = client.memory_limits(handle).await.map_err(explain)?;
    let cpu = client.cpu_limits(handle).await.map_err(explain)?;
    let disk = client.requested_disk_limits(handle).await.map_err(explain)?;
    let ports: Vec<_> = info
        .mapped_ports
        .iter()
        .flatten()
        .map(|port| format!("{}:{}", port.host_port, port.container_port))
        .collect();
    let state = match info.state {
        Some(ContainerState::Active) => "active",
        Some(ContainerState::Stopped) => "stopped",
        None => "unknown",
    };
    let rows = [
        ("handle", handle.to_owned()),
        ("state", state.to_owned()),
        ("address", info.container_ip),
        ("IPv6 address", info.container_ipv6),
        ("host's address", info.host_ip),
        ("external address", info.external_ip),
        ("ports", ports.join(" ")),
        ("memory limit", limit(memory.limit_in_bytes, bytes)),
        ("CPU shares", limit(cpu.shares(), |shares| shares.to_string())),
        ("disk limit", disk_limit(disk)),
        ("events", info.events.join(", ")),
        ("record", info.container_path),
    ];
    let mut text = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<18}{value}");
    }
    if !info.properties.is_empty() {
        text.push_str("properties\n");
        for (key, value) in &info.properties {
            let _ = writeln!(text, "  {key}={value}");
        }
    }
    print(&text)
}

/// `bloomery ctl metrics`
pub async fn metrics(client: &Client, handles: Vec<String>, json: bool) -> anyhow::Result<()> {
    let asked = !handles.is_empty();
    let handles =
        if asked { handles } else { client.list(&Properties::new()).await.map_err(explain)? };
    let all = if handles.is_empty() {
        BulkMetrics::default()
    } else {
        client.bulk_metrics(&handles).await.map_err(explain)?
    };
    if json {
        return print_json(&all);
    }
    let mut rows = vec![["HANDLE", "MEMORY", "CPU", "DISK", "PIDS", "AGE"].map(str::to_owned)];
    let mut failed = 0;
    for (handle, entry) in &all.0 {
        match entry {
            BulkEntry::Value(metrics) => rows.push(row(handle, metrics)),
            BulkEntry::Failed(error) => {
                complain(format_args!("{handle}: {}", error.message));
                failed += 1;
            }
        }
    }
    print(&table(&rows))?;
    anyhow::ensure!(failed == 0 || !asked, "{failed} of {} cannot be measured", handles.len());
    Ok(())
}

fn row(handle: &str, metrics: &Metrics) -> [String; 6] {
    let pids = match metrics.pid.max {
        0 => metrics.pid.current.to_string(),
        max => format!("{} of {max}", metrics.pid.current),
    };
    [
        handle.to_owned(),
        bytes(metrics.memory.total_usage_toward_limit),
        time(metrics.cpu.usage),
        bytes(metrics.disk.total_bytes_used),
        pids,
        time(metrics.age.0.try_into().unwrap_or(0)),
    ]
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `bloomery ctl capacity`
pub async fn capacity(client: &Client, json: bool) -> anyhow::Result<()> {
    let capacity = client.capacity().await.map_err(explain)?;
    if json {
        return print_json(&capacity);
    }
    print(&format!(
        "memory            {}\ndisk              {}\ndisk to allot     {}\ncontainers        {}\n",
        bytes(capacity.memory_in_bytes),
        bytes(capacity.disk_in_bytes),
        bytes(capacity.schedulable_disk_in_bytes),
        capacity.max_containers
    ))
}

#[cfg(test)]
mod tests {
    use garden_api::DiskLimits;

    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0, 1023, 1024, 67_108_864, u64::MAX].map(bytes),
            ["0", "1023", "1.0K", "64.0M", "16777215.9T"]
        );
        assert_eq!([0, 43_739_341].map(time), ["0.00s", "0.04s"]);
        assert_eq!([61, 3_600, 90_000].map(|s| time(s * 1_000_000_000)), ["1m1s", "1h0m", "1d1h"]);
    }

    #[test]
    fn a_disk_limit_is_said_to_be_enforced_only_where_it_is() {
        let limit = |byte_hard, scope, enforced| {
            let requested = Some(DiskLimits { byte_hard, scope, ..DiskLimits::default() });
            disk_limit(RequestedDiskLimits { requested, enforced })
        };
        assert_eq!(limit(1 << 30, DiskLimitScope::Total, false), "1.0G, not enforced");
        assert_eq!(limit(1 << 20, DiskLimitScope::Exclusive, true), "1.0M without the image");
        assert_eq!(limit(0, DiskLimitScope::Total, false), "none");
        assert_eq!(disk_limit(RequestedDiskLimits::default()), "");
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}

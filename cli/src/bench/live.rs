//! What containers cost while they live: memory, and the time of a create among many.

use std::fs;

use anyhow::Context;

use super::contender::{now, since};
use super::http::Caller;
use super::interrupt::Interrupt;
use super::row::{Bounds, Rows, at_most};
use super::server::Server;
use crate::processes::{children, kibibytes, memory};

const KIBI: f64 = 1024.0;
/// Creates that are timed at each level.
const TIMED: usize = 20;
/// Processes that are run in one container.
const PROCESSES: u32 = 50;

/// Rows of this module that every run has.
pub const REQUIRED: [&str; 8] = [
    "create with network, among 0 live",
    "create with network, among 250 live",
    "memory of the daemon, empty",
    "memory of the daemon, per container",
    "memory of a container's process 1 (PSS)",
    "kernel memory, per container",
    "memory of the daemon and its supervisor, per running process",
    "helper processes, per running process",
];
/// The server's three processes, in the order of [`Server::processes`], and how many descriptors each
/// may have: half of the hard limit that machines commonly have.
const HOLDERS: [&str; 3] = ["the daemon", "the keeper", "the anchor"];
const MOST_DESCRIPTORS: f64 = 10_000.0;

fn row(level: u32) -> String {
    format!("create with network, among {level} live")
}

fn descriptors_row(holder: &str, level: u32) -> String {
    format!("descriptors of {holder}, {level} live with a process each")
}

fn memory_row(level: u32) -> String {
    format!("memory of the daemon, {level} live with a process each")
}

/// Rows of a full run.
pub fn required_in_full(levels: &[u32]) -> Vec<String> {
    let of = |&level: &u32| {
        let holders = HOLDERS.map(|holder| descriptors_row(holder, level));
        holders.into_iter().chain([row(level), memory_row(level)])
    };
    levels.iter().flat_map(of).collect()
}

fn resident(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| kibibytes(&format!("/proc/{pid}/status"), "VmRSS")).sum()
}

/// What the kernel itself holds, in KiB.
fn kernel() -> anyhow::Result<f64> {
    let kinds = ["Slab", "Percpu", "KernelStack", "PageTables", "VmallocUsed"];
    kinds.iter().map(|kind| kibibytes("/proc/meminfo", kind)).sum()
}

/// Times creates, and leaves no container.
fn creates(caller: &Caller, interrupt: &Interrupt) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::with_capacity(TIMED);
    for index in 0..TIMED {
        interrupt.check()?;
        let began = now();
        let handle = caller.create(&format!("timed-{index}"), None)?;
        samples.push(since(began).as_secs_f64() * 1000.0);
        caller.destroy(&handle)?;
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(samples)
}

/// Adds the rows. `levels` are numbers of live containers, rising from 0.
pub fn measure(
    server: &Server,
    caller: &Caller,
    levels: &[u32],
    full: bool,
    rows: &mut Rows,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let daemon = [server.daemon()];
    let empty = row(0);
    rows.add(&empty, "ms", creates(caller, interrupt)?, None, Bounds::default());
    let (daemon_empty, kernel_empty) = (resident(&daemon)?, kernel()?);
    let mebibytes = daemon_empty / KIBI;
    rows.add(REQUIRED[2], "MiB", vec![mebibytes], None, at_most(12.0, 8.0));

    if full {
        hold(server, 0, rows)?;
    }
    let (mut live, mut busy) = (0, 0);
    let mut first = true;
    for &level in levels.iter().filter(|level| **level > 0) {
        while live < level {
            interrupt.check()?;
            caller.create(&format!("live-{live}"), None)?;
            live += 1;
        }
        let limits = if level > 250 { at_most(1.25, 1.15) } else { at_most(1.10, 1.05) };
        // Before the timed ones, so that nothing is half gone.
        let (daemon_now, kernel_now) = (resident(&daemon)?, kernel()?);
        rows.add(&row(level), "ms", creates(caller, interrupt)?, Some(&empty), limits);
        if first {
            first = false;
            let each = |now: f64, before: f64| ((now - before) / f64::from(level)).max(0.0);
            let own = each(daemon_now, daemon_empty);
            rows.add(REQUIRED[3], "KiB", vec![own], None, at_most(40.0, 16.0));
            let inits: Vec<f64> = server
                .inits()
                .into_iter()
                .filter_map(|pid| memory(pid).ok())
                .map(|kibibytes| kibibytes / KIBI)
                .collect();
            rows.add(REQUIRED[4], "MiB", inits, None, at_most(0.1, 0.05));
            let kernel = each(kernel_now, kernel_empty) / KIBI;
            // A tenth above what the floor's containers were found to need.
            rows.add(REQUIRED[5], "MiB", vec![kernel], None, at_most(0.52, 0.47));
        }
        if full {
            while busy < live {
                interrupt.check()?;
                caller.start(&format!("live-{busy}"), &["/bin/sleep", "10000"])?;
                busy += 1;
            }
            hold(server, level, rows)?;
        }
    }
    processes(server, caller, rows, interrupt)?;
    for index in 0..live {
        caller.destroy(&format!("live-{index}"))?;
    }
    Ok(())
}

/// What the server holds for so many live containers with a process each.
fn hold(server: &Server, level: u32, rows: &mut Rows) -> anyhow::Result<()> {
    let resident = resident(&[server.daemon()])? / KIBI;
    rows.add(&memory_row(level), "MiB", vec![resident], None, Bounds::default());
    for (holder, pid) in HOLDERS.iter().zip(server.processes()?) {
        let path = format!("/proc/{pid}/fd");
        let open = fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?.count();
        let open = f64::from(u32::try_from(open)?);
        let bounds = at_most(MOST_DESCRIPTORS, MOST_DESCRIPTORS);
        rows.add(&descriptors_row(holder, level), "", vec![open], None, bounds);
    }
    Ok(())
}

/// Waits until the pool's children are not counted as a process's: until nothing was made for long
/// enough, or it never stops.
fn wait_for_the_pool(own: &[u32]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut before = children(own);
    while std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = children(own);
        if std::mem::replace(&mut before, now) == now {
            return;
        }
    }
}

/// What running processes cost beyond themselves.
fn processes(
    server: &Server,
    caller: &Caller,
    rows: &mut Rows,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let own = server.processes()?;
    let handle = caller.create("busy", None)?;
    caller.start(&handle, &["/bin/sleep", "1000"])?;
    wait_for_the_pool(&own);
    let (resident_before, children_before) = (resident(&own)?, children(&own));
    for _ in 0..PROCESSES {
        interrupt.check()?;
        caller.start(&handle, &["/bin/sleep", "1000"])?;
    }
    let each = |more: f64| (more / f64::from(PROCESSES)).max(0.0);
    let memory = each(resident(&own)? - resident_before);
    let more = children(&own).saturating_sub(children_before);
    let helpers = each(f64::from(u32::try_from(more)?) - f64::from(PROCESSES));
    caller.destroy(&handle)?;
    // The original needs 5.3 MiB for each.
    rows.add(REQUIRED[6], "KiB", vec![memory], None, at_most(100.0, 32.0));
    rows.add(REQUIRED[7], "", vec![helpers], None, at_most(0.0, 0.0));
    Ok(())
}

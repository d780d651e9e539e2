//! What the networker's own calls take, alone and among many containers: without Gardens, in network
//! namespaces of the bench's own, one of which is the host.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, anyhow};
use garden_api::{IpRange, NetOutRule, PortRange, Protocol};
use garden_networker::{NameServers, Networker, Settings};
use garden_sys::namespaces;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::contender::{now, since};
use super::interrupt::Interrupt;
use super::row::{Bounds, Rows, at_most};

/// Containers' links among which the calls are made.
const LEVELS: [u32; 2] = [0, 1000];
/// Calls of each kind at each level.
const TIMED: u32 = 20;
const CALLS: [&str; 5] = ["plumb", "attach", "NetIn", "NetOut", "destroy"];

fn row_name(call: &str, level: u32) -> String {
    format!("networker: {call}, among {level} live")
}

/// Rows that a full run has.
pub fn required() -> Vec<String> {
    LEVELS.iter().flat_map(|level| CALLS.map(|call| row_name(call, *level))).collect()
}

/// Adds the rows; `memory` is a directory for the networker.
pub fn measure(memory: &Path, rows: &mut Rows, interrupt: &Interrupt) -> anyhow::Result<()> {
    let host = namespaces::network().context("cannot make a network namespace")?;
    let samples = std::thread::scope(|scope| {
        let work = || {
            move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            run(memory, interrupt)
        };
        scope.spawn(work).join().map_err(|_| anyhow!("the networker's thread panicked"))?
    })?;
    for (index, (level, samples)) in samples.into_iter().enumerate() {
        for (call, samples) in CALLS.iter().zip(samples) {
            let alone = row_name(call, LEVELS[0]);
            let (against, bounds) = match index {
                0 => (None, Bounds::default()),
                _ => (Some(alone.as_str()), at_most(2.0, 1.25)),
            };
            rows.add(&row_name(call, level), "ms", samples, against, bounds);
        }
    }
    Ok(())
}

fn settings(memory: &Path) -> anyhow::Result<Settings> {
    Ok(Settings {
        tag: "b".into(),
        pool: "10.176.0.0/19".parse().map_err(|error| anyhow!("{error}"))?,
        deny: Vec::new(),
        allow_host_access: false,
        port_pool_start: 61001,
        port_pool_size: 4000,
        external_ip: None,
        mtu: None,
        name_servers: NameServers::default(),
        host_resolvers: Vec::new(),
        additional_hosts: Vec::new(),
        memory: memory.to_owned(),
    })
}

type Samples = [Vec<f64>; CALLS.len()];

fn run(memory: &Path, interrupt: &Interrupt) -> anyhow::Result<Vec<(u32, Samples)>> {
    let networker = Networker::start(settings(memory)?)?;
    networker.settle(&HashSet::new())?;
    let rule = NetOutRule {
        protocol: Protocol::Tcp,
        networks: vec![IpRange { start: "10.0.0.1".parse().ok(), end: "10.0.0.9".parse().ok() }],
        ports: vec![PortRange { start: 8080, end: 8090 }],
        ..NetOutRule::default()
    };
    let mut live: Vec<(String, OwnedFd)> = Vec::new();
    let mut number = 0;
    let mut taken = Vec::new();
    for level in LEVELS {
        while live.len() < usize::try_from(level)? {
            interrupt.check()?;
            number += 1;
            live.push(plumbed(&networker, number, &mut |_, _| {})?);
        }
        let mut samples = Samples::default();
        for _ in 0..TIMED {
            interrupt.check()?;
            number += 1;
            let mut note = |call: usize, time: f64| samples[call].push(time);
            let (handle, namespace) = plumbed(&networker, number, &mut note)?;
            let began = now();
            networker.net_in(&handle, 0, 8080)?;
            note(2, milliseconds(began));
            let began = now();
            networker.net_out(&handle, std::slice::from_ref(&rule))?;
            note(3, milliseconds(began));
            let began = now();
            networker.destroy(&handle)?;
            note(4, milliseconds(began));
            drop(namespace);
        }
        taken.push((level, samples));
    }
    for (handle, _) in &live {
        networker.destroy(handle)?;
    }
    drop(live);
    networker.raze()?;
    Ok(taken)
}

fn milliseconds(began: u64) -> f64 {
    since(began).as_secs_f64() * 1000.0
}

/// A namespace with a link that belongs to a container.
fn plumbed(
    networker: &Networker,
    number: u32,
    note: &mut dyn FnMut(usize, f64),
) -> anyhow::Result<(String, OwnedFd)> {
    let namespace = namespaces::network().context("cannot make a network namespace")?;
    let began = now();
    networker.plumb(namespace.as_fd(), number)?;
    note(0, milliseconds(began));
    let handle = format!("bench-{number}");
    let began = now();
    networker.attach(&handle, number, "", || namespace.try_clone())?;
    note(1, milliseconds(began));
    Ok((handle, namespace))
}

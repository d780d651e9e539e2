//! Several machines on one switch.

use std::net::Ipv4Addr;

use anyhow::anyhow;

use crate::kernel::Kernel;
use crate::switch::Switch;
use crate::vm::{Machine, Place};

/// Machines `cell-1` to `cell-n` at 10.0.16.1 to 10.0.16.n on `eth0`. Their places count from 0,
/// and are their ports on the switch.
#[derive(Debug)]
pub struct Cluster {
    /// The machines, each at its place.
    pub machines: Vec<Machine>,
    /// What is between them.
    pub network: Switch,
    kernel: Kernel,
}

impl Cluster {
    /// Clones all machines at once; at most 250.
    pub fn start(kernel: Kernel, size: u8) -> anyhow::Result<Self> {
        let network = Switch::new()?;
        // All find the template made.
        crate::template::Template::of(kernel)?;
        let machines = std::thread::scope(|scope| {
            let network = &network;
            let started: Vec<_> =
                (0..size).map(|place| scope.spawn(move || start(kernel, network, place))).collect();
            let joined = started.into_iter().map(|machine| machine.join());
            joined
                .map(|machine| machine.map_err(|_| anyhow!("starting a machine panicked"))?)
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(Self { machines, network, kernel })
    }

    /// The address of the machine at a place.
    pub fn address(place: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 16, place + 1)
    }

    /// Replaces a machine by a new one in its place, as power off and on again. The disk is new.
    pub fn restart(&mut self, place: u8) -> anyhow::Result<()> {
        let machine = &mut self.machines[usize::from(place)];
        machine.kill();
        *machine = start(self.kernel, &self.network, place)?;
        Ok(())
    }
}

fn start(kernel: Kernel, network: &Switch, place: u8) -> anyhow::Result<Machine> {
    let place_on = Place {
        switch: network,
        port: usize::from(place),
        hardware: [0x52, 0x54, 0, 0, 1, place + 1],
        address: (Cluster::address(place), 24),
    };
    Machine::start_at(kernel, &format!("cell-{}", place + 1), Some(place_on))
}

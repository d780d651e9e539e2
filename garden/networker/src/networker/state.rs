//! What a networker knows of its links, and how threads share that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::egress::Egress;
use crate::error::Error;
use crate::firewall::Target;
use crate::offset::OffsetFile;
use crate::ports::PortPool;
use crate::reaper::Leaving;
use crate::socket::Socket;
use crate::subnets::{Lease, Subnets};

/// A link that waits for its container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parked {
    pub(super) index: u32,
    /// What the container's end is set to.
    pub(super) address: Option<Lease>,
    /// Whether that lease is still its own.
    pub(super) held: bool,
}

/// One mapped port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mapping {
    pub(super) host: u16,
    pub(super) container: u16,
    /// The host port is from the pool.
    pub(super) pooled: bool,
}

/// A container's network, as its record remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attached {
    pub(super) number: u32,
    pub(super) lease: Lease,
    pub(super) ports: Vec<Mapping>,
    /// In the order they were asked for.
    pub(super) egress: Vec<Egress>,
}

impl Attached {
    pub(super) fn target(&self, mapping: Mapping) -> Target {
        (self.lease.address, mapping.container)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(super) subnets: Subnets,
    pub(super) ports: PortPool,
    pub(super) offset: OffsetFile,
    pub(super) parked: BTreeMap<u32, Parked>,
    pub(super) attached: HashMap<String, Attached>,
    /// Who has mapped a host port, by the number of the link; the first one has it.
    pub(super) claims: BTreeMap<u16, Vec<(u32, Target)>>,
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) closing: bool,
    /// The kernel's table is what this state says.
    pub(super) settled: bool,
}

impl State {
    /// What a gone link held is free again.
    pub(crate) fn free(&mut self, gone: &Leaving) {
        if let Some(lease) = gone.lease {
            self.subnets.release(lease);
        }
        gone.ports.iter().for_each(|port| self.ports.release(*port));
    }

    pub(super) fn attached(&self, handle: &str) -> Result<&Attached, Error> {
        self.attached.get(handle).ok_or_else(|| Error::Unattached(handle.to_owned()))
    }

    /// Where host ports lead.
    pub(super) fn targets(&self) -> BTreeMap<u16, Target> {
        let first = |(port, claims): (&u16, &Vec<(u32, Target)>)| {
            claims.first().map(|(_, target)| (*port, *target))
        };
        self.claims.iter().filter_map(first).collect()
    }

    /// Enters a claim; whether the port was free.
    pub(super) fn claim(&mut self, port: u16, number: u32, target: Target) -> bool {
        let claims = self.claims.entry(port).or_default();
        claims.push((number, target));
        claims.len() == 1
    }

    /// Takes the last of equal claims away.
    pub(super) fn withdraw(&mut self, port: u16, number: u32, target: Target) {
        let Some(claims) = self.claims.get_mut(&port) else { return };
        if let Some(at) = claims.iter().rposition(|claim| *claim == (number, target)) {
            claims.remove(at);
        }
        if claims.is_empty() {
            self.claims.remove(&port);
        }
    }

    /// Takes one link's claims away. The host ports that lead elsewhere now: from where, to where.
    pub(super) fn disclaim(
        &mut self,
        number: u32,
        ports: &[Mapping],
    ) -> Vec<(u16, Target, Option<Target>)> {
        let hosts: HashSet<u16> = ports.iter().map(|mapping| mapping.host).collect();
        let mut changes = Vec::new();
        for host in hosts {
            let Some(claims) = self.claims.get_mut(&host) else { continue };
            let old = claims.first().copied();
            claims.retain(|(owner, _)| *owner != number);
            let new = claims.first().map(|(_, target)| *target);
            if claims.is_empty() {
                self.claims.remove(&host);
            }
            if let Some((_, old)) = old.filter(|(owner, _)| *owner == number) {
                changes.push((host, old, new));
            }
        }
        changes
    }
}

/// State and kernel of one networker, shared with its reaper.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Something was freed, or begins to leave.
    pub(crate) changed: Condvar,
    pub(super) route: Mutex<Socket>,
    pub(super) filter: Mutex<Socket>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn filter(&self) -> MutexGuard<'_, Socket> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` is satisfied or time is over; what it says at the end.
    pub(super) fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        patience: Duration,
        mut done: impl FnMut(&mut State) -> bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let deadline = Instant::now() + patience;
        loop {
            if done(&mut state) {
                return (state, true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (state, false);
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

//! The networker: which container has which link, address, ports and rules.
//!
//! ```text
//!          plumb             attach              destroy              link gone
//! (none) ────────> parked ──────────> attached ──────────> leaving ────────────> (none)
//!                     └───────────── unplumb ─────────────────┘
//! ```
//!
//! A parked link has an address ahead, so attaching it is bookkeeping; only a container that asks
//! for a subnet of its own is given another address then. A leaving link is removed by the kernel,
//! with the network namespace that its peer is in; its address and ports are free from then on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use garden_api::NetOutRule;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cidr::Ipv4Network;
use crate::egress::Egress;
use crate::error::Error;
use crate::firewall::{Member, Policy, TABLE_PREFIX, Target};
use crate::link::{self, Inside, Uplink};
use crate::namespace;
use crate::offset::OffsetFile;
use crate::ports::PortPool;
use crate::reaper::{self, Leaving};
use crate::resolver::{self, NameServers};
use crate::socket::{Protocol, Socket};
use crate::subnets::{Lease, Request, SubnetError, Subnets};
use crate::sysctl;

/// How long a create waits for what a destroyed container still holds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many leaving links there may be before destroys wait for them.
const BACKLOG: usize = 1024;
/// How long a destroy waits for the backlog.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_MTU: u32 = 1500;

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One to four letters or digits, in the names of the table and of links.
    pub tag: String,
    /// Pool of /30s.
    pub pool: Ipv4Network,
    /// Destinations that need a NetOut rule.
    pub deny: Vec<Ipv4Network>,
    /// Containers may open connections to the host.
    pub allow_host_access: bool,
    /// First port of the pool.
    pub port_pool_start: u16,
    /// Ports in the pool.
    pub port_pool_size: u16,
    /// The host's address; that of the default route when absent.
    pub external_ip: Option<Ipv4Addr>,
    /// Of links; that of the external interface, at most 1500, when absent.
    pub mtu: Option<u32>,
    /// Name servers.
    pub name_servers: NameServers,
    /// The host's resolver configurations; the first that names a server others can ask counts.
    pub host_resolvers: Vec<PathBuf>,
    /// Lines of every container's `/etc/hosts`.
    pub additional_hosts: Vec<String>,
    /// Where old values of sysctls and the head of the port queue are remembered. Made if absent.
    pub memory: PathBuf,
}

/// A container's addresses, as a Garden's properties name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The container's own.
    pub container: Ipv4Addr,
    /// The host's on the same link.
    pub host: Ipv4Addr,
    /// The host's towards everybody else.
    pub external: Ipv4Addr,
}

/// A link that waits for its container.
#[derive(Clone, Copy, Debug)]
struct Parked {
    index: u32,
    /// What the container's end is set to.
    address: Option<Lease>,
    /// Whether that lease is still its own.
    held: bool,
}

/// One mapped port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    host: u16,
    container: u16,
    /// The host port is from the pool.
    pooled: bool,
}

/// A container's network, as its record remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attached {
    number: u32,
    lease: Lease,
    ports: Vec<Mapping>,
    /// In the order they were asked for.
    egress: Vec<Egress>,
}

impl Attached {
    fn target(&self, mapping: Mapping) -> Target {
        (self.lease.address, mapping.container)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    subnets: Subnets,
    ports: PortPool,
    offset: OffsetFile,
    parked: BTreeMap<u32, Parked>,
    attached: HashMap<String, Attached>,
    /// Who has mapped a host port, by the number of the link; the first one has it.
    claims: BTreeMap<u16, Vec<(u32, Target)>>,
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) closing: bool,
    /// The kernel's table is what this state says.
    settled: bool,
}

impl State {
    /// What a gone link held is free again.
    pub(crate) fn free(&mut self, gone: &Leaving) {
        if let Some(lease) = gone.lease {
            self.subnets.release(lease);
        }
        gone.ports.iter().for_each(|port| self.ports.release(*port));
    }

    fn attached(&self, handle: &str) -> Result<&Attached, Error> {
        self.attached.get(handle).ok_or_else(|| Error::Unattached(handle.to_owned()))
    }

    /// Where host ports lead.
    fn targets(&self) -> BTreeMap<u16, Target> {
        let first = |(port, claims): (&u16, &Vec<(u32, Target)>)| {
            claims.first().map(|(_, target)| (*port, *target))
        };
        self.claims.iter().filter_map(first).collect()
    }

    /// Enters a claim; whether the port was free.
    fn claim(&mut self, port: u16, number: u32, target: Target) -> bool {
        let claims = self.claims.entry(port).or_default();
        claims.push((number, target));
        claims.len() == 1
    }

    /// Takes one link's claims away. The host ports that lead elsewhere now: from where, to where.
    fn disclaim(&mut self, number: u32, ports: &[Mapping]) -> Vec<(u16, Target, Option<Target>)> {
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
    route: Mutex<Socket>,
    filter: Mutex<Socket>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filter(&self) -> MutexGuard<'_, Socket> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` is satisfied or time is over; what it says at the end.
    fn wait<'a>(
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

/// The network of all containers of one daemon. It lives in the network namespace of the thread
/// that started it. Calls block.
#[derive(Debug)]
pub struct Networker {
    settings: Settings,
    policy: Policy,
    uplink: Uplink,
    host_resolver: String,
    shared: Arc<Shared>,
    namespace: OwnedFd,
    reaper: Option<JoinHandle<()>>,
}

impl Networker {
    /// Starts a networker, setting the host's sysctls that it needs. The rules of an earlier one
    /// stay as they are until [`Networker::settle`].
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let known = |byte: u8| byte.is_ascii_alphanumeric();
        if !matches!(settings.tag.len(), 1..=4) || !settings.tag.bytes().all(known) {
            return Err(Error::Tag(settings.tag));
        }
        let open = |protocol| Socket::open(protocol).map_err(Error::io("open a netlink socket"));
        let mut route = open(Protocol::Route)?;
        let filter = open(Protocol::Netfilter)?;
        let reapers = open(Protocol::Route)?;
        let uplink = uplink(&mut route, &settings)?;
        let host_resolver = host_resolver(&settings.host_resolvers);
        let policy = Policy {
            table: format!("{TABLE_PREFIX}{}", settings.tag),
            links: format!("w{}-", settings.tag),
            external: uplink.address,
            denied: settings.deny.clone(),
            host_access: settings.allow_host_access,
            name_server: resolver::loopback_server(&settings.name_servers, &host_resolver),
        };
        let memory = &settings.memory;
        fs::create_dir_all(memory).map_err(Error::io(format!("make {}", memory.display())))?;
        sysctl::set(&memory.join("sysctls.json")).map_err(Error::io("set a sysctl"))?;
        let offset = OffsetFile::open(&memory.join("ports.json"))
            .map_err(Error::io("open the head of the port queue"))?;
        let ports =
            PortPool::new(settings.port_pool_start, settings.port_pool_size, offset.initial())?;
        let namespace = fs::File::open("/proc/thread-self/ns/net")
            .map_err(Error::io("open the host's network namespace"))?;
        let state = State {
            subnets: Subnets::new(settings.pool),
            ports,
            offset,
            parked: BTreeMap::new(),
            attached: HashMap::new(),
            claims: BTreeMap::new(),
            leaving: Vec::new(),
            closing: false,
            settled: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            route: Mutex::new(route),
            filter: Mutex::new(filter),
        });
        let reaper = reaper::start(Arc::clone(&shared), reapers)
            .map_err(Error::io("start the reaper's thread"))?;
        let namespace = namespace.into();
        let reaper = Some(reaper);
        Ok(Self { settings, policy, uplink, host_resolver, shared, namespace, reaper })
    }

    /// Subnets in the pool.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.shared.state().subnets.capacity()
    }

    fn link_name(&self, number: u32) -> String {
        format!("{}{number}", self.policy.links)
    }

    fn mtu(&self) -> u32 {
        self.settings.mtu.unwrap_or(self.uplink.mtu.min(LARGEST_MTU))
    }

    /// Gives a network namespace its link, with the next address of the pool if there is one.
    /// `number` names the link and is never used twice while links of this daemon exist. After an
    /// error the link, if it was made, goes with the namespace.
    pub fn plumb(&self, namespace: BorrowedFd<'_>, number: u32) -> Result<(), Error> {
        let name = self.link_name(number);
        let attempt = || format!("make the link {name}");
        let index = link::create(&mut self.shared.route(), &name, number, namespace, self.mtu())
            .map_err(Error::io(attempt()))?;
        let lease = self.shared.state().subnets.acquire(Request::Dynamic).ok();
        let parked = Parked { index, address: lease, held: lease.is_some() };
        self.shared.state().parked.insert(number, parked);
        let made = link::address_container(namespace, Inside { number, old: None, new: lease })
            .map_err(Error::io(attempt()))
            .and_then(|()| lease.map_or(Ok(()), |lease| self.welcome(number, index, lease)));
        if made.is_err() {
            self.unplumb(number);
        }
        made
    }

    /// The host's side of a fresh link.
    fn welcome(&self, number: u32, index: u32, lease: Lease) -> Result<(), Error> {
        let name = self.link_name(number);
        link::address_host(&mut self.shared.route(), index, number, lease)
            .map_err(Error::io(format!("give {name} an address")))?;
        let state = self.shared.state();
        let shared = !state.subnets.is_dynamic(lease.subnet);
        let member = Member { link: &name, lease, shared, handle: "", egress: &[] };
        self.committed(&state, |policy, socket| policy.enter(socket, &member))
    }

    /// Has the kernel change the table. If somebody has taken our table away it is made anew from
    /// the state, which `state` must have the change in already.
    fn committed(
        &self,
        state: &State,
        change: impl FnOnce(&Policy, &mut Socket) -> io::Result<()>,
    ) -> Result<(), Error> {
        if !state.settled {
            return Ok(());
        }
        let mut socket = self.shared.filter();
        match change(&self.policy, &mut socket) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
                tracing::warn!(table = self.policy.table, "rules are missing; making all of them");
                self.rebuild(state, &mut socket)
            }
            outcome => outcome,
        }
        .map_err(Error::io(format!("change the rules of {}", self.policy.table)))
    }

    fn rebuild(&self, state: &State, socket: &mut Socket) -> io::Result<()> {
        struct Row<'a> {
            link: String,
            lease: Lease,
            handle: &'a str,
            egress: &'a [Egress],
        }
        let parked = state.parked.iter().filter_map(|(number, parked)| {
            let lease = parked.address.filter(|_| parked.held)?;
            Some(Row { link: self.link_name(*number), lease, handle: "", egress: &[] })
        });
        let attached = state.attached.iter().map(|(handle, attached)| Row {
            link: self.link_name(attached.number),
            lease: attached.lease,
            handle,
            egress: &attached.egress,
        });
        let rows: Vec<_> = parked.chain(attached).collect();
        let members = rows.iter().map(|row| Member {
            link: &row.link,
            lease: row.lease,
            shared: !state.subnets.is_dynamic(row.lease.subnet),
            handle: row.handle,
            egress: row.egress,
        });
        self.policy.rebuild(socket, members, &state.targets())
    }

    /// Takes an unused link away. Its namespace must be about to go; a link that has become a
    /// container's is left to its destroy.
    pub fn unplumb(&self, number: u32) {
        let mut state = self.shared.state();
        let Some(parked) = state.parked.remove(&number) else { return };
        let link = self.link_name(number);
        let lease = parked.address.filter(|_| parked.held);
        if let Some(lease) = lease {
            let member = Member { link: &link, lease, shared: false, handle: "", egress: &[] };
            if let Err(error) = self.dismiss(&state, &member, &[]) {
                tracing::warn!(link, %error, "an unused link's rules are left behind");
            }
        }
        state.leaving.push(Leaving::new(link, lease, Vec::new()));
        self.shared.changed.notify_all();
    }

    fn dismiss(
        &self,
        state: &State,
        member: &Member<'_>,
        ports: &[(u16, Target, Option<Target>)],
    ) -> Result<(), Error> {
        self.committed(state, |policy, socket| policy.leave(socket, member, ports))
    }

    /// Makes a parked link a container's. `request` is the field `network` of its specification,
    /// `namespace` opens its network namespace if that has to be entered.
    pub fn attach(
        &self,
        handle: &str,
        number: u32,
        request: &str,
        namespace: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let request = Request::parse(request)?;
        let mut state = self.shared.state();
        let parked =
            *state.parked.get(&number).ok_or_else(|| Error::Unattached(self.link_name(number)))?;
        let ahead = parked.address.filter(|_| parked.held && request == Request::Dynamic);
        let lease = match ahead {
            Some(lease) => lease,
            None => {
                let (unlocked, lease) = self.lease(state, request)?;
                drop(unlocked);
                if let Err(error) = self.readdress(number, parked, lease, namespace) {
                    self.shared.state().subnets.release(lease);
                    self.shared.changed.notify_all();
                    return Err(error);
                }
                state = self.shared.state();
                lease
            }
        };
        state.parked.remove(&number);
        let attached = Attached { number, lease, ports: Vec::new(), egress: Vec::new() };
        state.attached.insert(handle.to_owned(), attached);
        Ok(())
    }

    /// Takes an address, from a parked link if need be, or as soon as a leaving link is gone.
    fn lease<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        request: Request,
    ) -> Result<(MutexGuard<'a, State>, Lease), Error> {
        let mut outcome = state.subnets.acquire(request);
        if outcome == Err(SubnetError::PoolExhausted) && self.revoke(&mut state)? {
            outcome = state.subnets.acquire(request);
        }
        if outcome.is_err() && !state.leaving.is_empty() {
            (state, _) = self.shared.wait(state, PATIENCE, |state| {
                outcome = state.subnets.acquire(request);
                outcome.is_ok() || state.leaving.is_empty()
            });
        }
        Ok((state, outcome?))
    }

    /// Takes the lease of some parked link back; whether there was one.
    fn revoke(&self, state: &mut State) -> Result<bool, Error> {
        let found = state.parked.iter().find_map(|(number, parked)| {
            let lease = parked.address.filter(|_| parked.held)?;
            Some((*number, parked.index, lease))
        });
        let Some((number, index, lease)) = found else { return Ok(false) };
        let link = self.link_name(number);
        if let Some(parked) = state.parked.get_mut(&number) {
            parked.held = false;
        }
        let member = Member { link: &link, lease, shared: false, handle: "", egress: &[] };
        self.dismiss(state, &member, &[])?;
        link::unaddress_host(&mut self.shared.route(), index, lease)
            .map_err(Error::io(format!("take the address of {link} back")))?;
        state.subnets.release(lease);
        Ok(true)
    }

    /// Exchanges the address of a parked link, which afterwards holds `lease` alone.
    fn readdress(
        &self,
        number: u32,
        parked: Parked,
        lease: Lease,
        namespace: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let link = self.link_name(number);
        let attempt = || format!("give {link} the address {}", lease.address);
        let namespace = namespace().map_err(Error::io(attempt()))?;
        let inside = Inside { number, old: parked.address, new: Some(lease) };
        link::address_container(namespace.as_fd(), inside).map_err(Error::io(attempt()))?;
        let old = {
            let mut state = self.shared.state();
            let parked = state.parked.get_mut(&number);
            let old = parked.and_then(|parked| {
                let old = parked.address.filter(|_| parked.held);
                (parked.address, parked.held) = (Some(lease), false);
                old
            });
            if let Some(old) = old {
                let member =
                    Member { link: &link, lease: old, shared: false, handle: "", egress: &[] };
                self.dismiss(&state, &member, &[])?;
            }
            old
        };
        if let Some(old) = old {
            link::unaddress_host(&mut self.shared.route(), parked.index, old)
                .map_err(Error::io(attempt()))?;
            self.shared.state().subnets.release(old);
            self.shared.changed.notify_all();
        }
        self.welcome(number, parked.index, lease)
    }

    /// Maps a port of the host to one of the container: 0 for a port of the pool, and for the same
    /// port. Returns the ports in effect.
    pub fn net_in(&self, handle: &str, host: u32, container: u32) -> Result<(u16, u16), Error> {
        let narrow = |port: u32| u16::try_from(port).map_err(|_| Error::PortOutOfRange(port));
        let (host, container) = (narrow(host)?, narrow(container)?);
        let mut state = self.shared.state();
        state.attached(handle)?;
        let pooled = host == 0;
        let host = if pooled {
            let (unlocked, port) = self.pool_port(state)?;
            state = unlocked;
            port
        } else {
            host
        };
        let mapping =
            Mapping { host, container: if container == 0 { host } else { container }, pooled };
        let mapped = self.map(&mut state, handle, mapping);
        if let Err(error) = mapped {
            if pooled {
                state.ports.release(host);
            }
            return Err(error);
        }
        Ok((mapping.host, mapping.container))
    }

    fn pool_port<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<(MutexGuard<'a, State>, u16), Error> {
        let mut outcome = state.ports.acquire();
        if outcome.is_err() && !state.leaving.is_empty() {
            (state, _) = self.shared.wait(state, PATIENCE, |state| {
                outcome = state.ports.acquire();
                outcome.is_ok() || state.leaving.is_empty()
            });
        }
        let port = outcome?;
        let head = state.ports.offset();
        if let Err(source) = state.offset.save(head) {
            state.ports.release(port);
            return Err(Error::Io {
                attempt: "remember the head of the port queue".into(),
                source,
            });
        }
        Ok((state, port))
    }

    fn map(&self, state: &mut State, handle: &str, mapping: Mapping) -> Result<(), Error> {
        let attached =
            state.attached.get_mut(handle).ok_or_else(|| Error::Unattached(handle.to_owned()))?;
        attached.ports.push(mapping);
        let (number, target) = (attached.number, attached.target(mapping));
        if !state.claim(mapping.host, number, target) {
            return Ok(());
        }
        let mapped =
            self.committed(state, |policy, socket| policy.map_port(socket, mapping.host, target));
        if mapped.is_err() {
            state.disclaim(number, &[mapping]);
            if let Some(attached) = state.attached.get_mut(handle) {
                attached.ports.pop();
            }
        }
        mapped
    }

    /// Allows traffic out of the container. Either all rules take effect or none.
    pub fn net_out(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        let rules: Vec<_> = rules.iter().map(Egress::try_from).collect::<Result<_, _>>()?;
        let mut state = self.shared.state();
        let Some(attached) = state.attached.get_mut(handle) else {
            return Err(Error::Unattached(handle.to_owned()));
        };
        if rules.is_empty() {
            return Ok(());
        }
        let before = attached.egress.len();
        attached.egress.extend(rules.iter().cloned());
        let link = self.link_name(attached.number);
        let allowed =
            self.committed(&state, |policy, socket| policy.allow(socket, &link, handle, &rules));
        if let Some(attached) = state.attached.get_mut(handle).filter(|_| allowed.is_err()) {
            attached.egress.truncate(before);
        }
        allowed
    }

    /// What must be remembered of a container; `None` if it has no network.
    pub fn state(&self, handle: &str) -> Option<serde_json::Value> {
        let state = self.shared.state();
        let attached = state.attached.get(handle)?;
        serde_json::to_value(attached)
            .inspect_err(|error| tracing::error!(handle, %error, "network state has no JSON form"))
            .ok()
    }

    /// Takes a container's network up again, as [`Networker::state`] gave it to an earlier life.
    pub fn restore(&self, handle: &str, remembered: &serde_json::Value) -> Result<(), Error> {
        let attached = Attached::deserialize(remembered)
            .map_err(|source| Error::State { handle: handle.to_owned(), source })?;
        let mut state = self.shared.state();
        state.subnets.reclaim(attached.lease)?;
        for (place, mapping) in attached.ports.iter().enumerate() {
            let taken = if mapping.pooled { state.ports.remove(mapping.host) } else { Ok(()) };
            if let Err(error) = taken {
                let before = attached.ports[..place].iter().filter(|mapping| mapping.pooled);
                before.for_each(|mapping| state.ports.release(mapping.host));
                state.subnets.release(attached.lease);
                return Err(error.into());
            }
        }
        for mapping in &attached.ports {
            state.claim(mapping.host, attached.number, attached.target(*mapping));
        }
        state.attached.insert(handle.to_owned(), attached);
        Ok(())
    }

    /// Once all containers of an earlier life are restored: makes the kernel's rules theirs, in one
    /// step that no packet of theirs notices. Links and rules of all others go.
    pub fn settle(&self, handles: &HashSet<&str>) -> Result<(), Error> {
        let strays: Vec<_> = {
            let state = self.shared.state();
            let handles = state.attached.keys().filter(|handle| !handles.contains(handle.as_str()));
            handles.cloned().collect()
        };
        strays.iter().try_for_each(|handle| self.destroy(handle))?;
        let mut state = self.shared.state();
        let numbers: HashSet<String> = state
            .attached
            .values()
            .map(|attached| attached.number)
            .chain(state.parked.keys().copied())
            .map(|number| self.link_name(number))
            .collect();
        self.rebuild(&state, &mut self.shared.filter())
            .map_err(Error::io(format!("make the rules of {}", self.policy.table)))?;
        state.settled = true;
        drop(state);
        self.delete_links(&numbers)
    }

    fn delete_links(&self, wanted: &HashSet<String>) -> Result<(), Error> {
        let mut route = self.shared.route();
        let links =
            link::list(&mut route, &self.policy.links).map_err(Error::io("list the links"))?;
        for link in links.iter().filter(|link| !wanted.contains(&link.name)) {
            tracing::info!(link = link.name, "deleting a link that belongs to no container");
            link::delete(&mut route, &link.name)
                .map_err(Error::io(format!("delete the link {}", link.name)))?;
        }
        Ok(())
    }

    /// A container's addresses; `None` if it has no network.
    pub fn addresses(&self, handle: &str) -> Option<Addresses> {
        let lease = self.shared.state().attached(handle).ok()?.lease;
        let (container, host) = (lease.address, lease.gateway());
        Some(Addresses { container, host, external: self.uplink.address })
    }

    /// Content of a container's `/etc/hosts`.
    #[must_use]
    pub fn hosts(&self, handle: &str) -> String {
        let address = self.addresses(handle).map(|addresses| IpAddr::V4(addresses.container));
        resolver::hosts(handle, address.as_slice(), &self.settings.additional_hosts)
    }

    /// Content of a container's `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self, handle: &str) -> String {
        let gateway = self.addresses(handle).map(|addresses| addresses.host);
        resolver::resolv_conf(&self.settings.name_servers, &self.host_resolver, gateway)
    }

    /// Takes the network of a container whose processes have ended down. Its rules are gone
    /// afterwards; its address and ports are free as soon as its link is gone. A container without
    /// a network is no error.
    pub fn destroy(&self, handle: &str) -> Result<(), Error> {
        let state = self.shared.state();
        if !state.attached.contains_key(handle) {
            return Ok(());
        }
        let room = |state: &mut State| state.leaving.len() < BACKLOG;
        let (mut state, room) = self.shared.wait(state, BACKLOG_PATIENCE, room);
        if !room {
            return Err(Error::Backlog(state.leaving.len()));
        }
        let Some(attached) = state.attached.remove(handle) else { return Ok(()) };
        let link = self.link_name(attached.number);
        let changes = state.disclaim(attached.number, &attached.ports);
        let member = Member {
            link: &link,
            lease: attached.lease,
            shared: false,
            handle,
            egress: &attached.egress,
        };
        if let Err(error) = self.dismiss(&state, &member, &changes) {
            for mapping in &attached.ports {
                state.claim(mapping.host, attached.number, attached.target(*mapping));
            }
            state.attached.insert(handle.to_owned(), attached);
            return Err(error);
        }
        let ports = attached.ports.iter().filter(|mapping| mapping.pooled);
        let ports = ports.map(|mapping| mapping.host).collect();
        state.leaving.push(Leaving::new(link, Some(attached.lease), ports));
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Removes what the networker has made on the host: rules, links, settings.
    pub fn raze(&self) -> Result<(), Error> {
        let state = self.shared.state();
        let (mut state, _) =
            self.shared.wait(state, BACKLOG_PATIENCE, |state| state.leaving.is_empty());
        state.settled = false;
        drop(state);
        self.delete_links(&HashSet::new())?;
        let mut filter = self.shared.filter();
        self.policy
            .delete(&mut filter)
            .map_err(Error::io(format!("delete the table {}", self.policy.table)))?;
        let neighbours =
            self.policy.neighbours(&mut filter).map_err(Error::io("list the tables"))?;
        let sysctls = self.settings.memory.join("sysctls.json");
        if neighbours.is_empty() {
            namespace::inside(self.namespace.as_fd(), || sysctl::restore(&sysctls))
                .map_err(Error::io("put a sysctl back"))?;
        } else {
            tracing::info!(?neighbours, "sysctls stay as they are for other daemons");
        }
        match fs::remove_dir_all(&self.settings.memory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.settings.memory.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Networker {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        if self.reaper.take().is_some_and(|reaper| reaper.join().is_err()) {
            tracing::error!("the reaper's thread died");
        }
    }
}

/// The host's way out. Without one, ports are mapped on 127.0.0.1 alone.
fn uplink(route: &mut Socket, settings: &Settings) -> Result<Uplink, Error> {
    let failed = || Error::io("find the host's external interface");
    let nowhere = |address| Uplink { address, mtu: LARGEST_MTU };
    if let Some(address) = settings.external_ip {
        let found = link::uplink_of(route, address).map_err(failed())?;
        return Ok(found.unwrap_or(nowhere(address)));
    }
    let found = link::default_uplink(route).map_err(failed())?;
    Ok(found.unwrap_or_else(|| {
        tracing::warn!("no default route: containers' ports are reached by 127.0.0.1 only");
        nowhere(Ipv4Addr::LOCALHOST)
    }))
}

/// The first of the files that names a server which others than the host can ask, else the first.
fn host_resolver(files: &[PathBuf]) -> String {
    let texts: Vec<_> =
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let useful = texts.iter().find(|text| resolver::names_servers(text));
    useful.or(texts.first()).cloned().unwrap_or_default()
}

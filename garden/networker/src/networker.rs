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

mod mapping;
mod parking;
mod rules;
mod settings;
mod state;
mod succession;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Error;
use crate::firewall::{Member, Policy, TABLE_PREFIX};
use crate::link::Uplink;
use crate::namespace;
use crate::obstacle::{Obstacle, obstacles};
use crate::offset::OffsetFile;
use crate::ports::PortPool;
use crate::reaper::{self, Leaving};
use crate::resolver;
use crate::socket::{Protocol, Socket};
use crate::subnets::Subnets;
use crate::sysctl;

use settings::{LARGEST_MTU, uplink};
use state::State;

pub(crate) use settings::MTUS;
pub use settings::{Settings, external_address, host_resolver};
pub(crate) use state::Shared;

/// How long a create waits for what a destroyed container still holds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many leaving links there may be before destroys wait for them.
const BACKLOG: usize = 1024;
/// How long a destroy waits for the backlog.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(10);
/// In the networker's memory: sysctls as they were.
const SYSCTLS: &str = "sysctls.json";

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
        if let Some(mtu) = settings.mtu.filter(|mtu| !MTUS.contains(mtu)) {
            return Err(Error::Mtu(mtu));
        }
        let subnets = Subnets::new(settings.pool);
        if subnets.capacity() == 0 {
            return Err(Error::PoolTooSmall(settings.pool));
        }
        let open = |protocol| Socket::open(protocol).map_err(Error::io("open a netlink socket"));
        let mut route = open(Protocol::Route)?;
        let mut filter = open(Protocol::Netfilter)?;
        let reapers = open(Protocol::Route)?;
        let uplink = uplink(&mut route, settings.external_ip)?;
        let host_resolver = host_resolver(&settings.host_resolvers);
        let mut policy = Policy {
            table: format!("{TABLE_PREFIX}{}", settings.tag),
            comment: String::new(),
            links: format!("w{}-", settings.tag),
            external: uplink.address,
            denied: settings.deny.clone(),
            host_access: settings.allow_host_access,
            name_server: resolver::loopback_server(&settings.name_servers, &host_resolver),
        };
        let memory = &settings.memory;
        fs::create_dir_all(memory).map_err(Error::io(format!("make {}", memory.display())))?;
        let offset = OffsetFile::open(&memory.join("ports.json"))
            .map_err(Error::io("open the head of the port queue"))?;
        let ports =
            PortPool::new(settings.port_pool_start, settings.port_pool_size, offset.initial())?;
        let namespace = fs::File::open("/proc/thread-self/ns/net")
            .map_err(Error::io("open the host's network namespace"))?;
        set_sysctls(&mut policy, &mut filter, &memory.join(SYSCTLS))?;
        let state = State {
            subnets,
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

    /// Rules of others that keep containers' packets on the host at this moment.
    pub fn obstacles(&self) -> Result<Vec<Obstacle>, Error> {
        obstacles(&mut self.shared.filter(), &self.policy.links)
            .map_err(Error::io("look for rules that drop what is forwarded"))
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
        namespace::inside(self.namespace.as_fd(), || Ok(self.withdraw()))
            .map_err(Error::io("enter the host's network namespace"))??;
        match fs::remove_dir_all(&self.settings.memory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.settings.memory.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the rules away, and the sysctls back unless another daemon needs them. The calling
    /// thread is in the host's network namespace.
    fn withdraw(&self) -> Result<(), Error> {
        let mut filter = self.shared.filter();
        let _turn = sysctl::Turn::take().map_err(Error::io("wait for other daemons"))?;
        self.policy
            .delete(&mut filter)
            .map_err(Error::io(format!("delete the table {}", self.policy.table)))?;
        let neighbours =
            self.policy.neighbours(&mut filter).map_err(Error::io("list the tables"))?;
        if neighbours.is_empty() {
            sysctl::restore(&self.settings.memory.join(SYSCTLS))
                .map_err(Error::io("put a sysctl back"))
        } else {
            tracing::info!(?neighbours, "sysctls stay as they are for other daemons");
            Ok(())
        }
    }
}

/// Sets what the network needs, once it is written down how it was before.
fn set_sysctls(policy: &mut Policy, filter: &mut Socket, memory: &Path) -> Result<(), Error> {
    let _turn = sysctl::Turn::take().map_err(Error::io("wait for other daemons"))?;
    let neighbours = policy.neighbours(filter).map_err(Error::io("list the tables"))?;
    let comments = neighbours.iter().map(|table| table.comment.as_str());
    let before = sysctl::Before::learn(memory, comments)
        .map_err(Error::io(format!("remember the sysctls in {}", memory.display())))?;
    policy.comment = before.to_string();
    policy.announce(filter).map_err(Error::io(format!("make the table {}", policy.table)))?;
    sysctl::set().map_err(Error::io("set a sysctl"))
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

//! A small world of network namespaces: a host with a networker, an outside beyond its uplink, and
//! containers.
//!
//! ```text
//! outside 192.0.2.9 ── veth ── 192.0.2.1 host ── networker's links ── containers
//! ```
//!
//! The outside knows no way to containers but the host's own address.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use garden_networker::{Addresses, NameServers, Networker, Settings};

use super::place;
pub use super::place::{PATIENCE, Place, exchange, talk};

pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// Long enough to be sure that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(400);

pub struct World {
    pub host: Place,
    pub outside: Place,
    pub settings: Settings,
    networker: Option<Networker>,
    numbers: AtomicU32,
    _memory: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut Settings)) -> Self {
        let (host, outside) = (Place::new(), Place::new());
        place::uplink(&host, HOST, &outside, OUTSIDE);
        // A new namespace begins with what the machine has (ip-sysctl, devconf_inherit_init_net).
        host.run("sysctl -q -w net.ipv4.ip_forward=0");
        let memory = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            tag: "t".into(),
            pool: "10.254.0.0/22".parse().unwrap(),
            deny: Vec::new(),
            allow_host_access: false,
            port_pool_start: 61001,
            port_pool_size: 100,
            external_ip: None,
            mtu: None,
            name_servers: NameServers::default(),
            host_resolvers: vec![memory.path().join("resolv.conf")],
            additional_hosts: Vec::new(),
            memory: memory.path().join("network"),
        };
        fs::write(memory.path().join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
        adjust(&mut settings);
        let numbers = AtomicU32::new(1);
        let mut world = Self { host, outside, settings, networker: None, numbers, _memory: memory };
        world.start();
        world.networker().settle(&Default::default()).unwrap();
        world
    }

    /// Starts the networker, in the host's namespace.
    pub fn start(&mut self) {
        let settings = self.settings.clone();
        self.networker = Some(self.host.inside(|| Networker::start(settings)).unwrap());
    }

    /// Ends the networker as kill -9 would: nothing is taken down.
    pub fn kill(&mut self) {
        self.networker = None;
    }

    pub fn networker(&self) -> &Networker {
        self.networker.as_ref().unwrap()
    }

    pub fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A parked link in a namespace of its own.
    pub fn park(&self) -> (Place, u32) {
        let (place, number) = (Place::new(), self.number());
        self.networker().plumb(place.fd(), number).unwrap();
        (place, number)
    }

    pub fn container(&self, handle: &str) -> Container {
        self.container_in(handle, "").unwrap()
    }

    pub fn container_in(&self, handle: &str, network: &str) -> Result<Container, String> {
        let (place, number) = self.park();
        let namespace = || place.fd().try_clone_to_owned();
        if let Err(error) = self.networker().attach(handle, number, network, namespace) {
            drop(place);
            self.networker().unplumb(number);
            return Err(error.to_string());
        }
        let addresses = self.networker().addresses(handle).unwrap();
        Ok(Container { handle: handle.to_owned(), place, addresses })
    }

    /// Ends a container.
    pub fn destroy(&self, container: Container) {
        drop(container.place);
        self.networker().destroy(&container.handle).unwrap();
    }

    /// Links of the networker on the host.
    pub fn links(&self) -> Vec<String> {
        let listed = self.host.run("ip -o link show");
        let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.map(|name| name.split('@').next().unwrap().to_owned());
        names.filter(|name| name.starts_with("wt-")).collect()
    }

    pub fn rules(&self) -> String {
        self.host.run("nft list ruleset")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let rules = self.host.inside(|| Command::new("nft").args(["list", "ruleset"]).output());
            eprintln!("{}", String::from_utf8_lossy(&rules.unwrap().stdout));
        }
    }
}

/// A container's network namespace.
pub struct Container {
    pub handle: String,
    pub place: Place,
    pub addresses: Addresses,
}

impl Container {
    pub fn address(&self) -> Ipv4Addr {
        self.addresses.container
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

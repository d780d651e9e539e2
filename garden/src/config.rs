//! What an operator decides about a Garden.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket, made with this mode.
    Unix {
        /// Its path; a stale socket there is replaced.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// TCP.
    Tcp(SocketAddr),
}

/// The built-in networker's part.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Pool of /30 subnets for containers that ask for none, in CIDR notation.
    pub pool: String,
    /// Destinations that containers may not reach unless a NetOut rule allows it, in CIDR notation.
    pub deny: Vec<String>,
    /// Containers may open connections to the host.
    pub allow_host_access: bool,
    /// First host port for NetIn.
    pub port_pool_start: u16,
    /// How many host ports for NetIn.
    pub port_pool_size: u16,
    /// The host's address as others see it; found from the default route when absent.
    pub external_ip: Option<Ipv4Addr>,
    /// Of containers' links; the external interface's, at most 1500, when absent.
    pub mtu: Option<u32>,
    /// Instead of the host's name servers.
    pub dns_servers: Vec<IpAddr>,
    /// In addition to either.
    pub additional_dns_servers: Vec<IpAddr>,
    /// Lines added to every container's `/etc/hosts`.
    pub additional_hosts: Vec<String>,
}

/// A program of the operator's that does a part of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// Its path.
    pub program: PathBuf,
    /// Arguments before those of the contract.
    pub arguments: Vec<String>,
    /// How long a run may take; it is killed then.
    pub patience: Duration,
}

/// A whole Garden's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Containers' records; lives no longer than the host runs.
    pub depot: PathBuf,
    /// The supervisor's socket and log.
    pub run: PathBuf,
    /// Images and containers' writable layers.
    pub store: PathBuf,
    /// Tells apart several Gardens on one host: in names of links, rules and cgroups. One or two
    /// letters or digits.
    pub tag: String,
    /// The image of containers that name none.
    pub default_rootfs: Option<PathBuf>,
    /// Image references served from local directories, tars and OCI layouts.
    pub image_aliases: BTreeMap<String, PathBuf>,
    /// Grace time of containers that name none; zero is for ever.
    pub default_grace_time: Duration,
    /// Beyond the number of subnets; 0 is no further limit.
    pub max_containers: u64,
    /// Forget a process's exit status once a client has had it.
    pub forget_processes_on_wait: bool,
    /// Refuse privileged containers.
    pub disable_privileged: bool,
    /// Destroy what an earlier daemon left instead of taking it over.
    pub destroy_on_start: bool,
    /// Let processes swap beyond the memory limit.
    pub disable_swap_limit: bool,
    /// `cpu.max` per share in microseconds of each 100 ms; 0 is no quota.
    pub cpu_quota_per_share: u64,
    /// CPUEntitlement per share in percent; computed from cores and memory when absent.
    pub cpu_entitlement_per_share: Option<f64>,
    /// Count the traffic of containers whose property `garden.network.interface` names an interface.
    pub network_metrics: bool,
    /// Set no_new_privs for unprivileged containers' processes.
    pub no_new_privileges: bool,
    /// The AppArmor profile of unprivileged containers' processes; it has to be loaded.
    pub apparmor: Option<String>,
    /// Parked containers kept ready.
    pub pool: usize,
    /// Copy images for unprivileged containers, as on a file system without idmapped mounts, instead
    /// of trying such mounts first.
    pub shift_by_copy: bool,
    /// What understands `inside …` and is run in containers for their streams: the daemon itself.
    pub own_program: PathBuf,
    /// The networker.
    pub network: NetworkConfig,
    /// Connects containers instead of the networker.
    pub network_plugin: Option<PluginConfig>,
    /// Makes the root file systems of unprivileged containers. If this or the other one is there,
    /// the store makes none.
    pub image_plugin: Option<PluginConfig>,
    /// Makes those of privileged containers.
    pub privileged_image_plugin: Option<PluginConfig>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            pool: "10.254.0.0/22".into(),
            deny: Vec::new(),
            allow_host_access: false,
            port_pool_start: 61001,
            port_pool_size: 4534,
            external_ip: None,
            mtu: None,
            dns_servers: Vec::new(),
            additional_dns_servers: Vec::new(),
            additional_hosts: Vec::new(),
        }
    }
}

impl Default for Config {
    /// The places and numbers of a daemon that is started without flags.
    fn default() -> Self {
        Self {
            listen: Listen::Unix { path: "/run/bloomery/garden.sock".into(), mode: 0o660 },
            depot: "/run/bloomery/depot".into(),
            run: "/run/bloomery/keeper".into(),
            store: "/var/lib/bloomery/garden".into(),
            tag: "b".into(),
            default_rootfs: None,
            image_aliases: BTreeMap::new(),
            default_grace_time: Duration::ZERO,
            max_containers: 0,
            forget_processes_on_wait: false,
            disable_privileged: false,
            destroy_on_start: false,
            disable_swap_limit: false,
            cpu_quota_per_share: 0,
            cpu_entitlement_per_share: None,
            network_metrics: false,
            no_new_privileges: false,
            apparmor: None,
            pool: 8,
            shift_by_copy: false,
            own_program: "/proc/self/exe".into(),
            network: NetworkConfig::default(),
            network_plugin: None,
            image_plugin: None,
            privileged_image_plugin: None,
        }
    }
}

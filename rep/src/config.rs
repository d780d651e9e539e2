//! What an operator sets, in the original's words (its `rep.json`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use bbs_models::actual_lrp_net_info::PreferredAddress;
use bloomery_garden::client::Address as GardenAddress;
use executor::{Authority, CheckFrom, Helper, Transfers};
use locket::Timing;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use transport::configured::{self, Bare, ConfigError, duration, period};
use transport::{Address, Identity, Listener};

use crate::cell::Cell;
use crate::error::Error;
use crate::recipe::{Layering, Recipes};
use crate::root_fs::RootFses;

/// The original's configuration file, as far as it is read here. Other keys are ignored; what asks
/// for something that is not served is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are the original's, and so is what they mean")]
pub struct Config {
    pub cell_id: String,
    pub cell_index: i32,
    pub zone: String,
    pub placement_tags: Vec<String>,
    pub optional_placement_tags: Vec<String>,
    #[serde(deserialize_with = "stacks")]
    pub preloaded_root_fs: BTreeMap<String, String>,
    pub supported_providers: Vec<String>,
    /// `single-layer` or `two-layer`.
    pub layering_mode: String,

    /// The cell's own address, `HOST:PORT` for mutual TLS or an [`Address`].
    pub listen_addr: String,
    /// The network's address, likewise.
    pub listen_addr_securable: String,
    pub advertise_domain: String,
    /// Where others reach the rep. Empty: the cell's name in `advertise_domain`, or without TLS the
    /// address that is listened on. Not a key of the original.
    pub rep_url: String,
    pub ca_cert_file: PathBuf,
    #[serde(alias = "server_cert_file")]
    pub cert_file: PathBuf,
    #[serde(alias = "server_key_file")]
    pub key_file: PathBuf,

    /// An [`Address`].
    pub bbs_address: String,
    /// Empty: the presence is told to nobody.
    pub locket_address: String,
    pub locket_ca_cert_file: PathBuf,
    pub locket_client_cert_file: PathBuf,
    pub locket_client_key_file: PathBuf,
    #[serde(deserialize_with = "duration")]
    pub lock_ttl: Duration,
    #[serde(deserialize_with = "duration")]
    pub lock_retry_interval: Duration,

    #[serde(deserialize_with = "duration")]
    pub polling_interval: Duration,
    #[serde(deserialize_with = "period")]
    pub evacuation_polling_interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub evacuation_timeout: Duration,

    /// A socket's path or `IP:PORT`.
    pub garden_addr: String,
    #[serde(deserialize_with = "duration")]
    pub garden_healthcheck_interval: Duration,
    pub container_owner_name: String,
    /// A number or `auto`.
    #[serde(deserialize_with = "mebibytes")]
    pub memory_mb: Option<i64>,
    /// A number or `auto`.
    #[serde(deserialize_with = "mebibytes")]
    pub disk_mb: Option<i64>,
    pub container_inode_limit: u64,
    pub container_max_cpu_shares: u32,
    pub set_cpu_weight: bool,
    pub create_work_pool_size: usize,
    #[serde(deserialize_with = "duration")]
    pub container_reap_interval: Duration,
    #[serde(deserialize_with = "period")]
    pub container_metrics_report_interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub reserved_expiration_time: Duration,
    #[serde(deserialize_with = "duration")]
    pub graceful_shutdown_interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub healthy_monitoring_interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub unhealthy_monitoring_interval: Duration,
    /// Whether checks are made inside containers; none: unless Garden is Bloomery's own.
    pub enable_declarative_healthcheck: Option<bool>,
    /// A directory with the program `healthcheck`; none: [`Config::healthcheck_program`] is it.
    pub declarative_healthcheck_path: Option<PathBuf>,
    /// A static program that is `healthcheck` when it is called so. No key: whoever runs the rep has
    /// it.
    #[serde(skip)]
    pub healthcheck_program: Option<PathBuf>,
    /// The cell's directory: downloads, files on their way, its name at Locket.
    pub cache_path: PathBuf,
    pub max_cache_size_in_bytes: u64,
    pub max_concurrent_downloads: usize,
    pub path_to_tls_ca_cert: PathBuf,
    pub path_to_tls_cert: PathBuf,
    pub path_to_tls_key: PathBuf,
    pub instance_identity_ca_path: PathBuf,
    pub instance_identity_private_key_path: PathBuf,
    /// Empty: in `cache_path`.
    pub instance_identity_cred_dir: PathBuf,
    #[serde(deserialize_with = "duration")]
    pub instance_identity_validity_period: Duration,
    pub trusted_system_certificates_path: PathBuf,
    pub advertise_preference_for_instance_address: bool,
    pub enable_container_proxy: bool,
    pub volman_driver_paths: String,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            cell_id: String::new(),
            cell_index: 0,
            zone: String::new(),
            placement_tags: Vec::new(),
            optional_placement_tags: Vec::new(),
            preloaded_root_fs: BTreeMap::new(),
            supported_providers: vec!["docker".into()],
            layering_mode: "single-layer".into(),
            listen_addr: "127.0.0.1:1800".into(),
            listen_addr_securable: "0.0.0.0:1801".into(),
            advertise_domain: "cell.service.cf.internal".into(),
            rep_url: String::new(),
            ca_cert_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            bbs_address: String::new(),
            locket_address: String::new(),
            locket_ca_cert_file: PathBuf::new(),
            locket_client_cert_file: PathBuf::new(),
            locket_client_key_file: PathBuf::new(),
            lock_ttl: Timing::PRESENCE.ttl,
            lock_retry_interval: Timing::PRESENCE.interval,
            polling_interval: seconds(30),
            evacuation_polling_interval: seconds(10),
            evacuation_timeout: seconds(600),
            garden_addr: "/var/vcap/data/garden/garden.sock".into(),
            garden_healthcheck_interval: seconds(600),
            container_owner_name: "executor".into(),
            memory_mb: None,
            disk_mb: None,
            container_inode_limit: 200_000,
            container_max_cpu_shares: 1024,
            set_cpu_weight: false,
            create_work_pool_size: 32,
            container_reap_interval: seconds(60),
            container_metrics_report_interval: seconds(15),
            reserved_expiration_time: seconds(60),
            graceful_shutdown_interval: seconds(10),
            healthy_monitoring_interval: seconds(30),
            unhealthy_monitoring_interval: seconds(2),
            enable_declarative_healthcheck: None,
            declarative_healthcheck_path: None,
            healthcheck_program: None,
            cache_path: "/var/vcap/data/executor_cache".into(),
            max_cache_size_in_bytes: 10_000_000_000,
            max_concurrent_downloads: 5,
            path_to_tls_ca_cert: PathBuf::new(),
            path_to_tls_cert: PathBuf::new(),
            path_to_tls_key: PathBuf::new(),
            instance_identity_ca_path: PathBuf::new(),
            instance_identity_private_key_path: PathBuf::new(),
            instance_identity_cred_dir: PathBuf::new(),
            instance_identity_validity_period: seconds(24 * 3600),
            trusted_system_certificates_path: PathBuf::new(),
            advertise_preference_for_instance_address: false,
            enable_container_proxy: false,
            volman_driver_paths: String::new(),
        }
    }
}

/// Sockets that the caller has bound; what is missing is bound as configured.
#[derive(Debug, Default)]
pub struct Listeners {
    /// The network's, `listen_addr_securable`: state, work, instances, tasks.
    pub network: Option<TcpListener>,
    /// The cell's own, `listen_addr`: ping and evacuation.
    pub admin: Option<TcpListener>,
}

impl Config {
    /// The sockets, the network's first.
    pub(crate) async fn listen(&self, held: Listeners) -> Result<(Listener, Listener), Error> {
        let bind = async |key, text, held| {
            configured::listener(key, text, Bare::Tls, self.identity()?, held).await
        };
        Ok((
            bind("listen_addr_securable", &self.listen_addr_securable, held.network).await?,
            bind("listen_addr", &self.listen_addr, held.admin).await?,
        ))
    }

    /// Who the rep is, to all that it speaks mutual TLS with.
    fn identity(&self) -> Result<Option<Identity>, ConfigError> {
        configured::identity("cert_file", &self.ca_cert_file, &self.cert_file, &self.key_file)
    }

    /// Refuses what cannot be served.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cell_id.is_empty() {
            return Err(ConfigError::missing("cell_id").into());
        }
        if self.enable_container_proxy {
            let reason = "containers have no proxy here";
            return Err(ConfigError::value("enable_container_proxy", reason).into());
        }
        if !self.volman_driver_paths.is_empty() {
            tracing::warn!("volman_driver_paths: volumes are not served, the cell has no drivers");
        }
        self.layering().map(drop)
    }

    fn layering(&self) -> Result<Layering, Error> {
        match self.layering_mode.as_str() {
            "" | "single-layer" => Ok(Layering::Single),
            "two-layer" => Ok(Layering::Two),
            other => {
                Err(ConfigError::value("layering_mode", format!("{other:?} is not known")).into())
            }
        }
    }

    pub(crate) fn cell(&self, network: &Listener) -> Result<Cell, Error> {
        let listening = network.address().map_err(|source| Error::Socket { source })?;
        let (rep_url, rep_address) = if self.rep_url.is_empty() {
            self.advertised(&listening)
        } else {
            (self.rep_url.clone(), self.rep_url.clone())
        };
        Ok(Cell {
            id: self.cell_id.clone(),
            index: self.cell_index,
            zone: self.zone.clone(),
            rep_url,
            rep_address,
            placement_tags: self.placement_tags.clone(),
            optional_placement_tags: self.optional_placement_tags.clone(),
            root_fses: self.root_fses(),
        })
    }

    /// URL and older address of a rep that listens there.
    fn advertised(&self, listening: &Address) -> (String, String) {
        match listening {
            Address::Https { port, .. } => {
                let host = self.cell_id.replace('_', "-");
                let admin = self.listen_addr.rsplit(':').next().unwrap_or("1800");
                (
                    format!("https://{host}.{}:{port}", self.advertise_domain),
                    format!("http://{}:{admin}", own_address()),
                )
            }
            Address::Http { host, port } => {
                // What listens on every address is asked at one of them.
                let every = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
                let host = if every { own_address() } else { host.clone() };
                let url = Address::Http { host, port: *port }.to_string();
                (url.clone(), url)
            }
            Address::Unix(_) => (listening.to_string(), listening.to_string()),
        }
    }

    fn root_fses(&self) -> RootFses {
        RootFses {
            preloaded: self.preloaded_root_fs.clone(),
            schemes: self.supported_providers.clone(),
        }
    }

    pub(crate) fn recipes(&self) -> Result<Recipes, Error> {
        Ok(Recipes { root_fses: self.root_fses(), layering: self.layering()? })
    }

    pub(crate) fn preferred_address(&self) -> PreferredAddress {
        if self.advertise_preference_for_instance_address {
            PreferredAddress::INSTANCE
        } else {
            PreferredAddress::HOST
        }
    }

    pub(crate) fn bbs(&self) -> Result<bbs_client::Client, Error> {
        let address = configured::address("bbs_address", &self.bbs_address, Bare::Tls)?;
        bbs_client::Client::new(address, self.identity()?).map_err(Error::Bbs)
    }

    /// The client of Locket, if there is one.
    pub(crate) fn locket(&self) -> Result<Option<locket::Client>, Error> {
        if self.locket_address.is_empty() {
            return Ok(None);
        }
        let address = configured::address("locket_address", &self.locket_address, Bare::Tls)?;
        let identity = configured::identity(
            "locket_client_cert_file",
            &self.locket_ca_cert_file,
            &self.locket_client_cert_file,
            &self.locket_client_key_file,
        )?;
        Ok(Some(locket::Client::new(&address, identity)?))
    }

    pub(crate) fn presence_timing(&self) -> Timing {
        Timing { ttl: self.lock_ttl, interval: self.lock_retry_interval }
    }

    pub(crate) fn garden(&self) -> Result<bloomery_garden::client::Client, Error> {
        let address = self
            .garden_addr
            .parse::<GardenAddress>()
            .map_err(|error| ConfigError::value("garden_addr", error.to_string()))?;
        Ok(bloomery_garden::client::Client::new(address))
    }

    pub(crate) fn transfers(&self) -> Result<Transfers, Error> {
        let identity = configured::identity(
            "path_to_tls_cert",
            &self.path_to_tls_ca_cert,
            &self.path_to_tls_cert,
            &self.path_to_tls_key,
        )?;
        Ok(Transfers::new(identity))
    }

    /// Who vouches for instances, if anyone does.
    pub(crate) fn authority(&self) -> Result<Option<Authority>, Error> {
        let certificate = &self.instance_identity_ca_path;
        if certificate.as_os_str().is_empty() {
            return Ok(None);
        }
        let directory = match self.instance_identity_cred_dir.as_os_str().is_empty() {
            true => self.cache_path.join("identities"),
            false => self.instance_identity_cred_dir.clone(),
        };
        let key = &self.instance_identity_private_key_path;
        let validity = self.instance_identity_validity_period;
        Ok(Some(Authority::load(certificate, key, validity, directory)?))
    }

    pub(crate) fn executor(&self) -> executor::Config {
        let mut config = executor::Config::new(&self.cell_id, self.cache_path.clone());
        config.owner.clone_from(&self.container_owner_name);
        config.memory_mb = self.memory_mb;
        config.disk_mb = self.disk_mb;
        config.limits.inodes = self.container_inode_limit;
        config.limits.max_cpu_shares = self.container_max_cpu_shares;
        config.limits.set_cpu_weight = self.set_cpu_weight;
        config.health.healthy = self.healthy_monitoring_interval;
        config.health.unhealthy = self.unhealthy_monitoring_interval;
        config.health.from = self.enable_declarative_healthcheck.map(|inside| match inside {
            true => CheckFrom::Container,
            false => CheckFrom::Cell,
        });
        let directory = self.declarative_healthcheck_path.clone().map(Helper::Directory);
        let program = || self.healthcheck_program.clone().map(Helper::Program);
        config.helper = directory.or_else(program);
        config.graceful_shutdown = self.graceful_shutdown_interval;
        config.cache_bytes = self.max_cache_size_in_bytes;
        config.transfers = self.max_concurrent_downloads;
        config.creations = self.create_work_pool_size;
        config.reservation = self.reserved_expiration_time;
        config.reaping = self.container_reap_interval;
        config.garden_check = self.garden_healthcheck_interval;
        config.garden_check_rootfs = self.preloaded_root_fs.values().next().cloned();
        let trusted = &self.trusted_system_certificates_path;
        config.trusted_certificates = (!trusted.as_os_str().is_empty()).then(|| trusted.clone());
        config
    }
}

/// The machine's address on the way out; nothing is sent.
fn own_address() -> String {
    let out = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Of TEST-NET-1: the route is that of any address outside.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    out().map_or_else(|_| Ipv4Addr::LOCALHOST.to_string(), |address| address.ip().to_string())
}

/// `NAME:PATH` each.
fn stacks<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    let split = |entry: &String| {
        let (name, path) = entry.split_once(':')?;
        (!name.is_empty() && !path.is_empty()).then(|| (name.to_owned(), path.to_owned()))
    };
    let wrong = |entry| D::Error::custom(format!("preloaded_root_fs {entry:?}: not STACK:PATH"));
    entries.iter().map(|entry| split(entry).ok_or_else(|| wrong(entry))).collect()
}

/// A number in a text, as the original has it, or a number.
fn mebibytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(i64),
        Text(String),
    }
    match Given::deserialize(deserializer)? {
        Given::Number(number) => Ok(Some(number)),
        Given::Text(text) if text.is_empty() || text == "auto" => Ok(None),
        Given::Text(text) => text
            .parse()
            .map(Some)
            .map_err(|_| D::Error::custom(format!("{text:?} is neither a number nor auto"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_file_is_read() {
        let config: Config = serde_json::from_str(
            r#"{
                "cell_id": "cell_z1-0", "zone": "z1",
                "preloaded_root_fs": ["cflinuxfs4:/stacks/cflinuxfs4.tar"],
                "supported_providers": ["docker"],
                "listen_addr_securable": "0.0.0.0:1801",
                "memory_mb": "auto", "disk_mb": "2048",
                "polling_interval": "15s", "evacuation_timeout": "10m",
                "server_cert_file": "/tls/server.crt",
                "bbs_address": "https://bbs.service.cf.internal:8889",
                "garden_network": "unix", "log_level": "info"
            }"#,
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.preloaded_root_fs["cflinuxfs4"], "/stacks/cflinuxfs4.tar");
        assert_eq!((config.memory_mb, config.disk_mb), (None, Some(2048)));
        assert_eq!(config.polling_interval, Duration::from_secs(15));
        assert_eq!(config.cert_file, PathBuf::from("/tls/server.crt"));
        let listening = Address::Https { host: "0.0.0.0".into(), port: 1801 };
        let (url, _) = config.advertised(&listening);
        assert_eq!(url, "https://cell-z1-0.cell.service.cf.internal:1801");
        let plain: Address = "http://127.0.0.1:4711".parse().unwrap();
        assert_eq!(config.advertised(&plain).0, "http://127.0.0.1:4711");
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for json in [
            r#"{"preloaded_root_fs": ["cflinuxfs4"]}"#,
            r#"{"preloaded_root_fs": [":/x"]}"#,
            r#"{"memory_mb": "much"}"#,
            r#"{"polling_interval": "30"}"#,
        ] {
            serde_json::from_str::<Config>(json).unwrap_err();
        }
        for json in [
            "{}",
            r#"{"cell_id": "c", "enable_container_proxy": true}"#,
            r#"{"cell_id": "c", "layering_mode": "three"}"#,
        ] {
            serde_json::from_str::<Config>(json).unwrap().check().unwrap_err();
        }
    }
}

//! What a Cloud Controller is started with.

use std::path::PathBuf;

use serde::Deserialize;

use uaa::Secret;

/// A Cloud Controller's configuration. The keys are those of `cloud_controller_ng.yml` where that
/// has them; sizes are in MiB unless said otherwise.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Directory of the database and of uploads under way; made if missing, and closed to other users.
    pub data_dir: PathBuf,
    /// Scheme of the addresses in answers: `http` or `https`.
    pub external_protocol: String,
    /// Host of the addresses in answers, with a port unless it is the scheme's own.
    pub external_domain: String,
    /// Domain of the platform itself, without a port. No app gets its reserved hosts.
    pub system_domain: String,
    /// Hosts of the system domain that no route and no domain of an org may take.
    pub system_hostnames: Vec<String>,
    /// Shared domains that exist from the first start on; the first is the default one.
    pub app_domains: Vec<String>,
    /// Shared domains for traffic between containers.
    pub internal_domains: Vec<String>,
    /// Where UAA, the log-in server and the log services are for clients. Empty: not offered.
    pub links: Links,
    /// Texts of `GET /v3/info`.
    pub info: Info,
    /// Where cells and the BBS reach this Cloud Controller's internal routes.
    pub internal_url: String,
    /// Root file systems; the first is the default one.
    pub stacks: Vec<Stack>,
    /// Memory of a process that does not say.
    pub default_app_memory: i64,
    /// Disk of a process that does not say.
    pub default_app_disk_in_mb: i64,
    /// The most disk of a process.
    pub maximum_app_disk_in_mb: i64,
    /// Bytes a second; -1 for no limit.
    pub default_app_log_rate_limit_in_bytes_per_second: i64,
    /// Seconds in which an app must become healthy.
    pub default_health_check_timeout: i64,
    /// The most that an app may ask for, in seconds.
    pub maximum_health_check_timeout: i64,
    /// How apps are staged.
    pub staging: Staging,
    /// Limits of uploads.
    pub packages: Packages,
    /// Which files are kept for resource matching.
    pub resource_pool: ResourcePool,
}

/// Addresses for clients.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Links {
    /// UAA.
    pub uaa: String,
    /// The log-in server.
    pub login: String,
    /// Log-cache: a host of its own, since clients throw its path away.
    pub log_cache: String,
    /// The RLP gateway.
    pub log_stream: String,
    /// `host:port` of the SSH proxy.
    pub app_ssh: String,
    /// Fingerprint of its host key.
    pub app_ssh_host_key_fingerprint: String,
}

/// Texts of `GET /v3/info`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Name of the installation.
    pub name: String,
    /// Version of the software.
    pub build: String,
    /// Number of the deployment.
    pub version: u32,
    /// One line about it.
    pub description: String,
    /// Where users get help.
    pub support_address: String,
    /// The oldest CLI that works.
    pub min_cli_version: Option<String>,
    /// The CLI that is known to work best.
    pub min_recommended_cli_version: Option<String>,
}

impl Default for Info {
    fn default() -> Self {
        Self {
            name: "bloomery".into(),
            build: env!("CARGO_PKG_VERSION").into(),
            version: 0,
            description: "Cloud Foundry in Rust".into(),
            support_address: String::new(),
            min_cli_version: None,
            min_recommended_cli_version: None,
        }
    }
}

/// A root file system that apps may choose.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Name.
    pub name: String,
    /// One line about it.
    #[serde(default)]
    pub description: String,
    /// Name of the preloaded image for staging; the stack's name if absent.
    pub build_rootfs_image: Option<String>,
    /// Name of the preloaded image for running; the stack's name if absent.
    pub run_rootfs_image: Option<String>,
}

/// How apps are staged.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Staging {
    /// The most that staging may take.
    pub timeout_in_seconds: u32,
    /// Memory of a staging container at least.
    pub minimum_staging_memory_mb: i64,
    /// Disk of a staging container at least.
    pub minimum_staging_disk_mb: i64,
    /// Open files of a staging container.
    pub minimum_staging_file_descriptor_limit: u64,
    /// What cells show to download packages and droplets.
    pub auth: StagingAuth,
}

/// Basic authentication of the internal download routes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StagingAuth {
    /// Name. Empty: downloads are refused.
    pub user: String,
    /// Password.
    pub password: Secret,
}

impl Default for Staging {
    fn default() -> Self {
        Self {
            timeout_in_seconds: 900,
            minimum_staging_memory_mb: 1024,
            minimum_staging_disk_mb: 4096,
            minimum_staging_file_descriptor_limit: 16384,
            auth: StagingAuth::default(),
        }
    }
}

/// Limits of uploads.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Packages {
    /// Bytes.
    pub max_package_size: u64,
    /// Packages of an app that are kept.
    pub max_valid_packages_stored: i64,
    /// Staged droplets of an app that are kept.
    pub max_staged_droplets_stored: i64,
}

impl Default for Packages {
    fn default() -> Self {
        Self {
            max_package_size: 1 << 30,
            max_valid_packages_stored: 5,
            max_staged_droplets_stored: 5,
        }
    }
}

/// Sizes in bytes of the files that are kept for resource matching.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ResourcePool {
    /// Smaller ones are quicker to upload than to look up.
    pub minimum_size: u64,
    /// Larger ones are not kept.
    pub maximum_size: u64,
}

impl Default for ResourcePool {
    fn default() -> Self {
        Self { minimum_size: 64 << 10, maximum_size: 512 << 20 }
    }
}

impl Default for Config {
    fn default() -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Self {
            data_dir: "cloud-controller".into(),
            external_protocol: "http".into(),
            external_domain: "localhost:8080".into(),
            system_domain: "localhost".into(),
            system_hostnames: words(
                "api uaa login doppler log-cache log-stream credhub ssh loggregator",
            ),
            app_domains: words("apps.localhost"),
            internal_domains: words("apps.internal"),
            links: Links::default(),
            info: Info::default(),
            internal_url: "http://127.0.0.1:9023".into(),
            stacks: vec![Stack {
                name: "cflinuxfs4".into(),
                description: "Cloud Foundry Linux-based filesystem".into(),
                build_rootfs_image: None,
                run_rootfs_image: None,
            }],
            default_app_memory: 1024,
            default_app_disk_in_mb: 1024,
            maximum_app_disk_in_mb: 2048,
            default_app_log_rate_limit_in_bytes_per_second: -1,
            default_health_check_timeout: 60,
            maximum_health_check_timeout: 180,
            staging: Staging::default(),
            packages: Packages::default(),
            resource_pool: ResourcePool::default(),
        }
    }
}

impl Config {
    /// An absolute address of this API.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.external_protocol, self.external_domain)
    }

    /// Whether a full name is that of a host of the platform itself.
    pub(crate) fn is_reserved(&self, name: &str) -> bool {
        let reserved = |host: &String| format!("{host}.{}", self.system_domain);
        self.system_hostnames.iter().any(|host| reserved(host).eq_ignore_ascii_case(name))
    }

    /// The stack that apps get that do not choose.
    pub(crate) fn default_stack(&self) -> &str {
        self.stacks.first().map_or("cflinuxfs4", |stack| &stack.name)
    }
}

//! `bloomery ctl create`: flags made into a container's specification.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use garden_api::{
    BindMount, ContainerSpec, CpuLimits, DiskLimitScope, DiskLimits, ImageRef, Limits,
    MemoryLimits, Nanoseconds, NetIn, NetOutRule, PidLimits,
};

use super::notation;

/// What the container shall be.
#[derive(Args, Debug)]
pub struct Flags {
    /// The container's name: letters, digits, `.`, `_` and `-`. Without it the server makes one up.
    #[arg(long, value_name = "NAME")]
    handle: Option<String>,
    /// Root file system, as a URI that the server knows or a path on its machine. Without it, the
    /// server's default.
    #[arg(long, value_name = "URI", visible_alias = "rootfs")]
    image: Option<String>,
    /// User at the image's registry.
    #[arg(long, value_name = "NAME", requires = "image")]
    image_user: Option<String>,
    /// Password at the image's registry; best given by the environment variable.
    #[arg(long, value_name = "PASSWORD", env = "BLOOMERY_IMAGE_PASSWORD", hide_env_values = true)]
    image_password: Option<String>,
    /// Environment of every process.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = notation::variable)]
    env: Vec<String>,
    /// Limit of memory, swap included: bytes, or with K, M, G, T.
    #[arg(long, short, value_name = "BYTES", value_parser = notation::bytes, default_value = "0", hide_default_value = true)]
    memory: u64,
    /// CPU shares against other containers.
    #[arg(long, value_name = "SHARES", default_value_t = 0, hide_default_value = true)]
    cpu: u64,
    /// Most processes and threads.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pids: u64,
    /// Limit of disk space, image included.
    #[arg(long, value_name = "BYTES", value_parser = notation::bytes, default_value = "0", hide_default_value = true)]
    disk: u64,
    /// Count only what the container writes against --disk.
    #[arg(long, requires = "disk")]
    disk_exclusive: bool,
    /// A label of the container.
    #[arg(long, value_name = "KEY=VALUE", value_parser = notation::pair)]
    property: Vec<(String, String)>,
    /// Without a user namespace: root inside is root of the host.
    #[arg(long)]
    privileged: bool,
    /// Show a path of the host inside, read-only unless `:rw` is added.
    #[arg(long, short = 'v', value_name = "SOURCE:DESTINATION", value_parser = notation::bind_mount)]
    bind: Vec<BindMount>,
    /// Forward a port of the host; host port 0 picks a free one.
    #[arg(long, short = 'p', value_name = "HOST:CONTAINER", value_parser = notation::ports)]
    net_in: Vec<(u32, u32)>,
    /// Allow destinations that are denied to all, as in `protocol=tcp,network=10.0.0.0/8,port=80`.
    #[arg(long, value_name = "RULE", value_parser = notation::rule)]
    net_out: Vec<NetOutRule>,
    /// Subnet or address, as in `10.253.0.10/24`. Without it, a free subnet of the pool.
    #[arg(long, value_name = "CIDR")]
    network: Option<String>,
    /// Destroy the container once nobody has used it for so long, as in `5m`.
    #[arg(long, value_name = "TIME", value_parser = crate::serve::duration)]
    grace_time: Option<Duration>,
}

impl Flags {
    /// The specification.
    pub fn into_spec(self) -> anyhow::Result<ContainerSpec> {
        if self.handle.as_deref() == Some("") {
            bail!("a handle cannot be empty; leave --handle out to have one made up");
        }
        let scope =
            if self.disk_exclusive { DiskLimitScope::Exclusive } else { DiskLimitScope::Total };
        Ok(ContainerSpec {
            handle: self.handle.unwrap_or_default(),
            grace_time: self.grace_time.map(Nanoseconds::from_duration).unwrap_or_default(),
            image: ImageRef {
                uri: self.image.unwrap_or_default(),
                username: self.image_user.unwrap_or_default(),
                password: self.image_password.unwrap_or_default(),
            },
            bind_mounts: self.bind,
            network: self.network.unwrap_or_default(),
            properties: self.property.into_iter().collect(),
            env: self.env,
            privileged: self.privileged,
            limits: Limits {
                cpu: CpuLimits { weight: self.cpu, limit_in_shares: 0 },
                disk: DiskLimits { byte_hard: self.disk, scope, ..DiskLimits::default() },
                memory: MemoryLimits { limit_in_bytes: self.memory },
                pid: PidLimits { max: self.pids },
                ..Limits::default()
            },
            net_out: self.net_out,
            net_in: self
                .net_in
                .into_iter()
                .map(|(host_port, container_port)| NetIn { host_port, container_port })
                .collect(),
            ..ContainerSpec::default()
        })
    }
}

//! `bloomery garden serve`: the original server's flags, made into a configuration.

mod foreign;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::config::{Config, Listen, NetworkConfig, PluginConfig};
use tracing_subscriber::filter::LevelFilter;

use crate::log::{self, Format, TimeFormat};
use foreign::Ignored;

/// Flags of the original server, by its names, and a few of our own.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Read flags from an INI file; those on the command line win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen on TCP at this address instead of the unix socket.
    #[arg(long, value_name = "IP", help_heading = "Server")]
    bind_ip: Option<IpAddr>,
    /// TCP port.
    #[arg(long, value_name = "PORT", default_value_t = 7777, help_heading = "Server")]
    bind_port: u16,
    /// Listen on this unix socket.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/bloomery/garden.sock",
        help_heading = "Server"
    )]
    bind_socket: PathBuf,
    /// Permissions of the unix socket, octal.
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = octal, help_heading = "Server")]
    bind_socket_mode: u32,
    /// Lowest level to log: debug, info, error or fatal.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Server")]
    log_level: LogLevel,
    /// How log lines look; lager where a time format is given, else text.
    #[arg(long, value_name = "FORMAT", help_heading = "Server")]
    log_format: Option<Format>,
    /// How lager's lines give the time: unix-epoch or rfc3339.
    #[arg(long, value_name = "FORMAT", help_heading = "Server")]
    time_format: Option<TimeFormat>,
    /// Send metrics by dropsonde's UDP to this address; none where it is empty.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:3457", value_parser = destination, help_heading = "Server")]
    dropsonde_destination: Destination,
    /// Whose metrics they say they are.
    #[arg(long, value_name = "NAME", default_value = "garden-linux", help_heading = "Server")]
    dropsonde_origin: String,
    /// How often those are sent that are not about one call.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration, help_heading = "Server")]
    metrics_emission_interval: Duration,
    /// Serve variables, metrics and the level of logging on TCP at this address.
    #[arg(long, value_name = "IP", help_heading = "Server")]
    debug_bind_ip: Option<IpAddr>,
    /// TCP port of that.
    #[arg(long, value_name = "PORT", default_value_t = 17013, help_heading = "Server")]
    debug_bind_port: u16,
    /// Time that a request's head may take from its first byte; 0 is for ever.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, help_heading = "Server")]
    read_header_timeout: Duration,
    /// Tells apart several servers on one host: one or two letters or digits.
    #[arg(long, value_name = "TAG", default_value = "b", value_parser = tag, help_heading = "Server")]
    tag: String,

    /// Directory of containers' records.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/bloomery/depot",
        help_heading = "Containers"
    )]
    depot: PathBuf,
    /// Directory of the keeper's socket.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/bloomery/keeper",
        help_heading = "Containers"
    )]
    keeper_dir: PathBuf,
    /// Image of containers that name none: a directory, a tar or an OCI layout.
    #[arg(long, value_name = "PATH", help_heading = "Containers")]
    default_rootfs: Option<PathBuf>,
    /// Time after which an unused container is destroyed (`0` never; `90s`, `5m`, `1h30m`).
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration, help_heading = "Containers")]
    default_grace_time: Duration,
    /// Destroy containers of an earlier server instead of taking them over.
    #[arg(long, help_heading = "Containers")]
    destroy_containers_on_startup: bool,
    /// Forget a process once a client has had its exit status.
    #[arg(long, help_heading = "Containers")]
    cleanup_process_dirs_on_wait: bool,
    /// Refuse privileged containers.
    #[arg(long, overrides_with = "disable_privileged_containers", help_heading = "Containers")]
    disable_privileged_containers: bool,
    /// Set no_new_privs in unprivileged containers.
    #[arg(long, help_heading = "Containers")]
    no_new_privileges: bool,
    /// AppArmor profile of processes in unprivileged containers; it has to be loaded.
    #[arg(long, value_name = "PROFILE", help_heading = "Containers")]
    apparmor: Option<String>,
    /// Parked containers kept ready.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, help_heading = "Containers")]
    pool_size: usize,

    /// Directory of images and containers' writable layers.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/bloomery/garden",
        help_heading = "Images"
    )]
    store: PathBuf,
    /// A program that makes the root file systems of unprivileged containers, instead of the store.
    #[arg(long, value_name = "PATH", value_parser = program, help_heading = "Images")]
    image_plugin: Option<Program>,
    /// An argument for it, before the contract's.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true, help_heading = "Images")]
    image_plugin_extra_arg: Vec<String>,
    /// The same for privileged containers.
    #[arg(long, value_name = "PATH", value_parser = program, help_heading = "Images")]
    privileged_image_plugin: Option<Program>,
    /// An argument for that one.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true, help_heading = "Images")]
    privileged_image_plugin_extra_arg: Vec<String>,
    /// Time that either may take for one action; it is killed then.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, help_heading = "Images")]
    image_plugin_timeout: Duration,
    /// Serve an image reference from a local directory, tar or OCI layout.
    #[arg(long, value_name = "URI=PATH", value_parser = alias, help_heading = "Images")]
    image_alias: Vec<(String, PathBuf)>,

    /// A program that connects containers, instead of the built-in network.
    #[arg(long, value_name = "PATH", value_parser = program, help_heading = "Network")]
    network_plugin: Option<Program>,
    /// An argument for it, before the contract's.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true, help_heading = "Network")]
    network_plugin_extra_arg: Vec<String>,
    /// Time that it may take for one action; it is killed then.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration, help_heading = "Network")]
    network_plugin_timeout: Duration,
    /// Pool of /30 subnets for containers that ask for none.
    #[arg(long, value_name = "CIDR", default_value = "10.254.0.0/22", help_heading = "Network")]
    network_pool: String,
    /// Destinations that containers may not reach.
    #[arg(long, value_name = "CIDR", help_heading = "Network")]
    deny_network: Vec<String>,
    /// Let containers open connections to the host.
    #[arg(long, help_heading = "Network")]
    allow_host_access: bool,
    /// First host port to map.
    #[arg(long, value_name = "PORT", default_value_t = 61001, help_heading = "Network")]
    port_pool_start: u16,
    /// How many host ports to map.
    #[arg(long, value_name = "NUMBER", default_value_t = 4534, help_heading = "Network")]
    port_pool_size: u16,
    /// The host's address as others see it.
    #[arg(long, value_name = "IP", help_heading = "Network")]
    external_ip: Option<Ipv4Addr>,
    /// MTU of containers' links; 0 is the external interface's.
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    mtu: Option<u32>,
    /// Name servers instead of the host's.
    #[arg(long, value_name = "IP", help_heading = "Network")]
    dns_server: Vec<IpAddr>,
    /// Name servers in addition.
    #[arg(long, value_name = "IP", help_heading = "Network")]
    additional_dns_server: Vec<IpAddr>,
    /// Lines added to containers' /etc/hosts.
    #[arg(long, value_name = "LINE", help_heading = "Network")]
    additional_host_entry: Vec<String>,
    /// Count the traffic of containers whose property garden.network.interface names an interface.
    #[arg(long, help_heading = "Network")]
    enable_container_network_metrics: bool,

    /// Most containers; 0 is as many as there are subnets.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, help_heading = "Limits")]
    max_containers: u64,
    /// Microseconds of each 100 ms that a container may run per CPU share; 0 is no quota.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, help_heading = "Limits")]
    cpu_quota_per_share: u64,
    /// CPU entitlement per share, in percent of a core; 0 is as much as cores and memory give.
    #[arg(long, value_name = "PERCENT", help_heading = "Limits")]
    cpu_entitlement_per_share: Option<f64>,
    /// Do not limit swap together with memory.
    #[arg(long, help_heading = "Limits")]
    disable_swap_limit: bool,

    #[command(flatten)]
    ignored: Ignored,
}

/// What to log.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What goes wrong.
    Error,
    /// Nothing but the end.
    Fatal,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Error => Self::ERROR,
            LogLevel::Fatal => Self::OFF,
        }
    }
}

impl Flags {
    /// How long a request's head may take.
    pub fn head_patience(&self) -> Duration {
        /// As long as nobody waits.
        const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
        if self.read_header_timeout.is_zero() { FOR_EVER } else { self.read_header_timeout }
    }

    /// Begins to log.
    pub fn start_log(&self) -> log::Level {
        let usual = if self.time_format.is_some() { Format::Lager } else { Format::Text };
        let time = self.time_format.unwrap_or(TimeFormat::Rfc3339);
        log::start(self.log_level.into(), self.log_format.unwrap_or(usual), "garden", time)
    }

    /// Where metrics are sent, by which name and how often, if they are.
    pub fn emission(&self) -> Option<(SocketAddr, String, Duration)> {
        let interval = self.metrics_emission_interval;
        let destination = self.dropsonde_destination.0.filter(|_| !interval.is_zero())?;
        Some((destination, self.dropsonde_origin.clone(), interval))
    }

    /// Where the debug server is to listen, if there is to be one.
    pub fn debug_address(&self) -> Option<SocketAddr> {
        self.debug_bind_ip.map(|ip| SocketAddr::new(ip, self.debug_bind_port))
    }

    /// The configuration, and the names of flags that have no effect.
    pub fn into_config(self) -> (Config, Vec<&'static str>) {
        let Ignored(ignored) = self.ignored;
        let listen = match self.bind_ip {
            Some(ip) => Listen::Tcp(SocketAddr::new(ip, self.bind_port)),
            None => Listen::Unix { path: self.bind_socket, mode: self.bind_socket_mode },
        };
        let config = Config {
            listen,
            depot: self.depot,
            run: self.keeper_dir,
            store: self.store,
            tag: self.tag,
            default_rootfs: self.default_rootfs,
            image_aliases: self.image_alias.into_iter().collect::<BTreeMap<_, _>>(),
            default_grace_time: self.default_grace_time,
            max_containers: self.max_containers,
            forget_processes_on_wait: self.cleanup_process_dirs_on_wait,
            disable_privileged: self.disable_privileged_containers,
            destroy_on_start: self.destroy_containers_on_startup,
            disable_swap_limit: self.disable_swap_limit,
            cpu_quota_per_share: self.cpu_quota_per_share,
            cpu_entitlement_per_share: self.cpu_entitlement_per_share.filter(|share| *share != 0.0),
            network_metrics: self.enable_container_network_metrics,
            no_new_privileges: self.no_new_privileges,
            apparmor: self.apparmor.filter(|profile| !profile.is_empty()),
            pool: self.pool_size,
            shift_by_copy: false,
            own_program: "/proc/self/exe".into(),
            network: NetworkConfig {
                pool: self.network_pool,
                deny: self.deny_network,
                allow_host_access: self.allow_host_access,
                port_pool_start: self.port_pool_start,
                port_pool_size: self.port_pool_size,
                external_ip: self.external_ip,
                mtu: self.mtu.filter(|mtu| *mtu != 0),
                dns_servers: self.dns_server,
                additional_dns_servers: self.additional_dns_server,
                additional_hosts: self.additional_host_entry,
            },
            network_plugin: plugin(
                self.network_plugin,
                self.network_plugin_extra_arg,
                self.network_plugin_timeout,
            ),
            image_plugin: plugin(
                self.image_plugin,
                self.image_plugin_extra_arg,
                self.image_plugin_timeout,
            ),
            privileged_image_plugin: plugin(
                self.privileged_image_plugin,
                self.privileged_image_plugin_extra_arg,
                self.image_plugin_timeout,
            ),
        };
        (config, ignored)
    }
}

/// A program, or none: an empty value in an INI file.
#[derive(Clone, Debug)]
struct Program(Option<PathBuf>);

fn program(text: &str) -> Result<Program, String> {
    if text.is_empty() {
        return Ok(Program(None));
    }
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    Ok(Program(Some(path)))
}

fn plugin(
    program: Option<Program>,
    arguments: Vec<String>,
    patience: Duration,
) -> Option<PluginConfig> {
    let program = program?.0?;
    Some(PluginConfig { program, arguments, patience })
}

/// Somewhere or nowhere.
#[derive(Clone, Copy, Debug)]
struct Destination(Option<SocketAddr>);

fn destination(text: &str) -> Result<Destination, String> {
    if text.is_empty() {
        return Ok(Destination(None));
    }
    let address = text.parse().map_err(|_| "not an address like 127.0.0.1:3457")?;
    Ok(Destination(Some(address)))
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("not an octal mode like 0660".into()),
    }
}

fn tag(text: &str) -> Result<String, String> {
    if matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("not one or two letters or digits".into())
    }
}

fn alias(text: &str) -> Result<(String, PathBuf), String> {
    // An image's URI may hold '=' in a query, a path rarely does: the last one divides.
    let (uri, path) = text.rsplit_once('=').ok_or("not of the form docker:///some/image=PATH")?;
    Ok((uri.to_owned(), PathBuf::from(path)))
}

/// Durations as the original's flags have them: `0`, `300ms`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("a number without a unit (ms, s, m, h)")?;
        let number: u64 = rest[..digits].parse().map_err(|_| "not a duration like 90s or 1h30m")?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
        let part = match &rest[..unit] {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            other => return Err(format!("unknown unit {other:?}; known are ms, s, m, h")),
        };
        total =
            part.and_then(|part| total.checked_add(part)).ok_or("a duration beyond all bounds")?;
        rest = &rest[unit..];
    }
    Ok(total)
}

/// An INI file's settings as flags. Section names are for people only, as in the original; a value
/// of `true` is a flag without a value, and `false` is no flag.
pub fn ini_flags(path: &Path) -> anyhow::Result<Vec<OsString>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut flags = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty()
            || line.starts_with([';', '#'])
            || (line.starts_with('[') && line.ends_with(']'))
        {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            bail!("{}:{number}: neither a [section] nor `name = value`: {line}", path.display());
        };
        let (name, value) = (name.trim(), value.trim());
        let value =
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        match value {
            "true" => flags.push(format!("--{name}").into()),
            "false" => {}
            value => flags.push(format!("--{name}={value}").into()),
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_the_originals() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["5", "x", "5y", "99999999999999999999s"] {
            duration(bad).unwrap_err();
        }
    }

    #[test]
    fn an_ini_file_becomes_flags() {
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            place.path(),
            "; c\n[server]\nbind-ip = 127.0.0.1\n[x]\nskip-setup=true\nallow-host-access=false\n",
        )
        .unwrap();
        assert_eq!(ini_flags(place.path()).unwrap(), ["--bind-ip=127.0.0.1", "--skip-setup"]);
        std::fs::write(place.path(), "bind-ip\n").unwrap();
        assert!(ini_flags(place.path()).unwrap_err().to_string().contains(":1: "));
    }

    #[test]
    fn aliases_divide_at_the_last_equals_sign() {
        assert_eq!(alias("docker:///a?b=c=/p"), Ok(("docker:///a?b=c".into(), "/p".into())));
        alias("nothing").unwrap_err();
    }
}

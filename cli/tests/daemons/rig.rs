//! All daemons on a network of their own, each with a certificate of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bbs_models::ActualLRPsRequest;
use bloomery_garden::client::{Address as GardenAddress, Client as Garden};
use garden_api::Properties;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use transport::{Address, Files, Identity};

use crate::certificates::Authority;
use crate::user::{User, life_at};

#[path = "../../../garden/networker/tests/kernel/place.rs"]
pub mod place;
use place::Place;

/// Longer than anything takes here, on the busiest host.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const BLOOMERY: &str = env!("CARGO_BIN_EXE_bloomery");
pub const ROUTER: u16 = 8081;
pub const GARDEN: u16 = 7777;
/// Until its table is full, as the original's job has it; clients wait.
pub const ROUTER_DELAY: Duration = Duration::from_secs(5);
const PASSWORD: &str = "admin-password";

/// What is killed, in the order of starting.
pub const DAEMONS: [&str; 13] = [
    "nats-server",
    "garden",
    "locket",
    "auctioneer",
    "bbs",
    "file-server",
    "log-cache",
    "uaa",
    "cloud-controller",
    "rep",
    "route-emitter",
    "router",
    "route-registrar",
];

/// Where each of them answers once it serves.
fn port(daemon: &str) -> Option<u16> {
    Some(match daemon {
        "nats-server" => 4222,
        "garden" => GARDEN,
        "locket" => 8891,
        "auctioneer" => 9016,
        "bbs" => 8889,
        "file-server" => 8443,
        "log-cache" => 8093,
        "uaa" => 8094,
        "cloud-controller" => 9022,
        "rep" => 1801,
        "router" => 8082,
        _ => return None,
    })
}

/// Waits until there is an answer; panics with the last words about its absence if there is none.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    platform_tests::within(PATIENCE, what, look)
}

/// A name for a Garden, whose cgroups are the host's: no other tests' begin so. Numbers of those that
/// are there at a time in one process differ, and are below 4.
pub fn tag(number: u32) -> String {
    let unique = std::process::id() * 4 + number;
    let digit = |number: u32, base: u32| char::from_digit(number % base, 36).unwrap();
    format!("{}{}", digit(unique / 10 % 26 + 10, 36).to_ascii_uppercase(), digit(unique, 10))
}

/// One of everything.
pub struct Rig {
    directory: tempfile::TempDir,
    tag: String,
    /// The router's, which outlives routers.
    socket: TcpListener,
    running: Mutex<BTreeMap<&'static str, Child>>,
    pub user: User,
}

impl Rig {
    /// Does something with a rig whose network is this thread's; everything is put back afterwards. The
    /// numbers of those that are there at a time in one process differ, and are below 4.
    pub fn with(number: u32, work: impl FnOnce(&Self) + Send) {
        let place = Place::new();
        place.run("ip link set lo up");
        place.inside(|| work(&Self::new(number)));
    }

    fn new(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tag = tag(number);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, ROUTER)).unwrap();
        // Its threads are of this thread's network, as all that it starts.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let user = User {
            api: "http://api.bloomery.test",
            apps: "apps.bloomery.test",
            password: PASSWORD,
            buildpack: "binary_buildpack",
            home: directory.path().to_owned(),
            files: directory.path().join("app"),
            runtime,
        };
        let rig = Self { directory, tag, socket, running: Mutex::default(), user };
        for name in ["app", "static", "cell"] {
            fs::create_dir(rig.place(name)).unwrap();
        }
        image(&rig.place("image"));
        let start = "cat /proc/sys/kernel/random/uuid > life; exec httpd -f -p $PORT";
        fs::write(rig.place("app/Procfile"), format!("web: {start}\n")).unwrap();
        let authority = Authority::new(rig.directory.path());
        for daemon in DAEMONS.iter().filter(|daemon| **daemon != "garden") {
            authority.sign(daemon);
        }
        authority.sign("test");
        rig.configure();
        let mut export = Command::new(BLOOMERY);
        export.args(["export", "lifecycle"]).arg(rig.place("static"));
        succeed(export.output().unwrap());
        rig
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the daemons' files.
    fn configure(&self) {
        let path = |name: &str| self.place(name).to_str().unwrap().to_owned();
        let text = |name: &str| fs::read_to_string(self.place(name)).unwrap();
        let ca = path("ca.crt");
        // The three files of a daemon, by its keys for them.
        let tls = |daemon: &str, keys: &[[&str; 3]]| {
            let mut files = serde_json::Map::new();
            for [ca_key, certificate, key] in keys {
                files.insert((*ca_key).into(), ca.clone().into());
                files.insert((*certificate).into(), path(&format!("{daemon}.crt")).into());
                files.insert((*key).into(), path(&format!("{daemon}.key")).into());
            }
            files
        };
        let locket_keys =
            ["locket_ca_cert_file", "locket_client_cert_file", "locket_client_key_file"];
        let bbs_keys = ["bbs_ca_cert_file", "bbs_client_cert_file", "bbs_client_key_file"];
        let rep_keys = ["rep_ca_cert", "rep_client_cert", "rep_client_key"];
        let loggregator = |daemon: &str| {
            let keys = ["loggregator_ca_path", "loggregator_cert_path", "loggregator_key_path"];
            let mut block = tls(daemon, &[keys]);
            block.insert("loggregator_use_v2_api".into(), true.into());
            block.insert("loggregator_api_address".into(), "127.0.0.1:8092".into());
            Value::Object(block)
        };
        let write = |daemon: &str, keys: &[[&str; 3]], settings: Value| {
            let mut all = tls(daemon, keys);
            all.extend(settings.as_object().unwrap().clone());
            let file = self.place(&format!("{daemon}.json"));
            fs::write(file, Value::Object(all).to_string()).unwrap();
        };

        let nats = format!(
            "listen: 127.0.0.1:4222\nauthorization {{ user: nats, password: nats-password }}\n\
             tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {ca:?}, verify: true }}\n",
            path("nats-server.crt"),
            path("nats-server.key"),
        );
        fs::write(self.place("nats.conf"), nats).unwrap();
        write(
            "locket",
            &[["ca_file", "cert_file", "key_file"]],
            json!({
                "listen_address": "127.0.0.1:8891",
                "database_driver": "sqlite3",
                "database_connection_string": path("locket.db"),
            }),
        );
        let own = ["ca_cert_file", "server_cert_file", "server_key_file"];
        write(
            "auctioneer",
            &[own, bbs_keys, rep_keys, locket_keys],
            json!({
                "listen_address": "127.0.0.1:9016",
                "bbs_address": "https://127.0.0.1:8889",
                "locket_address": "127.0.0.1:8891",
                "uuid": "auctioneer-1",
            }),
        );
        let own = ["ca_file", "cert_file", "key_file"];
        let auctioneer_keys =
            ["auctioneer_ca_cert", "auctioneer_client_cert", "auctioneer_client_key"];
        write(
            "bbs",
            &[own, auctioneer_keys, rep_keys, locket_keys],
            json!({
                "listen_address": "127.0.0.1:8889",
                "health_address": "127.0.0.1:8890",
                "database_connection_string": path("bbs.db"),
                "auctioneer_address": "https://127.0.0.1:9016",
                "locket_address": "127.0.0.1:8891",
                "uuid": "bbs-1",
            }),
        );
        write(
            "file-server",
            &[own],
            json!({
                "server_address": "127.0.0.1:8088",
                "static_directory": path("static"),
                "https_server_enabled": true,
                "https_listen_addr": "127.0.0.1:8443",
            }),
        );
        let own = ["ca_cert_file", "server_cert_file", "server_key_file"];
        let downloads = ["path_to_tls_ca_cert", "path_to_tls_cert", "path_to_tls_key"];
        write(
            "rep",
            &[own, downloads, locket_keys],
            json!({
                "cell_id": "cell-1",
                "zone": "z1",
                "listen_addr": "127.0.0.1:1800",
                "listen_addr_securable": "127.0.0.1:1801",
                "rep_url": "https://127.0.0.1:1801",
                "bbs_address": "https://127.0.0.1:8889",
                "locket_address": "127.0.0.1:8891",
                "garden_addr": format!("127.0.0.1:{GARDEN}"),
                "cache_path": path("cell"),
                "preloaded_root_fs": [format!("base:{}", path("image"))],
                "memory_mb": "8192",
                "loggregator": loggregator("rep"),
            }),
        );
        let nats_keys = ["nats_ca_cert_file", "nats_client_cert_file", "nats_client_key_file"];
        write(
            "route-emitter",
            &[bbs_keys, nats_keys],
            json!({
                "cell_id": "cell-1",
                "bbs_address": "https://127.0.0.1:8889",
                "nats_addresses": "127.0.0.1:4222",
                "nats_username": "nats",
                "nats_password": "nats-password",
                "nats_tls_enabled": true,
            }),
        );
        write(
            "router",
            &[],
            json!({
                "port": ROUTER,
                "start_response_delay_interval": format!("{}s", ROUTER_DELAY.as_secs()),
                "status": {"port": 8082, "user": "status", "pass": "secret", "routes": {"port": 8083}},
                "nats": {
                    "hosts": [{"hostname": "127.0.0.1", "port": 4222}],
                    "user": "nats",
                    "pass": "nats-password",
                    "tls_enabled": true,
                    "ca_certs": text("ca.crt"),
                    "cert_chain": text("router.crt"),
                    "private_key": text("router.key"),
                },
                "ca_certs": [text("ca.crt")],
                "backends": {
                    "cert_chain": text("router.crt"),
                    "private_key": text("router.key"),
                },
                "loggregator": loggregator("router"),
            }),
        );
        write(
            "log-cache",
            &[["ca_path", "cert_path", "key_path"]],
            json!({
                "addr": "127.0.0.1:8092",
                "proxy_addr": "127.0.0.1:8093",
                "uaa_addr": "https://127.0.0.1:8094",
                "uaa_issuer": "http://uaa.bloomery.test/oauth/token",
                "capi_addr": "https://127.0.0.1:9022",
            }),
        );
        let own = ["ca_cert_file", "cert_file", "key_file"];
        write(
            "uaa",
            &[own],
            json!({
                "listen_address": "127.0.0.1:8094",
                "data_dir": path("uaa"),
                "uaa_url": "http://uaa.bloomery.test",
                "login_url": "http://login.bloomery.test",
                "users": [{
                    "user_name": "admin",
                    "password": PASSWORD,
                    "groups": ["cloud_controller.admin", "scim.read", "scim.write"],
                }],
                "client_secrets": {"cloud_controller_username_lookup": "lookup-secret"},
            }),
        );
        let bundle = "buildpack_app_lifecycle/buildpack_app_lifecycle.tgz";
        write(
            "cloud-controller",
            &[own, bbs_keys],
            json!({
                "listen_address": "127.0.0.1:9022",
                "internal_listen_address": "127.0.0.1:9023",
                "internal_url": "https://127.0.0.1:9023",
                "data_dir": path("cloud-controller"),
                "external_domain": "api.bloomery.test",
                "system_domain": "bloomery.test",
                "app_domains": ["apps.bloomery.test"],
                "links": {
                    "uaa": "http://uaa.bloomery.test",
                    "login": "http://login.bloomery.test",
                    "log_cache": "http://log-cache.bloomery.test",
                },
                "stacks": [{"name": "base"}],
                "staging": {
                    "auth": {"user": "cell", "password": "staging-secret"},
                    "minimum_staging_memory_mb": 256,
                },
                "bbs_address": "https://127.0.0.1:8889",
                "uaa_address": "https://127.0.0.1:8094",
                "cloud_controller_username_lookup_client_secret": "lookup-secret",
                "lifecycle_bundle": format!("https://127.0.0.1:8443/v1/static/{bundle}"),
                "log_cache_address": "127.0.0.1:8092",
                "loggregator": loggregator("cloud-controller"),
            }),
        );
        let route = |name: &str, port: u16, hosts: &[&str]| {
            json!({
                "name": name,
                "tls_port": port,
                "server_cert_domain_san": "127.0.0.1",
                "uris": hosts.iter().map(|host| format!("{host}.bloomery.test")).collect::<Vec<_>>(),
                "registration_interval": "2s",
            })
        };
        write(
            "route-registrar",
            &[],
            json!({
                "message_bus_servers": [{
                    "host": "127.0.0.1:4222", "user": "nats", "password": "nats-password",
                }],
                "nats_mtls_config": {
                    "enabled": true,
                    "ca_path": ca,
                    "cert_path": path("route-registrar.crt"),
                    "key_path": path("route-registrar.key"),
                },
                "host": "127.0.0.1",
                "routes": [
                    route("api", 9022, &["api"]),
                    route("uaa", 8094, &["uaa", "login"]),
                    route("log-cache", 8093, &["log-cache"]),
                ],
            }),
        );
    }

    fn garden(&self, verb: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 20000; exec \"$0\" \"$@\"", BLOOMERY, "garden", verb]);
        command.args(["--bind-ip", "127.0.0.1", "--bind-port", &GARDEN.to_string()]);
        command.args(["--tag", &self.tag, "--pool-size", "2"]);
        // Loopback is all the network that there is.
        command.args(["--external-ip", "127.0.0.1"]);
        for (flag, place) in
            [("--depot", "depot"), ("--keeper-dir", "keeper"), ("--store", "store")]
        {
            command.arg(flag).arg(self.place(place));
        }
        command
    }

    /// Starts one and waits until it serves.
    pub fn start(&self, daemon: &'static str) {
        let log = self.place(&format!("{daemon}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = match daemon {
            "nats-server" => {
                let mut command = Command::new("nats-server");
                // Where Debian has it, also if PATH is a user's.
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{path}:/usr/sbin"));
                command.arg("-c").arg(self.place("nats.conf"));
                command
            }
            "garden" => self.garden("serve"),
            _ => {
                let mut command = Command::new(BLOOMERY);
                command.arg(daemon).arg("-config").arg(self.place(&format!("{daemon}.json")));
                command
            }
        };
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        if daemon == "router" {
            command.stdin(OwnedFd::from(self.socket.try_clone().unwrap()));
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{daemon}: {error}"));
        self.running.lock().unwrap().insert(daemon, child);
        if let Some(port) = port(daemon) {
            eventually(daemon, || self.listens(daemon, port));
        }
    }

    fn listens(&self, daemon: &'static str, port: u16) -> Result<(), String> {
        let ended = self.running.lock().unwrap().get_mut(daemon).unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "{daemon} has ended: {ended:?}\n{}", self.log(daemon));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        connected.map(drop).map_err(|error| format!("{error}\n{}", self.log(daemon)))
    }

    /// The end of a daemon's log.
    fn log(&self, daemon: &str) -> String {
        let log = fs::read(self.place(&format!("{daemon}.log"))).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(4000)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    pub fn start_all(&self) {
        for daemon in DAEMONS {
            self.start(daemon);
        }
    }

    pub fn kill(&self, daemon: &'static str) {
        let mut child = self.running.lock().unwrap().remove(daemon).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, upon which each has to end well.
    pub fn stop_all(&self) {
        for daemon in DAEMONS.into_iter().rev().filter(|daemon| *daemon != "garden") {
            let mut child = self.running.lock().unwrap().remove(daemon).unwrap();
            let status = terminate(&mut child);
            let code = status.and_then(|status| status.code());
            // nats-server has its own ideas.
            let wanted = if daemon == "nats-server" { code } else { Some(0) };
            assert_eq!(code, wanted, "{daemon}: {status:?}\n{}", self.log(daemon));
        }
    }

    /// Which process an app is, by its own words, at the only instance's own port.
    pub fn life_without_router(&self, instances: &BTreeSet<(String, String, u32)>) -> String {
        let (_, _, port) = instances.first().unwrap();
        let port = u16::try_from(*port).unwrap();
        life_at(port).unwrap()
    }

    /// Guids, states and host ports of all instances, as the BBS has them.
    pub fn instances(&self) -> BTreeSet<(String, String, u32)> {
        let identity = Identity::load(Files {
            ca: self.place("ca.crt"),
            certificate: self.place("test.crt"),
            key: self.place("test.key"),
        });
        let address: Address = "https://127.0.0.1:8889".parse().unwrap();
        let lrps = self.user.runtime.block_on(async {
            let bbs = bbs_client::Client::new(address, Some(identity.unwrap())).unwrap();
            bbs.actual_lrps(ActualLRPsRequest::default()).await.unwrap()
        });
        let instance = |lrp: &bbs_models::ActualLRP| {
            let ports = &lrp.actual_lrp_net_info.ports;
            let port = ports.iter().find(|port| port.container_port == 8080);
            (
                lrp.actual_lrp_instance_key.instance_guid.clone(),
                lrp.state.clone(),
                port.map_or(0, |port| port.host_port),
            )
        };
        lrps.iter().map(instance).collect()
    }

    /// Handles of all containers.
    pub fn containers(&self) -> BTreeSet<String> {
        let garden =
            Garden::new(GardenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, GARDEN))));
        let owned = Properties::from([("executor:owner".into(), "executor".into())]);
        self.user.runtime.block_on(garden.list(&owned)).unwrap().into_iter().collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for daemon in DAEMONS {
                eprintln!("---- {daemon}\n{}", self.log(daemon));
            }
        }
        let mut running = std::mem::take(self.running.get_mut().unwrap());
        if let Some(mut garden) = running.remove("garden") {
            terminate(&mut garden);
        }
        for child in running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let cleaned = self.garden("cleanup").output().unwrap();
        if !cleaned.status.success() && !std::thread::panicking() {
            panic!("{cleaned:?}");
        }
    }
}

/// SIGTERM; nothing if it does not end.
pub fn terminate(child: &mut Child) -> Option<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    kill_process(pid, Signal::TERM).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

pub fn succeed(output: Output) {
    assert!(output.status.success(), "{output:?}");
}

/// A root file system: busybox, and this machine's bash with what it needs.
pub fn image(root: &Path) {
    rootfs::busybox::build(root, &rootfs::busybox::find().unwrap()).unwrap();
    let needs = Command::new("ldd").arg("/bin/bash").output().unwrap();
    let needs = String::from_utf8(needs.stdout).unwrap();
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/bash"]) {
        let target = root.join(&file[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&target);
        fs::copy(file, target).unwrap();
    }
}

//! The daemons, put together.

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any_service;
use bus::Bus;
use cloud_controller::diego::{Diego, Installation};
use cloud_controller::{CloudController, Surroundings};
use log_cache::{Access, Ingress, LogCache, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::{Address, Listener, Server};
use uaa::{Peer, Secret, SeedUser, Uaa};

use crate::config::Config;
use crate::error::Error;
use crate::identity::Authority;
use crate::logs::Logs;
use crate::registration::{self, Registration};
use crate::secrets::Secrets;
use crate::{bundle, foundation, ports, usage};

/// The cell's name, and with it the lock's owner: a platform that was killed takes its own over.
const CELL: &str = "cell-1";
const OWNER: &str = "platform";

/// Directory of the platform's certificates in containers.
pub(crate) const TRUSTED_CERTIFICATES: &str = "/etc/cf-system-certificates";
/// Processes that a container may have.
pub(crate) const MAX_PIDS: i32 = 1024;

/// For everything that has to be there before the platform is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the router to be told all routes, before it answers with those that it knows.
const FILLED: Duration = Duration::from_secs(20);
/// For requests and auctions under way when the platform is told to stop.
const FAREWELL: Duration = Duration::from_secs(20);

/// Sockets that the caller has bound, and holds while the platform is started again.
#[derive(Debug)]
pub struct Listeners {
    /// The router's, for everybody.
    pub http: Vec<TcpListener>,
}

/// Told when everything answers.
pub type Ready = tokio::sync::oneshot::Sender<()>;

type Cause = Box<dyn std::error::Error + Send + Sync>;
type Daemons = JoinSet<(&'static str, Result<(), Cause>)>;

/// Runs a platform until it is told to stop or one of its daemons ends. Containers go on either way.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    ready: Ready,
    stop: CancellationToken,
) -> Result<(), Error> {
    let stop = stop.child_token();
    // However this function ends, nothing of it goes on.
    let _stop = stop.clone().drop_guard();
    make_directory(&config.data)?;
    let secrets = Secrets::ensure(&config.data)?;
    let mut daemons = Daemons::new();

    start_diego(&config, &mut daemons, &stop).await?;
    let api = Api::open(&config, &secrets).await?;
    let bus = Bus::local();
    start_cell(&config, &api.logs, &mut daemons, &stop)?;
    let own_routes = start_router(&config, listeners, &bus, &api.logs, &mut daemons, &stop).await?;
    let registrations = api.start(&config, &mut daemons, &stop).await?;
    let (keeping, told) = (bus.clone(), stop.clone());
    spawn(&mut daemons, "the registration of routes", async move {
        registration::keep(keeping, registrations, registration::INTERVAL, own_routes, told).await
    });

    let (prepared, port) = (prepare(&config, &api, &secrets), config.port);
    let ended = tokio::select! {
        prepared = prepared => match prepared {
            Ok(()) => {
                tracing::info!(api = config.url("api"), port, "the platform is ready");
                // Whoever waited may have gone.
                let _ = ready.send(());
                until_ended(&mut daemons, &stop).await
            }
            Err(error) => Err(error),
        },
        ended = until_ended(&mut daemons, &stop) => ended,
    };
    stop.cancel();
    let farewell = async {
        while daemons.join_next().await.is_some() {}
        api.close().await;
    };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!("what was under way is cut off");
    }
    ended
}

/// Starts Locket, the board and the auctioneer.
async fn start_diego(
    config: &Config,
    daemons: &mut Daemons,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let locket = locket::Server::open(&config.data.join("locket.db"))
        .await
        .map_err(Error::start("Locket"))?;
    let listener = listen("Locket", &config.socket("locket")).await?;
    let told = stop.clone();
    spawn(daemons, "Locket", async move {
        locket.serve(listener, told).await;
        Ok::<_, Infallible>(())
    });
    let bbs = bbs::Config {
        listen_address: config.socket("bbs").to_string(),
        database_connection_string: config.data.join("bbs.db"),
        locket_address: config.socket("locket").to_string(),
        auctioneer_address: config.socket("auctioneer").to_string(),
        uuid: OWNER.into(),
        ..bbs::Config::default()
    };
    spawn(daemons, "the BBS", bbs::serve(bbs, bbs::Listeners::default(), stop.clone()));
    let auctioneer = auctioneer::Config {
        listen_address: config.socket("auctioneer").to_string(),
        bbs_address: config.socket("bbs").to_string(),
        locket_address: config.socket("locket").to_string(),
        uuid: OWNER.into(),
        ..auctioneer::Config::default()
    };
    let listeners = auctioneer::Listeners::default();
    spawn(daemons, "the auctioneer", auctioneer::serve(auctioneer, listeners, stop.clone()));
    Ok(())
}

/// Starts the rep.
fn start_cell(
    config: &Config,
    logs: &Logs,
    daemons: &mut Daemons,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let cell = config.data.join("cell");
    make_directory(&cell)?;
    let authority = Authority::ensure(&config.data)?;
    let rep = rep::Config {
        cell_id: CELL.into(),
        zone: "z1".into(),
        preloaded_root_fs: [(config.stack.name.clone(), config.stack.rootfs.clone())].into(),
        listen_addr: config.socket("rep-admin").to_string(),
        listen_addr_securable: config.socket("rep").to_string(),
        bbs_address: config.socket("bbs").to_string(),
        locket_address: config.socket("locket").to_string(),
        garden_addr: config.garden.clone(),
        memory_mb: config.memory_mb,
        disk_mb: config.disk_mb,
        max_cache_size_in_bytes: cache_bytes(&cell)?,
        cache_path: cell,
        healthcheck_program: Some(config.lifecycle.clone()),
        instance_identity_ca_path: authority.certificate,
        instance_identity_private_key_path: authority.key,
        trusted_system_certificates_path: authority.trusted,
        ..rep::Config::default()
    };
    let sink: Arc<dyn executor::Sink> = Arc::new(logs.clone());
    spawn(daemons, "the rep", rep::serve(rep, rep::Listeners::default(), sink, stop.clone()));
    Ok(())
}

/// What downloads may keep of a disk: a tenth, and no more than an original's cell keeps. What they
/// keep is not offered to apps, so a small disk would have nothing left for these.
fn cache_bytes(cell: &Path) -> Result<u64, Error> {
    let disk = rustix::fs::statvfs(cell)
        .map_err(|errno| Error::file("look at the file system of", cell)(errno.into()))?;
    let whole = disk.f_blocks.saturating_mul(disk.f_frsize);
    Ok((whole / 10).min(rep::Config::default().max_cache_size_in_bytes))
}

/// Starts the router and what tells it of apps. Clients wait until it knows both those and, as is to
/// be said to the returned, the platform's own routes.
async fn start_router(
    config: &Config,
    listeners: Listeners,
    bus: &Bus,
    logs: &Logs,
    daemons: &mut Daemons,
    stop: &CancellationToken,
) -> Result<oneshot::Sender<()>, Error> {
    let (tell_own, own) = oneshot::channel();
    let (tell_apps, apps) = oneshot::channel();
    let (tell_filled, filled) = oneshot::channel();
    tokio::spawn(async move {
        if let (Ok(()), Ok(())) = tokio::join!(own, apps) {
            let _ = tell_filled.send(());
        }
    });
    let router =
        router::Config { start_response_delay_interval: FILLED, ..router::Config::default() };
    let sockets = router::Listeners {
        http: listeners.http,
        filled: Some(filled),
        ..router::Listeners::default()
    };
    let access_log: Arc<dyn router::AccessLog> = Arc::new(logs.clone());
    let mut starts = bus.subscribe("router.start").await.map_err(Error::start("the router"))?;
    let serving = router::serve(router, sockets, bus.clone(), access_log, stop.clone());
    spawn(daemons, "the router", serving);
    // What is said before somebody listens is lost.
    let _ = tokio::time::timeout(FILLED, starts.next()).await;
    let emitter =
        route_emitter::Config { cell_id: CELL.into(), ..route_emitter::Config::default() };
    let bbs = bbs_client::Client::new(config.socket("bbs"), None)
        .map_err(Error::start("the route emitter"))?;
    let emitting = route_emitter::serve_telling(emitter, bbs, bus.clone(), tell_apps, stop.clone());
    spawn(daemons, "the route emitter", emitting);
    Ok(tell_own)
}

/// What users ask: Cloud Controller, UAA and Log Cache.
struct Api {
    uaa: Uaa,
    controller: CloudController,
    diego: Diego,
    log_cache: LogCache,
    logs: Logs,
    internal: TcpListener,
}

impl Api {
    async fn open(config: &Config, secrets: &Secrets) -> Result<Self, Error> {
        let uaa = Uaa::open(uaa_config(config, secrets)).await.map_err(Error::start("UAA"))?;
        let log_cache = LogCache::new(Store::new(log_cache::Limits::default()));
        let logs = Logs::new(Ingress::local(log_cache.store().clone()));
        let internal = ports::internal(&config.data)?;
        let internal_url = internal
            .local_addr()
            .map(|address| format!("http://{address}"))
            .map_err(Error::socket("the internal server"))?;
        let bbs = bbs_client::Client::new(config.socket("bbs"), None)
            .map_err(Error::start("Cloud Controller"))?;
        let diego = Diego::new(
            bbs,
            Installation {
                lifecycle_bundle: format!("{internal_url}/v1/static/{}", bundle::PATH),
                trusted_certificates: TRUSTED_CERTIFICATES.into(),
                max_pids: MAX_PIDS,
            },
        );
        let blobs = config.data.join("blobs");
        let blobs = tokio::task::spawn_blocking(move || blobstore::Blobstore::local(&blobs))
            .await
            .map_err(Error::start("the blobstore"))?
            .map_err(Error::start("the blobstore"))?;
        let lookup = Secret(secrets.user_lookup.clone());
        let around = Surroundings {
            blobs,
            tokens: uaa.verifier("cloud_controller"),
            users: Arc::new(uaa::Client::new(
                Peer::local(uaa.routes()),
                "cloud_controller_username_lookup",
                lookup,
            )),
            runtime: Arc::new(diego.clone()),
            logs: logs.of_cloud_controller(),
        };
        let settings = cloud_controller_config(config, secrets, internal_url);
        let controller = CloudController::open(settings, around)
            .await
            .map_err(Error::start("Cloud Controller"))?
            .with_metrics(usage::in_store(log_cache.store().clone()));
        Ok(Self { uaa, controller, diego, log_cache, logs, internal })
    }

    /// Starts all servers, and says which routes lead to them.
    async fn start(
        &self,
        config: &Config,
        daemons: &mut Daemons,
        stop: &CancellationToken,
    ) -> Result<Vec<Registration>, Error> {
        let files = config.data.join("static");
        make_directory(&files)?;
        let (program, directory) = (config.lifecycle.clone(), files.clone());
        let stamp = config.data.join("lifecycle.stamp");
        tokio::task::spawn_blocking(move || bundle::ensure(&program, &directory, &stamp))
            .await
            .map_err(Error::start("the file server"))??;
        let files = file_server::routes(&files).map_err(Error::start("the file server"))?;
        let internal = Router::new()
            .route("/v1/static/{*path}", any_service(files))
            .merge(self.controller.internal_routes());
        let socket = self.internal.try_clone().map_err(Error::socket("the internal server"))?;
        serve_routes("the internal server", internal, socket, daemons, stop)?;

        let access = Access::new(
            self.uaa.verifier("cloud_controller"),
            Peer::local(self.controller.routes()),
        );
        let log_cache = self.log_cache.clone().until(stop.clone());
        let mut registrations = Vec::new();
        for (name, routes, hosts) in [
            ("cloud_controller", self.controller.routes(), &["api"][..]),
            ("uaa", self.uaa.routes(), &["uaa", "login"]),
            ("log-cache", log_cache.routes(Some(access)), &["log-cache"]),
        ] {
            let socket =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::socket(name))?;
            let address = socket.local_addr().map_err(Error::socket(name))?;
            serve_routes(name, routes, socket, daemons, stop)?;
            let hosts = hosts.iter().map(|host| format!("{host}.{}", config.domain)).collect();
            registrations.push(Registration::part(name, address, hosts));
        }
        let controller = self.controller.clone();
        let told = stop.clone();
        spawn(daemons, "Cloud Controller", async move {
            told.run_until_cancelled(controller.run()).await;
            Ok::<_, Infallible>(())
        });
        let (diego, controller, told) = (self.diego.clone(), self.controller.clone(), stop.clone());
        spawn(daemons, "the watch for crashes", async move {
            told.run_until_cancelled(diego.watch_crashes(&controller)).await;
            Ok::<_, Infallible>(())
        });
        Ok(registrations)
    }

    async fn close(&self) {
        self.controller.close().await;
        self.uaa.close().await;
    }
}

fn uaa_config(config: &Config, secrets: &Secrets) -> uaa::Config {
    let groups = "cloud_controller.admin clients.read doppler.firehose network.admin \
                  routing.router_groups.read routing.router_groups.write scim.read scim.write";
    uaa::Config {
        data_dir: config.data.join("uaa"),
        uaa_url: config.url("uaa"),
        login_url: config.url("login"),
        users: vec![SeedUser {
            user_name: "admin".into(),
            password: Secret(secrets.admin.clone()),
            groups: groups.split_whitespace().map(str::to_owned).collect(),
            ..SeedUser::default()
        }],
        client_secrets: [(
            "cloud_controller_username_lookup".to_owned(),
            Secret(secrets.user_lookup.clone()),
        )]
        .into(),
        ..uaa::Config::default()
    }
}

fn cloud_controller_config(
    config: &Config,
    secrets: &Secrets,
    internal_url: String,
) -> cloud_controller::Config {
    cloud_controller::Config {
        data_dir: config.data.join("cloud-controller"),
        external_protocol: "http".into(),
        external_domain: config.authority("api"),
        system_domain: config.domain.clone(),
        app_domains: vec![config.apps_domain.clone()],
        links: cloud_controller::Links {
            uaa: config.url("uaa"),
            login: config.url("login"),
            log_cache: config.url("log-cache"),
            ..cloud_controller::Links::default()
        },
        internal_url,
        stacks: vec![cloud_controller::Stack {
            name: config.stack.name.clone(),
            description: config.stack.description.clone(),
            build_rootfs_image: None,
            run_rootfs_image: None,
        }],
        staging: cloud_controller::Staging {
            auth: cloud_controller::StagingAuth {
                user: "cell".into(),
                password: Secret(secrets.staging.clone()),
            },
            ..cloud_controller::Staging::default()
        },
        ..cloud_controller::Config::default()
    }
}

/// What has to be so before users are told that they may come.
async fn prepare(config: &Config, api: &Api, secrets: &Secrets) -> Result<(), Error> {
    let asked = foundation::Api::log_in(
        Peer::local(api.controller.routes()),
        &Peer::local(api.uaa.routes()),
        &secrets.admin,
    )
    .await?;
    foundation::lay(&asked).await?;
    let bbs =
        bbs_client::Client::new(config.socket("bbs"), None).map_err(Error::start("the BBS"))?;
    let there = async {
        while !bbs.cells().await.is_ok_and(|cells| !cells.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while !answers(config).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.map_err(|late| Error::Ended {
        daemon: "the wait for cell and router",
        source: Some(late.into()),
    })
}

/// Whether the router leads to the API.
async fn answers(config: &Config) -> bool {
    let request = format!(
        "GET /v3/info HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        config.authority("api")
    );
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, config.port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head == *b"HTTP/1.1 200")
    };
    ask.await.unwrap_or(false)
}

fn spawn<E>(
    daemons: &mut Daemons,
    name: &'static str,
    work: impl Future<Output = Result<(), E>> + Send + 'static,
) where
    E: Into<Cause>,
{
    daemons.spawn(async move { (name, work.await.map_err(Into::into)) });
}

/// Waits until the platform is told to stop, or one of its daemons has ended.
async fn until_ended(daemons: &mut Daemons, stop: &CancellationToken) -> Result<(), Error> {
    tokio::select! {
        // Daemons end by the same word: that is no failure of theirs.
        biased;
        () = stop.cancelled() => Ok(()),
        ended = daemons.join_next() => Err(match ended {
            Some(Ok((daemon, ended))) => Error::Ended { daemon, source: ended.err() },
            Some(Err(panic)) => Error::Ended { daemon: "a daemon", source: Some(panic.into()) },
            None => Error::Ended { daemon: "everything", source: None },
        }),
    }
}

fn serve_routes(
    name: &'static str,
    routes: Router,
    socket: TcpListener,
    daemons: &mut Daemons,
    stop: &CancellationToken,
) -> Result<(), Error> {
    socket.set_nonblocking(true).map_err(Error::socket(name))?;
    let listener = Listener::from_tcp(socket, None).map_err(Error::socket(name))?;
    let stop = stop.clone();
    spawn(daemons, name, async move {
        Server::new(listener).serve(routes, stop).await;
        Ok::<_, Infallible>(())
    });
    Ok(())
}

async fn listen(daemon: &'static str, address: &Address) -> Result<Listener, Error> {
    Listener::bind(address, None).await.map_err(Error::socket(daemon))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("make", path))
}

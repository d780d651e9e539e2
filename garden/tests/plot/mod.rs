//! A Garden of a test's own: its places, its name, a small image, and an end that leaves nothing.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod cage;
#[path = "../../networker/tests/kernel/place.rs"]
pub mod place;
pub mod running;
pub mod serving;
pub mod traces;
#[path = "../../sys/tests/cell/waiting.rs"]
pub mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bloomery_garden::Gardener;
use bloomery_garden::config::{Config, Listen};
use bloomery_garden::process::Output;
use garden_api::{ContainerSpec, ProcessSpec};
use garden_sys::supervisor::Exit;
use place::Place;
use tokio::runtime::Runtime;
use traces::Traces;
pub use waiting::{PATIENCE, wait_until};

static PLOTS: AtomicU32 = AtomicU32::new(0);

/// A Garden in a directory of its own, on a host of its own as far as the network goes.
pub struct Plot {
    pub host: Place,
    pub directory: tempfile::TempDir,
    pub config: Config,
    pub runtime: Runtime,
    pub garden: Option<Arc<Gardener>>,
    pub server: Option<serving::Server>,
}

/// What a process did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub exit: Exit,
    pub output: String,
    pub error: String,
}

impl Plot {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let host = Place::new();
        host.run("ip link set lo up");
        Self::on(host, adjust)
    }

    /// A Garden on a host whose network is prepared.
    pub fn on(host: Place, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut plot = Self::prepared(host, adjust);
        plot.come_back();
        plot
    }

    /// The places of a Garden that is not started.
    pub fn prepared(host: Place, adjust: impl FnOnce(&mut Config)) -> Self {
        let number = PLOTS.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| -> PathBuf { directory.path().join(name) };
        rootfs::busybox::build(&place("image"), &rootfs::busybox::find().unwrap()).unwrap();
        // Two tests at once must not meet in the names of cgroups.
        let unique = std::process::id() * 8 + number;
        let mut config = Config {
            listen: Listen::Unix { path: place("garden.sock"), mode: 0o660 },
            depot: place("depot"),
            run: place("run"),
            store: place("store"),
            tag: format!("t{}", base36(unique % 46656)),
            default_rootfs: Some(place("image")),
            pool: 1,
            ..Config::default()
        };
        adjust(&mut config);
        Self { host, directory, config, runtime: runtime(), garden: None, server: None }
    }

    pub fn garden(&self) -> &Arc<Gardener> {
        self.garden.as_ref().unwrap()
    }

    /// Another daemon on the same places, and on the same socket if there was one.
    pub fn restart(&mut self) {
        let served = self.server.is_some();
        self.leave();
        self.come_back();
        if served {
            self.serve();
        }
    }

    /// The daemon ends as by a signal, and nothing of it is left.
    pub fn leave(&mut self) {
        self.stop_serving();
        let garden = self.garden.take().unwrap();
        garden.leave();
        let gone = Arc::downgrade(&garden);
        drop(garden);
        // Whatever it ran goes with it.
        std::mem::replace(&mut self.runtime, runtime()).shutdown_timeout(PATIENCE);
        wait_until("the daemon is gone", || gone.strong_count() == 0);
    }

    pub fn come_back(&mut self) {
        let (config, runtime) = (self.config.clone(), self.runtime.handle().clone());
        let started = self.host.inside(|| Gardener::start(config, runtime));
        self.garden = Some(started.unwrap());
    }

    pub fn traces(&self) -> Traces {
        Traces::of(&self.config)
    }

    pub fn settled(&self) -> Traces {
        Traces::settled(&self.config, 0, 0)
    }

    pub fn expect(&self, before: &Traces) {
        before.expect_again(&self.config);
    }

    /// Where a container's files are.
    pub fn volume(&self, handle: &str) -> PathBuf {
        let record = std::fs::read(self.config.depot.join(handle).join("container.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        self.config.store.join("volumes").join(record["volume"].to_string())
    }

    /// Pids of keeper and anchor.
    pub fn supervisor(&self) -> (i32, i32) {
        traces::supervisor(&self.config.run)
    }

    pub fn create(&self, handle: &str) -> String {
        self.create_as(ContainerSpec { handle: handle.into(), ..ContainerSpec::default() })
    }

    pub fn create_as(&self, spec: ContainerSpec) -> String {
        self.garden().create(spec).unwrap()
    }

    /// Runs a shell script in a container to its end.
    pub fn sh(&self, handle: &str, script: &str) -> Outcome {
        let spec = ProcessSpec {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ..ProcessSpec::default()
        };
        self.run(handle, &spec)
    }

    /// Runs a process to its end.
    pub fn run(&self, handle: &str, spec: &ProcessSpec) -> Outcome {
        let process = self.garden().run(handle, spec).unwrap();
        let mut attachment = process.attach();
        let (output, error) = attachment.take_outputs().unwrap();
        attachment.end_input();
        let both = async { tokio::join!(collect(output), collect(error), process.wait()) };
        let (output, error, exit) =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await }).unwrap();
        Outcome { exit, output, error }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

async fn collect(mut pieces: Output) -> String {
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn base36(mut number: u32) -> String {
    let mut text = String::new();
    for _ in 0..3 {
        text.push(char::from_digit(number % 36, 36).unwrap());
        number /= 36;
    }
    text
}

impl Drop for Plot {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            drop(server);
        }
        if let Some(garden) = self.garden.take() {
            let razed = garden.raze();
            if !std::thread::panicking() {
                razed.unwrap();
            }
        }
    }
}

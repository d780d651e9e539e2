//! `bloomery up` in a world, and what its operator can see of it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use bbs_models::{ActualLRP, ActualLRPsRequest, DesiredLRP, DesiredLRPsRequest};
use bloomery_garden::client::{Address, Client};
use bytes::Bytes;
use garden_api::Properties;
use http::{Request, Uri};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::api::{Api, Told};
use crate::cache::{program, stack};
use crate::http::{Answer, exchange};
use crate::session::Session;
use crate::world::{Process, World};
use crate::{PATIENCE, eventually};

/// `bloomery up --foreground`, killed when it is dropped.
#[derive(Debug)]
pub struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the platform's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What `up` starts, and what starts the others.
    Supervisor,
    /// What goes on when that is killed.
    StandBy,
    /// The container daemon.
    Garden,
    /// All other daemons.
    Platform,
    /// Parent of containers' processes.
    Keeper,
    /// The keeper's own.
    Anchor,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Garden, Self::Keeper, Self::Anchor, Self::Platform, Self::StandBy, Self::Supervisor];

    fn is(self, arguments: &[String]) -> bool {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match self {
            Self::Supervisor | Self::StandBy => arguments.get(1) == Some(&"supervise"),
            Self::Garden => arguments.get(1..3) == Some(&["garden", "serve"]),
            Self::Platform => arguments.get(1) == Some(&"platform"),
            // Their second argument says whether they have followed another one.
            Self::Keeper => arguments.first() == Some(&"bloomery-keeper"),
            Self::Anchor => arguments.first() == Some(&"bloomery-anchor"),
        }
    }
}

/// A platform, its world, and clients of all that it shows.
#[derive(Debug)]
pub struct Platform {
    // Before the world: it names the world's sockets.
    runtime: Runtime,
    world: World,
    tag: String,
    /// Where `up` has said that it is.
    port: AtomicU16,
}

impl Platform {
    /// A world where nothing was started yet. The numbers of those that are there at a time in one
    /// process differ, and are below 4.
    pub fn new(number: u32) -> Self {
        assert!(number < 4);
        let world = World::new();
        // Garden's cgroups are the host's. No other tests' tags end in an upper case letter.
        let unique = std::process::id() * 4 + number;
        let digit = |number: u32, base: u32| char::from_digit(number % base, 36).unwrap();
        let last = digit(10 + unique / 36 % 26, 36).to_ascii_uppercase();
        let tag = format!("{}{last}", digit(unique, 36));
        let runtime = Runtime::new().unwrap();
        Self { runtime, world, tag, port: AtomicU16::new(80) }
    }

    /// A platform that is ready.
    pub fn started(number: u32) -> Self {
        let platform = Self::new(number);
        platform.put_stack();
        platform.up(&[]);
        platform
    }

    /// Puts the root file system where `up` would make it.
    pub fn put_stack(&self) {
        fs::create_dir(self.data()).unwrap();
        symlink(stack(), self.data().join("stack")).unwrap();
    }

    /// `bloomery up --hosts` with some more flags, which has to succeed; what it prints.
    pub fn up(&self, flags: &[&str]) -> String {
        self.up_nameless(&[&["--hosts"], flags].concat())
    }

    /// The same, with no names in `/etc/hosts`.
    pub fn up_nameless(&self, flags: &[&str]) -> String {
        let words = self.up_words(flags);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let told = self.told(&words);
        // A push says something of the API as well.
        let mut values = told.lines().filter_map(|line| line.trim().strip_prefix("API "));
        let api = values.find_map(|value| value.trim().starts_with("http").then(|| value.trim()));
        let api = api.unwrap_or_else(|| panic!("no address: {told}"));
        let address: Uri = api.parse().unwrap();
        self.port.store(address.port_u16().unwrap_or(80), Ordering::SeqCst);
        told
    }

    /// The words of `bloomery up` with some more flags, for [`Self::start`].
    pub fn up_words(&self, flags: &[&str]) -> Vec<String> {
        let tag = format!("--garden=--tag={}", self.tag);
        let words = ["up", "--memory", "4096", &tag];
        words.iter().chain(flags).map(ToString::to_string).collect()
    }

    /// `bloomery up --foreground`.
    pub fn up_in_foreground(&self) -> Foreground {
        let mut command = self.world.command(program());
        command.args(self.up_words(&["--foreground", "--hosts"]));
        command.arg("--data").arg(self.data()).arg("--run").arg(self.run());
        Foreground(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Has `up` in the foreground end, as whoever looks after it does; how it ends.
    pub fn end_foreground(&self, mut up: Foreground) -> ExitStatus {
        let all = self.world.processes();
        let is_it = |process: &&Process| process.arguments.get(1).is_some_and(|word| word == "up");
        let pid = all.iter().find(is_it).expect("it runs").pid;
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        eventually("it ends", || up.0.try_wait().unwrap().ok_or_else(|| "it does not".to_owned()))
    }

    /// Leaves no more than a loss of power does: what is in directories that are no memory.
    pub fn lose_power(&self) {
        eventually("all processes are gone", || {
            let own = self.world.processes().into_iter().map(|process| process.pid);
            let left: Vec<_> = own.chain(self.contained()).collect();
            for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have gone meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        for root in self.cgroups() {
            eventually("cgroups are empty", || {
                remove_cgroups(&root).map_err(|error| format!("{}: {error}", root.display()))
            });
        }
        self.world.forget();
        fs::remove_dir_all(self.run()).unwrap();
    }

    /// What runs in its containers, as the host counts.
    fn contained(&self) -> Vec<i32> {
        let mut all = Vec::new();
        let mut directories = self.cgroups();
        while let Some(directory) = directories.pop() {
            // Either may go meanwhile.
            let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            all.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        all
    }

    /// The router's port.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::SeqCst)
    }

    /// Where one of the platform's own names is.
    pub fn url(&self, host: &str) -> String {
        match self.port() {
            80 => format!("http://{host}.bloomery.localhost"),
            port => format!("http://{host}.bloomery.localhost:{port}"),
        }
    }

    /// `bloomery` with these words, in the world.
    pub fn bloomery(&self, words: &[&str]) -> Output {
        let mut command = self.world.command(program());
        command.args(words).args(self.place());
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The same, as a terminal has it while it runs.
    pub fn start(&self, words: &[String]) -> Session {
        Session::start(&self.world, &[words, &self.place()].concat())
    }

    fn place(&self) -> [String; 4] {
        let [data, run] = [self.data(), self.run()].map(|path| path.display().to_string());
        ["--data".into(), data, "--run".into(), run]
    }

    /// The same, which has to succeed; what it prints.
    pub fn told(&self, words: &[&str]) -> String {
        let output = self.bloomery(words);
        let error = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "bloomery {words:?}: {}\n{text}{error}", output.status);
        text
    }

    /// Its world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its directory of data.
    pub fn data(&self) -> PathBuf {
        self.world.directory().join("data")
    }

    /// Its directory of sockets.
    pub fn run(&self) -> PathBuf {
        self.world.directory().join("run")
    }

    /// Cgroups of its containers, in whatever hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let below = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
        let own = |directory: PathBuf| directory.join(format!("bloomery-{}", self.tag));
        below.chain([root.to_owned()]).map(own).filter(|path| path.exists()).collect()
    }

    /// The administrator's password.
    pub fn password(&self) -> String {
        let told = self.told(&["credentials"]);
        told.split_whitespace().last().unwrap().to_owned()
    }

    /// Logs in as the administrator.
    pub fn log_in(&self) -> Told<Api<'_>> {
        Api::log_in(self)
    }

    /// Sends a request to the router, for the host that it names.
    pub fn send(&self, request: Request<Bytes>) -> io::Result<Answer> {
        let stream = self.world.connect(self.port())?;
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, exchange(stream, request)).await? })
    }

    /// Gets a path of an app.
    pub fn app(&self, host: &str, path: &str) -> io::Result<Answer> {
        let request = Request::get(path)
            .header("host", format!("{host}.apps.bloomery.localhost"))
            .body(Bytes::new());
        self.send(request.unwrap())
    }

    /// What a certain instance of an app, given by its guid, says of itself.
    pub fn app_instance(&self, host: &str, app: &str, index: usize) -> serde_json::Value {
        let request = Request::get("/")
            .header("host", format!("{host}.apps.bloomery.localhost"))
            .header("x-cf-app-instance", format!("{app}:{index}"))
            .body(Bytes::new());
        self.send(request.unwrap()).unwrap().json()
    }

    /// Waits until an app answers; what it says of itself.
    pub fn app_answers(&self, host: &str) -> serde_json::Value {
        eventually("the app answers", || match self.app(host, "/") {
            Ok(answer) if answer.status == 200 => Ok(answer.json()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until the router knows no such app.
    pub fn app_is_unknown(&self, host: &str) {
        eventually("the router has forgotten the app", || match self.app(host, "/") {
            Ok(answer) if answer.header("x-cf-routererror") == "unknown_route" => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        });
    }

    /// Runs a client's call to its end.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        let call = async { tokio::time::timeout(PATIENCE, call).await };
        self.runtime.block_on(call).expect("a call ends")
    }

    /// A client of the BBS.
    pub fn bbs(&self) -> bbs_client::Client {
        let socket = transport::Address::Unix(self.run().join("platform/bbs.sock"));
        bbs_client::Client::new(socket, None).unwrap()
    }

    /// All that the BBS desires.
    pub fn desired(&self) -> Vec<DesiredLRP> {
        self.wait(self.bbs().desired_lrps(DesiredLRPsRequest::default())).unwrap()
    }

    /// All instances that the BBS knows, by their indices.
    pub fn instances(&self) -> Vec<ActualLRP> {
        let mut all = self.wait(self.bbs().actual_lrps(ActualLRPsRequest::default())).unwrap();
        all.sort_by_key(|lrp| lrp.actual_lrp_key.index);
        all
    }

    /// Waits until the BBS knows just so many instances and all of them run; their guids, by their
    /// indices.
    pub fn running(&self, number: usize) -> Vec<String> {
        eventually("instances run", || {
            let all = self.instances();
            if all.len() == number && all.iter().all(|lrp| lrp.state == "RUNNING") {
                let guid = |lrp: &ActualLRP| lrp.actual_lrp_instance_key.instance_guid.clone();
                return Ok(all.iter().map(guid).collect());
            }
            Err(format!("{all:?}"))
        })
    }

    /// A client of Garden.
    pub fn garden(&self) -> Client {
        Client::new(Address::Unix(self.run().join("garden/garden.sock")))
    }

    /// Handles of all containers, sorted.
    pub fn containers(&self) -> Vec<String> {
        let mut all = self.wait(self.garden().list(&Properties::new())).unwrap();
        all.sort();
        all
    }

    /// Waits until Garden has these containers and no others.
    pub fn containers_are(&self, handles: &[String]) {
        let mut wanted = handles.to_vec();
        wanted.sort();
        eventually("containers are those of instances", || {
            let found = self.containers();
            if found == wanted { Ok(()) } else { Err(format!("{found:?} and not {wanted:?}")) }
        });
    }

    /// A part's process, as the host counts. Of several the oldest is meant; a stand-by is younger
    /// than its supervisor.
    pub fn part(&self, part: Part) -> Option<i32> {
        let all = self.world.processes();
        let own = all.iter().filter(|process| part.is(&process.arguments));
        let mut pids: Vec<_> = own.map(|process| process.pid).collect();
        pids.sort_unstable();
        pids.get(usize::from(part == Part::StandBy)).copied()
    }

    /// Kills a part with SIGKILL, and waits until it is gone; its pid.
    pub fn kill(&self, part: Part) -> i32 {
        let pid = self.part(part).unwrap_or_else(|| panic!("{part:?} runs"));
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        eventually("a killed process ends", || {
            let is_there = self.world.processes().iter().any(|process| process.pid == pid);
            if is_there { Err(format!("{part:?} is there")) } else { Ok(pid) }
        })
    }

    /// Kills a part and waits until everything is there again and answers.
    pub fn kill_and_wait(&self, part: Part) {
        let killed = self.kill(part);
        self.is_whole(&format!("after {part:?}, process {killed}"));
    }

    /// Waits until all parts are there and answer.
    pub fn is_whole(&self, when: &str) {
        eventually(&format!("the platform is whole {when}"), || {
            let missing = Part::ALL.into_iter().find(|part| self.part(*part).is_none());
            if let Some(part) = missing {
                return Err(format!("no {part:?}"));
            }
            self.wait(self.garden().ping()).map_err(|error| error.to_string())?;
            self.log_in().map(|_| ())
        });
    }

    /// The logs of the platform's processes.
    pub fn logs(&self) -> String {
        let of = |name| fs::read_to_string(self.data().join(format!("log/{name}.log")));
        let logs = ["supervisor", "garden", "platform"].map(|name| of(name).unwrap_or_default());
        logs.join("\n")
    }
}

fn remove_cgroups(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_cgroups(&path)?;
        }
    }
    fs::remove_dir(directory)
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let lines: Vec<_> = logs.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(100)..].join("\n"));
        }
    }
}

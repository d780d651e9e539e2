//! A host of a test's own: namespaces for network, mounts and processes.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::PATIENCE;
use crate::cache::program;

/// The first process of a world. It lives as long as its input, and so outlives even a killed test
/// by the time that it takes to put everything back. All of its children are its own to wait for.
const INIT: &str = r#"
mount --bind "$1/hosts" /etc/hosts && ip link set lo up && echo up || exit 1
read -r _
[ ! -e "$1/data" ] || "$2" destroy --yes --data "$1/data" --run "$1/run" >"$1/end" 2>&1 || exit 1
rm -rf "$1"
"#;

/// A world. Dropping it ends all of its processes and removes what was made.
#[derive(Debug)]
pub struct World {
    directory: PathBuf,
    holder: Child,
    input: Option<ChildStdin>,
    /// Its first process, as the host counts.
    init: i32,
    network: File,
}

/// A process of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// As the host counts.
    pub pid: i32,
    /// All of its arguments.
    pub arguments: Vec<String>,
}

impl World {
    /// An empty one.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("world-").tempdir().unwrap().keep();
        // The platform's user has to pass.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("hosts"), "127.0.0.1 localhost\n").unwrap();
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc"])
            .args(["bash", "-c", INIT, "init"])
            .arg(&directory)
            .arg(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the test: this has to put everything back.
            .process_group(0)
            .spawn()
            .expect("the tests need unshare(1) of util-linux");
        let mut word = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut word).unwrap();
        assert_eq!(word, "up\n", "a world of one's own; are we root?");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let network = File::open(format!("/proc/{init}/ns/net")).unwrap();
        let input = holder.stdin.take();
        Self { directory, holder, input, init, network }
    }

    /// A directory that goes with the world. It has the file `hosts`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that will run in here.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--net", "--mount", "--pid", "--"]).arg(program);
        command
    }

    /// Connects to a port of the world's loopback.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        self.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
    }

    /// Does something where this world's network is.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let worker = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.network.as_fd(), network).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(worker).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What runs in here beside the first process. Containers' processes are in worlds of their own.
    pub fn processes(&self) -> Vec<Process> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init)).unwrap();
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let here = || fs::read_link(entry.path().join("ns/pid")).is_ok_and(|its| its == own);
            if pid == self.init || !here() {
                continue;
            }
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line);
            let arguments = line.split_terminator('\0').map(str::to_owned).collect();
            all.push(Process { pid, arguments });
        }
        all
    }

    /// Names of links but loopback.
    pub fn links(&self) -> Vec<String> {
        let output = self.command(Path::new("ip")).args(["-o", "link"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }

    /// The packet filter's rules.
    pub fn rules(&self) -> String {
        let output = self.command(Path::new("nft")).args(["list", "ruleset"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Takes away all rules, and all that is mounted below this world's directory. Links go with the
    /// processes at their other ends.
    pub fn forget(&self) {
        for point in self.mounts() {
            let done = self.command(Path::new("umount")).args(["--lazy", &point]).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        let flush = ["flush", "ruleset"];
        let done = self.command(Path::new("nft")).args(flush).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Where something is mounted below this world's directory.
    pub fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        let own = self.directory.to_str().unwrap();
        // The hosts file of the world itself is shown at its target.
        points.filter(|point| point.starts_with(own)).map(str::to_owned).collect()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.input.take();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.holder.try_wait() {
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                status => break status,
            }
        };
        let ended = matches!(&status, Ok(Some(status)) if status.success());
        if ended {
            return;
        }
        // Its processes die with their first one.
        let _ = Pid::from_raw(self.init).map(|init| kill_process(init, Signal::KILL));
        let _ = self.holder.wait();
        let end = fs::read_to_string(self.directory.join("end")).unwrap_or_default();
        let _ = fs::remove_dir_all(&self.directory);
        eprintln!("everything is put back: {status:?}\n{end}");
        assert!(std::thread::panicking(), "everything is put back");
    }
}

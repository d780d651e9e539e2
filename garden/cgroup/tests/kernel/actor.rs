//! Processes to put into cgroups: this test binary itself, run again with a part to play.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use garden_cgroup::{Leaf, Slot};

const PART: &str = "GARDEN_CGROUP_PART";
const JOINS: &str = "GARDEN_CGROUP_JOINS";
const ARGUMENTS: [&str; 3] = ["--exact", "actor::stage", "--nocapture"];

/// A process on the stage; killed when dropped.
pub struct Actor {
    child: Child,
    /// `None` once it has been told to leave.
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts a process in a leaf and lets it play a part: see [`play`].
    pub fn enter(slot: &Slot, leaf: Leaf, part: &str) -> Self {
        let joins = slot.joins(leaf).unwrap();
        // The child opens our descriptors anew, as if it had been sent them.
        let paths: Vec<_> = joins
            .iter()
            .map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
            .collect();
        let mut child = command(part).env(JOINS, paths.join(" ")).spawn().unwrap();
        let birth = slot.birth(leaf).unwrap();
        let members = rustix::fs::openat(
            &birth,
            "cgroup.procs",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        rustix::io::write(&members, child.id().to_string().as_bytes()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        stdin.write_all(b"go\n").unwrap();
        // Our descriptors are needed until it is in.
        let mut actor = Self { child, stdin: Some(stdin), lines };
        assert_eq!(actor.line(), "in");
        actor
    }

    pub fn id(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The next thing the actor says.
    pub fn line(&mut self) -> String {
        self.try_line().expect("the actor died")
    }

    pub fn try_line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(said) = line.trim_end().strip_prefix("actor: ") {
                return Some(said.to_owned());
            }
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn leave(mut self) -> ExitStatus {
        // Every part ends at the end of its input, however often it listens.
        drop(self.stdin.take());
        self.wait()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS).env(PART, part).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Where actors come in; an ordinary test run has no part for it.
#[test]
fn stage() {
    if let Ok(part) = std::env::var(PART) {
        if let Ok(joins) = std::env::var(JOINS) {
            panic!("{}", join(&part, &joins));
        }
        play(&part);
        std::process::exit(0);
    }
}

fn say(text: &str) {
    let mut stdout = std::io::stdout();
    // libtest leaves its line unfinished.
    stdout.write_all(format!("\nactor: {text}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
}

/// Joins, then starts over: execve(2) makes the thread that calls it the process's first, whose
/// cgroup is the one that v1 charges memory to.
fn join(part: &str, joins: &str) -> io::Error {
    hear();
    for join in joins.split_whitespace() {
        OpenOptions::new().write(true).open(join).unwrap().write_all(b"0").unwrap();
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(ARGUMENTS).env(PART, part).env_remove(JOINS).exec()
}

fn play(part: &str) {
    say("in");
    let mut words = part.split(' ');
    let verb = words.next().unwrap();
    let number = |words: &mut std::str::Split<'_, char>| words.next().unwrap().parse().unwrap();
    match verb {
        "hold" => {}
        "hog" => hog(number(&mut words)),
        "spin" => spin(Duration::from_millis(number(&mut words))),
        "threads" => threads(number(&mut words)),
        "crowd" => crowd(number(&mut words)),
        "open" => words.for_each(open),
        other => panic!("no such part: {other}"),
    }
    hear();
}

/// Uses some MiB of memory.
fn hog(mib: u64) {
    let mut held = Vec::new();
    for _ in 0..mib {
        held.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
    say("fed");
    hear();
    drop(held);
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
    say("done");
}

/// Starts threads, beside the two that a test binary has. Tells how many threads could be started, and the error of the one that could not.
fn threads(most: u64) {
    for count in 0..most {
        if let Err(err) = std::thread::Builder::new().spawn(std::thread::park) {
            return say(&format!("{count} {}", err.raw_os_error().unwrap()));
        }
    }
    say(&format!("{most} 0"));
}

/// Starts some children that stay.
fn crowd(size: u64) {
    for _ in 0..size {
        let mut child = command("hold").spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        say(&child.id().to_string());
        std::mem::forget(child);
    }
    say("all");
}

/// Tells the errno of opening a file for reading, or 0.
fn open(path: &str) {
    let result = File::open(Path::new(path));
    say(&result.err().map_or(0, |err| err.raw_os_error().unwrap()).to_string());
}

//! Programs of the operator's that do a part of the daemon's work: how they are run, and what a run
//! may cost.
//!
//! A plugin is a child of the daemon, never of the keeper, and each run has a cgroup of its own:
//! what it has started ends with it, however that tries to get away. A daemon that is killed leaves
//! its plugins running; the next one ends them before it asks one for anything.

mod report;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use garden_cgroup::{Hierarchy, PluginRun};
use garden_sys::child::spawn_within;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::config::PluginConfig;
use crate::error::Error;
use crate::fault;
use report::Report;

/// Of a plugin's answer, in bytes.
const LONGEST_ANSWER: usize = 4 << 20;
/// A process that survives SIGKILL for so long is the kernel's.
const UNKILLABLE: Duration = Duration::from_secs(10);
/// Variables that steer the daemon, and that are no business of a plugin's.
const OWN_VARIABLES: &str = "BLOOMERY_";

/// A program that is run for one action after the other.
#[derive(Debug)]
pub(crate) struct Plugin {
    config: PluginConfig,
    hierarchy: Hierarchy,
}

/// What a plugin is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// What it is to do, for the log.
    pub(crate) action: &'a str,
    /// For which container, for the log.
    pub(crate) handle: &'a str,
    /// Behind the operator's own arguments.
    pub(crate) arguments: &'a [&'a OsStr],
    /// What it reads.
    pub(crate) input: &'a [u8],
}

/// Why a plugin has not done it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// In the words of Go's `os/exec`, where it has some.
    pub(crate) reason: String,
    /// What it had printed.
    pub(crate) output: String,
}

impl Plugin {
    /// `name` says in an error which plugin this is.
    pub(crate) fn new(
        name: &str,
        config: &PluginConfig,
        hierarchy: &Hierarchy,
    ) -> Result<Self, Error> {
        usable(name, config)?;
        Ok(Self { config: config.clone(), hierarchy: hierarchy.clone() })
    }

    /// Runs it to its end; what it printed. Whatever comes of it, nothing that it started is left.
    pub(crate) fn run(&self, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        let Request { action, handle, .. } = *request;
        let begin = Instant::now();
        let cgroup = self
            .hierarchy
            .plugin_run()
            .map_err(|error| Failure::early("cannot make its cgroup", &error))?;
        let outcome = self.run_in(&cgroup, request);
        let ended = cgroup.end(UNKILLABLE);
        if let Err(error) = ended {
            tracing::warn!(handle, action, %error, "a plugin's cgroup is left for the next start");
        }
        fault::plugin_step(action, "ended");
        let took = begin.elapsed();
        match &outcome {
            Ok(_) => tracing::debug!(handle, action, ?took, "a plugin has done it"),
            Err(failure) => {
                let Failure { reason, output } = failure;
                tracing::warn!(handle, action, ?took, reason, output, "a plugin has not done it");
            }
        }
        outcome
    }

    fn run_in(&self, cgroup: &PluginRun, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.config.patience;
        let door =
            cgroup.door().map_err(|error| Failure::early("cannot open its cgroup", &error))?;
        let mut child = spawn_within(self.command(request), door).map_err(|error| {
            let program = self.config.program.display();
            Failure::early(&format!("fork/exec {program}"), &error)
        })?;
        fault::plugin_step(request.action, "started");
        let mut conversation = Conversation::with(&mut child, request);
        let held = conversation.hold(&child, deadline);
        // What it leaves running would hold its streams open.
        let killed = cgroup.end(UNKILLABLE);
        let status = if held.is_ok() || killed.is_ok() { Some(child.wait()) } else { None };
        let heard = conversation.finish();
        let Some(status) = status else {
            // The kernel has it; whoever waits for it here would never answer.
            let _ = std::thread::Builder::new().name("plugin".into()).spawn(move || child.wait());
            return Err(Failure { reason: self.explain(Cut::Overdue), output: String::new() });
        };
        let output = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
        if let Err(cut) = held.and(heard) {
            let reason = self.explain(cut);
            return Err(Failure { reason, output: output(&conversation.answer) });
        }
        let ended = status.map_err(|error| error.to_string()).and_then(in_gos_words);
        ended.map_err(|reason| Failure { reason, output: output(&conversation.answer) })?;
        Ok(conversation.answer)
    }

    /// The environment is the daemon's, as it is the original's: an operator sets proxies and paths
    /// there.
    fn command(&self, request: &Request<'_>) -> Command {
        let mut command = Command::new(&self.config.program);
        command
            .args(&self.config.arguments)
            .args(request.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's ^C is for the daemon.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(OWN_VARIABLES) {
                command.env_remove(name);
            }
        }
        command
    }

    fn explain(&self, cut: Cut) -> String {
        match cut {
            Cut::Overdue => format!("killed, since it has not ended in {:?}", self.config.patience),
            Cut::Flood => format!("killed, since it has printed more than {LONGEST_ANSWER} bytes"),
            Cut::Kernel(error) => format!("killed, since it cannot be listened to: {error}"),
        }
    }
}

/// Fails if it is no executable file; `name` says in the error which plugin this is.
pub(crate) fn usable(name: &str, config: &PluginConfig) -> Result<(), Error> {
    let program = &config.program;
    let unusable = || format!("the {name} plugin {} cannot be used", program.display());
    let found = fs::metadata(program).map_err(|error| Error::because(unusable(), &error))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(Error::Plain(format!("{}: it is no executable file", unusable())));
    }
    Ok(())
}

impl Failure {
    fn early(attempt: &str, error: &dyn std::error::Error) -> Self {
        Self { reason: Error::because(attempt, error).to_string(), output: String::new() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Why a plugin is not listened to any more.
#[derive(Debug)]
enum Cut {
    Overdue,
    Flood,
    Kernel(Errno),
}

/// A plugin's three streams while it runs. None of them can block us, nor each other.
struct Conversation<'a> {
    input: Option<(ChildStdin, &'a [u8])>,
    output: Option<ChildStdout>,
    answer: Vec<u8>,
    errors: Option<ChildStderr>,
    report: Report<'a>,
}

impl<'a> Conversation<'a> {
    fn with(child: &mut Child, request: &Request<'a>) -> Self {
        let input = child.stdin.take().filter(unblock);
        let report = Report::of(request.action, request.handle);
        Self {
            input: input.map(|input| (input, request.input)),
            output: child.stdout.take().filter(unblock),
            answer: Vec::new(),
            errors: child.stderr.take().filter(unblock),
            report,
        }
    }

    /// Talks to the plugin until it has ended.
    fn hold(&mut self, child: &Child, deadline: Instant) -> Result<(), Cut> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
        let process = process.map_err(Cut::Kernel)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Cut::Overdue);
            }
            let [writable, answered, told, ended] = self.wait(process.as_fd(), left)?;
            if writable {
                self.feed();
            }
            if answered {
                self.hear()?;
            }
            if told {
                self.relay();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Whether it reads, has answered, has reported, has ended.
    fn wait(&self, process: BorrowedFd<'_>, patience: Duration) -> Result<[bool; 4], Cut> {
        let streams = [
            (self.input.as_ref().map(|(input, _)| input.as_fd()), PollFlags::OUT),
            (self.output.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (self.errors.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (Some(process), PollFlags::IN),
        ];
        let mut open: Vec<_> = streams
            .iter()
            .filter_map(|(stream, flags)| Some(PollFd::from_borrowed_fd((*stream)?, *flags)))
            .collect();
        let timeout = Timespec::try_from(patience).ok();
        match poll(&mut open, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Cut::Kernel(errno)),
        }
        let mut answers = open.iter().map(|stream| !stream.revents().is_empty());
        Ok(streams.map(|(stream, _)| stream.is_some() && answers.next().unwrap_or(false)))
    }

    fn feed(&mut self) {
        let Some((input, rest)) = &mut self.input else { return };
        match rustix::io::write(&*input, rest) {
            Ok(written) => *rest = &rest[written..],
            Err(Errno::AGAIN | Errno::INTR) => return,
            // It need not read what it does not want to know.
            Err(_) => *rest = &[],
        }
        if rest.is_empty() {
            self.input = None;
        }
    }

    /// Whether there may be more at once.
    fn hear(&mut self) -> Result<bool, Cut> {
        let Some(output) = &self.output else { return Ok(false) };
        let mut piece = [0; 1 << 16];
        match rustix::io::read(output, &mut piece) {
            Ok(0) => self.output = None,
            Ok(length) => {
                if self.answer.len() + length > LONGEST_ANSWER {
                    return Err(Cut::Flood);
                }
                self.answer.extend_from_slice(&piece[..length]);
                return Ok(true);
            }
            Err(Errno::INTR) => return Ok(true),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(Cut::Kernel(errno)),
        }
        Ok(false)
    }

    /// As [`Self::hear`], of what is for the log.
    fn relay(&mut self) -> bool {
        let Some(errors) = &self.errors else { return false };
        let mut piece = [0; 1 << 12];
        match rustix::io::read(errors, &mut piece) {
            Ok(length @ 1..) => {
                self.report.add(&piece[..length]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.errors = None;
                false
            }
        }
    }

    /// Takes what is in the streams of a plugin that has ended. All who could write to them are dead,
    /// but for such as the kernel does not let go.
    fn finish(&mut self) -> Result<(), Cut> {
        /// More than pipes can hold.
        const PIECES: usize = 4096;
        let _ = (0..PIECES).take_while(|_| self.relay()).count();
        self.report.end();
        for _ in 0..PIECES {
            if !self.hear()? {
                break;
            }
        }
        Ok(())
    }
}

/// Sets O_NONBLOCK, on our end alone.
fn unblock(stream: &impl AsFd) -> bool {
    let set = fcntl_getfl(stream).and_then(|flags| fcntl_setfl(stream, flags | OFlags::NONBLOCK));
    set.inspect_err(|errno| tracing::warn!(%errno, "a plugin's stream is not used")).is_ok()
}

/// How a process ended, as Go's `ExitError` has it; `Ok` is exit status 0.
fn in_gos_words(status: ExitStatus) -> Result<(), String> {
    /// From 1 on, as in Go's `syscall/zerrors_linux_amd64.go`.
    const SIGNALS: [&str; 15] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    let Some(signal) = status.signal() else {
        return match status.code() {
            Some(0) => Ok(()),
            code => Err(format!("exit status {}", code.unwrap_or(-1))),
        };
    };
    let name = usize::try_from(signal - 1).ok().and_then(|at| SIGNALS.get(at));
    let name = name.map_or_else(|| format!("signal {signal}"), ToString::to_string);
    let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
    Err(format!("signal: {name}{dumped}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_gos_words() {
        let told = |raw: i32| in_gos_words(ExitStatus::from_raw(raw));
        assert_eq!(told(0), Ok(()));
        assert_eq!(told(3 << 8), Err("exit status 3".into()));
        assert_eq!(told(9), Err("signal: killed".into()));
        assert_eq!(told(6 | 0x80), Err("signal: aborted (core dumped)".into()));
        assert_eq!(told(34), Err("signal: signal 34".into()));
    }
}

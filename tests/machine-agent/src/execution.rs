//! Processes that the harness asks for, many at a time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use machine_agent::wire::{self, MOST, Reply, Window};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::port::Port;
use crate::reaper;

/// A pipe's capacity: what a process had written when it ended is at most this much.
const LAST_WORDS: usize = 64 * 1024;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that was started.
#[derive(Debug)]
pub struct Execution {
    group: Option<Pid>,
    /// `None` once its input has ended.
    input: Option<mpsc::Sender<Vec<u8>>>,
    terminal: Option<OwnedFd>,
    over: Arc<AtomicBool>,
}

impl Execution {
    /// Whether its exit has been told.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Passes bytes on; the thread that writes them answers, unless there is none any more.
    pub fn input(&self, bytes: Vec<u8>) -> io::Result<()> {
        let input = self.input.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        input.send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    pub fn end_input(&mut self) {
        self.input = None;
    }

    pub fn signal(&self, signal: i32) {
        if let (Some(group), Some(signal)) = (self.group, Signal::from_named_raw(signal)) {
            let _ = kill_process_group(group, signal);
        }
    }

    pub fn resize(&self, window: Window) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetwinsize(terminal, size(window));
        }
    }
}

/// The agent's ends of a process's standard files.
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    error: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Starts a process, answers for it, and lets threads attend to it.
pub fn start(number: u32, wanted: &wire::Command, port: &Port) -> io::Result<Execution> {
    let Some((program, arguments)) = wanted.arguments.split_first() else {
        return Err(io::Error::other("a command has at least one word"));
    };
    let mut command = match wanted.terminal {
        None => {
            let mut command = Command::new(program);
            // What it starts is signalled with it.
            command.args(arguments).process_group(0);
            command
        }
        Some(_) => {
            // setsid makes the session and takes the terminal before it executes the rest.
            let mut command = Command::new("/bin/busybox");
            command.args(["setsid", "-c", program]).args(arguments);
            command
        }
    };
    command.current_dir(if wanted.directory.is_empty() { "/" } else { &wanted.directory });
    command.env("PATH", PATH).env("HOME", "/root").env("TERM", "linux");
    for variable in &wanted.environment {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    let ends = match wanted.terminal {
        None => pipes(&mut command)?,
        Some(window) => terminal(&mut command, window)?,
    };
    let started = reaper::start(&mut command)
        .map_err(|err| io::Error::new(err.kind(), format!("cannot start {program}: {err}")))?;
    // Our copies of its ends go now, or its streams would never end.
    drop(command);
    port.send(number, &Reply::Done(Ok(())))?;
    let (input, inputs) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let execution = Execution {
        group: Pid::from_raw(started.pid),
        input: Some(input),
        terminal: ends.terminal,
        over: over.clone(),
    };
    let writer = (port.clone(), ends.input, wanted.terminal.is_some());
    thread::spawn(move || feed(number, &writer.0, writer.1, writer.2, &inputs));
    let port = port.clone();
    thread::spawn(move || {
        let status = attend(number, &port, [Some(ends.output), ends.error], &started.ended);
        let _ = port.send(number, &Reply::Exit(status.unwrap_or(255)));
        over.store(true, Ordering::Release);
    });
    Ok(execution)
}

fn pipes(command: &mut Command) -> io::Result<Ends> {
    let (theirs, input) = pipe_with(PipeFlags::CLOEXEC)?;
    command.stdin(Stdio::from(theirs));
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    command.stdout(Stdio::from(theirs));
    let (error, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    command.stderr(Stdio::from(theirs));
    Ok(Ends { input, output, error: Some(error), terminal: None })
}

fn terminal(command: &mut Command, window: Window) -> io::Result<Ends> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, size(window))?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = open(ptsname(&master, Vec::new())?, flags, Mode::empty())?;
    command.stdin(Stdio::from(slave.try_clone()?));
    command.stdout(Stdio::from(slave.try_clone()?));
    command.stderr(Stdio::from(slave));
    let (input, output) = (master.try_clone()?, master.try_clone()?);
    Ok(Ends { input, output, error: None, terminal: Some(master) })
}

fn size(window: Window) -> Winsize {
    Winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Writes a process's input and tells of each piece that it is in.
fn feed(
    number: u32,
    port: &Port,
    input: OwnedFd,
    is_terminal: bool,
    pieces: &mpsc::Receiver<Vec<u8>>,
) {
    let mut input = File::from(input);
    for piece in pieces {
        let written = input.write_all(&piece).map_err(|err| err.to_string());
        if port.send(number, &Reply::Done(written)).is_err() {
            return;
        }
    }
    if is_terminal {
        // A terminal's input ends by the character for it, at the start of a line.
        let _ = input.write_all(&[4]);
    }
}

/// Passes on what a process writes until it has ended and its last words are told. What it left
/// running may hold the pipes open; nobody waits for that.
fn attend(
    number: u32,
    port: &Port,
    mut streams: [Option<OwnedFd>; 2],
    ended: &OwnedFd,
) -> io::Result<i32> {
    let mut buffer = vec![0; MOST];
    let mut pass_on = |which: usize, stream: &OwnedFd| match rustix::io::read(stream, &mut buffer) {
        Ok(length @ 1..) => {
            let piece = buffer[..length].to_vec();
            let reply = if which == 0 { Reply::Output(piece) } else { Reply::Error(piece) };
            port.send(number, &reply).is_ok().then_some(length)
        }
        Err(Errno::INTR | Errno::AGAIN) => Some(0),
        // A terminal that everybody has closed says EIO.
        Ok(_) | Err(_) => None,
    };
    loop {
        let open = || {
            let streams = streams.iter().enumerate();
            streams.filter_map(|(which, stream)| Some((which, stream.as_ref()?)))
        };
        let mut ready = vec![PollFd::new(ended, PollFlags::IN)];
        ready.extend(open().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        if !ready[0].revents().is_empty() {
            for (which, stream) in open() {
                fcntl_setfl(stream, OFlags::NONBLOCK)?;
                let mut left = LAST_WORDS;
                while left > 0
                    && let Some(length @ 1..) = pass_on(which, stream)
                {
                    left = left.saturating_sub(length);
                }
            }
            return reaper::status(ended);
        }
        let ended: Vec<usize> = open()
            .zip(&ready[1..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .filter(|((which, stream), _)| pass_on(*which, stream).is_none())
            .map(|((which, _), _)| which)
            .collect();
        for which in ended {
            streams[which] = None;
        }
    }
}

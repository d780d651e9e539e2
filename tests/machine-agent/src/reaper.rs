//! Process 1 waits for everybody: its own children, and all orphans of the machine.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};

/// Who waits for whom. Nothing is reaped while this is locked, so a child cannot be gone before it
/// is in here, and std sees the end of a child that could not execute.
static WAITING: LazyLock<Mutex<HashMap<i32, OwnedFd>>> = LazyLock::new(|| {
    thread::spawn(reap);
    Mutex::default()
});
static STARTED: Condvar = Condvar::new();

fn waiting() -> MutexGuard<'static, HashMap<i32, OwnedFd>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A started child: its pid, and a pipe on which its status comes as an `i32`.
#[derive(Debug)]
pub struct Started {
    pub pid: i32,
    pub ended: OwnedFd,
}

/// Starts a child that this module waits for.
pub fn start(command: &mut Command) -> io::Result<Started> {
    let (ended, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut waiting = waiting();
    let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
    waiting.insert(pid, tell);
    STARTED.notify_all();
    Ok(Started { pid, ended })
}

/// Runs a child to its end and answers its status.
pub fn run(command: &mut Command) -> io::Result<i32> {
    status(&start(command)?.ended)
}

/// Reads what [`start`] promised.
pub fn status(ended: &OwnedFd) -> io::Result<i32> {
    let mut status = [0; 4];
    match rustix::io::read(ended, &mut status)? {
        4 => Ok(i32::from_le_bytes(status)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn reap() {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(Errno::CHILD) => {
                let waiting = waiting();
                if waiting.is_empty() {
                    drop(STARTED.wait(waiting));
                }
            }
            _ => {
                let mut waiting = waiting();
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    if let Some(tell) = waiting.remove(&pid.as_raw_pid()) {
                        // A pipe takes four bytes at once or, when nobody is left to read, none.
                        let _ = std::fs::File::from(tell).write_all(&code(status).to_le_bytes());
                    }
                }
            }
        }
    }
}

fn code(status: WaitStatus) -> i32 {
    let signal = || status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or_else(signal).unwrap_or(255)
}

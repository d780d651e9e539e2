//! A command as a terminal has it: its process group is its own, and Ctrl-C is for all of that.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::world::World;
use crate::{cache::program, eventually};

/// A command that runs in a world.
#[derive(Debug)]
pub struct Session {
    child: Child,
    leader: Pid,
}

impl Session {
    /// Starts `bloomery` with these words.
    pub(crate) fn start(world: &World, words: &[String]) -> Self {
        let mut command = world.command(Path::new("setsid"));
        command.arg(program()).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let leader = eventually("the command starts", || {
            let all = world.processes();
            let is_it = |arguments: &[String]| {
                arguments.first().is_some_and(|name| Path::new(name) == program())
                    && arguments[1..] == *words
            };
            let found = all.iter().find(|process| is_it(&process.arguments));
            found.and_then(|process| Pid::from_raw(process.pid)).ok_or(format!("{all:?}"))
        });
        Self { child, leader }
    }

    /// Waits until it has written a line with this word. Nobody reads what follows, and what it is
    /// written to is gone.
    pub fn wait_for(&mut self, word: &str) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains(word));
        assert!(found, "{word:?} is never written");
    }

    /// Waits until it catches SIGINT, whose bit in `SigCgt` is the second (proc_pid_status(5)).
    pub fn wait_until_it_catches_interrupts(&self) {
        let path = format!("/proc/{}/status", self.leader.as_raw_nonzero());
        eventually("it catches SIGINT", || {
            let status = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            if caught.is_some_and(|mask| mask & 2 != 0) { Ok(()) } else { Err(status) }
        });
    }

    /// Presses Ctrl-C again and again until it has ended.
    pub fn interrupt_until_end(mut self) -> ExitStatus {
        eventually("it ends", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ok(status);
            }
            // It may be about to be waited for.
            let _ = kill_process_group(self.leader, Signal::INT);
            Err("it runs".to_owned())
        })
    }
}

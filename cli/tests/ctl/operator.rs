//! Somebody who types `bloomery ctl`: at a site, with or without a terminal.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::site::{PATIENCE, Site};

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub code: Option<i32>,
    pub output: String,
    pub error: String,
}

/// `bloomery ctl` that finds the site's server by the environment variable.
pub fn ctl(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bloomery"));
    command.arg("ctl").args(arguments).env("BLOOMERY_GARDEN", site.place("garden.sock"));
    command.env_remove("BLOOMERY_IMAGE_PASSWORD");
    command
}

/// Starts a command with pipes for all its streams, where the site's daemon is.
pub fn start(site: &Site, mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    site.inside(|| command.spawn().unwrap())
}

/// Waits for a command's end, which is a failure if it does not come.
pub fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            panic!("the command ends");
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Runs a command to its end with this input.
pub fn carry_out(site: &Site, command: Command, input: &[u8]) -> Done {
    let mut child = start(site, command);
    let (mut stdin, stdout, stderr) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that takes no input may be gone by now.
            let _ = stdin.write_all(input);
        });
        let output = scope.spawn(|| read(stdout));
        let error = scope.spawn(|| read(stderr));
        let status = ended(&mut child);
        Done { code: status.code(), output: output.join().unwrap(), error: error.join().unwrap() }
    })
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `bloomery ctl` to its end without input.
pub fn asked(site: &Site, arguments: &[&str]) -> Done {
    carry_out(site, ctl(site, arguments), b"")
}

/// What `bloomery ctl` prints when all goes well.
pub fn told(site: &Site, arguments: &[&str]) -> String {
    let done = asked(site, arguments);
    assert_eq!((done.code, done.error.as_str()), (Some(0), ""), "{arguments:?}: {}", done.output);
    done.output
}

/// What `bloomery ctl` complains of, with this exit status and no output.
pub fn refused(site: &Site, code: i32, arguments: &[&str]) -> String {
    let done = asked(site, arguments);
    assert_eq!((done.code, done.output.as_str()), (Some(code), ""), "{arguments:?}: {done:?}");
    done.error
}

/// Starts the daemon and waits until `bloomery ctl ping` succeeds.
pub fn serve(site: &mut Site, address: &[&str]) {
    site.start(None);
    let ping: Vec<_> = address.iter().copied().chain(["ping"]).collect();
    let deadline = Instant::now() + PATIENCE;
    while asked(site, &ping).code != Some(0) {
        assert!(Instant::now() < deadline, "the daemon serves\n{}", site.log());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A command whose output is read bit by bit.
pub struct Listened {
    pub child: Child,
    output: std::sync::mpsc::Receiver<Vec<u8>>,
    heard: String,
}

impl Listened {
    /// Starts it; its standard error is heard together with its output.
    pub fn start(site: &Site, command: Command) -> Self {
        let mut child = start(site, command);
        let (sender, output) = std::sync::mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = sender.send(buffer[..length].to_vec());
                }
            });
        }
        Self { child, output, heard: String::new() }
    }

    /// Waits until it says something that it has not said before.
    pub fn hear(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.find(text) {
                self.heard.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} is not heard ({error}): {:?}", self.heard),
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        crate::site::signal(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Waits for its end: its exit status and what it said at last.
    pub fn end(&mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let status = ended(&mut self.child);
        assert_eq!(status.signal(), None, "it ends by itself");
        while let Ok(bytes) = self.output.recv() {
            self.heard.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code(), std::mem::take(&mut self.heard))
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

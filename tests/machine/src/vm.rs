//! A test machine.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use machine_agent::wire::{Command, Identity};
use serde_json::json;

use crate::cache;
use crate::host::call;
use crate::kernel::Kernel;
use crate::link::{Link, Outcome, Process};
use crate::qemu::{NO_NETWORK, Qemu, Role, SWITCHED, arguments};
use crate::qmp::Qmp;
use crate::switch::Switch;
use crate::template::Template;

/// How long [`Machine::run`] waits. Thirty times what a command may take outside.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the directories of machines begin with, among the temporary ones. Their paths must be
/// short: a socket's has 108 bytes at most.
const PREFIX: &str = "machine-vm-";

/// A running clone of a template. It ends with this value, and with this process.
///
/// When it is dropped by a panicking thread, what may tell the reason is kept below
/// `target/machine/evidence`.
#[derive(Debug)]
pub struct Machine {
    name: String,
    role: Role,
    link: Link,
    control: Mutex<Qmp>,
    qemu: Qemu,
    directory: tempfile::TempDir,
    _in_use: fs::File,
    _template: Arc<Template>,
}

/// A machine's place on a switch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub switch: &'a Switch,
    pub port: usize,
    pub hardware: [u8; 6],
    pub address: (Ipv4Addr, u8),
}

impl Machine {
    /// Starts a machine without a network; its name is the host's name inside. A kernel's first
    /// machine is booted, all others are cloned.
    pub fn start(kernel: Kernel, name: &str) -> anyhow::Result<Self> {
        Self::start_at(kernel, name, None)
    }

    /// The same with a disk that [`Machine::restart`] finds again.
    pub fn start_with_disk(kernel: Kernel, name: &str) -> anyhow::Result<Self> {
        Self::start_as(kernel, name, Role::CloneWithDisk, None)
    }

    pub(crate) fn start_at(
        kernel: Kernel,
        name: &str,
        place: Option<Place<'_>>,
    ) -> anyhow::Result<Self> {
        Self::start_as(kernel, name, Role::Clone, place)
    }

    fn start_as(
        kernel: Kernel,
        name: &str,
        role: Role,
        place: Option<Place<'_>>,
    ) -> anyhow::Result<Self> {
        let template = Template::of(kernel)?;
        remove_abandoned();
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let path = directory.path();
        let in_use = fs::File::create(path.join("in-use"))?;
        in_use.lock()?;
        symlink(&template.directory, path.join("template"))?;
        if role == Role::CloneWithDisk {
            call("cp", ["--sparse=always", "template/disk", "disk"], path)?;
        }
        if let Some(place) = place {
            place.switch.attach(place.port, path)?;
        }
        let (qemu, control, link) = power_on(path, name, role, place)
            .with_context(|| format!("cannot clone a machine with kernel {kernel}"))?;
        Ok(Self {
            name: name.to_owned(),
            role,
            link,
            control: Mutex::new(control),
            qemu,
            directory,
            _in_use: in_use,
            _template: template,
        })
    }

    /// Loses power and gets it again: nothing is left but the disk, with what the kernel had written
    /// to it. For machines that keep their disk.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.role == Role::CloneWithDisk, "machine {} has no disk that stays", self.name);
        self.kill();
        for socket in ["qmp", "agent"] {
            fs::remove_file(self.directory.path().join(socket))?;
        }
        let started = power_on(self.directory.path(), &self.name, self.role, None);
        let (qemu, control, link) =
            started.with_context(|| format!("cannot restart machine {}", self.name))?;
        (self.qemu, self.control, self.link) = (qemu, Mutex::new(control), link);
        Ok(())
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a program to its end.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        self.spawn(&Command::new(words))?.outcome(PATIENCE)
    }

    /// Runs a shell script to its end.
    pub fn sh(&self, script: &str) -> anyhow::Result<Outcome> {
        self.run(&["sh", "-c", script])
    }

    /// Starts a process; as many as you like at a time.
    pub fn spawn(&self, command: &Command) -> anyhow::Result<Process> {
        self.link
            .execute(command)
            .with_context(|| format!("machine {}: {}", self.name, command.arguments.join(" ")))
    }

    /// Copies a file of the host to an absolute path inside, with its permission bits.
    pub fn put(&self, file: &Path, path: &str) -> anyhow::Result<()> {
        let content = fs::read(file).with_context(|| format!("cannot read {file:?}"))?;
        let mode = fs::metadata(file)?.permissions().mode() & 0o7777;
        self.put_bytes(&content, path, mode)
    }

    /// Makes a file inside.
    pub fn put_bytes(&self, content: &[u8], path: &str, mode: u32) -> anyhow::Result<()> {
        self.link.put(content, path, mode).with_context(|| format!("machine {}", self.name))
    }

    /// Ends it as a loss of power does.
    pub fn kill(&mut self) {
        self.qemu.kill();
    }

    /// Halts it: nothing inside runs, no time passes for it, its peers hear nothing.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.tell("stop", json!({}))
    }

    /// Lets it go on, with its clock as late as the pause was long.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.tell("cont", json!({}))
    }

    /// Plugs its network cable in or out: inside, `eth0` has a carrier or none.
    pub fn set_link(&self, up: bool) -> anyhow::Result<()> {
        self.tell("set_link", json!({"name": "net", "up": up}))
    }

    fn tell(&self, command: &str, arguments: serde_json::Value) -> anyhow::Result<()> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.call(command, arguments).with_context(|| format!("machine {}", self.name))?;
        Ok(())
    }

    /// Saves what may tell why something failed, and answers where.
    pub fn keep_evidence(&self) -> anyhow::Result<PathBuf> {
        let unique = format!("{}-{}", self.name, std::process::id());
        let directory = cache::directory("machine/evidence")?.join(unique);
        fs::create_dir_all(&directory)?;
        for name in ["console.log", "qemu.log"] {
            fs::copy(self.directory.path().join(name), directory.join(name))?;
        }
        fs::write(directory.join("transcript"), self.link.transcript())?;
        let said =
            self.link.execute(&Command::new(&["dmesg"])).and_then(|dmesg| dmesg.outcome(PATIENCE));
        fs::write(
            directory.join("dmesg"),
            said.map_or_else(|err| format!("{err:#}"), |said| said.output),
        )?;
        cache::hand_over_all(&directory)?;
        Ok(directory)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.keep_evidence() {
                Ok(directory) => eprintln!("machine {}: see {}", self.name, directory.display()),
                Err(err) => eprintln!("machine {}: no evidence kept: {err:#}", self.name),
            }
        }
    }
}

/// Starts QEMU in a machine's directory and gives the machine its identity.
fn power_on(
    path: &Path,
    name: &str,
    role: Role,
    place: Option<Place<'_>>,
) -> anyhow::Result<(Qemu, Qmp, Link)> {
    let net = if place.is_some() { SWITCHED } else { NO_NETWORK };
    let started = (|| {
        let mut qemu = Qemu::start(path, &arguments(role, net))?;
        let mut control = qemu.control(path)?;
        let shared = json!([{"capability": "x-ignore-shared", "state": true}]);
        control.call("migrate-set-capabilities", json!({"capabilities": shared}))?;
        control.call("migrate-incoming", json!({"uri": "exec:cat template/state"}))?;
        let status =
            control.wait_for("query-status", &["paused", "running", "postmigrate", "prelaunch"])?;
        if status != "running" {
            control.call("cont", json!({}))?;
        }
        let link = Link::new(qemu.connect(&path.join("agent"))?)?;
        let identity = Identity {
            time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?,
            seed: seed()?,
            name: name.to_owned(),
            hardware: place.map_or([0x52, 0x54, 0, 0, 0, 1], |place| place.hardware),
            address: place.map(|place| place.address),
        };
        link.identify(identity).context("the machine does not take its identity")?;
        anyhow::Ok((qemu, control, link))
    })();
    started.with_context(|| {
        let log = fs::read_to_string(path.join("qemu.log")).unwrap_or_default();
        format!("QEMU says: {log}")
    })
}

/// Removes directories of machines whose harness was killed. QEMU died with it, but files stay.
fn remove_abandoned() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            let in_use = entry.path().join("in-use");
            let is_machine = entry.file_name().to_string_lossy().starts_with(PREFIX);
            // A file that is being made is not locked yet.
            let is_old = fs::metadata(&in_use)
                .and_then(|file| file.modified())
                .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > Duration::from_secs(60)));
            if is_machine
                && is_old
                && fs::File::open(&in_use).is_ok_and(|file| file.try_lock().is_ok())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// Random bytes of the host's.
fn seed() -> anyhow::Result<Vec<u8>> {
    let mut seed = vec![0; 64];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut seed)?;
    Ok(seed)
}

//! Where an installation lives, and who runs it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use garden_sys::pidfd::ends_within;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The platform's user and group: a number that no distribution gives to anybody, and systemd
/// leaves unused (systemd's UIDS-GIDS).
pub const USER: u32 = 61_000;

/// The processes that have logs.
const LOGS: [&str; 3] = ["supervisor", "garden", "platform"];

/// Directories of an installation.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// Directory of all that is kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/bloomery")]
    data: PathBuf,
    /// Directory of sockets and of what a reboot may take.
    #[arg(long, value_name = "DIR", default_value = "/run/bloomery")]
    run: PathBuf,
}

impl Place {
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The platform's own, readable by its user alone.
    pub fn platform_data(&self) -> PathBuf {
        self.data.join("platform")
    }

    /// Sockets of the platform's daemons.
    pub fn platform_run(&self) -> PathBuf {
        self.run.join("platform")
    }

    /// Garden's socket. Its directory gives it the platform's group.
    pub fn garden_socket(&self) -> PathBuf {
        self.run.join("garden/garden.sock")
    }

    /// The flags that name this place.
    pub fn flags(&self) -> [std::ffi::OsString; 4] {
        let text = |text: &str| std::ffi::OsString::from(text);
        [text("--data"), self.data.clone().into(), text("--run"), self.run.clone().into()]
    }

    /// Makes all directories.
    pub fn make(&self) -> anyhow::Result<()> {
        for (path, mode, owner) in [
            (self.data.clone(), 0o755, 0),
            (self.data.join("log"), 0o750, 0),
            (self.platform_data(), 0o700, USER),
            (self.run.clone(), 0o755, 0),
            (self.platform_run(), 0o700, USER),
            // Its group is inherited by the socket that is made in it.
            (self.run.join("garden"), 0o2750, 0),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            let group = if mode & 0o2000 != 0 { USER } else { owner };
            chown(&path, Some(owner), Some(group))
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .with_context(|| format!("cannot give {} its owner", path.display()))?;
        }
        Ok(())
    }

    /// Removes all directories.
    pub fn remove(&self) -> anyhow::Result<()> {
        for path in [&self.run, &self.data] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A process's log, to be written to.
    pub fn log(&self, process: &str) -> anyhow::Result<File> {
        let path = self.data.join(format!("log/{process}.log"));
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The end of all logs.
    pub fn print_logs(&self, lines: usize) {
        for process in LOGS {
            let path = self.data.join(format!("log/{process}.log"));
            let Ok(text) = fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&text);
            let all: Vec<_> = text.lines().collect();
            for line in &all[all.len().saturating_sub(lines)..] {
                println!("{process:<10} {line}");
            }
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.run.join("supervisor.lock")
    }

    fn ready_file(&self) -> PathBuf {
        self.run.join("ready")
    }

    /// Becomes this place's supervisor, as long as the file is open.
    pub fn take(&self) -> anyhow::Result<File> {
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another supervisor has {}", path.display());
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// The supervisor's process, if there is one.
    pub fn supervisor(&self) -> anyhow::Result<Option<i32>> {
        let path = self.lock_file();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text.trim().parse().ok())
    }

    /// Asks the supervisor to end and waits until it has.
    pub fn end_supervisor(&self, patience: Duration) -> anyhow::Result<Option<i32>> {
        let Some(pid) = self.supervisor()? else { return Ok(None) };
        let process = Pid::from_raw(pid).context("the supervisor has no pid")?;
        let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(None) };
        // The number may have gone to somebody else before it was opened.
        if self.supervisor()? != Some(pid) {
            return Ok(None);
        }
        pidfd_send_signal(&pidfd, Signal::TERM)
            .with_context(|| format!("cannot end process {pid}"))?;
        if !ends_within(&pidfd, patience)? {
            bail!("process {pid} is still there after {} s", patience.as_secs());
        }
        Ok(Some(pid))
    }

    /// Whether the platform answers.
    pub fn is_ready(&self) -> bool {
        self.ready_file().exists()
    }

    /// Says whether it does.
    pub fn set_ready(&self, ready: bool) -> std::io::Result<()> {
        if ready {
            return fs::write(self.ready_file(), "");
        }
        match fs::remove_file(self.ready_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

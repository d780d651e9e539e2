//! Where an installation lives, and who runs it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
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

/// A process that has a log.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Starts the others.
    Supervisor,
    /// Makes containers.
    Garden,
    /// Everything else.
    Platform,
}

impl Logged {
    /// In the order in which they start.
    pub const ALL: [Self; 3] = [Self::Supervisor, Self::Garden, Self::Platform];

    fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Garden => "garden",
            Self::Platform => "platform",
        }
    }
}

/// Directories of an installation.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// Directory of all that is kept.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Directory of sockets and of what a reboot may take.
    #[arg(long, value_name = "DIR", default_value = RUN)]
    run: PathBuf,
}

const DATA: &str = "/var/lib/bloomery";
const RUN: &str = "/run/bloomery";

impl Default for Place {
    fn default() -> Self {
        Self { data: DATA.into(), run: RUN.into() }
    }
}

impl Place {
    /// One elsewhere.
    pub fn new(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// Whether the sockets are in the default place, which `bloomery demo` has as well.
    pub fn is_default(&self) -> bool {
        self.run == Path::new(RUN)
    }

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

    /// A file that Garden's process holds, by which it is found again.
    pub fn garden_mark(&self) -> PathBuf {
        self.run.join("garden.mark")
    }

    /// A file that the platform's process holds, by which it is found again.
    pub fn platform_mark(&self) -> PathBuf {
        self.run.join("platform.mark")
    }

    /// A file that the stand-by's process holds, by which it is found again.
    pub fn stand_by_mark(&self) -> PathBuf {
        self.run.join("stand-by.mark")
    }

    /// Where Garden's keeper has its sockets.
    pub fn keeper(&self) -> PathBuf {
        self.run.join("keeper")
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

    /// Where a process's log is.
    pub fn log_file(&self, process: Logged) -> PathBuf {
        self.data.join(format!("log/{}.log", process.name()))
    }

    /// A process's log, to be written to.
    pub fn log(&self, process: Logged) -> anyhow::Result<File> {
        let path = self.log_file(process);
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The last lines of logs, and what is written to them from then on if that is wanted.
    pub fn print_logs(
        &self,
        processes: &[Logged],
        lines: usize,
        follow: bool,
    ) -> anyhow::Result<()> {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let mut ends = Vec::new();
        for &process in processes {
            let path = self.log_file(process);
            let text = match fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                read => read.with_context(|| format!("cannot read {}", path.display()))?,
            };
            let whole = whole_lines(&text);
            print_lines(process, whole, lines);
            ends.push((process, path, whole.len() as u64));
        }
        if !follow {
            return Ok(());
        }
        loop {
            std::thread::sleep(LOOK_EVERY);
            for (process, path, end) in &mut ends {
                let Ok(mut file) = File::open(&*path) else { continue };
                let mut text = Vec::new();
                file.seek(SeekFrom::Start(*end))
                    .and_then(|_| file.read_to_end(&mut text))
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let whole = whole_lines(&text);
                print_lines(*process, whole, usize::MAX);
                *end += whole.len() as u64;
            }
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.run.join("supervisor.lock")
    }

    /// Becomes this place's supervisor, as long as the file is open.
    pub fn take(&self) -> anyhow::Result<File> {
        let file = self.open_lock()?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another supervisor has {}", self.lock_file().display());
        }
        sign(file)
    }

    /// Becomes this place's supervisor once the one before has ended.
    pub fn wait_and_take(&self) -> anyhow::Result<File> {
        let file = self.open_lock()?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .with_context(|| format!("cannot wait for {}", self.lock_file().display()))?;
        sign(file)
    }

    fn open_lock(&self) -> anyhow::Result<File> {
        let path = self.lock_file();
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
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

    /// The platform makes this file when it answers.
    pub fn ready_file(&self) -> PathBuf {
        self.platform_run().join(crate::platform::READY)
    }

    /// Whether the platform answers.
    pub fn is_ready(&self) -> bool {
        self.ready_file().exists()
    }

    /// The platform does not answer yet, or no more.
    pub fn forget_ready(&self) -> anyhow::Result<()> {
        let path = self.ready_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Without a line that is not written to its end.
fn whole_lines(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)]
}

/// The last of these lines.
fn print_lines(process: Logged, text: &[u8], lines: usize) {
    let text = String::from_utf8_lossy(text);
    let all: Vec<_> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("{:<10} {line}", process.name());
    }
}

/// Says in the lock's file whose it is.
fn sign(mut file: File) -> anyhow::Result<File> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

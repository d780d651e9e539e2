//! OCI runtimes as contenders: runc and crun, and youki where it is installed.
//!
//! They run on a thread with a mount namespace of its own, from which the v2 hierarchy of a hybrid
//! host is gone (crun refuses hybrid hosts whose v2 hierarchy owns a controller), and in which the
//! overlay stands that all of them use as their root file system. So making and unmounting the
//! overlay is not in their figures, and everything ends with the thread, whatever ends it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow, bail};
use garden_seccomp::Profile;
use garden_sys::program::raw;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::bundle::Bundle;
use super::contender::{Contender, Cycle, now, since};
use super::place::Place;

type Job = Box<dyn FnOnce() + Send>;

/// The thread with the mount namespace, and what its contenders share.
#[derive(Debug)]
pub struct Ground {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    directory: PathBuf,
    name: String,
    profile: Profile,
    capabilities: u64,
}

impl Ground {
    /// Starts the thread and prepares the root file system.
    pub fn prepare(
        place: &Place,
        profile: Profile,
        capabilities: u64,
    ) -> anyhow::Result<Arc<Self>> {
        let directory = place.volatile().join("oci");
        for part in ["root", "upper", "work"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, prepared) = mpsc::channel();
        let (image, below) = (place.image(), directory.clone());
        let thread = std::thread::Builder::new()
            .name("oci".into())
            .spawn(move || {
                let outcome = enter(&image, &below);
                let go = outcome.is_ok();
                if ready.send(outcome).is_ok() && go {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .context("cannot start a thread")?;
        let ground = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            directory,
            name: place.name(),
            profile,
            capabilities,
        };
        prepared
            .recv()
            .context("the thread of the OCI runtimes died")?
            .context("cannot prepare the ground of the OCI runtimes")?;
        Ok(Arc::new(ground))
    }

    /// Runs something in the mount namespace and waits for its outcome.
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, outcome) = mpsc::channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        let jobs = self.jobs.as_ref().context("the OCI runtimes' thread has been ended")?;
        jobs.send(job).map_err(|_| anyhow!("the OCI runtimes' thread died"))?;
        outcome.recv().context("the OCI runtimes' thread died")?
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the OCI runtimes' thread died");
        }
        // The runtimes remove their own cgroups and leave the one above them.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let hierarchies = hierarchies.map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = fs::remove_dir(hierarchy.join(&self.name));
        }
    }
}

fn errno(errno: raw::Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.0)
}

fn enter(image: &Path, directory: &Path) -> anyhow::Result<()> {
    const PRIVATE: usize = 0x4_4000;
    raw::unshare(raw::clone::NEWNS).map_err(errno).context("cannot make a mount namespace")?;
    raw::mount(c"none", c"/", c"", PRIVATE).map_err(errno).context("cannot part from mounts")?;
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        raw::detach(c"/sys/fs/cgroup/unified").map_err(errno).context("cannot hide cgroup v2")?;
    }
    let overlay = overlay(image, directory).context("cannot make an overlay")?;
    move_mount(
        overlay.as_fd(),
        "",
        rustix::fs::CWD,
        directory.join("root"),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .context("cannot mount an overlay")
}

fn overlay(image: &Path, directory: &Path) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "lowerdir", image)?;
    fsconfig_set_string(fs.as_fd(), "upperdir", directory.join("upper"))?;
    fsconfig_set_string(fs.as_fd(), "workdir", directory.join("work"))?;
    fsconfig_set_flag(fs.as_fd(), "volatile")?;
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// How a runtime is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `run`, which deletes the container itself.
    Run,
    /// `create`, `start`, `delete`; youki's foreground `run` may hang.
    Steps,
}

/// One runtime.
#[derive(Debug)]
pub struct Runtime {
    ground: Arc<Ground>,
    program: String,
    name: String,
    way: Way,
    bundle: PathBuf,
    turns: u32,
}

impl Runtime {
    /// runc or crun, which must be installed.
    pub fn required(ground: &Arc<Ground>, program: &str) -> anyhow::Result<Self> {
        if version(program).is_none() {
            bail!(
                "the bench compares with {program}, which is not installed: \
                 `apt-get install {program}` installs Debian's package"
            );
        }
        Self::prepare(ground, program, &format!("{program} run"), Way::Run)
    }

    /// youki, if it is installed.
    pub fn youki(ground: &Arc<Ground>) -> anyhow::Result<Option<Self>> {
        let there = version("youki").is_some();
        there
            .then(|| Self::prepare(ground, "youki", "youki create, start, delete", Way::Steps))
            .transpose()
    }

    fn prepare(ground: &Arc<Ground>, program: &str, name: &str, way: Way) -> anyhow::Result<Self> {
        let bundle = ground.directory.join(program);
        fs::create_dir_all(bundle.join("state"))
            .with_context(|| format!("cannot make {}", bundle.display()))?;
        let (program, name) = (program.to_owned(), name.to_owned());
        Ok(Self { ground: Arc::clone(ground), program, name, way, bundle, turns: 0 })
    }

    fn write(&self, command: &[&str], id: &str) -> anyhow::Result<()> {
        let root = self.ground.directory.join("root");
        let bundle = Bundle {
            root: &root.to_string_lossy(),
            command,
            cgroup: &format!("/{}/{id}", self.ground.name),
            capabilities: self.ground.capabilities,
        };
        let config = bundle.config(&self.ground.profile);
        let path = self.bundle.join("config.json");
        fs::write(&path, serde_json::to_vec(&config)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.bundle.join("state")).args(arguments);
        // An interrupt is for us; the runtime is to finish and clean up.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn steps(&self, id: &str, bundle: &str) -> [Command; 3] {
        [
            self.command(&["create", "--bundle", bundle, id]),
            self.command(&["start", id]),
            self.command(&["delete", "--force", id]),
        ]
    }
}

/// What a program says its version is, if it can be started.
pub fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.to_lowercase().contains("version"))?;
    line.split_ascii_whitespace().last().map(str::to_owned)
}

fn succeeded(program: &str, output: Output) -> anyhow::Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{program} failed ({}): {}", output.status, said.trim())
}

impl Contender for Runtime {
    fn name(&self) -> &str {
        &self.name
    }

    fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle> {
        self.turns += 1;
        let id = format!("{}-{}-{}", self.ground.name, self.program, self.turns);
        self.write(command, &id)?;
        let bundle = self.bundle.to_string_lossy().into_owned();
        let program = self.program.clone();
        if self.way == Way::Run {
            let mut run = self.command(&["run", "--bundle", &bundle, &id]);
            return self.ground.run(move || {
                let began = now();
                let output = run.output().with_context(|| format!("cannot start {program}"))?;
                let total = since(began);
                let output = succeeded(&program, output)?;
                Ok(Cycle { began, total, output, ..Cycle::default() })
            });
        }
        let [mut create, mut start, mut delete] = self.steps(&id, &bundle);
        self.ground.run(move || {
            let failed = || format!("cannot start {program}");
            let began = now();
            let mut created = create.spawn().with_context(failed)?;
            // The container's process inherits the pipe, so its end is known by the end of output.
            let stdout = created.stdout.take();
            let status = created.wait().with_context(failed)?;
            let started = start.output().with_context(failed)?;
            let mut output = Vec::new();
            if status.success() && started.status.success() {
                stdout.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut output))?;
            }
            let deleted = delete.output().with_context(failed)?;
            let total = since(began);
            if !status.success() {
                let mut said = String::new();
                created.stderr.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut said))?;
                bail!("{program} create failed ({status}): {}", said.trim());
            }
            succeeded(&program, started)?;
            succeeded(&program, deleted)?;
            Ok(Cycle { began, total, output, ..Cycle::default() })
        })
    }
}

impl Drop for Runtime {
    /// Removes a container that a failed turn has left.
    fn drop(&mut self) {
        let state = self.bundle.join("state");
        let left = match fs::read_dir(&state) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>(),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => return eprintln!("cannot list {}: {error}", state.display()),
        };
        for id in left {
            let mut delete = self.command(&["delete", "--force", &id.to_string_lossy()]);
            let deleted = self.ground.run(move || Ok(delete.output()?));
            if let Err(error) = deleted {
                eprintln!("cannot remove a container of {}: {error:#}", self.program);
            }
        }
    }
}

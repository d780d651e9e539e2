//! A supervisor in a directory of its own, and containers to keep in it; of the `build` of
//! garden-sys that the module above names.

#![allow(dead_code, reason = "each test uses its part")]

pub mod waiting;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use super::build::plan::Plan;
use super::build::program::plan::tag;
use super::build::supervisor::{
    Ended, Exit, Failure, Kept, Launch, Launched, ParkedInit, RootPlan, Supervisor,
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use waiting::PATIENCE;

/// What uid 0 of a container is on the host.
const ROOT: u32 = 4_294_967_294;

pub fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A detached tmpfs with busybox in it, as a container's root.
pub fn small_root() -> OwnedFd {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(&fs).unwrap();
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let at = format!("/proc/self/fd/{}", mount.as_raw_fd());
    for directory in ["bin", "etc", "proc", "dev", "home"] {
        fs::create_dir(format!("{at}/{directory}")).unwrap();
    }
    fs::copy("/bin/busybox", format!("{at}/bin/busybox"))
        .expect("Debian's package busybox-static is installed");
    fs::set_permissions(format!("{at}/bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", format!("{at}/bin/sh")).unwrap();
    fs::write(
        format!("{at}/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    )
    .unwrap();
    fs::write(format!("{at}/etc/group"), "audio:x:29:alice\n").unwrap();
    for path in ["", "bin", "etc", "proc", "dev", "home", "bin/busybox", "etc/passwd", "etc/group"]
    {
        std::os::unix::fs::chown(format!("{at}/{path}"), Some(ROOT), Some(ROOT)).unwrap();
    }
    mount
}

pub struct Cell {
    pub supervisor: Option<Supervisor>,
    pub ended: mpsc::Receiver<Ended>,
    pub directory: tempfile::TempDir,
    pub next: u64,
}

impl Cell {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (supervisor, ended) = connect(directory.path());
        Self { supervisor: Some(supervisor), ended, directory, next: 1 }
    }

    pub fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().unwrap()
    }

    pub fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// As a daemon that was killed and started again.
    pub fn reconnect(&mut self) {
        self.supervisor = None;
        let (supervisor, ended) = connect(self.directory.path());
        self.supervisor = Some(supervisor);
        self.ended = ended;
    }

    pub fn container(&mut self) -> Container {
        let ticket = self.ticket();
        let init = self.supervisor().park(ticket, false, None, &[]).unwrap();
        let map = "0 4294967294 1\n1 1 4294967293\n";
        init.map_ids(map, map).unwrap();
        let root = small_root();
        let mut plan = Plan::new();
        plan.attach(1, false, &text("/"))
            .mount(&text("/proc"), &text("proc"), &[], 0)
            .text(tag::HOSTNAME, &text("cell-test"));
        let plan = plan.seal().unwrap();
        assert_eq!(init.setup(plan.as_fd(), &[root.as_fd()], PATIENCE).unwrap(), Ok(()));
        Container { pidfd: commit(init), ticket }
    }

    pub fn run(
        &mut self,
        container: &Container,
        script: &str,
    ) -> (u64, Result<Launched, Failure>, Streams) {
        self.run_as(container, "", &["/bin/sh", "-c", script])
    }

    pub fn run_as(
        &mut self,
        container: &Container,
        user: &str,
        command: &[&str],
    ) -> (u64, Result<Launched, Failure>, Streams) {
        self.run_in(container, None, user, command)
    }

    /// The same in a root of its own, if there is one.
    pub fn run_in(
        &mut self,
        container: &Container,
        root: Option<&RootPlan>,
        user: &str,
        command: &[&str],
    ) -> (u64, Result<Launched, Failure>, Streams) {
        let (input, input_ours) = pipe();
        let (output_ours, output) = pipe();
        let (error_ours, error) = pipe();
        let ours = [input_ours.as_fd(), output_ours.as_fd(), error_ours.as_fd()];
        let theirs = [input.as_fd(), output.as_fd(), error.as_fd()];
        let kept = Kept::Pipes(ours);
        let (ticket, launched) = self.launch(container, root, user, command, theirs, kept);
        (
            ticket,
            launched,
            Streams {
                input: input_ours.into(),
                output: output_ours.into(),
                error: error_ours.into(),
            },
        )
    }

    /// The same on a terminal of 30 rows and 100 columns, whose master is answered.
    pub fn run_on_terminal(
        &mut self,
        container: &Container,
        script: &str,
    ) -> (u64, Result<Launched, Failure>, OwnedFd) {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&master).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap();
        let mode = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(slave, mode, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let command = ["/bin/sh", "-c", script];
        let kept = Kept::Terminal(master.as_fd());
        let standard = [slave.as_fd(); 3];
        let (ticket, launched) = self.launch(container, None, "", &command, standard, kept);
        (ticket, launched, master)
    }

    fn launch(
        &mut self,
        container: &Container,
        root: Option<&RootPlan>,
        user: &str,
        command: &[&str],
        standard: [BorrowedFd<'_>; 3],
        kept: Kept<'_>,
    ) -> (u64, Result<Launched, Failure>) {
        let ticket = self.ticket();
        let mut plan = Plan::new();
        plan.text(tag::PROGRAM, &text(command[0]));
        for argument in command {
            plan.text(tag::ARGUMENT, &text(argument));
        }
        if !user.is_empty() {
            plan.text(tag::USER, &text(user));
        }
        plan.capabilities(0xa804_25fb, 0xa804_25fb);
        let plan = plan.seal().unwrap();
        let launch = Launch {
            init: container.pidfd.as_fd(),
            plan: plan.as_fd(),
            standard,
            kept,
            cgroup: None,
            joins: Vec::new(),
            image: None,
            root,
            privileged: false,
        };
        (ticket, self.supervisor().launch(ticket, &launch).unwrap())
    }

    /// A child's pidfd, from the supervisor.
    pub fn pidfd(&self, ticket: u64) -> std::sync::Arc<OwnedFd> {
        self.supervisor().take(ticket).unwrap().1
    }

    pub fn exit_of(&self, ticket: u64) -> Exit {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self
                .ended
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .expect("the process's end is reported in time");
            if ended.ticket == ticket {
                return ended.exit;
            }
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let Some(supervisor) = self.supervisor.take() else { return };
        for child in
            supervisor.children().unwrap_or_default().iter().filter(|child| child.exit.is_none())
        {
            if let Some(pid) = Pid::from_raw(child.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let pids = supervisor.pids();
        // Nobody may start them again: neither we nor one of the two the other.
        drop(supervisor);
        if let Ok((keeper, anchor)) = pids {
            for signal in [Signal::STOP, Signal::KILL] {
                for pid in [anchor, keeper].into_iter().filter_map(Pid::from_raw) {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

pub struct Container {
    pub pidfd: std::sync::Arc<OwnedFd>,
    pub ticket: u64,
}

pub fn commit(init: ParkedInit) -> std::sync::Arc<OwnedFd> {
    let pidfd = init.pidfd.clone();
    init.commit().unwrap();
    pidfd
}

pub struct Streams {
    pub input: File,
    pub output: File,
    pub error: File,
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

pub fn connect(directory: &Path) -> (Supervisor, mpsc::Receiver<Ended>) {
    let (sender, ended) = mpsc::channel();
    let reported = move |ended| {
        let _ = sender.send(ended);
    };
    let supervisor = Supervisor::attach(directory, |_| Ok(()), reported).unwrap();
    (supervisor, ended)
}

pub fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

pub fn all(mut file: File) -> String {
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    content
}

//! The supervisor on a real kernel: containers and processes outlive whoever is killed.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use garden_sys::plan::Plan;
use garden_sys::program::plan::tag;
use garden_sys::program::wire::Step;
use garden_sys::supervisor::{
    Ended, Exit, Failure, Kept, Launch, Launched, ParkedInit, Supervisor, Taken,
};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{Pid, Signal, kill_process};

/// What uid 0 of a container is on the host.
const ROOT: u32 = 4_294_967_294;
const PATIENCE: Duration = Duration::from_secs(10);

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A detached tmpfs with busybox in it, as a container's root.
fn small_root() -> OwnedFd {
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

struct Cell {
    supervisor: Option<Supervisor>,
    ended: mpsc::Receiver<Ended>,
    directory: tempfile::TempDir,
    next: u64,
}

impl Cell {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (supervisor, ended) = connect(directory.path());
        Self { supervisor: Some(supervisor), ended, directory, next: 1 }
    }

    fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().unwrap()
    }

    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// As a daemon that was killed and started again.
    fn reconnect(&mut self) {
        self.supervisor = None;
        let (supervisor, ended) = connect(self.directory.path());
        self.supervisor = Some(supervisor);
        self.ended = ended;
    }

    fn container(&mut self) -> ParkedInitOf {
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
        ParkedInitOf { pidfd: commit(init) }
    }

    fn run(
        &mut self,
        container: &ParkedInitOf,
        script: &str,
    ) -> (u64, Result<Launched, Failure>, Streams) {
        self.run_as(container, "", &["/bin/sh", "-c", script])
    }

    fn run_as(
        &mut self,
        container: &ParkedInitOf,
        user: &str,
        command: &[&str],
    ) -> (u64, Result<Launched, Failure>, Streams) {
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
        let (input, input_ours) = pipe();
        let (output_ours, output) = pipe();
        let (error_ours, error) = pipe();
        let launched = self
            .supervisor()
            .launch(
                ticket,
                &Launch {
                    init: container.pidfd.as_fd(),
                    plan: plan.as_fd(),
                    standard: [input.as_fd(), output.as_fd(), error.as_fd()],
                    kept: Kept::Pipes([
                        input_ours.as_fd(),
                        output_ours.as_fd(),
                        error_ours.as_fd(),
                    ]),
                    cgroup: None,
                    joins: Vec::new(),
                    image: None,
                    privileged: false,
                },
            )
            .unwrap();
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

    fn exit_of(&self, ticket: u64) -> Exit {
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
        let Some(supervisor) = &self.supervisor else { return };
        for child in supervisor.children().iter().filter(|child| child.exit.is_none()) {
            if let Some(pid) = Pid::from_raw(child.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if let Ok((keeper, anchor)) = supervisor.pids() {
            for pid in [anchor, keeper].into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

struct ParkedInitOf {
    pidfd: std::sync::Arc<OwnedFd>,
}

fn commit(init: ParkedInit) -> std::sync::Arc<OwnedFd> {
    let pidfd = init.pidfd.clone();
    init.commit().unwrap();
    pidfd
}

struct Streams {
    input: File,
    output: File,
    error: File,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn connect(directory: &Path) -> (Supervisor, mpsc::Receiver<Ended>) {
    let (sender, ended) = mpsc::channel();
    let supervisor = Supervisor::attach(directory, move |ended| {
        let _ = sender.send(ended);
    })
    .unwrap();
    (supervisor, ended)
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn all(mut file: File) -> String {
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    content
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_process_runs_inside_and_its_exit_is_reported() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) =
        cell.run(&container, "/bin/busybox hostname; /bin/busybox id; echo oops >&2; exit 7");
    launched.unwrap();
    drop(streams.input);
    assert_eq!(cell.exit_of(ticket), Exit::Status(7));
    assert_eq!(all(streams.error), "oops\n");
    assert_eq!(all(streams.output), "cell-test\nuid=0(root) gid=0\n");
    cell.supervisor().release(ticket).unwrap();
    assert_eq!(cell.supervisor().child(ticket), None);
}

#[test]
fn users_groups_and_homes_are_the_containers() {
    let mut cell = Cell::new();
    let container = cell.container();
    let script = "/bin/busybox id -u; /bin/busybox id -G; pwd; echo $HOME $USER";
    let (ticket, launched, streams) = cell.run_as(&container, "alice", &["sh", "-c", script]);
    launched.unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(0));
    assert_eq!(all(streams.output), "1000\n1000 29\n/home/alice\n/home/alice alice\n");
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut cell = Cell::new();
    let container = cell.container();
    for (user, command, step, errno) in [
        ("", "no-such-program", Step::PathSearch, 2),
        ("", "/no/such/program", Step::Execute, 2),
        ("", "/etc", Step::Execute, 13),
        ("bob", "/bin/sh", Step::User, 2),
        ("alice:nobody", "/bin/sh", Step::Group, 2),
    ] {
        let (ticket, launched, _) = cell.run_as(&container, user, &[command]);
        let failure = launched.unwrap_err();
        assert_eq!((failure.step, failure.errno), (step, errno), "{user} {command}");
        assert_eq!(cell.supervisor().child(ticket), None, "a failed launch leaves nothing");
    }
}

#[test]
fn output_written_while_no_daemon_listens_is_kept_and_the_status_too() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) =
        cell.run(&container, "read line; echo $line; read line; echo $line; exit 9");
    cell.supervisor = None;
    let Streams { mut input, output, error } = streams;
    drop((output, error));
    input.write_all(b"first\nsecond\n").unwrap();
    let pidfd = launched.unwrap().pidfd;
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    cell.reconnect();
    assert_eq!(cell.exit_of(ticket), Exit::Status(9));
    let (taken, _) = cell.supervisor().take(ticket).unwrap();
    let [drained, _] = cell.supervisor().drained(ticket).unwrap();
    let Taken::Pipes([_, rest, _]) = taken else { panic!("three pipes were kept") };
    assert_eq!(String::from_utf8(drained.bytes).unwrap() + &all(rest.into()), "first\nsecond\n");
    assert_eq!(cell.supervisor().drained(ticket).unwrap()[0].bytes, b"", "the ring is given once");
}

#[test]
fn any_of_the_two_may_be_killed_and_then_the_other() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) = cell.run(&container, "read line; exit $line");
    launched.unwrap();
    let (keeper, anchor) = cell.supervisor().pids().unwrap();
    kill(keeper);
    wait_until("another keeper serves", || {
        cell.supervisor().pids().is_ok_and(|(other, _)| other != keeper)
    });
    assert_eq!(cell.supervisor().pids().unwrap().1, anchor);
    kill(anchor);
    wait_until("the keeper has become the anchor", || {
        cell.supervisor().pids().is_ok_and(|(_, other)| other != anchor)
    });
    let (keeper, anchor) = cell.supervisor().pids().unwrap();
    kill(anchor);
    wait_until("the next keeper has become the anchor", || {
        cell.supervisor().pids().is_ok_and(|(_, other)| other == keeper)
    });
    // The container is still usable, and the first process's status is still known where the
    // kernel keeps it.
    let (second, launched, _) = cell.run(&container, "exit 4");
    launched.unwrap();
    assert_eq!(cell.exit_of(second), Exit::Status(4));
    let mut input = streams.input;
    input.write_all(b"5\n").unwrap();
    let exit = cell.exit_of(ticket);
    assert!(
        exit == Exit::Status(5) || (!kernel_keeps_statuses() && exit == Exit::Unknown),
        "{exit:?}"
    );
}

#[test]
fn both_killed_at_once_the_daemon_starts_them_with_what_it_holds() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) = cell.run(&container, "read line; echo $line; exit 6");
    launched.unwrap();
    let (keeper, anchor) = cell.supervisor().pids().unwrap();
    kill(anchor);
    kill(keeper);
    wait_until("others serve", || cell.supervisor().pids().is_ok_and(|(other, _)| other != keeper));
    let Streams { mut input, output, .. } = streams;
    input.write_all(b"still here\n").unwrap();
    let exit = cell.exit_of(ticket);
    assert!(
        exit == Exit::Status(6) || (!kernel_keeps_statuses() && exit == Exit::Unknown),
        "{exit:?}"
    );
    let mut line = [0; 11];
    let mut output = output;
    output.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"still here\n");
}

#[test]
fn an_upgrade_keeps_pids_and_children_and_a_refused_one_changes_nothing() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) = cell.run(&container, "read line; exit $line");
    launched.unwrap();
    let before = cell.supervisor().pids().unwrap();
    cell.supervisor().upgrade(b"#!/bin/false\n").unwrap_err();
    assert_eq!(cell.supervisor().pids().unwrap(), before);
    assert!(cell.supervisor().is_current().unwrap());
    let mut other = garden_sys::program::PROGRAM.to_vec();
    other.extend_from_slice(b"another build");
    cell.supervisor().upgrade(&other).unwrap();
    wait_until("the new program runs", || {
        cell.supervisor().is_current().is_ok_and(|current| !current)
    });
    assert_eq!(cell.supervisor().pids().unwrap(), before);
    let mut input = streams.input;
    input.write_all(b"8\n").unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(8));
}

/// PIDFD_GET_INFO tells the exit status of a process that somebody else has reaped, from 6.15 on.
fn kernel_keeps_statuses() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split('.').filter_map(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(15))
}

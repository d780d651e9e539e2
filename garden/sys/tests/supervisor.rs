//! The supervisor on a real kernel: containers and processes outlive whoever is killed.

mod cell;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use cell::waiting::{kernel_keeps_statuses, wait_until};
use cell::{Cell, Streams, all, kill, small_root, text};
use garden_sys as build;
use garden_sys::pidfd::ends_within;
use garden_sys::plan::Plan;
use garden_sys::program::wire::Step;
use garden_sys::supervisor::{Exit, RootPlan, Taken};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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
    assert_eq!(cell.supervisor().child(ticket).unwrap(), None);
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
        assert_eq!(
            cell.supervisor().child(ticket).unwrap(),
            None,
            "a failed launch leaves nothing"
        );
    }
}

#[test]
fn a_process_builds_a_root_of_its_own_and_shares_the_rest() {
    let mut cell = Cell::new();
    let container = cell.container();
    let files = small_root();
    let mine = format!("/proc/self/fd/{}/etc/mine", files.as_raw_fd());
    std::fs::write(mine, "of its own\n").unwrap();
    let mut plan = Plan::new();
    plan.attach(1, false, &text("/")).mount(&text("/proc"), &text("proc"), &[], 0);
    let root = RootPlan::send(plan.seal().unwrap().as_fd(), &[files.as_fd()]).unwrap();
    drop(files);
    let script = "/bin/busybox cat /etc/mine; /bin/busybox hostname; /bin/busybox id -u; pwd; \
                  for kind in net mnt; do /bin/busybox readlink /proc/self/ns/$kind; done";
    let (ticket, launched, streams) =
        cell.run_in(&container, Some(&root), "alice", &["sh", "-c", script]);
    launched.unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(0));
    let said = all(streams.output);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..4], ["of its own", "cell-test", "1000", "/home/alice"]);
    let (ticket, launched, streams) = cell.run(
        &container,
        "for kind in net mnt; do /bin/busybox readlink /proc/self/ns/$kind; done; /bin/busybox cat /etc/mine",
    );
    launched.unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(1), "it has no such file");
    let said = all(streams.output);
    let (net, mnt) = said.trim_end().split_once('\n').unwrap();
    assert_eq!(lines[4], net);
    assert_ne!(lines[5], mnt);

    let files = small_root();
    let mut plan = Plan::new();
    plan.attach(1, false, &text("/")).mount(&text("/proc"), &text("no-such-kind"), &[], 0);
    let root = RootPlan::send(plan.seal().unwrap().as_fd(), &[files.as_fd()]).unwrap();
    let (ticket, launched, _) = cell.run_in(&container, Some(&root), "", &["/bin/sh"]);
    let failure = launched.unwrap_err();
    assert_eq!((failure.step, failure.errno, failure.detail), (Step::Mount, 19, 1));
    assert_eq!(cell.supervisor().child(ticket).unwrap(), None, "a failed launch leaves nothing");
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
    let Taken::Pipes { output: rest, .. } = taken else { panic!("three pipes were kept") };
    assert_eq!(String::from_utf8(drained.bytes).unwrap() + &all(rest.into()), "first\nsecond\n");
    assert_eq!(cell.supervisor().drained(ticket).unwrap()[0].bytes, b"", "the ring is given once");
}

#[test]
fn input_ends_when_the_daemon_says_so() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, streams) = cell.run(&container, "exec /bin/busybox cat");
    launched.unwrap();
    let Streams { mut input, output, .. } = streams;
    input.write_all(b"all of it").unwrap();
    drop(input);
    cell.supervisor().end_input(ticket).unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(0));
    let (taken, _) = cell.supervisor().take(ticket).unwrap();
    assert!(matches!(taken, Taken::Pipes { input: None, .. }), "{taken:?}");
    drop(taken);
    cell.supervisor().release(ticket).unwrap();
    assert_eq!(all(output), "all of it");
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
fn a_dismissed_supervisor_ends_with_its_daemon_unless_it_has_children_or_another_daemon() {
    const AT_ONCE: Duration = Duration::from_secs(2);
    let mut cell = Cell::new();
    let (keeper, anchor) = cell.supervisor().pids().unwrap();
    let ends = |pid: i32| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let processes = [ends(keeper), ends(anchor)];
    let container = cell.container();
    let (ticket, launched, streams) = cell.run(&container, "read line; exit 3");
    launched.unwrap();
    cell.supervisor().dismiss().unwrap();
    cell.reconnect();
    assert_eq!(cell.supervisor().pids().unwrap(), (keeper, anchor), "there are children");
    let mut input = streams.input;
    input.write_all(b"on\n").unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(3));
    cell.supervisor().release(ticket).unwrap();
    pidfd_send_signal(&container.pidfd, Signal::KILL).unwrap();
    cell.exit_of(container.ticket);
    cell.supervisor().release(container.ticket).unwrap();

    cell.supervisor().dismiss().unwrap();
    cell.supervisor = None;
    for process in processes {
        assert!(ends_within(&process, AT_ONCE).unwrap());
    }
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

#[test]
fn what_the_daemon_inherited_is_not_handed_on() {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    // As if it had come from who started the daemon, under a number that the keeper leaves alone.
    let inherited = rustix::io::fcntl_dupfd_cloexec(&write, 200).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let cell = Cell::new();
    drop((write, inherited));
    let mut byte = [0; 1];
    // Another test's child may hold it for a moment, between its clone and its exec.
    wait_until("the pipe ends", || rustix::io::read(&read, &mut byte) == Ok(0));
    drop(cell);
}

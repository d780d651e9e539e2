//! Upgrades between builds whose ledgers differ: `garden-sys-previous` is this crate as the build
//! before would have been.

#![allow(clippy::duplicate_mod, reason = "`cell` is there for each of two builds")]

#[path = "../chance/mod.rs"]
mod chance;
mod new;
mod old;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use chance::{Random, number};
use garden_sys::program::PROGRAM;
use garden_sys::supervisor::{Error, Exit, Taken};
use garden_sys_previous::program::PROGRAM as OLD_PROGRAM;
use garden_sys_previous::supervisor as before;
use new::cell::waiting::{kernel_keeps_statuses, wait_until};
use new::cell::{Cell, all, kill};

/// Writes so many numbered lines as fast as it can.
const LINES: u32 = 20_000;

fn lines() -> String {
    (0..LINES).map(|line| format!("line {line}\n")).collect()
}

/// The old daemon goes, and one of this build comes to its places.
fn replace_daemon(mut old: old::cell::Cell) -> Cell {
    old.supervisor = None;
    let directory = std::mem::replace(&mut old.directory, tempfile::tempdir().unwrap());
    let (supervisor, ended) = new::cell::connect(directory.path());
    Cell { supervisor: Some(supervisor), ended, directory, next: old.next + 100 }
}

fn taken(cell: &Cell, ticket: u64) -> Taken {
    cell.supervisor().take(ticket).unwrap().0
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) {
    let size =
        rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

/// What is written to a terminal until its last process has gone.
fn heard(terminal: impl AsFd) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    // EIO: nobody has it open any more.
    while let Ok(length @ 1..) = rustix::io::read(&terminal, &mut buffer) {
        all.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn containers_of_the_build_before_go_on_under_this_one() {
    let mut old = old::cell::Cell::new();
    let container = old.container();
    let (ended, launched, _) = old.run(&container, "exit 3");
    launched.unwrap();
    assert_eq!(old.exit_of(ended), before::Exit::Status(3));
    let (talker, launched, streams) =
        old.run(&container, "read a; echo $a; read a; echo $a; exit 7");
    launched.unwrap();
    let script = "stty size; read line; stty size; echo got $line; exit 4";
    let (terminal, launched, master) = old.run_on_terminal(&container, script);
    launched.unwrap();
    let pids = old.supervisor().pids().unwrap();
    drop(streams.output);
    let mut input = streams.input;
    input.write_all(b"while away\n").unwrap();
    drop((input, master));

    let mut cell = replace_daemon(old);
    let supervisor = cell.supervisor();
    assert!(!supervisor.is_current().unwrap());
    let exits = |cell: &Cell| {
        let children = cell.supervisor().children().unwrap();
        children.iter().map(|child| (child.ticket, child.init, child.exit)).collect::<Vec<_>>()
    };
    let before = exits(&cell);
    assert!(before.contains(&(ended, false, Some(Exit::Status(3)))), "{before:?}");
    assert_eq!(before.len(), 4);

    // It is served as it is, and where it refuses to go, it stays.
    supervisor.upgrade(b"#!/bin/false\n").unwrap_err();
    assert!(!supervisor.is_current().unwrap());
    let container =
        new::cell::Container { pidfd: cell.pidfd(container.ticket), ticket: container.ticket };
    let (seventh, launched, _) = cell.run(&container, "exit 6");
    launched.unwrap();
    assert_eq!(cell.exit_of(seventh), Exit::Status(6));
    cell.supervisor().release(seventh).unwrap();

    // Somebody writes all the time while the program changes.
    let script =
        format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit 9");
    let (writer, launched, streams) = cell.run(&container, &script);
    launched.unwrap();
    let mut output = streams.output;
    let mut first = [0; 7];
    output.read_exact(&mut first).unwrap();
    let reader = std::thread::spawn(move || all(output));
    cell.supervisor().upgrade(PROGRAM).unwrap();

    assert!(cell.supervisor().is_current().unwrap());
    assert_eq!(cell.supervisor().pids().unwrap(), pids);
    assert!(before.iter().all(|child| exits(&cell).contains(child)), "{before:?}");
    assert_eq!(cell.exit_of(writer), Exit::Status(9));
    cell.supervisor().release(writer).unwrap();
    assert_eq!(String::from_utf8_lossy(&first) + reader.join().unwrap().as_str(), lines());

    let Taken::Pipes { input: Some(input), output, .. } = taken(&cell, talker) else {
        panic!("three pipes were kept")
    };
    let [drained, _] = cell.supervisor().drained(talker).unwrap();
    std::fs::File::from(input).write_all(b"and now\n").unwrap();
    assert_eq!(cell.exit_of(talker), Exit::Status(7));
    cell.supervisor().release(talker).unwrap();
    let said = String::from_utf8(drained.bytes).unwrap() + &all(output.into());
    assert_eq!(said, "while away\nand now\n");

    let Taken::Terminal(master) = taken(&cell, terminal) else { panic!("a terminal was kept") };
    let [drained, _] = cell.supervisor().drained(terminal).unwrap();
    resize(&master, 20, 90);
    rustix::io::write(&master, b"this\n").unwrap();
    assert_eq!(cell.exit_of(terminal), Exit::Status(4));
    cell.supervisor().release(terminal).unwrap();
    let said = String::from_utf8(drained.bytes).unwrap() + &heard(&master);
    assert_eq!(said, "30 100\r\nthis\r\n20 90\r\ngot this\r\n");

    // The converted ledger is as good as any: the next keeper goes by it.
    let (last, launched, mut streams) = cell.run(&container, "read line; exit $line");
    launched.unwrap();
    kill(pids.0);
    wait_until("another keeper serves", || {
        cell.supervisor().pids().is_ok_and(|(keeper, _)| keeper != pids.0)
    });
    streams.input.write_all(b"8\n").unwrap();
    assert_eq!(cell.exit_of(last), Exit::Status(8));
}

/// Whoever is killed while the program changes: nothing is lost, and the change is made in the end.
#[test]
fn an_upgrade_survives_kills_at_any_moment() {
    let (rounds, seed) =
        (number("BLOOMERY_UPGRADES", 24), number("BLOOMERY_SEED", std::process::id().into()));
    println!("upgrades {rounds}, seed {seed}");
    let mut random = Random(seed * 2 + 1);
    for round in 0..rounds {
        let mut old = old::cell::Cell::new();
        let container = old.container();
        let (ticket, launched, streams) = old.run(&container, "read line; echo $line; exit 5");
        launched.unwrap();
        let (ended, launched, _) = old.run(&container, "exit 6");
        launched.unwrap();
        old.exit_of(ended);
        let (keeper, anchor) = old.supervisor().pids().unwrap();
        let cell = replace_daemon(old);
        // It holds what it would hand to another supervisor.
        for child in cell.supervisor().children().unwrap() {
            cell.supervisor().take(child.ticket).unwrap();
        }
        let victims = [vec![keeper], vec![anchor], vec![keeper, anchor]];
        let victims = &victims[usize::try_from(random.below(3)).unwrap()];
        let moment = Duration::from_micros(random.below(4000));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                while start.elapsed() < moment {
                    std::hint::spin_loop();
                }
                victims.iter().copied().for_each(kill);
            });
            let _ = cell.supervisor().upgrade(PROGRAM);
        });
        let case = format!("round {round}: {victims:?} of {keeper} {anchor} after {moment:?}");
        wait_until(&case, || {
            let current = cell.supervisor().is_current().unwrap_or(false);
            current || cell.supervisor().upgrade(PROGRAM).is_ok()
        });
        let exit = |ticket| cell.supervisor().child(ticket).unwrap().expect(&case).exit;
        assert_eq!(exit(ended), Some(Exit::Status(6)), "{case}");
        let mut input = streams.input;
        input.write_all(b"still here\n").unwrap();
        wait_until(&case, || exit(ticket).is_some());
        let both = victims.len() == 2;
        assert!(
            exit(ticket) == Some(Exit::Status(5))
                || both && !kernel_keeps_statuses() && exit(ticket) == Some(Exit::Unknown),
            "{case}: {:?}",
            exit(ticket)
        );
        let mut said = [0; 11];
        let mut output = streams.output;
        let [drained, _] = cell.supervisor().drained(ticket).unwrap();
        said[..drained.bytes.len()].copy_from_slice(&drained.bytes);
        output.read_exact(&mut said[drained.bytes.len()..]).unwrap();
        assert_eq!(&said, b"still here\n", "{case}");
    }
}

#[test]
fn a_build_that_does_not_know_the_ledger_is_refused() {
    let mut cell = Cell::new();
    let container = cell.container();
    let (ticket, launched, mut streams) = cell.run(&container, "read line; exit $line");
    launched.unwrap();
    let pids = cell.supervisor().pids().unwrap();
    let refused = cell.supervisor().upgrade(OLD_PROGRAM).unwrap_err();
    assert!(
        matches!(refused, Error::Refused { .. }) && refused.to_string().contains("layout"),
        "{refused}"
    );
    assert!(cell.supervisor().is_current().unwrap());
    assert_eq!(cell.supervisor().pids().unwrap(), pids);

    // Nor does a daemon of that build come to terms with it, and says so at once.
    let start = Instant::now();
    let refused = before::Supervisor::attach(cell.directory.path(), |_| Ok(()), drop).unwrap_err();
    assert!(
        matches!(refused, before::Error::TooNew { found: 2, newest: 1 }),
        "{refused} after {:?}",
        start.elapsed()
    );
    cell.reconnect();
    streams.input.write_all(b"8\n").unwrap();
    assert_eq!(cell.exit_of(ticket), Exit::Status(8));
    assert_eq!(cell.supervisor().pids().unwrap(), pids);
}

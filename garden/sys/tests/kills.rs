//! Random kills under load: what is lost is counted.
//!
//! `BLOOMERY_KILLS=1000 cargo test -p garden-sys --test kills -- --nocapture` is the long run; the
//! seed is printed and can be given as `BLOOMERY_SEED`. With `BLOOMERY_KILL_SPACING_MS=1000` kills
//! are a second apart, and no status may be unknown on any kernel.

mod cell;
mod chance;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cell::waiting::{kernel_keeps_statuses, wait_until};
use cell::{Cell, Streams, kill};
use chance::{Random, number};
use garden_sys as build;
use garden_sys::supervisor::{Exit, Taken};

/// Kills so far apart lose no status, whatever the kernel.
const APART: Duration = Duration::from_secs(1);

struct Running {
    ticket: u64,
    lines: u64,
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// What a daemon has read so far.
    read: Vec<u8>,
}

impl Running {
    fn tell(&mut self) {
        if let Some(input) = self.input.take() {
            std::fs::File::from(input).write_all(format!("{}\n", self.lines).as_bytes()).unwrap();
        }
    }

    fn expected(&self) -> Vec<u8> {
        (0..self.lines).flat_map(|line| format!("line {line}\n").into_bytes()).collect()
    }
}

#[derive(Debug, Default)]
struct Counts {
    daemon: u64,
    keeper: u64,
    anchor: u64,
    statuses: u64,
    unknown: u64,
    wrong: u64,
    bytes: usize,
    /// Bytes that are missing, changed, not in their place, or there twice.
    wrong_bytes: usize,
}

/// Compares byte by byte; what is lost in the middle makes all behind it wrong.
fn wrong_bytes(read: &[u8], expected: &[u8]) -> usize {
    let differing = read.iter().zip(expected).filter(|(read, expected)| read != expected).count();
    let wrong = differing + read.len().abs_diff(expected.len());
    if wrong > 0 {
        let text = |bytes: &[u8], at: usize| {
            let around = &bytes[at.saturating_sub(30).min(bytes.len())..bytes.len().min(at + 60)];
            String::from_utf8_lossy(around).into_owned()
        };
        let shared = read.iter().zip(expected).take_while(|(read, expected)| read == expected);
        let at = shared.count();
        println!(
            "{} bytes instead of {}; around byte {at}: {:?} instead of {:?}",
            read.len(),
            expected.len(),
            text(read, at),
            text(expected, at)
        );
    }
    wrong
}

fn read_some(running: &mut Running) {
    rustix::fs::fcntl_setfl(&running.output, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = rustix::io::read(&running.output, &mut buffer) {
        running.read.extend_from_slice(&buffer[..length]);
    }
}

/// Reads along until so much time has gone by since the last kill.
fn wait_since(kill: Instant, time: Duration, running: &mut [Running]) {
    while kill.elapsed() < time {
        running.iter_mut().for_each(read_some);
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A new daemon takes up what the last one left.
fn take_up(cell: &Cell, running: &mut Running) {
    let drained = cell.supervisor().drained(running.ticket).unwrap();
    let (taken, _) = cell.supervisor().take(running.ticket).unwrap();
    let Taken::Pipes { input: Some(input), output, .. } = taken else { panic!("pipes were kept") };
    running.read.extend_from_slice(&drained[0].bytes);
    running.output = output;
    running.input = running.input.take().map(|_| input);
}

#[test]
fn random_kills_lose_no_status_and_no_output() {
    let (kills, seed) =
        (number("BLOOMERY_KILLS", 60), number("BLOOMERY_SEED", std::process::id().into()));
    let spacing = Duration::from_millis(number("BLOOMERY_KILL_SPACING_MS", 0));
    println!("kills {kills}, {spacing:?} apart, seed {seed}");
    let mut last_kill = Instant::now();
    let mut random = Random(seed * 2 + 1);
    let mut counts = Counts::default();
    let mut cell = Cell::new();
    let container = cell.container();
    let script =
        "read n; i=0; while [ $i -lt $n ]; do echo line $i; i=$((i+1)); done; exit $((n % 100))";
    let mut killed = 0;
    while killed < kills {
        let mut running = Vec::new();
        for _ in 0..4 {
            let (ticket, launched, streams) = cell.run(&container, script);
            launched.unwrap();
            let Streams { input, output, .. } = streams;
            running.push(Running {
                ticket,
                lines: random.below(2000),
                input: Some(input.into()),
                output: output.into(),
                read: Vec::new(),
            });
        }
        for one in 0..4 {
            if random.below(2) == 0 {
                running[one].tell();
            }
            wait_since(last_kill, spacing, &mut running);
            last_kill = Instant::now();
            match random.below(3) {
                0 => {
                    counts.daemon += 1;
                    cell.reconnect();
                    running.iter_mut().for_each(|running| take_up(&cell, running));
                }
                which => {
                    let (keeper, anchor) = cell.supervisor().pids().unwrap();
                    if which == 1 {
                        counts.keeper += 1;
                        kill(keeper);
                    } else {
                        counts.anchor += 1;
                        kill(anchor);
                    }
                    // Killed is killed, but the next one may be there at any later time.
                    let pause = Duration::from_micros(random.below(20_000));
                    wait_since(last_kill, pause, &mut running);
                    wait_until("another supervisor serves", || {
                        cell.supervisor().pids().is_ok_and(|now| now != (keeper, anchor))
                    });
                }
            }
            killed += 1;
            read_some(&mut running[one]);
        }
        for mut one in running {
            one.tell();
            let mut exit = None;
            wait_until("it has ended", || {
                exit = cell.supervisor().child(one.ticket).unwrap().unwrap().exit;
                read_some(&mut one);
                exit.is_some()
            });
            // What was drained between two keepers belongs after what was read before.
            let drained = cell.supervisor().drained(one.ticket).unwrap();
            one.read.extend_from_slice(&drained[0].bytes);
            let expected = one.expected();
            let status = i32::try_from(one.lines % 100).unwrap();
            let mut rest = Vec::new();
            rustix::fs::fcntl_setfl(&one.output, rustix::fs::OFlags::empty()).unwrap();
            cell.supervisor().release(one.ticket).unwrap();
            let output = std::mem::replace(&mut one.output, cell::pipe().0);
            std::fs::File::from(output).read_to_end(&mut rest).unwrap();
            one.read.extend_from_slice(&rest);
            counts.statuses += 1;
            counts.bytes += expected.len();
            counts.wrong_bytes += wrong_bytes(&one.read, &expected);
            match exit.unwrap() {
                Exit::Unknown => counts.unknown += 1,
                Exit::Status(got) if got != status => counts.wrong += 1,
                Exit::Status(_) => {}
            }
        }
    }
    println!("{counts:#?}");
    assert_eq!(counts.wrong, 0, "a status is never invented");
    assert_eq!(counts.wrong_bytes, 0);
    if kernel_keeps_statuses() || spacing >= APART {
        assert_eq!(counts.unknown, 0);
    }
}

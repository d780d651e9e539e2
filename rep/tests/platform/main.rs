//! A rep between a BBS, a Locket and a real Garden.
//!
//! This program has a `main` of its own: it is also the program that Garden runs inside containers
//! for files that come out. An argument selects the tests whose names contain it.

mod cell;
mod lives;
#[path = "../../../garden/tests/plot/mod.rs"]
mod plot;
mod recorded;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tests at a time; most of their time they wait.
const AT_A_TIME: usize = 3;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, what, user, path] = &arguments[..]
        && command == "inside"
    {
        assert_eq!(what, "stream-out", "no files go in here");
        return match rootfs::inside::stream_out(user, path, std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut tests: Vec<Test> = [lives::TESTS, recorded::TESTS].concat();
    if arguments.iter().any(|flag| flag == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    tests.retain(|(name, _)| wanted.is_empty() || wanted.iter().any(|text| name.contains(*text)));
    let failed = failed(&Mutex::new(tests));
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(tests: &Mutex<Vec<Test>>) -> usize {
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some((name, test)) = tests.lock().unwrap().pop() else { break };
                    let passed = std::panic::catch_unwind(test).is_ok();
                    println!("{name} ... {}", if passed { "ok" } else { "FAILED" });
                    failed.fetch_add(usize::from(!passed), Ordering::Relaxed);
                }
            });
        }
    });
    failed.into_inner()
}

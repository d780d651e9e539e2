//! Every recorded scenario, as the server and as the client.
//!
//! This program has a `main` of its own: it is also the server under test (see `interop::rig`), and
//! it prints what `cargo test` would hide, the number of deliberate differences. An argument selects the scenarios whose name contains it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bloomery_garden::client::{Address, Client};
use garden_api::ContainerSpec;
use interop::differences::{Ledger, Verdict};
use interop::recording::{self, Recording};
use interop::replay;
use interop::rig::{self, Rig};
use interop::stage;
use tokio::runtime::Handle;

/// Scenarios at a time; most of their time they wait.
const AT_A_TIME: usize = 12;

/// How many there are, or more.
const RECORDINGS: usize = 143;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let done = match arguments.get(1).map(String::as_str) {
        Some("rig") => rig::run_rig(&arguments[2..]),
        Some("inside") => rig::run_inside(&arguments[2..]),
        Some("cleanup") => rig::run_cleanup(&arguments[2..]),
        Some("daemon") => rig::run_daemon(&arguments[2..]),
        _ => match replay_all(&arguments[1..]) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replay_all(arguments: &[String]) -> anyhow::Result<bool> {
    let start = Instant::now();
    let wanted: Vec<_> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    if arguments.iter().any(|flag| flag == "--list") {
        return Ok(true);
    }
    let mut recordings = recording::all()?;
    let all = recordings.len();
    ensure!(all >= RECORDINGS, "{all} recordings instead of {RECORDINGS}: some are missing");
    recordings.retain(|recording| {
        wanted.is_empty() || wanted.iter().any(|text| recording.head.scenario.contains(*text))
    });
    // The longest first.
    recordings.sort_by_key(|r| std::cmp::Reverse(r.events.last().map_or(0, |event| event.ms)));
    let ledger = Ledger::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    let place = tempfile::Builder::new().prefix("interop-").tempdir()?;
    let srv = place.path().join("srv");
    rig::furnish(&srv)?;
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(BTreeMap::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut broken = Ok(());
    std::thread::scope(|scope| {
        if wanted.is_empty() {
            let (broken, srv) = (&mut broken, &srv);
            scope.spawn(move || *broken = broken_rigs_leave_nothing(srv));
        }
        for worker in 0..AT_A_TIME {
            let (next, recordings, verdicts, srv, ledger, runtime) =
                (&next, &recordings, &verdicts, &srv, &ledger, runtime.handle());
            scope.spawn(move || {
                while let Some(recording) = recordings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = recording.head.scenario.as_str();
                    let both = [
                        ("server", Some(as_server(recording, srv, worker, ledger))),
                        ("client", as_client(recording, runtime, ledger)),
                    ];
                    let mut verdicts = verdicts.lock().unwrap();
                    verdicts.extend(both.map(|(side, verdict)| ((side, name), verdict)));
                }
            });
        }
    });
    broken.context("a broken rig")?;
    let verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut good = true;
    for side in ["server", "client"] {
        let mut tally = Tally::default();
        for (name, verdict) in verdicts.iter().filter(|((of, _), _)| *of == side) {
            good &= tally.count(name.1, side, verdict.as_ref());
        }
        println!("as {side}: {tally}");
    }
    println!("{:.1?}", start.elapsed());
    Ok(good)
}

/// What one side's replays come to.
#[derive(Debug, Default)]
struct Tally {
    played: usize,
    equal: usize,
    deliberate: usize,
    /// Recordings of a client made by hand.
    without: usize,
}

impl Tally {
    /// Enters a verdict and says what is to be said of it; whether that is good.
    fn count(&mut self, scenario: &str, side: &str, verdict: Option<&Verdict>) -> bool {
        let Some(verdict) = verdict else {
            self.without += 1;
            return true;
        };
        self.played += 1;
        match verdict {
            Verdict::Equal(differences) => {
                self.equal += 1;
                self.deliberate += differences;
            }
            Verdict::Wrong(reasons) => {
                println!("{scenario} as {side}: FAILED\n{}\n", reasons.join("\n"));
                return false;
            }
        }
        true
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { played, equal, deliberate, without } = self;
        write!(
            f,
            "{equal} of {played} replays equal the recording, with {deliberate} deliberate differences"
        )?;
        if *without > 0 {
            write!(f, "; {without} recordings have no part for the original's client")?;
        }
        Ok(())
    }
}

/// A rig whose daemon or keeper is in no state to clean up does it itself.
fn broken_rigs_leave_nothing(srv: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for (number, orders) in
        [&["stop keeper"][..], &["kill daemon"], &["stop keeper", "kill daemon"]].iter().enumerate()
    {
        let mut rig = Rig::start(srv, AT_A_TIME + number, "")?;
        let client = Client::new(Address::Unix(rig.socket()));
        runtime.block_on(client.create(&ContainerSpec::default()))?;
        let namespace = rig.namespace()?;
        let of_containers = rig::children(&rig::members(&namespace)?)?;
        for order in *orders {
            rig.order(order)?;
        }
        let dismantled = rig.dismantle();
        ensure!(dismantled.is_err() == orders.contains(&"kill daemon"), "{dismantled:?}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !rig::members(&namespace)?.is_empty()
            || of_containers.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())
        {
            ensure!(Instant::now() < deadline, "{orders:?} leaves processes");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn as_server(recording: &Recording, srv: &Path, worker: usize, ledger: &Ledger) -> Verdict {
    let played = || {
        let mut rig = Rig::start(srv, worker, &recording.head.server_flags)?;
        let differences = replay::replay(recording, &mut rig);
        let log = rig.log();
        let dismantled = rig.dismantle();
        let differences =
            differences.map_err(|error| error.context(format!("server's log: {log}")))?;
        dismantled?;
        anyhow::Ok(differences)
    };
    match played() {
        Ok(differences) => ledger.judge(&recording.head.scenario, "server", &differences),
        Err(error) => Verdict::Wrong(vec![format!("{error:#}")]),
    }
}

fn as_client(recording: &Recording, runtime: &Handle, ledger: &Ledger) -> Option<Verdict> {
    let scenario = &recording.head.scenario;
    match stage::play(recording, runtime) {
        Ok(differences) => differences.map(|found| ledger.judge(scenario, "client", &found)),
        Err(error) => Some(Verdict::Wrong(vec![format!("{error:#}")])),
    }
}

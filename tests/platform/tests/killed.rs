//! kill -9 of each of the platform's processes: apps do not notice, requests wait, a push that was
//! under way succeeds or can be repeated.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bbs_models::TasksRequest;
use platform_tests::{Part, Platform, Step, Told, apps, eventually};

/// So many ask the app at a time. A killed router may lose what each of them has in flight.
const CLIENTS: usize = 4;

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    lost: Mutex<Vec<String>>,
    lives: Mutex<BTreeSet<String>>,
    slowest: Mutex<Duration>,
}

/// Clients ask an app while something happens, and for a while after that.
fn meanwhile(platform: &Platform, host: &str, happens: impl FnOnce()) -> Seen {
    let seen = Seen::default();
    let is_over = AtomicBool::new(false);
    let ask = || {
        while !is_over.load(Ordering::SeqCst) {
            let started = Instant::now();
            match platform.app(host, "/") {
                Ok(answer) if answer.status == 200 => {
                    let life = answer.json()["life"].to_string();
                    seen.lives.lock().unwrap().insert(life);
                    seen.answers.fetch_add(1, Ordering::SeqCst);
                }
                Ok(answer) => seen.lost.lock().unwrap().push(format!(
                    "{} {} {}",
                    answer.status,
                    answer.header("x-cf-routererror"),
                    answer.text()
                )),
                Err(error) => seen.lost.lock().unwrap().push(error.to_string()),
            }
            let mut slowest = seen.slowest.lock().unwrap();
            *slowest = (*slowest).max(started.elapsed());
            drop(slowest);
            // They are users, and no flood.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let more = |number| {
        let wanted = seen.answers.load(Ordering::SeqCst) + number;
        eventually("clients get answers", || {
            let now = seen.answers.load(Ordering::SeqCst);
            if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}: {seen:?}")) }
        });
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(ask);
        }
        // However this ends, the clients end.
        let _over = Over(&is_over);
        more(20);
        happens();
        more(50);
    });
    seen
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills a part and waits until everything is there again and answers.
fn kill_and_wait(platform: &Platform, part: Part) {
    let killed = platform.kill(part);
    is_whole(platform, &format!("after {part:?}, process {killed}"));
}

/// Waits until all parts are there and answer.
fn is_whole(platform: &Platform, when: &str) {
    eventually(&format!("the platform is whole {when}"), || {
        let missing = Part::ALL.into_iter().find(|part| platform.part(*part).is_none());
        if let Some(part) = missing {
            return Err(format!("no {part:?}"));
        }
        platform.wait(platform.garden().ping()).map_err(|error| error.to_string())?;
        platform.log_in().map(|_| ())
    });
}

#[test]
fn apps_and_their_clients_do_not_notice_that_a_process_is_killed() -> Told<()> {
    let platform = Platform::started(0);
    platform.log_in()?.push(&apps::server("steady", "one"))?;
    let life = platform.app_answers("steady")["life"].to_string();
    let instances = platform.running(1);
    for part in Part::ALL {
        let seen = meanwhile(&platform, "steady", || kill_and_wait(&platform, part));
        let (lost, slowest) = (seen.lost.into_inner().unwrap(), seen.slowest.into_inner().unwrap());
        println!(
            "{part:?}: {} answers, lost {lost:?}, slowest {slowest:?}",
            seen.answers.into_inner()
        );
        let in_flight = match part {
            Part::Platform => CLIENTS,
            _ => 0,
        };
        assert!(lost.len() <= in_flight, "{part:?}: {lost:?}");
        assert_eq!(seen.lives.into_inner().unwrap(), BTreeSet::from([life.clone()]), "{part:?}");
        assert_eq!(platform.running(1), instances, "{part:?}");
        platform.containers_are(&instances);
    }

    // All but what holds containers, at once: now an operator has to act.
    let seen = meanwhile(&platform, "steady", || {
        for part in [Part::StandBy, Part::Supervisor, Part::Garden, Part::Platform] {
            platform.kill(part);
        }
        platform.up(&[]);
        is_whole(&platform, "after all of these");
    });
    assert_eq!(seen.lives.into_inner().unwrap(), BTreeSet::from([life]));
    assert_eq!(platform.running(1), instances);
    platform.containers_are(&instances);
    Ok(())
}

#[test]
fn a_push_that_is_hit_while_it_builds_succeeds_or_can_be_repeated() -> Told<()> {
    expect_pushes(1, Step::Builds)
}

#[test]
fn a_push_that_is_hit_while_it_starts_succeeds_or_can_be_repeated() -> Told<()> {
    expect_pushes(2, Step::Starts)
}

fn expect_pushes(number: u32, step: Step) -> Told<()> {
    let platform = Platform::started(number);
    platform.log_in()?.push(&apps::server("pushed", "first"))?;
    for part in Part::ALL {
        expect_push(&platform, part, step)?;
    }
    Ok(())
}

/// Pushes with a kill at a step, and once more if that is why it fails.
fn expect_push(platform: &Platform, part: Part, step: Step) -> Told<()> {
    let version = format!("{part:?}-{step:?}");
    let files = apps::server("pushed", &version);
    let mut hit = |now: Step| {
        if now == step {
            kill_and_wait(platform, part);
        }
    };
    let pushed = platform.log_in()?.push_watched(&files, &mut hit);
    println!("{version}: {pushed:?}");
    if pushed.is_err() {
        platform.log_in()?.push(&files)?;
    }
    eventually("the new version answers", || {
        let said = platform.app_answers("pushed");
        if said["version"] == *version { Ok(()) } else { Err(said.to_string()) }
    });
    eventually("there is one app and nothing else", || {
        let tasks = platform.wait(platform.bbs().tasks(TasksRequest::default())).unwrap();
        let desired = platform.desired().len();
        if tasks.is_empty() && desired == 1 { Ok(()) } else { Err(format!("{desired} {tasks:?}")) }
    });
    platform.containers_are(&platform.running(1));
    Ok(())
}

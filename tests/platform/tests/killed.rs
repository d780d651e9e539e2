//! kill -9 of each of the platform's processes: apps do not notice, requests wait, a push that was
//! under way succeeds or can be repeated.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bbs_models::TasksRequest;
use garden_api::Properties;
use platform_tests::{
    CLIENTS, Extent, PATIENCE, Part, Platform, Seen, Step, Told, apps, eventually,
};
use serde_json::Value;

/// Clients ask an app while something happens, and for a while after that.
fn meanwhile(platform: &Platform, host: &str, happens: impl FnOnce()) -> Seen {
    let ask = || match platform.app(host, "/") {
        Ok(answer) if answer.status == 200 => Ok(answer.json()["life"].to_string()),
        Ok(answer) => {
            let error = answer.header("x-cf-routererror");
            Err(format!("{} {error} {}", answer.status, answer.text()))
        }
        Err(error) => Err(error.to_string()),
    };
    platform_tests::meanwhile(ask, Extent { before: 20, after: 50, patience: PATIENCE }, happens)
}

/// For a request while a process is started again, which is to be a second at most; on a host that does
/// other things as well it is given another one.
const WAIT: Duration = Duration::from_secs(2);

#[test]
fn apps_and_their_clients_do_not_notice_that_a_process_is_killed() -> Told<()> {
    let platform = Platform::started(0);
    platform.log_in()?.push(&apps::server("steady", "one"))?;
    let life = platform.app_answers("steady")["life"].to_string();
    let instances = platform.running(1);
    for part in Part::ALL {
        let seen = meanwhile(&platform, "steady", || platform.kill_and_wait(part));
        let (answers, lost, slowest) = (seen.answers(), seen.lost(), seen.slowest());
        println!("{part:?}: {answers} answers, lost {lost:?}, slowest {slowest:?}");
        let in_flight = match part {
            Part::Platform => CLIENTS,
            _ => 0,
        };
        assert!(lost.len() <= in_flight, "{part:?}: {lost:?}");
        assert!(slowest < WAIT, "{part:?}: a client has waited for {slowest:?}");
        assert_eq!(seen.lives(), BTreeSet::from([life.clone()]), "{part:?}");
        assert_eq!(platform.running(1), instances, "{part:?}");
        platform.containers_are(&instances);
    }

    // All but what holds containers, at once: now an operator has to act.
    let seen = meanwhile(&platform, "steady", || {
        for part in [Part::StandBy, Part::Supervisor, Part::Garden, Part::Platform] {
            platform.kill(part);
        }
        platform.up(&[]);
        platform.is_whole("after all of these");
    });
    // Nobody holds the socket for a while; nobody answers for an app that is there, either.
    let answered = |lost: &String| lost.starts_with(|first: char| first.is_ascii_digit());
    assert!(!seen.lost().iter().any(answered), "{:?}", seen.lost());
    assert_eq!(seen.lives(), BTreeSet::from([life]));
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

/// For a push that Garden dies under, from then to its end. A cell that did not go on by itself
/// would be brought to it after 30 s.
const GOES_ON: Duration = Duration::from_secs(15);

/// Where Garden dies: what is known of the container that stages.
#[derive(Clone, Copy, Debug)]
enum Staging {
    /// It may be about to be made.
    Begins,
    /// It is there.
    IsMade,
    /// Files are in it.
    HasFiles,
    /// The builder runs.
    Runs,
}

#[test]
fn a_push_goes_on_when_garden_is_back() -> Told<()> {
    let platform = Platform::started(3);
    platform.log_in()?.push(&apps::server("pushed", "first"))?;
    for staging in [Staging::Begins, Staging::IsMade, Staging::HasFiles, Staging::Runs] {
        let version = format!("{staging:?}");
        let files = apps::server("pushed", &version);
        let mut killed = None;
        let mut hit = |now: Step| {
            if now == Step::Builds {
                await_staging(&platform, staging);
                platform.kill(Part::Garden);
                killed = Some(Instant::now());
            }
        };
        platform.log_in()?.push_watched(&files, &mut hit)?;
        let took = killed.expect("Garden is killed").elapsed();
        println!("Garden dies when staging {staging:?}: the push ends after {took:?}");
        assert!(took < GOES_ON, "{staging:?}: the push ends after {took:?}");
        assert_eq!(platform.app_answers("pushed")["version"], *version);
        platform.containers_are(&platform.running(1));
    }
    Ok(())
}

/// Waits until staging is there, or beyond.
fn await_staging(platform: &Platform, staging: Staging) {
    let (garden, apps) = (platform.garden(), platform.running(1));
    let is_there = async || {
        let all = Properties::from([("garden.state".to_owned(), "all".to_owned())]);
        let handles = garden.list(&all).await.ok()?;
        let handle = handles.into_iter().find(|handle| !apps.contains(handle))?;
        let progress = garden.property(&handle, "executor:progress").await.unwrap_or_default();
        let progress: Value = serde_json::from_str(&progress).unwrap_or_default();
        let has = |kind: &str| progress[kind].as_array().is_some_and(|paths| !paths.is_empty());
        Some(match staging {
            Staging::Begins | Staging::IsMade => true,
            Staging::HasFiles => has("done"),
            Staging::Runs => has("begun"),
        })
    };
    if let Staging::Begins = staging {
        return;
    }
    eventually("staging has come so far", || match platform.wait(is_there()) {
        Some(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });
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
            platform.kill_and_wait(part);
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

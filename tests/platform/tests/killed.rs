//! kill -9 of each of the platform's processes: apps do not notice, requests wait, a push that was
//! under way succeeds or can be repeated.

use std::collections::BTreeSet;

use bbs_models::TasksRequest;
use platform_tests::{
    CLIENTS, Extent, PATIENCE, Part, Platform, Seen, Step, Told, apps, eventually,
};

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
        let (answers, lost, slowest) = (seen.answers(), seen.lost(), seen.slowest());
        println!("{part:?}: {answers} answers, lost {lost:?}, slowest {slowest:?}");
        let in_flight = match part {
            Part::Platform => CLIENTS,
            _ => 0,
        };
        assert!(lost.len() <= in_flight, "{part:?}: {lost:?}");
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
        is_whole(&platform, "after all of these");
    });
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

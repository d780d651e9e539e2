//! The executor over a real Garden: containers from reservation to destruction, and executors and
//! Gardens that come and go meanwhile.

mod cell;
#[path = "../../garden/tests/plot/mod.rs"]
mod plot;

use bbs_models::{Action, EnvironmentVariable, TimeoutAction};
use cell::{Cell, instance, sh, tcp_check};
use executor::{Event, RunInfo, State};
use garden_sys::supervisor::Exit;

#[test]
fn an_instance_becomes_healthy_answers_and_stops() {
    let cell = Cell::new();
    let mut events = cell.executor().events();
    let serve = "trap 'echo bye; exit 0' TERM; echo $CF_INSTANCE_PORTS $GREETING; \
                 mkdir -p /tmp/www; httpd -f -p 8080 -h /tmp/www & wait";
    let run = RunInfo {
        ports: vec![8080],
        env: vec![EnvironmentVariable {
            name: "GREETING".into(),
            value: "hello".into(),
            ..Default::default()
        }],
        check_definition: Some(tcp_check(8080)),
        start_timeout_ms: 30_000,
        ..instance("ig-1", sh("APP", serve))
    };
    cell.begin("ig-1", run);
    let running = cell.until("ig-1", "running", |container| container.state == State::Running);
    assert!(running.routable);
    let port = running.network.unwrap().ports[0];
    assert_eq!(port.container_port, 8080);
    assert!(port.host_port > 0);
    assert_eq!(events.try_recv().unwrap(), Event::Reserved("ig-1".into()));
    assert_eq!(events.try_recv().unwrap(), Event::Running("ig-1".into()));
    let expected = format!(r#"[{{"external":{},"internal":8080}}] hello"#, port.host_port);
    plot::wait_until("the app's line", || cell.lines("APP").contains(&expected));
    assert_eq!(
        cell.lines("CELL"),
        [
            "Cell cell-1 creating container for instance ig-1",
            "Cell cell-1 successfully created container for instance ig-1"
        ]
    );
    assert_eq!(
        cell.lines("HEALTH"),
        ["Starting health monitoring of container", "Container became healthy"]
    );
    let metrics = cell.runtime.block_on(cell.executor().metrics()).unwrap();
    assert!(metrics["ig-1"].memory.total_usage_toward_limit > 0);
    assert_eq!(cell.executor().remaining().memory_mb, 1024 - 64);

    cell.stop("ig-1");
    let completion = cell.until_completed("ig-1");
    assert!(!completion.failed, "{completion:?}");
    assert!(cell.lines("APP").contains(&"bye".to_owned()), "TERM came first");
    cell.delete("ig-1");
    assert!(cell.executor().containers().is_empty());
    assert_eq!(cell.executor().remaining(), cell.executor().total());
    assert!(cell.plot.garden().list(&Default::default()).is_empty());
}

#[test]
fn a_failure_says_what_failed() {
    let cell = Cell::new();
    cell.begin("fails", instance("fails", sh("APP/PROC/WEB", "echo oops >&2; exit 3")));
    let completion = cell.until_completed("fails");
    assert!(completion.failed && !completion.retryable);
    assert_eq!(completion.failure_reason, "APP/PROC/WEB: Exited with status 3");
    let logs = cell.logs();
    assert!(logs.iter().find(|log| log.message == b"oops").unwrap().is_error);

    let never = RunInfo {
        check_definition: Some(tcp_check(9)),
        start_timeout_ms: 200,
        ..instance("never", sh("APP", "sleep 1000"))
    };
    cell.begin("never", never);
    let reason = cell.until_completed("never").failure_reason;
    assert!(reason.starts_with("Instance never healthy after "), "{reason}");
    assert!(reason.contains("failed to make TCP connection to "), "{reason}");

    let no_image = RunInfo { rootfs: "/nowhere".into(), ..instance("unmade", sh("APP", "true")) };
    cell.begin("unmade", no_image);
    let completion = cell.until_completed("unmade");
    assert!(completion.failed && completion.retryable);
    assert!(completion.failure_reason.starts_with("failed to create container: "));
    for guid in ["fails", "never", "unmade"] {
        cell.delete(guid);
    }
    assert_eq!(cell.executor().remaining(), cell.executor().total());
}

#[test]
fn what_ignores_term_is_killed_after_the_grace_time() {
    let cell = Cell::new();
    let deaf = "trap '' TERM; echo up; while :; do sleep 1; done";
    cell.begin("deaf", instance("deaf", sh("APP", deaf)));
    plot::wait_until("it runs", || cell.lines("APP").contains(&"up".to_owned()));
    cell.stop("deaf");
    assert!(!cell.until_completed("deaf").failed);
    let exit = "Exit status 137 (exceeded 2s graceful shutdown interval)".to_owned();
    assert!(cell.lines("APP").contains(&exit), "{:?}", cell.lines("APP"));
}

#[test]
fn containers_outlive_their_executor() {
    let mut cell = Cell::new();
    let lives = "echo started; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    cell.begin("lives", instance("lives", sh("APP", lives)));
    // Its end will come while nobody watches.
    let ends = "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 7";
    cell.begin("ends", instance("ends", sh("APP", ends)));
    // Its setup is over, and must not be done again.
    let setup = RunInfo {
        setup: Some(sh("APP", "echo set up >> /tmp/setups")),
        ..instance("setup", sh("APP", "sleep 1000"))
    };
    cell.begin("setup", setup);
    let all = ["lives", "ends", "setup"];
    for guid in all {
        cell.until(guid, "running", |container| container.state == State::Running);
    }
    plot::wait_until("it says so", || cell.lines("APP").contains(&"started".to_owned()));
    // The mark that it was healthy is written beside the event.
    plot::wait_until("the records", || {
        let property = |guid: &&str| cell.plot.garden().property(guid, "executor:running");
        all.iter().all(|guid| property(guid).is_ok())
    });

    cell.abandon();
    assert_eq!(cell.plot.sh("ends", "touch /tmp/end").exit, Exit::Status(0));
    cell.clear_logs();
    cell.start();
    assert_eq!(cell.executor().remaining().memory_mb, 1024 - 3 * 64);
    cell.until("lives", "running again", |container| container.state == State::Running);
    cell.until("setup", "running again", |container| container.state == State::Running);
    assert_eq!(cell.until_completed("ends").failure_reason, "APP: Exited with status 7");
    assert!(!cell.lines("APP").contains(&"started".to_owned()), "no process was started twice");
    assert_eq!(cell.plot.sh("setup", "cat /tmp/setups").output, "set up\n");

    cell.stop("lives");
    assert!(!cell.until_completed("lives").failed);
    assert!(cell.lines("APP").contains(&"Exit status 5".to_owned()), "{:?}", cell.lines("APP"));
}

#[test]
fn a_garden_that_comes_back_is_asked_again() {
    let mut cell = Cell::new();
    let ends = "while [ ! -e /tmp/end ]; do sleep 0.05; done; echo ended; exit 7";
    cell.begin("ends", instance("ends", sh("APP", ends)));
    cell.until("ends", "running", |container| container.state == State::Running);
    cell.plot.restart();
    assert_eq!(cell.plot.sh("ends", "touch /tmp/end").exit, Exit::Status(0));
    assert_eq!(cell.until_completed("ends").failure_reason, "APP: Exited with status 7");
}

#[test]
fn calls_wait_for_a_garden_that_is_away() {
    let mut cell = Cell::new();
    let was_said = |cell: &Cell, what: &str| {
        let cell = cell.lines("CELL");
        cell.iter().any(|line| line.contains(what))
    };
    cell.plot.leave();
    cell.begin("made", instance("made", sh("APP", "sleep 1000")));
    plot::wait_until("Garden is asked for it", || was_said(&cell, "creating container"));
    cell.plot.come_back();
    cell.plot.serve();
    cell.until("made", "running", |container| container.state == State::Running);

    cell.plot.leave();
    let executor = cell.executor().clone();
    let deleting = cell.runtime.spawn(async move { executor.delete("made").await });
    plot::wait_until("Garden is asked to destroy it", || was_said(&cell, "destroying container"));
    cell.plot.come_back();
    cell.plot.serve();
    cell.runtime.block_on(deleting).unwrap().unwrap();
    assert!(cell.executor().containers().is_empty());
    assert!(cell.plot.garden().list(&Default::default()).is_empty());
}

#[test]
fn a_task_that_takes_too_long_is_ended() {
    let cell = Cell::new();
    let slow = TimeoutAction {
        action: sh("STG", "sleep 1000").into(),
        timeout_ms: 100,
        ..Default::default()
    };
    let slow = Action { timeout_action: slow.into(), ..Default::default() };
    cell.begin("slow", instance("slow", slow));
    assert_eq!(cell.until_completed("slow").failure_reason, "exceeded 100ms timeout");
}

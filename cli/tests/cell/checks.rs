//! Whether an app answers, asked from the cell and by the helper in its container.

use std::time::Duration;

use bbs_models::CheckDefinition;
use executor::{CheckFrom, Config, Helper, RunInfo, State};

use crate::cell::{Cell, Settings, checks, http, instance, sh, tcp};
use crate::plot::wait_until;

const FROM_CELL: fn(&mut Config) = |config| from(config, Some(CheckFrom::Cell));
const FROM_CONTAINER: fn(&mut Config) = |config| from(config, Some(CheckFrom::Container));
const AS_GARDEN_IS: fn(&mut Config) = |config| from(config, None);

fn from(config: &mut Config, from: Option<CheckFrom>) {
    config.health.from = from;
    config.health.unhealthy = Duration::from_millis(50);
    config.helper = Some(Helper::Program(crate::BLOOMERY.into()));
}

fn cell(adjust: fn(&mut Config)) -> Cell {
    Cell::with(Settings { adjust, ..Settings::default() })
}

/// Serves the directory `/tmp/www`, which has the file `up`.
const SERVE: &str = "mkdir -p /tmp/www; echo yes > /tmp/www/up; httpd -f -p 8080 -h /tmp/www";

fn app(guid: &str, script: &str, check: CheckDefinition) -> RunInfo {
    RunInfo {
        ports: vec![8080],
        check_definition: Some(check),
        start_timeout_ms: 30_000,
        ..instance(guid, sh("APP", script))
    }
}

fn until_running(cell: &Cell, guid: &str) {
    cell.until(guid, "running", |container| container.state == State::Running);
}

/// Helpers that run in a container.
fn helpers(cell: &Cell, guid: &str) -> usize {
    let processes = cell.plot.sh(guid, "ps -o args").output;
    processes.lines().filter(|line| line.starts_with("/etc/cf-assets/healthcheck/")).count()
}

#[test]
fn a_foreign_garden_s_containers_are_checked_from_inside_and_ones_own_from_the_cell() {
    for (foreign, expected) in [(false, 0), (true, 1)] {
        let cell = Cell::with(Settings { adjust: AS_GARDEN_IS, foreign, ..Settings::default() });
        cell.begin("app", app("app", SERVE, checks(vec![tcp(8080)])));
        until_running(&cell, "app");
        wait_until("its helpers are there", || helpers(&cell, "app") == expected);
    }
}

#[test]
fn an_app_is_checked_from_the_cell() {
    expect_checks(&cell(FROM_CELL), "");
}

#[test]
fn an_app_is_checked_from_inside() {
    expect_checks(&cell(FROM_CONTAINER), "Liveness check unsuccessful: ");
}

/// `prefix`: what the failure of a check that had passed begins with.
fn expect_checks(cell: &Cell, prefix: &str) {
    // One that answers by TCP and by HTTP, until it does not.
    cell.begin("both", app("both", SERVE, checks(vec![tcp(8080), http(8080, "/up")])));
    until_running(cell, "both");
    assert_eq!(
        cell.lines("HEALTH"),
        ["Starting health monitoring of container", "Container became healthy"]
    );
    cell.plot.sh("both", "rm /tmp/www/up");
    let completion = cell.until_completed("both");
    let failure = format!(
        "Instance became unhealthy: {prefix}failed to make HTTP request to '/up' on port 8080: \
         received status code 404 in "
    );
    let reason = completion.failure_reason;
    assert!(completion.failed && reason.starts_with(&failure), "{reason}");
    assert!(cell.lines("HEALTH").contains(&"Container became unhealthy".to_owned()));
    cell.clear_logs();

    // One that answers something else from the beginning.
    let never = app("never", SERVE, checks(vec![tcp(8080), http(8080, "/other")]));
    cell.begin("never", RunInfo { start_timeout_ms: 300, ..never });
    let reason = cell.until_completed("never").failure_reason;
    assert!(reason.starts_with("Instance never healthy after "), "{reason}");
    let status =
        "failed to make HTTP request to '/other' on port 8080: received status code 404 in ";
    assert!(reason.contains(status), "{reason}");
    assert!(!reason.contains("TCP"), "that check has passed: {reason}");
    let said = cell.lines("HEALTH");
    assert!(said[1].ends_with(": startup health check never passed."), "{said:?}");
}

#[test]
fn readiness_asked_from_the_cell_comes_and_goes() {
    expect_readiness(&cell(FROM_CELL));
}

#[test]
fn readiness_asked_from_inside_comes_and_goes() {
    let cell = cell(FROM_CONTAINER);
    expect_readiness(&cell);
    wait_until("a helper for each check is left", || helpers(&cell, "app") == 3);
}

fn expect_readiness(cell: &Cell) {
    let ready = CheckDefinition {
        readiness_checks: vec![tcp(8080), http(8080, "/ready")],
        ..checks(vec![tcp(8080)])
    };
    cell.begin("app", app("app", SERVE, ready));
    until_running(cell, "app");
    assert!(!cell.executor().container("app").unwrap().routable);
    for _ in 0..2 {
        cell.plot.sh("app", "touch /tmp/www/ready");
        cell.until("app", "routable", |container| container.routable);
        cell.plot.sh("app", "rm /tmp/www/ready");
        cell.until("app", "not routable", |container| !container.routable);
    }
    cell.plot.sh("app", "touch /tmp/www/ready");
    let container = cell.until("app", "routable again", |container| container.routable);
    assert_eq!(container.state, State::Running, "readiness ends nothing");
}

#[test]
fn who_closes_the_port_when_told_to_stop_has_not_failed_to_the_cell() {
    expect_stop(&cell(FROM_CELL));
}

#[test]
fn who_closes_the_port_when_told_to_stop_has_not_failed_to_the_helper() {
    expect_stop(&cell(FROM_CONTAINER));
}

fn expect_stop(cell: &Cell) {
    // It says goodbye several intervals after its port is closed.
    let lingers = format!(
        "trap 'kill $server; sleep 1; echo bye; exit 0' TERM; ({SERVE}) & server=$!; wait $server"
    )
    .replace("httpd", "exec httpd");
    cell.begin("app", app("app", &lingers, checks(vec![tcp(8080)])));
    until_running(cell, "app");
    cell.stop("app");
    let completion = cell.until_completed("app");
    assert!(!completion.failed, "{completion:?}");
    assert!(cell.lines("APP").contains(&"bye".to_owned()), "{:?}", cell.lines("APP"));
    assert!(!cell.lines("HEALTH").contains(&"Container became unhealthy".to_owned()));
    cell.delete("app");
    assert!(cell.plot.garden().list(&Default::default()).is_empty());
}

#[test]
fn a_helper_outlives_executor_and_garden_and_is_followed_by_the_next() {
    let mut cell = cell(FROM_CONTAINER);
    cell.begin("app", app("app", SERVE, checks(vec![http(8080, "/up")])));
    until_running(&cell, "app");
    wait_until("the helper is there", || helpers(&cell, "app") == 1);
    let pid = |cell: &Cell| cell.plot.sh("app", "pidof healthcheck").output;
    let before = pid(&cell);
    wait_until("the record", || cell.plot.garden().property("app", "executor:running").is_ok());
    cell.abandon();
    cell.start();
    until_running(&cell, "app");
    cell.plot.restart();
    assert_eq!(pid(&cell), before, "no other one is started");
    cell.plot.sh("app", "rm /tmp/www/up");
    let reason = cell.until_completed("app").failure_reason;
    assert!(reason.contains("received status code 404"), "{reason}");
}

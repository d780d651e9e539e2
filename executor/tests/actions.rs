//! What each kind of action does when it succeeds, fails and is stopped.

mod cell;
#[path = "../../garden/tests/plot/mod.rs"]
mod plot;

use bbs_models::{
    Action, CodependentAction, EmitProgressAction, ParallelAction, SerialAction, TimeoutAction,
    TryAction,
};
use cell::{Cell, Settings, instance, sh};
use executor::{RunInfo, State};
use plot::wait_until;

fn serial(actions: Vec<Action>) -> Action {
    let serial = SerialAction { actions, ..Default::default() };
    Action { serial_action: serial.into(), ..Default::default() }
}

fn parallel(actions: Vec<Action>) -> Action {
    let parallel = ParallelAction { actions, ..Default::default() };
    Action { parallel_action: parallel.into(), ..Default::default() }
}

fn codependent(actions: Vec<Action>) -> Action {
    let codependent = CodependentAction { actions, ..Default::default() };
    Action { codependent_action: codependent.into(), ..Default::default() }
}

fn attempt(action: Action) -> Action {
    let attempt = TryAction { action: action.into(), ..Default::default() };
    Action { try_action: attempt.into(), ..Default::default() }
}

fn timeout(timeout_ms: i64, action: Action) -> Action {
    let timeout = TimeoutAction { action: action.into(), timeout_ms, ..Default::default() };
    Action { timeout_action: timeout.into(), ..Default::default() }
}

fn emit(source: &str, action: Action) -> Action {
    let emit = EmitProgressAction {
        action: action.into(),
        start_message: "begins".into(),
        success_message: "has succeeded".into(),
        failure_message_prefix: "has failed".into(),
        log_source: source.into(),
        ..Default::default()
    };
    Action { emit_progress_action: emit.into(), ..Default::default() }
}

/// Runs until it is told to end, which it can be once there is a file of its name.
fn waits(source: &str) -> Action {
    let script = format!(
        "trap 'echo told; exit 0' TERM; echo waits; touch /tmp/{source}; \
         while :; do sleep 0.05; done"
    );
    sh(source, &script)
}

/// Ends with this status once another one waits.
fn ends(source: &str, other: &str, status: i32) -> Action {
    let script = format!("while [ ! -e /tmp/{other} ]; do sleep 0.05; done; exit {status}");
    sh(source, &script)
}

/// An action that runs to its end.
struct Case {
    /// Its container, and what sources of its lines begin with.
    name: &'static str,
    action: Action,
    /// Why it fails; empty: it does not.
    reason: &'static str,
    /// What each source says; lines of failures begin with `!`.
    said: &'static [(&'static str, &'static [&'static str])],
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "serial",
            action: serial(vec![
                sh("serial-1", "echo one"),
                sh("serial-2", "exit 2"),
                sh("serial-3", "echo three"),
            ]),
            reason: "serial-2: Exited with status 2",
            said: &[
                ("serial-1", &["one", "Exit status 0"]),
                ("serial-2", &["Exit status 2"]),
                ("serial-3", &[]),
            ],
        },
        Case {
            name: "parallel",
            action: parallel(vec![
                sh("parallel-1", "exit 3"),
                sh("parallel-2", "sleep 0.5; echo later"),
                sh("parallel-3", "sleep 0.1; exit 4"),
            ]),
            // One that fails ends none of the others, and all failures are told.
            reason: "parallel-1: Exited with status 3; parallel-3: Exited with status 4",
            said: &[("parallel-2", &["later", "Exit status 0"])],
        },
        Case {
            name: "codependent",
            action: codependent(vec![
                waits("codependent-1"),
                ends("codependent-2", "codependent-1", 0),
            ]),
            reason: "Codependent step exited",
            said: &[
                ("codependent-1", &["waits", "told", "Exit status 0"]),
                ("codependent-2", &["Exit status 0"]),
            ],
        },
        Case {
            name: "codependent-fails",
            action: codependent(vec![waits("fails-1"), ends("fails-2", "fails-1", 9)]),
            reason: "fails-2: Exited with status 9",
            said: &[("fails-1", &["waits", "told", "Exit status 0"])],
        },
        Case {
            name: "try",
            action: serial(vec![attempt(sh("try-1", "exit 5")), sh("try-2", "echo goes on")]),
            reason: "",
            said: &[("try-1", &["Exit status 5"]), ("try-2", &["goes on", "Exit status 0"])],
        },
        Case {
            name: "emit",
            action: emit("emit", sh("emit-1", "true")),
            reason: "",
            said: &[("emit", &["begins", "has succeeded"])],
        },
        Case {
            name: "emit-fails",
            action: emit("emit-fails", sh("emit-2", "exit 6")),
            reason: "emit-2: Exited with status 6",
            said: &[("emit-fails", &["begins", "!has failed: emit-2: Exited with status 6"])],
        },
        Case {
            name: "timeout",
            action: timeout(3000, parallel(vec![waits("timeout-1"), sh("timeout-2", "exit 7")])),
            reason: "exceeded 3s timeout; timeout-2: Exited with status 7",
            said: &[("timeout-1", &["waits", "told", "Exit status 0"])],
        },
        Case {
            name: "nothing",
            action: Action::default(),
            reason: "there is no action of this kind",
            said: &[],
        },
    ]
}

#[test]
fn actions_end_as_their_kinds_say() {
    let cell = Cell::new();
    let cases = cases();
    for case in &cases {
        cell.begin(case.name, instance(case.name, case.action.clone()));
    }
    for case in &cases {
        let completion = cell.until_completed(case.name);
        assert_eq!(completion.failure_reason, case.reason, "{}", case.name);
        assert_eq!(completion.failed, !case.reason.is_empty(), "{}", case.name);
        for (source, said) in case.said {
            let of_source = cell.logs().into_iter().filter(|log| log.source_type == *source);
            let lines: Vec<_> = of_source
                .map(|log| {
                    let mark = if log.is_error { "!" } else { "" };
                    format!("{mark}{}", String::from_utf8_lossy(&log.message))
                })
                .collect();
            assert_eq!(lines, *said, "{} of {}", source, case.name);
        }
    }
}

#[test]
fn what_is_stopped_ends_as_a_whole() {
    let cell = Cell::new();
    let trees = [
        // A failure is none to `try`, a stop is one.
        ("try", serial(vec![attempt(waits("try-1")), sh("after-try", "echo goes on")])),
        ("parallel", parallel(vec![waits("parallel-1"), waits("parallel-2")])),
        ("codependent", codependent(vec![waits("codependent-1"), waits("codependent-2")])),
        ("timeout", timeout(60_000, waits("timeout-1"))),
    ];
    for (name, tree) in &trees {
        cell.begin(name, instance(name, tree.clone()));
    }
    let running =
        ["try-1", "parallel-1", "parallel-2", "codependent-1", "codependent-2", "timeout-1"];
    for source in running {
        wait_until("it runs", || cell.lines(source).contains(&"waits".to_owned()));
    }
    for (name, _) in &trees {
        cell.stop(name);
        let completion = cell.until_completed(name);
        assert!(!completion.failed, "{name}: {completion:?}");
    }
    for source in running {
        assert_eq!(cell.lines(source), ["waits", "told", "Exit status 0"], "{source}");
    }
    assert!(cell.lines("after-try").is_empty());
}

#[test]
fn a_monitor_is_run_until_it_succeeds_and_then_until_it_fails() {
    let cell = Cell::with(Settings {
        adjust: |config| {
            config.health.unhealthy = std::time::Duration::from_millis(50);
            config.health.healthy = std::time::Duration::from_millis(50);
        },
        ..Settings::default()
    });
    let watched = |guid: &str, start_timeout_ms| RunInfo {
        monitor: Some(sh("MONITOR", "echo looks; test -e /tmp/up")),
        start_timeout_ms,
        ..instance(guid, sh("APP", "sleep 1000"))
    };
    cell.begin("never", watched("never", 300));
    let reason = cell.until_completed("never").failure_reason;
    assert!(reason.starts_with("Instance never healthy after "), "{reason}");
    assert!(reason.ends_with(": MONITOR: Exited with status 1"), "{reason}");
    cell.clear_logs();

    cell.begin("app", watched("app", 0));
    wait_until("it is looked at more than once", || {
        cell.lines("MONITOR").iter().filter(|line| *line == "looks").count() > 2
    });
    assert_eq!(cell.executor().container("app").unwrap().state, State::Created);
    cell.plot.sh("app", "touch /tmp/up");
    cell.until("app", "running", |container| container.state == State::Running);
    cell.plot.sh("app", "rm /tmp/up");
    let reason = cell.until_completed("app").failure_reason;
    assert_eq!(reason, "Instance became unhealthy: MONITOR: Exited with status 1");
}

#[test]
fn what_an_executor_left_undone_of_a_tree_is_done_by_the_next() {
    let mut cell = Cell::new();
    let lasts = "echo began >> /tmp/began; while [ ! -e /tmp/end ]; do sleep 0.05; done";
    let tree = serial(vec![
        parallel(vec![
            sh("quick", "echo began >> /tmp/quick"),
            sh("lasts", lasts),
            attempt(sh("fails", "echo began >> /tmp/fails; exit 1")),
        ]),
        sh("then", "cat /tmp/quick /tmp/began /tmp/fails"),
    ]);
    cell.begin("tree", instance("tree", tree));
    wait_until("what ends has ended", || {
        let ended = |source: &str| cell.lines(source).iter().any(|line| line.starts_with("Exit"));
        ended("quick") && ended("fails")
    });
    wait_until("what is over is written down", || {
        let progress = cell.plot.garden().property("tree", "executor:progress");
        progress.is_ok_and(|progress| progress.contains(r#""done":["action/0/0"]"#))
    });
    wait_until("the last one runs", || cell.plot.sh("tree", "cat /tmp/began").output == "began\n");
    cell.abandon();
    cell.start();
    cell.plot.sh("tree", "touch /tmp/end");
    let completion = cell.until_completed("tree");
    assert!(!completion.failed, "{completion:?}");
    assert_eq!(cell.lines("then"), ["began", "began", "began", "Exit status 0"], "each only once");
}

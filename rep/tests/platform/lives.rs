//! Instances and tasks from the auction to their end, and reps that are killed or drained meanwhile.

use std::net::Ipv4Addr;

use bbs_models::task::State as TaskState;
use bbs_models::{
    ActualLRPInstanceKey, ActualLRPKey, ActualLRPNetInfo, Check, CheckDefinition,
    SecurityGroupRule, StartActualLRPRequest, TCPCheck, actual_lrp, state,
};
use garden_sys::supervisor::Exit;
use transport::TraceId;

use crate::cell::{CELL, Platform, sh};
use crate::plot::place::{Place, uplink};
use crate::plot::{self, Plot};

pub const TESTS: &[crate::Test] = &[
    (
        "an_instance_is_claimed_runs_crashes_and_is_stopped",
        an_instance_is_claimed_runs_crashes_and_is_stopped,
    ),
    ("a_cell_that_cannot_make_an_instance_says_why", a_cell_that_cannot_make_an_instance_says_why),
    ("tasks_hand_in_results_and_reasons", tasks_hand_in_results_and_reasons),
    (
        "what_the_bbs_has_and_the_cell_has_not_is_given_up",
        what_the_bbs_has_and_the_cell_has_not_is_given_up,
    ),
    (
        "instances_that_are_lost_with_their_containers_are_back_at_once",
        instances_that_are_lost_with_their_containers_are_back_at_once,
    ),
    ("containers_reach_what_their_rules_allow", containers_reach_what_their_rules_allow),
    ("a_killed_rep_costs_no_container", a_killed_rep_costs_no_container),
    ("a_killed_rep_costs_no_request", a_killed_rep_costs_no_request),
    (
        "a_drained_cell_keeps_instances_until_others_run_them",
        a_drained_cell_keeps_instances_until_others_run_them,
    ),
    ("a_drain_that_takes_too_long_ends", a_drain_that_takes_too_long_ends),
];

/// Runs until there is a file, and then fails.
const UNTIL_FILE: &str = "echo started; while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 7";
const FOR_EVER: &str =
    "trap 'exit 0' TERM; echo $$ >> /tmp/pids; echo started; while :; do sleep 0.05; done";

fn an_instance_is_claimed_runs_crashes_and_is_stopped() {
    let platform = Platform::new();
    platform.desire("web", sh("APP", UNTIL_FILE));
    assert_eq!(platform.rows("web")[0].state, state::UNCLAIMED);
    platform.place("web");
    let running = platform.until_row("web", "running", |row| row.state == state::RUNNING);
    let guid = running.actual_lrp_instance_key.instance_guid.clone();
    assert_eq!(guid.len(), 28, "{guid}");
    assert_eq!(running.actual_lrp_instance_key.cell_id, CELL);
    assert_eq!(running.routable, Some(true));
    assert_eq!(running.availability_zone, "z1");
    assert_eq!(running.metric_tags["source_id"], "app");
    let net_info = &running.actual_lrp_net_info;
    assert_eq!(net_info.ports[0].container_port, 8080);
    assert!(net_info.ports[0].host_port > 0 && !net_info.instance_address.is_empty());

    let state = platform.runtime.block_on(platform.client().state(&TraceId::default())).unwrap();
    assert_eq!(state.lrps[0].instance_guid, guid);
    assert_eq!(state.lrps[0].state, rep_api::LrpState::Running);
    assert_eq!(state.available_resources.memory_mb, 4096 - 64);
    plot::wait_until("it is measured", || {
        platform.usages().iter().any(|usage| usage.memory_bytes > 0 && usage.source.guid == "app")
    });
    let metrics = platform.client();
    let metrics = platform.runtime.block_on(metrics.container_metrics(&TraceId::default()));
    let metrics = metrics.unwrap();
    assert_eq!(metrics.lrps[0].instance_guid, guid);
    assert_eq!(metrics.lrps[0].metrics.memory_quota_bytes, 64 << 20);

    platform.plot.sh(&guid, "touch /tmp/end");
    let crashed = platform.until_row("web", "crashed once", |row| row.crash_count == 1);
    assert_eq!(crashed.crash_reason, "APP: Exited with status 7");
    assert_eq!(crashed.state, state::UNCLAIMED);
    platform.until_empty();

    platform.place("web");
    platform.until_row("web", "running again", |row| row.state == state::RUNNING);
    platform.runtime.block_on(platform.bbs().remove_lrp("web")).unwrap();
    plot::wait_until("its row is gone", || platform.rows("web").is_empty());
    platform.until_empty();
    plot::wait_until("what it took is free", || {
        let client = platform.client();
        let state = platform.runtime.block_on(client.state(&TraceId::default())).unwrap();
        state.available_resources == state.total_resources
    });
}

fn a_cell_that_cannot_make_an_instance_says_why() {
    let platform = Platform::new();
    let lrp = bbs_models::DesiredLRP {
        process_guid: "volume".into(),
        domain: "cf-apps".into(),
        root_fs: "preloaded:cflinuxfs4".into(),
        instances: 1,
        action: sh("APP", "true").into(),
        metric_tags: [(
            "source_id".to_owned(),
            bbs_models::MetricTagValue { r#static: "app".into(), ..Default::default() },
        )]
        .into(),
        volume_mounts: vec![bbs_models::VolumeMount {
            driver: "nfs".into(),
            container_dir: "/x".into(),
            mode: "r".into(),
            shared: bbs_models::SharedDevice { volume_id: "v".into(), ..Default::default() }.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    platform.runtime.block_on(platform.bbs().desire_lrp(lrp)).unwrap();
    platform.place("volume");
    let crashed = platform.until_row("volume", "crashed", |row| row.crash_count == 1);
    assert!(crashed.crash_reason.starts_with("failed to mount volume"), "{}", crashed.crash_reason);
    // A claim of what is not there is refused, and the container given up.
    platform.place("unknown");
    plot::wait_until("nothing is held", || {
        let state = platform.client();
        let state = platform.runtime.block_on(state.state(&TraceId::default())).unwrap();
        state.lrps.is_empty() && state.available_resources == state.total_resources
    });
}

fn tasks_hand_in_results_and_reasons() {
    let platform = Platform::new();
    platform.desire_task("ok", sh("T", "echo -n the result > /tmp/result"), "/tmp/result");
    platform.desire_task("fails", sh("T", "exit 4"), "/tmp/result");
    platform.desire_task("missing", sh("T", "true"), "/tmp/missing");
    let large = "head -c 60000 /dev/zero > /tmp/result";
    platform.desire_task("large", sh("T", large), "/tmp/result");
    platform.desire_task("cancelled", sh("T", FOR_EVER), "");

    let ended = |guid: &str| {
        platform.until_task(guid, "it has ended", |task| task.state == TaskState::Completed)
    };
    let ok = ended("ok");
    assert_eq!((ok.result.as_str(), ok.failed), ("the result", false));
    let fails = ended("fails");
    assert_eq!((fails.failure_reason.as_str(), fails.failed), ("T: Exited with status 4", true));
    for guid in ["missing", "large"] {
        assert_eq!(ended(guid).failure_reason, "failed to fetch result", "{guid}");
    }
    plot::wait_until("it has started", || {
        platform.plot.garden().list(&Default::default()).contains(&"cancelled".to_owned())
    });
    platform.runtime.block_on(platform.bbs().cancel_task("cancelled")).unwrap();
    assert_eq!(ended("cancelled").failure_reason, "task was cancelled");
    platform.until_empty();
}

fn what_the_bbs_has_and_the_cell_has_not_is_given_up() {
    let platform = Platform::new();
    platform.desire("lost", sh("APP", "true"));
    let key = ActualLRPKey::new("lost", 0, "cf-apps");
    let instance = ActualLRPInstanceKey::new("lost-instance", CELL);
    let start = StartActualLRPRequest {
        actual_lrp_key: key.into(),
        actual_lrp_instance_key: instance.into(),
        actual_lrp_net_info: ActualLRPNetInfo {
            address: "1.2.3.4".into(),
            instance_address: "10.0.0.1".into(),
            ..ActualLRPNetInfo::default()
        }
        .into(),
        ..StartActualLRPRequest::default()
    };
    platform.runtime.block_on(platform.bbs().start_actual_lrp(start)).unwrap();
    let row = platform.until_row("lost", "given back", |row| row.state == state::UNCLAIMED);
    assert_eq!(row.crash_count, 0);

    let definition = bbs_models::TaskDefinition {
        root_fs: "preloaded:cflinuxfs4".into(),
        action: sh("T", "true").into(),
        ..Default::default()
    };
    let bbs = platform.bbs();
    platform.runtime.block_on(bbs.desire_task("lost-task", "cf-tasks", definition)).unwrap();
    assert!(platform.runtime.block_on(bbs.start_task("lost-task", CELL)).unwrap());
    let task =
        platform.until_task("lost-task", "failed", |task| task.state == TaskState::Completed);
    assert_eq!(task.failure_reason, "task container does not exist");
}

fn instances_that_are_lost_with_their_containers_are_back_at_once() {
    let mut platform = Platform::new();
    platform.serve_auctioneer();
    platform.desire("web", sh("APP", FOR_EVER));
    platform.desire("other", sh("APP", FOR_EVER));
    let runs = |row: &bbs_models::ActualLRP| row.state == state::RUNNING;
    let before = ["web", "other"].map(|process| platform.until_row(process, "running", runs));

    // As after a restart of the machine. The board converges once an hour.
    platform.kill_rep();
    for row in &before {
        platform.plot.garden().destroy(&row.actual_lrp_instance_key.instance_guid).unwrap();
    }
    platform.start_rep();
    for row in before {
        let process = &row.actual_lrp_key.process_guid;
        let again = platform.until_row(process, "running again", |again| {
            runs(again) && again.actual_lrp_instance_key != row.actual_lrp_instance_key
        });
        assert_eq!((again.crash_count, again.crash_reason.as_str()), (0, ""));
        assert_eq!(platform.rows(process).len(), 1);
    }
}

fn containers_reach_what_their_rules_allow() {
    let (host, outside) = (Place::new(), Place::new());
    let address = Ipv4Addr::new(192, 0, 2, 9);
    uplink(&host, Ipv4Addr::new(192, 0, 2, 1), &outside, address);
    let plot = Plot::on(host, |garden| {
        garden.max_containers = 250;
        garden.network.deny = vec!["0.0.0.0/0".into()];
    });
    let platform = Platform::on(plot, |_| {});
    let _listeners = [80, 81].map(|port| outside.listen(address, port));
    let rules = || {
        vec![SecurityGroupRule {
            protocol: "tcp".into(),
            destinations: vec!["192.0.2.0/28".into()],
            ports: vec![80],
            ..SecurityGroupRule::default()
        }]
    };
    let reach = |port: u16| format!("nc -w 5 {address} {port} -e true");

    platform.desire_as("web", sh("APP", FOR_EVER), |lrp| lrp.egress_rules = rules());
    platform.place("web");
    let row = platform.until_row("web", "running", |row| row.state == state::RUNNING);
    let guid = &row.actual_lrp_instance_key.instance_guid;
    let reaches = |port| platform.plot.sh(guid, &reach(port)).exit == Exit::Status(0);
    assert!(reaches(80) && !reaches(81));

    platform.desire_task_as("may", sh("T", &reach(80)), |task| task.egress_rules = rules());
    platform.desire_task("may-not", sh("T", &reach(80)), "");
    for (guid, failed) in [("may", false), ("may-not", true)] {
        let task =
            platform.until_task(guid, "it has ended", |task| task.state == TaskState::Completed);
        assert_eq!(task.failed, failed, "{guid}: {}", task.failure_reason);
    }
}

fn a_killed_rep_costs_no_container() {
    let mut platform = Platform::new();
    platform.desire("web", sh("APP", FOR_EVER));
    platform.desire("ends", sh("APP", UNTIL_FILE));
    platform.place("web");
    platform.place("ends");
    let running = platform.until_row("web", "running", |row| row.state == state::RUNNING);
    let ends = platform.until_row("ends", "running", |row| row.state == state::RUNNING);
    let guid = running.actual_lrp_instance_key.instance_guid.clone();
    let ends = ends.actual_lrp_instance_key.instance_guid.clone();
    plot::wait_until("their pids", || platform.lines("APP").len() == 2);
    // The mark that it was healthy is written beside the call.
    plot::wait_until("the records", || {
        platform.plot.garden().property(&guid, "executor:running").is_ok()
    });
    let pid = "cat /tmp/pids && kill -0 $(cat /tmp/pids) && echo alive";
    let before = platform.plot.sh(&guid, pid).output;
    assert!(before.ends_with("alive\n"), "{before}");

    platform.kill_rep();
    platform.plot.sh(&ends, "touch /tmp/end");
    let starts = platform.calls(&["/v1/actual_lrps/start.r1"]).len();
    platform.start_rep();
    plot::wait_until("it is told to run", || {
        platform.calls(&["/v1/actual_lrps/start.r1"]).len() > starts
    });
    let again = platform.until_row("web", "running", |row| row.state == state::RUNNING);
    assert_eq!(again.actual_lrp_instance_key, running.actual_lrp_instance_key);
    assert_eq!(again.modification_tag, running.modification_tag, "it has run all the time");
    assert_eq!(platform.plot.sh(&guid, pid).output, before, "it is the same process");
    // What ended while nobody watched is told.
    let crashed = platform.until_row("ends", "crashed", |row| row.crash_count == 1);
    assert_eq!(crashed.crash_reason, "APP: Exited with status 7");

    platform.runtime.block_on(platform.bbs().remove_lrp("web")).unwrap();
    plot::wait_until("its row is gone", || platform.rows("web").is_empty());
    platform.until_empty();
}

fn a_killed_rep_costs_no_request() {
    let mut platform = Platform::new();
    let serve = "mkdir -p /tmp/www; trap 'exit 0' TERM; httpd -f -p 8080 -h /tmp/www & wait";
    let ready = Check {
        tcp_check: TCPCheck { port: 8080, interval_ms: 1000, ..TCPCheck::default() }.into(),
        ..Check::default()
    };
    let checks = CheckDefinition { readiness_checks: vec![ready], ..CheckDefinition::default() };
    platform.desire_as("web", sh("APP", serve), |lrp| lrp.check_definition = checks.into());
    platform.place("web");
    let ready = platform
        .until_row("web", "ready", |row| row.state == state::RUNNING && row.routable == Some(true));
    let guid = ready.actual_lrp_instance_key.instance_guid.clone();
    plot::wait_until("the records", || {
        platform.plot.garden().property(&guid, "executor:running").is_ok()
    });

    platform.kill_rep();
    let starts = platform.calls(&["/v1/actual_lrps/start.r1"]).len();
    platform.start_rep();
    plot::wait_until("it is told to run, more than once", || {
        platform.calls(&["/v1/actual_lrps/start.r1"]).len() > starts + 1
    });
    let row = platform.rows("web").remove(0);
    assert_eq!(row.modification_tag, ready.modification_tag, "nobody was told anything else");
    platform.runtime.block_on(platform.bbs().remove_lrp("web")).unwrap();
    platform.until_empty();
}

fn a_drained_cell_keeps_instances_until_others_run_them() {
    let mut platform = Platform::new();
    platform.desire("web", sh("APP", FOR_EVER));
    platform.place("web");
    let row = platform.until_row("web", "running", |row| row.state == state::RUNNING);
    let locket = platform.locket();
    plot::wait_until("the cell is present", || {
        platform.runtime.block_on(locket.fetch(CELL, None)).is_ok()
    });
    let presence = platform.runtime.block_on(locket.fetch(CELL, None)).unwrap();
    let presence: serde_json::Value = serde_json::from_str(&presence.value).unwrap();
    assert_eq!(presence["rep_url"], platform.config.listen_addr_securable);
    assert_eq!(presence["capacity"]["memory_mb"], 4096);

    let evacuate = http::Request::post("/evacuate").body(transport::empty()).unwrap();
    let admin = platform.http("admin.sock");
    let answer = platform.runtime.block_on(admin.fetch(evacuate, 4096)).unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.body().as_ref(), br#"{"ping_path":"/ping"}"#);
    plot::wait_until("both rows", || platform.rows("web").len() == 2);
    let rows = platform.rows("web");
    assert_eq!(rows[0].state, state::UNCLAIMED);
    assert_eq!(rows[1].presence, actual_lrp::Presence::EVACUATING);
    assert_eq!(rows[1].actual_lrp_instance_key, row.actual_lrp_instance_key);
    assert_eq!(rows[1].state, state::RUNNING);

    // Another cell runs it.
    let start = StartActualLRPRequest {
        actual_lrp_key: row.actual_lrp_key.clone(),
        actual_lrp_instance_key: ActualLRPInstanceKey::new("elsewhere", "cell-2").into(),
        actual_lrp_net_info: row.actual_lrp_net_info.clone(),
        ..StartActualLRPRequest::default()
    };
    platform.runtime.block_on(platform.bbs().start_actual_lrp(start)).unwrap();
    platform.until_rep_ends();
    platform.until_empty();
    let rows = platform.rows("web");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].actual_lrp_instance_key.instance_guid, "elsewhere");
    let gone = platform.runtime.block_on(locket.fetch(CELL, None)).unwrap_err();
    assert_eq!(gone.message(), "resource-not-found");
}

fn a_drain_that_takes_too_long_ends() {
    let mut platform = Platform::with(|config| {
        config.evacuation_timeout = std::time::Duration::from_secs(1);
    });
    platform.desire("web", sh("APP", FOR_EVER));
    platform.place("web");
    platform.until_row("web", "running", |row| row.state == state::RUNNING);
    let evacuate = http::Request::post("/evacuate").body(transport::empty()).unwrap();
    let admin = platform.http("admin.sock");
    platform.runtime.block_on(admin.fetch(evacuate, 4096)).unwrap();
    platform.until_rep_ends();
    platform.until_empty();
    let rows = platform.rows("web");
    assert!(rows.iter().all(|row| row.presence != actual_lrp::Presence::EVACUATING), "{rows:?}");
}

//! What the original's rep answered and asked, ours answers and asks.

use std::path::Path;
use std::time::Duration;

use bbs_models::state;
use bbs_models::task::State as TaskState;
use rep::Config;
use serde::Deserialize;

use crate::cell::{Platform, sh};
use crate::plot;

pub const TESTS: &[crate::Test] = &[
    ("direct_calls_are_answered_as_recorded", direct_calls_are_answered_as_recorded),
    (
        "an_unhealthy_cell_says_so_and_still_takes_work",
        an_unhealthy_cell_says_so_and_still_takes_work,
    ),
    ("a_drained_cell_hands_work_back", a_drained_cell_hands_work_back),
    ("an_instance_asks_for_what_was_recorded", an_instance_asks_for_what_was_recorded),
    ("a_task_asks_for_what_was_recorded", a_task_asks_for_what_was_recorded),
];

#[derive(Deserialize)]
struct Flow {
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    n: u32,
    from: String,
    to: String,
    request: Half,
    response: Half,
}

#[derive(Deserialize)]
struct Half {
    line: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body_text: String,
}

fn flow(name: &str) -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    serde_saphyr::from_str::<Flow>(&text).unwrap().exchanges
}

/// The recorded cell.
fn recorded(config: &mut Config) {
    config.cell_id = "cell-z1-0".into();
    config.rep_url = "https://cell-z1-0.cell.service.cf.internal:1801".into();
}

/// Asks what the recording asks, and compares what makes an answer.
fn replay(platform: &Platform, exchange: &Exchange) {
    let Exchange { n, to, request, response, .. } = exchange;
    let mut words = request.line.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let socket = if to.starts_with("rep-admin") { "admin.sock" } else { "rep.sock" };
    let asked = http::Request::builder()
        .method(method)
        .uri(path)
        .body(transport::full(request.body_text.clone().into_bytes()))
        .unwrap();
    let client = platform.http(socket);
    let answer = platform.runtime.block_on(client.fetch(asked, 1 << 20)).unwrap();
    let status = format!("HTTP/1.1 {}", answer.status());
    assert_eq!(status, response.line, "{n}");
    assert_eq!(String::from_utf8_lossy(answer.body()), response.body_text, "{n}");
    let mut headers: Vec<String> = answer
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()).to_lowercase())
        .filter(|line| !line.starts_with("date:"))
        .collect();
    let mut expected: Vec<String> =
        response.headers.iter().map(|line| line.to_lowercase()).collect();
    expected.retain(|line| !line.starts_with("date:"));
    headers.sort();
    expected.sort();
    assert_eq!(headers, expected, "{n}");
}

fn direct_calls_are_answered_as_recorded() {
    let platform = Platform::with(recorded);
    for exchange in flow("direct-calls-idle") {
        // The other cell of the recording has a tag.
        if !exchange.to.contains("cell-z2-0") {
            replay(&platform, &exchange);
        }
    }
}

fn an_unhealthy_cell_says_so_and_still_takes_work() {
    let mut platform = Platform::with(|config| {
        recorded(config);
        config.garden_healthcheck_interval = Duration::from_millis(200);
    });
    let [unhealthy, work, again] = &flow("unhealthy")[..] else { panic!("three exchanges") };
    let status = |platform: &Platform| {
        let asked = http::Request::get("/state").body(transport::empty()).unwrap();
        let client = platform.http("rep.sock");
        platform.runtime.block_on(client.fetch(asked, 1 << 20)).unwrap().status()
    };
    platform.plot.stop_serving();
    plot::wait_until("it is unhealthy", || status(&platform) == 503);
    replay(&platform, unhealthy);
    replay(&platform, work);
    platform.plot.serve();
    plot::wait_until("it is healthy", || status(&platform) == 200);
    replay(&platform, again);
}

fn a_drained_cell_hands_work_back() {
    let platform = Platform::with(recorded);
    platform.desire("web", sh("APP", "while :; do sleep 0.05; done"));
    platform.place("web");
    platform.until_row("web", "running", |row| row.state == state::RUNNING);
    // A ping, the evacuation, and work meanwhile.
    for exchange in flow("evacuation").iter().filter(|one| [20, 21, 30].contains(&one.n)) {
        replay(&platform, exchange);
    }
}

/// What the reps of a recording asked the BBS in these exchanges, but for lists.
fn asked(name: &str, first: u32, last: u32) -> Vec<String> {
    let calls =
        flow(name).into_iter().filter(|one| one.from.starts_with("rep-") && one.to == "bbs");
    let calls = calls.filter(|one| (first..=last).contains(&one.n));
    let path = |one: Exchange| one.request.line.split(' ').nth(1).unwrap().to_owned();
    calls.map(path).filter(|path| !path.ends_with("/list") && !path.ends_with("list.r3")).collect()
}

const OF_REPS: [&str; 10] = [
    "/v1/actual_lrps/claim",
    "/v1/actual_lrps/start.r1",
    "/v1/actual_lrps/crash",
    "/v1/actual_lrps/remove",
    "/v1/actual_lrps/evacuate_running.r1",
    "/v1/desired_lrps/get_by_process_guid.r3",
    "/v1/tasks/start",
    "/v1/tasks/reject",
    "/v1/tasks/complete",
    "/v1/tasks/get_by_task_guid.r3",
];

/// No comparison comes between.
fn undisturbed(config: &mut Config) {
    config.polling_interval = Duration::from_secs(3600);
}

fn an_instance_asks_for_what_was_recorded() {
    let platform = Platform::with(undisturbed);
    platform.until_compared();
    platform.desire("crasher", sh("APP", "sleep 0.3; exit 1"));
    platform.place("crasher");
    platform.until_row("crasher", "crashed", |row| row.crash_count == 1);
    assert_eq!(platform.calls(&OF_REPS), asked("lrp-crash", 7, 10));

    platform.calls.lock().unwrap().clear();
    platform.desire("web", sh("APP", "while :; do sleep 0.05; done"));
    platform.place("web");
    platform.until_row("web", "running", |row| row.state == state::RUNNING);
    platform.runtime.block_on(platform.bbs().remove_lrp("web")).unwrap();
    plot::wait_until("its row is gone", || platform.rows("web").is_empty());
    // Of the update's flow, the instance that is added and then stopped again.
    assert_eq!(platform.calls(&OF_REPS), asked("lrp-update", 13, 19));
}

fn a_task_asks_for_what_was_recorded() {
    let platform = Platform::with(undisturbed);
    platform.until_compared();
    let script = "sleep 0.3; echo -n done > /tmp/result";
    platform.desire_task("t-ok", sh("T", script), "/tmp/result");
    plot::wait_until("it is completed", || !platform.calls(&["/v1/tasks/complete"]).is_empty());
    let before = platform.calls(&OF_REPS);
    assert_eq!(before, asked("task-success", 7, 10));
    let task = platform.until_task("t-ok", "completed", |task| task.state == TaskState::Completed);
    assert_eq!(task.result, "done");
}

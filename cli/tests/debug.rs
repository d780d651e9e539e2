//! The debug server and the log of `bloomery garden serve`, as operators and their programs have them.

mod site;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bloomery_garden::client::ProcessIo;
use garden_api::{ContainerSpec, Limits, MemoryLimits};
use serde_json::Value;

use site::{PATIENCE, Site, named, shell};

const DEBUG: [&str; 2] = ["--debug-bind-ip", "127.0.0.1"];
/// The original's default.
const PORT: u16 = 17013;

/// Status and body.
fn ask(site: &Site, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = site.inside(|| TcpStream::connect(("127.0.0.1", PORT))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits until the log has a line like that.
async fn logged(site: &Site, what: &str, is: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = site.log();
        if let Some(line) = log.lines().find(|line| is(line)) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "not logged: {what}\n{log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn variables_are_the_originals_and_measured() {
    let mut site = Site::apart(0, &DEBUG);
    site.start(None);
    site.wait_up().await;
    site.client().create(&named("a")).await.unwrap();
    let (status, body) = ask(&site, "GET", "/debug/vars", "");
    assert_eq!(status, 200);
    let variables: Value = serde_json::from_str(&body).unwrap();
    let number = |pointer: &str| variables.pointer(pointer).and_then(Value::as_i64).unwrap();
    assert!(number("/memstats/Alloc") > 0, "{variables}");
    assert!(number("/memstats/Sys") >= number("/memstats/Alloc"), "{variables}");
    assert_eq!(number("/depotDirs"), 1);
    assert!(number("/numCPUS") > 0 && number("/numGoRoutines") > 4, "{variables}");
    for unused in ["/loopDevices", "/backingStores"] {
        assert_eq!(number(unused), 0);
    }
    let (status, body) = ask(&site, "GET", "/debug/pprof/profile", "");
    assert_eq!(status, 404);
    assert!(body.contains("perf record"), "{body}");
    assert_eq!(ask(&site, "GET", "/", "").0, 404);
    assert_eq!(ask(&site, "DELETE", "/debug/vars", "").0, 405);
    assert_eq!(ask(&site, "PUT", "/log-level", &"x".repeat(1000)).0, 413);
}

#[tokio::test]
async fn the_level_of_logging_is_changed_while_the_server_runs() {
    let mut site = Site::apart(1, &DEBUG);
    site.start(None);
    site.wait_up().await;
    let client = site.client();
    let pinged = |line: &str| line.contains("answered") && line.contains("/ping");
    client.ping().await.unwrap();
    let (status, body) = ask(&site, "PUT", "/log-level", "debug");
    assert_eq!((status, body.as_str()), (200, "/log-level was invoked with Level: debug\n"));
    assert!(!site.log().lines().any(pinged), "{}", site.log());
    client.ping().await.unwrap();
    logged(&site, "a ping, now", pinged).await;

    let (status, body) = ask(&site, "POST", "/log-level", "loud");
    assert_eq!((status, body.as_str()), (400, "invalid log level: loud\n"));
    assert_eq!(ask(&site, "POST", "/log-level", "e").0, 200);
    client.create(&named("silent")).await.unwrap();
    client.destroy("silent").await.unwrap();
    assert_eq!(ask(&site, "PUT", "/log-level", "info").0, 200);
    client.create(&named("told")).await.unwrap();
    logged(&site, "a create", |line| line.contains("created") && line.contains("told")).await;
    assert!(!site.log().contains("silent"), "{}", site.log());
}

/// A metric's value, by its name and labels; 0 where there is no such line.
fn metric(exposed: &str, name: &str) -> f64 {
    let value = exposed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Checks the format as a scraper reads it: every line is a comment or a value, of a metric that has
/// been introduced, and no two are of the same series.
fn check(exposed: &str) {
    let (mut introduced, mut series) = (BTreeSet::new(), BTreeSet::new());
    assert!(exposed.ends_with('\n'));
    for line in exposed.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(introduced.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (of, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(series.insert(of.to_owned()), "twice: {line}");
        let name = of.split('{').next().unwrap();
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = introduced.contains(name) || bare.is_some_and(|bare| introduced.contains(bare));
        assert!(known, "{line}");
    }
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let mut site = Site::apart(2, &DEBUG);
    site.start(None);
    site.wait_up().await;
    let client = site.client();
    let scrape = || {
        let (status, exposed) = ask(&site, "GET", "/metrics", "");
        assert_eq!(status, 200);
        check(&exposed);
        exposed
    };
    let operations = |operation: &str, outcome: &str| {
        let labels = format!("operation=\"{operation}\",outcome=\"{outcome}\"");
        format!("garden_operation_duration_seconds_count{{{labels}}}")
    };
    let before = scrape();
    assert_eq!(metric(&before, "garden_containers"), 0.0);
    assert!(metric(&before, "process_open_fds") > 10.0, "{before}");
    assert!(metric(&before, "garden_store_size_bytes") > 0.0);

    let memory = MemoryLimits { limit_in_bytes: 16 << 20 };
    let limits = Limits { memory, ..Limits::default() };
    client.create(&ContainerSpec { limits, ..named("a") }).await.unwrap();
    client.create(&named("a")).await.unwrap_err();
    let process =
        client.run("a", &shell("lives", "read line"), ProcessIo::default()).await.unwrap();
    // It holds more than it may have.
    let hog = shell("hog", "x=$(cat /dev/zero | tr '\\0' x)");
    let hog = client.run("a", &hog, ProcessIo::default());
    hog.await.unwrap().wait().await.unwrap();
    client.destroy("stranger").await.unwrap_err();

    let during = scrape();
    let value = |name: &str| metric(&during, name);
    assert_eq!(value("garden_containers"), 1.0);
    assert_eq!(value("garden_processes"), 1.0);
    assert_eq!(value("garden_operations_in_flight{operation=\"run\"}"), 0.0);
    for (operation, outcome, times) in [
        ("create", "ok", 1.0),
        ("create", "error", 1.0),
        ("run", "ok", 2.0),
        ("run", "error", 0.0),
        ("destroy", "ok", 0.0),
        ("destroy", "error", 1.0),
    ] {
        assert_eq!(value(&operations(operation, outcome)), times, "{operation} {outcome}");
    }
    let sum = operations("create", "ok").replace("_count", "_sum");
    assert!((1e-4..60.0).contains(&value(&sum)), "{during}");
    assert_eq!(value("garden_pool_hits_total") + value("garden_pool_misses_total"), 1.0);
    assert!(value("garden_oom_kills_total") >= 1.0, "{during}");
    assert_eq!(value("garden_process_exits_total"), 1.0);
    assert_eq!(value("garden_process_exits_unknown_total"), 0.0);
    let requests = |labels: &str| value(&format!("garden_http_requests_total{{{labels}}}"));
    assert_eq!(requests("route=\"POST /containers\",status=\"200\""), 1.0);
    assert_eq!(requests("route=\"POST /containers\",status=\"500\""), 1.0);
    assert_eq!(requests("route=\"DELETE /containers/:handle\",status=\"404\""), 1.0);
    assert_eq!(requests("route=\"POST /containers/:handle/processes\",status=\"201\""), 2.0);
    assert!(
        !during.contains("hog") && !during.contains("stranger"),
        "no names of clients: {during}"
    );

    process.end_stdin().await.unwrap();
    process.wait().await.unwrap();
    client.destroy("a").await.unwrap();
    let after = scrape();
    assert_eq!(metric(&after, "garden_containers"), 0.0);
    assert_eq!(metric(&after, &operations("destroy", "ok")), 1.0);

    // Whoever kills the keeper is found out.
    let keeper = keeper_of(&site);
    site::signal(keeper, rustix::process::Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    while metric(&scrape(), "garden_keeper_losses_total") < 1.0 {
        assert!(Instant::now() < deadline, "the keeper's death is counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The keeper's pid: its log is in its directory.
fn keeper_of(site: &Site) -> i32 {
    let log = site.config.run.join("supervisor.log");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter(|process| {
        let read = |file: &str| std::fs::read_to_string(process.path().join(file));
        read("comm").is_ok_and(|name| name.trim() == "bloomery-keeper")
            && std::fs::read_link(process.path().join("fd/2")).is_ok_and(|file| file == log)
    });
    let pids: Vec<i32> =
        found.map(|process| process.file_name().to_str().unwrap().parse().unwrap()).collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    pids[0]
}

/// One request on Garden's socket, with a header.
fn create_with(site: &Site, handle: &str, header: &str) {
    let mut socket = UnixStream::connect(site.place("garden.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = format!("{{\"handle\":\"{handle}\"}}");
    let length = body.len();
    write!(
        socket,
        "POST /containers HTTP/1.1\r\nHost: a\r\n{header}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn lager_lines_have_handle_session_and_trace() {
    let mut site = Site::apart(3, &["--log-format", "lager"]);
    site.start(None);
    site.wait_up().await;
    let id = "7f461654-74d1-1ee5-8367-77d85df2cdab";
    create_with(&site, "by-id", &format!("X-Vcap-Request-Id: {id}"));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    create_with(&site, "by-trace", &format!("traceparent: 00-{trace}-b7ad6b7169203331-01"));
    for (handle, trace) in [("by-id", id.replace('-', "").as_str()), ("by-trace", trace)] {
        let line = logged(&site, handle, |line| line.contains(handle)).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["source"], "garden");
        assert_eq!(line["level"], "info");
        assert_eq!(line["message"], "garden.request.created");
        let (date, digits) = line["timestamp"].as_str().unwrap().split_once('.').unwrap();
        assert_eq!((date.len(), digits.len()), ("2026-12-01T12:00:00".len(), 10), "{line}");
        let data = &line["data"];
        assert_eq!(data["handle"], handle);
        assert_eq!(data["trace-id"], trace);
        assert_eq!(data["span-id"].as_str().unwrap().len(), 16);
        assert!(data["session"].is_string() && data["took"].is_string(), "{data}");
    }
    site.client().info("nobody").await.unwrap_err();
    let line = logged(&site, "a failure", |line| line.contains("nobody")).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["data"]["error"], "unknown handle: nobody");
    assert!(site.log().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    site.stop();

    // A stock file has a time format, and means these lines.
    let mut old = Site::apart(4, &["--time-format", "unix-epoch"]);
    old.start(None);
    old.wait_up().await;
    old.client().create(&named("epoch")).await.unwrap();
    let line = logged(&old, "a create", |line| line.contains("epoch")).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["log_level"], 1);
    let (seconds, digits) = line["timestamp"].as_str().unwrap().split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000 && digits.len() == 9, "{line}");
}

#[tokio::test]
async fn a_collector_on_the_cell_gets_the_originals_metrics() {
    let mut site = Site::apart(5, &["--metrics-emission-interval", "100ms"]);
    // Where the original sends them unless it is told otherwise.
    let collector = site.inside(|| UdpSocket::bind("127.0.0.1:3457")).unwrap();
    collector.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    site.start(None);
    site.wait_up().await;
    site.client().create(&named("a")).await.unwrap();
    let mut awaited = BTreeSet::from([
        ("ContainerCreationDuration", "nanos"),
        ("DepotDirs", "Metric"),
        ("MetricsReporting", "nanos"),
        ("UnkillableContainers", "Metric"),
    ]);
    let deadline = Instant::now() + PATIENCE;
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    while !awaited.is_empty() {
        assert!(Instant::now() < deadline, "not sent: {awaited:?}");
        let mut bytes = [0; 512];
        // Nothing comes for a moment.
        let Ok(length) = collector.recv(&mut bytes) else { continue };
        let envelope = &bytes[..length];
        assert!(envelope.starts_with(b"\x0a\x0cgarden-linux\x10\x06"), "{envelope:?}");
        let depot = [&b"\x0a\x09DepotDirs\x11"[..], &1_f64.to_le_bytes()].concat();
        awaited.retain(|(name, unit)| {
            let of = has(envelope, name.as_bytes()) && envelope.ends_with(unit.as_bytes());
            // The first report may have been before the create.
            !of || (*name == "DepotDirs" && !has(envelope, &depot))
        });
    }
}

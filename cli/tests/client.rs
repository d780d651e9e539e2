//! Every call of `garden::client`, of a real daemon.

mod site;

use std::io::Cursor;
use std::time::Duration;

use bloomery_garden::client::{Client, Error, ProcessIo, RunningProcess};
use garden_api::{
    BulkEntry, ContainerSpec, ContainerState, CpuLimits, Limits, MemoryLimits, Nanoseconds,
    NetOutRule, PidLimits, ProcessSpec, Properties, Protocol, Signal, TtySpec, WindowSize,
};
use site::{PATIENCE, Site, named, sh};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

async fn served(number: u32) -> (Site, Client) {
    let mut site = Site::apart(number, &["--external-ip", "192.0.2.1", "--mtu", "1500"]);
    site.start(None);
    site.wait_up().await;
    let client = site.client();
    (site, client)
}

async fn create(client: &Client, handle: &str) {
    assert_eq!(client.create(&named(handle)).await.unwrap(), handle);
}

/// Reads an output until it holds a text.
async fn hear(output: &mut (impl AsyncRead + Unpin), heard: &mut String, text: &str) {
    let listening = async {
        while !heard.contains(text) {
            let mut buffer = [0; 1024];
            let length = output.read(&mut buffer).await.unwrap();
            assert!(length > 0, "{heard:?} and then no {text:?}");
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    };
    if timeout(PATIENCE, listening).await.is_err() {
        panic!("{heard:?} and no {text:?}");
    }
}

async fn wait(process: &RunningProcess) -> i64 {
    timeout(PATIENCE, process.wait()).await.expect("it ends").unwrap()
}

#[tokio::test]
async fn a_container_has_its_properties_limits_and_ports() {
    let (_site, client) = served(0).await;
    client.ping().await.unwrap();
    let capacity = client.capacity().await.unwrap();
    assert_eq!(capacity.max_containers, 256);
    let spec = ContainerSpec {
        handle: "box".into(),
        properties: Properties::from([("owner".into(), "me".into())]),
        grace_time: Nanoseconds::from_duration(Duration::from_secs(300)),
        limits: Limits {
            cpu: CpuLimits { weight: 512, ..CpuLimits::default() },
            memory: MemoryLimits { limit_in_bytes: 64 << 20 },
            pid: PidLimits { max: 100 },
            ..Limits::default()
        },
        ..ContainerSpec::default()
    };
    assert_eq!(client.create(&spec).await.unwrap(), "box");
    let generated = client.create(&ContainerSpec::default()).await.unwrap();
    let own = Properties::from([("owner".to_owned(), "me".to_owned())]);
    assert_eq!(client.list(&own).await.unwrap(), ["box"]);
    assert_eq!(client.list(&Properties::new()).await.unwrap().len(), 2);
    client.lookup(&generated).await.unwrap();

    assert_eq!(client.cpu_limits("box").await.unwrap().shares(), 512);
    assert_eq!(client.memory_limits("box").await.unwrap().limit_in_bytes, 64 << 20);
    client.disk_limits("box").await.unwrap();
    client.bandwidth_limits("box").await.unwrap();
    let metrics = client.metrics("box").await.unwrap();
    assert_eq!((metrics.pid.current, metrics.pid.max), (1, 100));
    let bulk = client.bulk_metrics(&["box", "nope"]).await.unwrap();
    assert!(matches!(&bulk.0["box"], BulkEntry::Value(metrics) if metrics.pid.max == 100));
    assert!(matches!(&bulk.0["nope"], BulkEntry::Failed(_)));

    // Keys that the original's client cannot send.
    for key in ["plain", "a/b", "100%", "a+b", "a b?c#d", "ü"] {
        client.set_property("box", key, "<&> ü").await.unwrap();
        assert_eq!(client.property("box", key).await.unwrap(), "<&> ü", "{key}");
        assert_eq!(client.properties("box").await.unwrap()[key], "<&> ü", "{key}");
        for _ in 0..2 {
            client.remove_property("box", key).await.unwrap();
        }
        let error = client.property("box", key).await.unwrap_err();
        assert_eq!(error.to_string(), format!("property does not exist: {key}"));
    }

    let ports = client.net_in("box", 0, 8080).await.unwrap();
    assert_eq!((ports.host_port, ports.container_port), (61001, 8080));
    let rule = NetOutRule { protocol: Protocol::Tcp, ..NetOutRule::default() };
    client.net_out("box", &rule).await.unwrap();
    client.bulk_net_out("box", &[rule.clone(), NetOutRule::default()]).await.unwrap();
    let ported = client.info("box").await.unwrap();
    let bulk = client.bulk_info(&["box"]).await.unwrap();
    assert_eq!(bulk.0["box"], BulkEntry::Value(ported.clone()));
    assert_eq!(ported.mapped_ports.as_ref().unwrap()[0].container_port, 8080);
    assert_eq!(
        (ported.external_ip.as_str(), ported.properties["owner"].as_str()),
        ("192.0.2.1", "me")
    );

    client.set_grace_time(&generated, Duration::from_millis(1)).await.unwrap();
    client.destroy("box").await.unwrap();
    let all = Properties::from([("garden.state".to_owned(), "all".to_owned())]);
    let reaped = async {
        while !client.list(&all).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reaped).await.expect("an unused container is reaped");
}

#[tokio::test]
async fn a_process_takes_input_signals_and_sizes_and_many_may_watch_it() {
    let (_site, client) = served(1).await;
    create(&client, "box").await;
    let script = "trap 'exit 9' TERM; cat; echo eof; echo err >&2; while :; do sleep 0.1; done";
    let stdin = Some(Box::new(Cursor::new("input\n")) as Box<_>);
    let io = ProcessIo { stdin, ..ProcessIo::outputs() };
    let process = client.run("box", &sh(script), io).await.unwrap();
    let (mut stdout, mut stderr) = (process.take_stdout().unwrap(), process.take_stderr().unwrap());
    let mut heard = [String::new(), String::new()];
    hear(&mut stdout, &mut heard[0], "eof\n").await;
    hear(&mut stderr, &mut heard[1], "err\n").await;
    assert_eq!(heard, ["input\neof\n", "err\n"]);
    // After its input has ended, where the original is deaf.
    process.signal(Signal::Terminate).await.unwrap();
    stdout.read_to_string(&mut heard[0]).await.unwrap();
    stderr.read_to_string(&mut heard[1]).await.unwrap();
    assert_eq!(wait(&process).await, 9);
    let error = process.signal(Signal::Kill).await.unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");

    let terminal = WindowSize { columns: 100, rows: 40 };
    let spec = ProcessSpec {
        tty: Some(TtySpec { window_size: Some(terminal) }),
        // A signal interrupts the read.
        ..sh("trap 'stty size' WINCH; stty size; while :; do read line && echo got:$line; \
              [ \"$line\" != end ] || exit 7; done")
    };
    let process = client.run("box", &spec, ProcessIo::outputs()).await.unwrap();
    let (mut stdout, mut heard) = (process.take_stdout().unwrap(), String::new());
    hear(&mut stdout, &mut heard, "40 100\r\n").await;
    process.resize(WindowSize { columns: 132, rows: 50 }).await.unwrap();
    process.write_stdin(b"line\n").await.unwrap();
    hear(&mut stdout, &mut heard, "50 132\r\n").await;
    hear(&mut stdout, &mut heard, "got:line\r\n").await;
    process.write_stdin(b"end\n").await.unwrap();
    stdout.read_to_string(&mut heard).await.unwrap();
    assert_eq!(wait(&process).await, 7);

    let spec = ProcessSpec { id: "watched".into(), ..sh("read line; echo got:$line; exit 5") };
    let process = client.run("box", &spec, ProcessIo::outputs()).await.unwrap();
    let watcher = client.attach("box", "watched", ProcessIo::outputs()).await.unwrap();
    watcher.write_stdin(b"hello\n").await.unwrap();
    for watching in [&process, &watcher] {
        let mut output = String::new();
        watching.take_stdout().unwrap().read_to_string(&mut output).await.unwrap();
        assert_eq!((output.as_str(), wait(watching).await), ("got:hello\n", 5));
    }
    let late = client.attach("box", "watched", ProcessIo::default()).await.unwrap();
    assert_eq!(wait(&late).await, 5);

    let idle = client.run("box", &sh("cat"), ProcessIo::outputs()).await.unwrap();
    idle.end_stdin().await.unwrap();
    assert_eq!(wait(&idle).await, 0);
    let stopped = client.run("box", &sh("exec sleep 1000"), ProcessIo::default()).await.unwrap();
    client.stop("box", true).await.unwrap();
    assert_eq!(wait(&stopped).await, 137);
    client.stop("box", false).await.unwrap();
    assert_eq!(client.info("box").await.unwrap().state, Some(ContainerState::Stopped));
}

#[tokio::test]
async fn archives_go_in_and_come_out() {
    let (_site, client) = served(2).await;
    create(&client, "box").await;
    let content = "x".repeat(100_000);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    archive.append_data(&mut header, "file", content.as_bytes()).unwrap();
    let archive = archive.into_inner().unwrap();
    client.stream_in("box", "root", "/data/one", Cursor::new(archive.clone())).await.unwrap();
    client.stream_in_bytes("box", "", "/data/two", &archive).await.unwrap();
    for place in ["one", "two"] {
        let path = format!("/data/{place}/file");
        let mut out = client.stream_out("box", "root", &path).await.unwrap();
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).await.unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut read = String::new();
        std::io::Read::read_to_string(&mut entry, &mut read).unwrap();
        assert_eq!((entry.path().unwrap().to_str(), read == content), (Some("file"), true));
    }
    let refused = client.stream_in_bytes("box", "root", "/tmp", b"this is no tar").await;
    let words = refused.unwrap_err().to_string();
    assert!(words.contains("error streaming in"), "{words}");
    let missing = client.stream_out("box", "root", "/no/such").await.unwrap_err();
    assert!(matches!(missing, Error::Plain(_)), "{missing}");
}

/// Whether an error says that there is no container `nope`.
fn unknown<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::ContainerNotFound(handle)) if handle == "nope")
}

#[tokio::test]
async fn errors_have_their_types() {
    let (site, client) = served(3).await;
    let run = |handle: &'static str, spec: ProcessSpec| {
        let client = client.clone();
        async move { client.run(handle, &spec, ProcessIo::default()).await }
    };
    let archive = [0; 10240];
    let rule = NetOutRule::default();
    let calls = [
        ("destroy", unknown(client.destroy("nope").await)),
        ("stop", unknown(client.stop("nope", false).await)),
        ("info", unknown(client.info("nope").await)),
        ("metrics", unknown(client.metrics("nope").await)),
        ("properties", unknown(client.properties("nope").await)),
        ("property", unknown(client.property("nope", "k").await)),
        ("set_property", unknown(client.set_property("nope", "k", "v").await)),
        ("remove_property", unknown(client.remove_property("nope", "k").await)),
        ("set_grace_time", unknown(client.set_grace_time("nope", Duration::ZERO).await)),
        ("bandwidth_limits", unknown(client.bandwidth_limits("nope").await)),
        ("cpu_limits", unknown(client.cpu_limits("nope").await)),
        ("disk_limits", unknown(client.disk_limits("nope").await)),
        ("memory_limits", unknown(client.memory_limits("nope").await)),
        ("net_in", unknown(client.net_in("nope", 0, 1).await)),
        ("net_out", unknown(client.net_out("nope", &rule).await)),
        ("bulk_net_out", unknown(client.bulk_net_out("nope", &[]).await)),
        ("stream_in", unknown(client.stream_in("nope", "", "/", &archive[..]).await)),
        ("stream_in_bytes", unknown(client.stream_in_bytes("nope", "", "/", &archive).await)),
        ("stream_out", unknown(client.stream_out("nope", "", "/").await)),
        ("run", unknown(run("nope", sh("true")).await)),
        ("attach", unknown(client.attach("nope", "p", ProcessIo::default()).await)),
        ("lookup", unknown(client.lookup("nope").await)),
    ];
    for (call, is_typed) in calls {
        assert!(is_typed, "{call}");
    }
    let bulk = client.bulk_info(&["nope"]).await.unwrap();
    let BulkEntry::Failed(error) = &bulk.0["nope"] else { panic!("{bulk:?}") };
    assert_eq!(error.message, "unknown handle: nope");

    create(&client, "box").await;
    let twice = ContainerSpec { handle: "box".into(), ..ContainerSpec::default() };
    let error = client.create(&twice).await.unwrap_err();
    assert!(
        matches!(&error, Error::Plain(text) if text == "Handle 'box' already in use"),
        "{error}"
    );
    let error = client.attach("box", "p", ProcessIo::default()).await.unwrap_err();
    assert!(matches!(&error, Error::ProcessNotFound(id) if id == "p"), "{error}");
    for path in ["/no/such", "nosuch"] {
        let spec = ProcessSpec { path: path.into(), ..ProcessSpec::default() };
        let error = run("box", spec).await.unwrap_err();
        assert!(matches!(error, Error::ExecutableNotFound(_)), "{path}: {error}");
    }

    // Without a server there is no answer, and a process's status is not made up.
    let process = run("box", sh("exec sleep 1000")).await.unwrap();
    let mut site = site;
    site.kill();
    let error = timeout(PATIENCE, process.wait()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    assert!(matches!(client.ping().await, Err(Error::Unreachable { call: "Ping", .. })));
    site.start(None);
    site.wait_up().await;
    let again = client.attach("box", process.id(), ProcessIo::default()).await.unwrap();
    again.signal(Signal::Kill).await.unwrap();
    assert_eq!(wait(&again).await, 137);
}

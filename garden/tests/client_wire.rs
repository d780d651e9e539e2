//! The client's bytes, against a server that says what the original was recorded saying.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bloomery_garden::client::{Address, Client, Error, ProcessIo, RunningProcess};
use garden_api::{ContainerSpec, NetOutRule, ProcessSpec, Properties, Signal, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a scripted server does on a connection; after the last step it closes.
enum Step {
    /// Reads exactly this.
    Hear(String),
    /// Writes this.
    Say(String),
    /// Reads on until the client has closed.
    HearOut,
    /// Goes on when the test says so.
    Gate(oneshot::Receiver<()>),
}

fn hear(text: &str) -> Step {
    Step::Hear(text.to_owned())
}

fn say(text: &str) -> Step {
    Step::Say(text.to_owned())
}

fn gate() -> (oneshot::Sender<()>, Step) {
    let (open, closed) = oneshot::channel();
    (open, Step::Gate(closed))
}

async fn play(mut stream: UnixStream, script: Vec<Step>) {
    for step in script {
        match step {
            Step::Hear(wanted) => {
                let mut heard = vec![0; wanted.len()];
                let mut length = 0;
                while length < heard.len() && wanted.as_bytes().starts_with(&heard[..length]) {
                    let read = timeout(PATIENCE, stream.read(&mut heard[length..])).await;
                    let read = read.map_or(0, |read| read.unwrap());
                    if read == 0 {
                        break;
                    }
                    length += read;
                }
                assert_eq!(String::from_utf8_lossy(&heard[..length]), wanted);
            }
            Step::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Step::HearOut => {
                let mut rest = Vec::new();
                let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
                read.expect("the client closes").unwrap();
                assert_eq!(String::from_utf8_lossy(&rest), "");
            }
            Step::Gate(opened) => timeout(PATIENCE, opened).await.unwrap().unwrap(),
        }
    }
}

struct Server {
    _place: tempfile::TempDir,
    client: Client,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves a script per connection, in the order in which they are opened.
    fn new(scripts: Vec<Vec<Step>>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("garden.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                connections.push(tokio::spawn(play(stream, script)));
            }
            for connection in connections {
                connection.await.unwrap();
            }
        });
        Self { _place: place, client: Client::new(Address::Unix(path)), serving }
    }

    /// Waits until every script has been played.
    async fn done(self) {
        timeout(PATIENCE, self.serving).await.expect("the scripts are played").unwrap();
    }
}

const AGENT: &str = "Host: api\r\nUser-Agent: Go-http-client/1.1\r\n";
const PLAIN: &str = "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n";

fn answer(status: &str, body: &str) -> Step {
    say(&format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 09:09:44 GMT\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn json(line: &str, body: &str) -> Step {
    let length = body.len();
    Step::Hear(if body.is_empty() {
        format!("{line} HTTP/1.1\r\n{AGENT}{PLAIN}")
    } else {
        format!(
            "{line} HTTP/1.1\r\n{AGENT}Content-Length: {length}\r\n\
             Content-Type: application/json\r\n{PLAIN}{body}"
        )
    })
}

fn run_request(body: &str) -> Step {
    let length = body.len();
    Step::Hear(format!(
        "POST /containers/box/processes HTTP/1.1\r\n{AGENT}Content-Length: {length}\r\n\
         Content-Type: application/json\r\n\r\n{body}"
    ))
}

fn started(frames: &str) -> Step {
    say(&format!(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\
         Date: Sun, 22 Nov 2026 09:10:08 GMT\r\nTransfer-Encoding: chunked\r\n\r\n{frames}"
    ))
}

fn stream(name: &str, output: &str) -> Vec<Step> {
    let line = format!("GET /containers/box/processes/p1/attaches/1/{name} HTTP/1.1");
    vec![
        Step::Hear(format!("{line}\r\n{AGENT}Content-Type: application/json\r\n\r\n")),
        say(&format!(
            "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 09:10:08 GMT\r\n\
             Transfer-Encoding: chunked\r\n\r\n{output}"
        )),
    ]
}

const FIRST: &str = "{\"process_id\":\"p1\",\"stream_id\":\"1\"}\n";
const CAT: &str = "{\"id\":\"p1\",\"path\":\"cat\",\"rlimits\":{},\"image\":{}}\n";

fn cat() -> ProcessSpec {
    ProcessSpec { id: "p1".into(), path: "cat".into(), ..ProcessSpec::default() }
}

async fn wait(process: &RunningProcess) -> Result<i64, Error> {
    timeout(PATIENCE, process.wait()).await.expect("wait returns")
}

async fn text(mut output: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn plain_calls_are_the_originals_bytes() {
    const LIMITS: &str = "\"limits\":{\"bandwidth_limits\":{},\"cpu_limits\":{},\
                          \"disk_limits\":{},\"memory_limits\":{},\"pid_limits\":{}}";
    let spec = format!("{{\"handle\":\"box\",\"image\":{{}},{LIMITS}}}\n");
    let table = [
        ("GET /ping", "", "{}\n"),
        ("GET /ping?server=true", "", "{\"server\":\"bloomery\"}\n"),
        ("GET /ping?server=true", "", "{}\n"),
        ("GET /capacity", "", "{\"memory_in_bytes\":25276502016,\"max_containers\":256}\n"),
        ("POST /containers", &spec, "{\"Handle\":\"box\"}\n"),
        ("GET /containers?k=a+b%26c%3Dd&owner=me", "", "{\"Handles\":[\"box\"]}\n"),
        ("GET /containers", "", "{\"Handles\":[\"box\"]}\n"),
        ("GET /containers", "", "{\"Handles\":[\"box\"]}\n"),
        ("GET /containers/box/info", "", "{\"State\":\"active\",\"ContainerIP\":\"10.254.0.2\"}\n"),
        ("GET /containers/bulk_info?handles=box%2Cnope", "", "{}\n"),
        ("GET /containers/bulk_info?handles=", "", "{}\n"),
        ("GET /containers/box/metrics", "", "{\"PidStat\":{\"Current\":2,\"Max\":50}}\n"),
        ("GET /containers/bulk_metrics?handles=box", "", "{}\n"),
        ("GET /containers/box/properties", "", "null\n"),
        ("GET /containers/box/properties/odd.key:with-dash", "", "{\"value\":\"v\"}\n"),
        ("PUT /containers/box/properties/k", "{\"value\":\"\\u003c\\u0026\\u003e ü\"}\n", "{}\n"),
        ("DELETE /containers/box/properties/a%20b", "", "{}\n"),
        ("PUT /containers/box/grace_time", "1000000000\n", "{}\n"),
        ("GET /containers/box/limits/bandwidth", "", "{}\n"),
        ("GET /containers/box/limits/cpu", "", "{\"limit_in_shares\":5}\n"),
        ("GET /containers/box/limits/disk", "", "{}\n"),
        (
            "GET /containers/box/limits/disk?requested=true",
            "",
            "{\"requested\":{\"byte_hard\":7},\"enforced\":false}\n",
        ),
        ("GET /containers/box/limits/disk?requested=true", "", "{}\n"),
        ("GET /containers/box/limits/memory", "", "{\"limit_in_bytes\":67108864}\n"),
        (
            "POST /containers/box/net/in",
            "{\"handle\":\"box\",\"container_port\":8080}\n",
            "{\"host_port\":61001,\"container_port\":8080}\n",
        ),
        ("POST /containers/box/net/out", "{\"log\":true}\n", "{}\n"),
        ("POST /containers/box/net/out/bulk", "[{\"log\":true},{}]\n", "{}\n"),
        ("PUT /containers/box/stop", "{\"kill\":false}\n", "{}\n"),
        ("DELETE /containers/box", "", "{}\n"),
    ];
    let scripts = table
        .map(|(line, body, answered)| vec![json(line, body), answer("200 OK", answered)])
        .into_iter()
        .collect();
    let server = Server::new(scripts);
    let client = &server.client;
    let none = Properties::new();
    client.ping().await.unwrap();
    assert!(client.is_own().await.unwrap());
    assert!(!client.is_own().await.unwrap());
    assert_eq!(client.capacity().await.unwrap().max_containers, 256);
    let spec = ContainerSpec { handle: "box".into(), ..ContainerSpec::default() };
    assert_eq!(client.create(&spec).await.unwrap(), "box");
    let filter = [("owner", "me"), ("k", "a b&c=d")].map(|(k, v)| (k.into(), v.into())).into();
    assert_eq!(client.list(&filter).await.unwrap(), ["box"]);
    client.lookup("box").await.unwrap();
    let missing = client.lookup("nope").await.unwrap_err();
    assert!(matches!(&missing, Error::ContainerNotFound(handle) if handle == "nope"), "{missing}");
    assert_eq!(client.info("box").await.unwrap().container_ip, "10.254.0.2");
    client.bulk_info(&["box", "nope"]).await.unwrap();
    client.bulk_info(&[""; 0]).await.unwrap();
    assert_eq!(client.metrics("box").await.unwrap().pid.max, 50);
    client.bulk_metrics(&["box"]).await.unwrap();
    assert_eq!(client.properties("box").await.unwrap(), none);
    assert_eq!(client.property("box", "odd.key:with-dash").await.unwrap(), "v");
    client.set_property("box", "k", "<&> ü").await.unwrap();
    client.remove_property("box", "a b").await.unwrap();
    client.set_grace_time("box", Duration::from_secs(1)).await.unwrap();
    client.bandwidth_limits("box").await.unwrap();
    assert_eq!(client.cpu_limits("box").await.unwrap().limit_in_shares, 5);
    client.disk_limits("box").await.unwrap();
    let requested = client.requested_disk_limits("box").await.unwrap();
    assert_eq!(requested.requested.unwrap().byte_hard, 7);
    // The original does not know the question.
    assert_eq!(client.requested_disk_limits("box").await.unwrap(), Default::default());
    assert_eq!(client.memory_limits("box").await.unwrap().limit_in_bytes, 67108864);
    let ports = client.net_in("box", 0, 8080).await.unwrap();
    assert_eq!((ports.host_port, ports.container_port), (61001, 8080));
    let rule = NetOutRule { log: true, ..NetOutRule::default() };
    client.net_out("box", &rule).await.unwrap();
    client.bulk_net_out("box", &[rule, NetOutRule::default()]).await.unwrap();
    client.stop("box", false).await.unwrap();
    client.destroy("box").await.unwrap();
    server.done().await;
}

#[tokio::test]
async fn errors_are_told_apart_by_their_type() {
    let kinds = [
        ("ContainerNotFoundError", "unknown handle: box"),
        ("ProcessNotFoundError", "unknown process: p"),
        ("ExecutableNotFoundError", "m"),
        ("ServiceUnavailableError", "m"),
        ("UnrecoverableError", "m"),
        ("", "m"),
        ("SomethingNew", "m"),
    ];
    let mut scripts: Vec<_> = kinds
        .iter()
        .map(|(kind, _)| {
            let body = format!(
                "{{\"Type\":\"{kind}\",\"Message\":\"m\",\"Handle\":\"box\",\
                 \"ProcessID\":\"p\",\"Binary\":\"\"}}\n"
            );
            vec![answer("500 Internal Server Error", &body)]
        })
        .collect();
    scripts.push(vec![answer("404 Not Found", "404 page not found\n")]);
    scripts.push(vec![answer("200 OK", "")]);
    scripts.push(vec![]);
    let server = Server::new(scripts);
    let mut errors = Vec::new();
    for (_, words) in kinds {
        let error = server.client.ping().await.unwrap_err();
        assert_eq!(error.to_string(), words);
        errors.push(error);
    }
    assert!(matches!(
        errors.as_slice(),
        [
            Error::ContainerNotFound(_),
            Error::ProcessNotFound(_),
            Error::ExecutableNotFound(_),
            Error::ServiceUnavailable(_),
            Error::Unrecoverable(_),
            Error::Plain(_),
            Error::Plain(_)
        ]
    ));
    let error = server.client.info("box").await.unwrap_err().to_string();
    assert!(error.ends_with("status 404 with a body that is not Garden's: 404 page not found"));
    let error = server.client.info("box").await.unwrap_err();
    assert!(matches!(error, Error::BadResponse { status: 200, .. }), "{error}");
    let error = server.client.info("box").await.unwrap_err();
    assert!(matches!(error, Error::Broken { call: "Info", .. }), "{error}");
    let path = server.client.address().to_string();
    let nobody = server.client.clone();
    server.done().await;
    let error = nobody.ping().await.unwrap_err();
    assert_eq!(error.to_string(), format!("Ping: cannot connect to {path}"));
}

#[tokio::test]
async fn a_run_with_all_streams_is_the_originals_bytes() {
    let server = Server::new(vec![
        vec![
            run_request(CAT),
            started(FIRST),
            hear("{\"process_id\":\"p1\",\"source\":0,\"data\":\"hello\\nworld\\n\"}\n"),
            hear("{\"process_id\":\"p1\",\"source\":0}\n"),
            say("{\"process_id\":\"p1\",\"exit_status\":0}\n"),
        ],
        stream("stdout", "hello\nworld\n"),
        stream("stderr", ""),
    ]);
    let stdin: Option<Box<dyn AsyncRead + Send + Unpin>> = Some(Box::new(&b"hello\nworld\n"[..]));
    let io = ProcessIo { stdin, ..ProcessIo::outputs() };
    let process = server.client.run("box", &cat(), io).await.unwrap();
    assert_eq!(process.id(), "p1");
    assert_eq!(text(process.take_stdout().unwrap()).await, "hello\nworld\n");
    assert_eq!(text(process.take_stderr().unwrap()).await, "");
    assert_eq!(wait(&process).await.unwrap(), 0);
    assert_eq!(wait(&process).await.unwrap(), 0);
    let late = process.signal(Signal::Kill).await.unwrap_err();
    assert!(matches!(late, Error::Ended { .. }), "{late}");
    server.done().await;
}

#[tokio::test]
async fn an_attach_sends_signals_and_sizes_and_sees_an_end_that_came_early() {
    let attach = "GET /containers/box/processes/p1 HTTP/1.1\r\n";
    let server = Server::new(vec![
        vec![
            hear(&format!("{attach}{AGENT}X-Vcap-Request-Id: trace-1\r\n\r\n")),
            started(FIRST),
            hear(
                "{\"process_id\":\"p1\",\"tty\":{\"window_size\":{\"columns\":132,\"rows\":50}}}\n",
            ),
            hear("{\"process_id\":\"p1\",\"signal\":0}\n{\"process_id\":\"p1\",\"signal\":1}\n"),
            say("{\"process_id\":\"p1\",\"exit_status\":137}"),
            say("\n"),
        ],
        vec![
            hear(&format!("{attach}{AGENT}\r\n")),
            started(&format!("{FIRST}{{\"process_id\":\"p1\",\"exit_status\":255}}\n")),
        ],
        stream("stdout", "late"),
    ]);
    let named = server.client.clone().with_request_id("trace\r\n-1");
    let process = named.attach("box", "p1", ProcessIo::default()).await.unwrap();
    process.resize(WindowSize { columns: 132, rows: 50 }).await.unwrap();
    process.signal(Signal::Terminate).await.unwrap();
    process.signal(Signal::Kill).await.unwrap();
    assert!(process.take_stdout().is_none());
    assert_eq!(wait(&process).await.unwrap(), 137);

    let io = ProcessIo { stdout: true, ..ProcessIo::default() };
    let process = server.client.attach("box", "p1", io).await.unwrap();
    assert_eq!(text(process.take_stdout().unwrap()).await, "late");
    assert_eq!(wait(&process).await.unwrap(), 255);
    server.done().await;
}

#[tokio::test]
async fn wait_waits_for_the_outputs_too() {
    let (open, closed) = gate();
    let mut stdout = stream("stdout", "first ");
    stdout.extend([closed, say("last")]);
    let server = Server::new(vec![
        vec![run_request(CAT), started(&format!("{FIRST}{{\"exit_status\":3}}\n"))],
        stdout,
        stream("stderr", ""),
    ]);
    let process = server.client.run("box", &cat(), ProcessIo::outputs()).await.unwrap();
    let process = Arc::new(process);
    let output = process.take_stdout().unwrap();
    let (reading, waiting) = (
        tokio::spawn(text(output)),
        tokio::spawn({
            let process = Arc::clone(&process);
            async move { wait(&process).await }
        }),
    );
    let early = timeout(Duration::from_millis(100), process.wait()).await;
    assert!(early.is_err(), "stdout has not ended yet");
    open.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 3);
    assert_eq!(reading.await.unwrap(), "first last");
    server.done().await;
}

#[tokio::test]
async fn a_status_that_is_lost_is_an_error_with_its_reason() {
    let (open, closed) = gate();
    let mut left_open = stream("stdout", "");
    left_open.push(closed);
    let refused = answer("500 Internal Server Error", "{\"Message\":\"no more\"}\n");
    let server = Server::new(vec![
        vec![run_request(CAT), started(FIRST), say("{\"process_id\":\"p1\",\"error\":\"gone\"}\n")],
        vec![run_request(CAT), started(FIRST)],
        left_open,
        vec![run_request(CAT), started(FIRST), say("{\"exit_status\":0}\n")],
        vec![refused],
        vec![run_request(CAT), started("{\"process_id\":")],
    ]);
    let run = async |stdout| {
        let io = ProcessIo { stdout, ..ProcessIo::default() };
        server.client.run("box", &cat(), io).await
    };
    let error = wait(&run(false).await.unwrap()).await.unwrap_err().to_string();
    assert_eq!(error, "the exit status of process p1 is not known: gone");

    // The server is gone and its output's connection hangs: there is nothing to wait for.
    let process = run(true).await.unwrap();
    let output = process.take_stdout();
    let error = wait(&process).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    let error = process.write_stdin(b"x").await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    open.send(()).unwrap();
    drop(output);

    let process = run(true).await.unwrap();
    assert!(process.take_stdout().is_none());
    let error = wait(&process).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot listen to stdout of process p1");
    assert!(matches!(&error, Error::NoStream { source, .. } if source.to_string() == "no more"));

    assert!(matches!(run(false).await.unwrap_err(), Error::Broken { call: "Run", .. }));
    server.done().await;
}

#[tokio::test]
async fn dropping_a_process_disconnects() {
    let mut stdout = stream("stdout", "");
    stdout.push(Step::HearOut);
    let server = Server::new(vec![vec![run_request(CAT), started(FIRST), Step::HearOut], stdout]);
    let io = ProcessIo {
        stdin: Some(Box::new(tokio::io::empty().chain(Never))),
        stdout: true,
        stderr: false,
    };
    drop(server.client.run("box", &cat(), io).await.unwrap());
    server.done().await;
}

/// A reader to which nothing ever comes.
struct Never;

impl AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_several_tasks_stay_whole() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("garden.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let serving = tokio::spawn({
        let heard = Arc::clone(&heard);
        async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            play_head(&mut stream).await;
            let mut all = String::new();
            timeout(PATIENCE, stream.read_to_string(&mut all)).await.unwrap().unwrap();
            *heard.lock().unwrap() = all;
        }
    });
    let client = Client::new(Address::Unix(path));
    let process = client.attach("box", "p1", ProcessIo::default()).await.unwrap();
    let process = Arc::new(process);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let process = Arc::clone(&process);
            tokio::spawn(async move {
                for round in 0..50 {
                    process.write_stdin(&[b'y'; 40_000]).await.unwrap();
                    process.signal(Signal::Terminate).await.unwrap();
                    // A cancelled write may be lost, but not in part.
                    if round % 10 == 0 {
                        let write = process.write_stdin(&[b'z'; 30_000]);
                        let _ = timeout(Duration::ZERO, write).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    drop(process);
    serving.await.unwrap();
    let heard = heard.lock().unwrap();
    let count = |wanted: &str| heard.lines().filter(|line| *line == wanted).count();
    let frame = |byte: &str, times| {
        format!("{{\"process_id\":\"p1\",\"source\":0,\"data\":\"{}\"}}", byte.repeat(times))
    };
    assert_eq!(count("{\"process_id\":\"p1\",\"signal\":0}"), 200);
    assert_eq!(count(&frame("y", 32_768)), 200);
    assert_eq!(count(&frame("y", 7_232)), 200);
    assert_eq!(600 + count(&frame("z", 30_000)), heard.lines().count());
}

async fn play_head(stream: &mut UnixStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let Step::Say(started) = started(FIRST) else { unreachable!() };
    stream.write_all(started.as_bytes()).await.unwrap();
}

const UPLOAD: &str = "PUT /containers/box/files?destination=%2Ftmp&user=root HTTP/1.1\r\n";

#[tokio::test]
async fn archives_go_in_by_chunks_or_whole() {
    let tar = "Content-Type: application/x-tar\r\n";
    let chunked = format!("{UPLOAD}{AGENT}Transfer-Encoding: chunked\r\n{tar}{PLAIN}");
    let whole = format!("{UPLOAD}{AGENT}Content-Length: 5\r\n{tar}{PLAIN}whole");
    let refused = "{\"Message\":\"stream-in: error streaming in: no tar\"}\n";
    let server = Server::new(vec![
        vec![
            hear(&format!("{chunked}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")),
            answer("200 OK", "{}\n"),
        ],
        vec![hear(&whole), answer("200 OK", "{}\n")],
        vec![hear(&chunked), answer("500 Internal Server Error", refused)],
        vec![hear(&chunked), Step::HearOut],
    ]);
    let client = &server.client;
    let two = (&b"one"[..]).chain(&b"two"[..]);
    // On a task of its own, as callers do.
    let own = client.clone();
    let sent = tokio::spawn(async move { own.stream_in("box", "root", "/tmp", two).await });
    sent.await.unwrap().unwrap();
    client.stream_in_bytes("box", "root", "/tmp", b"whole").await.unwrap();

    // The server's no comes in the middle of an endless archive.
    let endless = tokio::io::repeat(b'x');
    let call = client.stream_in("box", "root", "/tmp", endless);
    let error = timeout(PATIENCE, call).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "stream-in: error streaming in: no tar");

    // An archive that cannot be read must not look complete to the server.
    let broken = Broken;
    let error = client.stream_in("box", "root", "/tmp", broken).await.unwrap_err();
    assert!(matches!(error, Error::Source { call: "StreamIn", .. }), "{error}");
    server.done().await;
}

struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("the disk is on fire")))
    }
}

#[tokio::test]
async fn an_archive_that_comes_out_short_is_an_error() {
    let request =
        format!("GET /containers/box/files?source=%2Fetc%2Fx&user= HTTP/1.1\r\n{AGENT}{PLAIN}");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let server = Server::new(vec![
        vec![hear(&request), say(head), say("4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n")],
        vec![hear(&request), say(head), say("4\r\nabcd\r\n")],
        vec![hear(&request), say(head), say("4\r\nabcd\r\n"), Step::HearOut],
        vec![
            hear(&request),
            answer("500 Internal Server Error", "{\"Message\":\"no such file\"}\n"),
        ],
    ]);
    let out = async || server.client.stream_out("box", "", "/etc/x").await;
    assert_eq!(text(out().await.unwrap()).await, "abcdef");

    let mut short = out().await.unwrap();
    let mut all = Vec::new();
    let error = short.read_to_end(&mut all).await.unwrap_err();
    assert_eq!((all.as_slice(), error.kind()), (&b"abcd"[..], std::io::ErrorKind::UnexpectedEof));

    let mut dropped = out().await.unwrap();
    dropped.read_u8().await.unwrap();
    drop(dropped);

    assert_eq!(out().await.unwrap_err().to_string(), "no such file");
    server.done().await;
}

//! What no recording holds: TLS on both sides, draining, and one router after another on the same sockets.

#![allow(missing_docs)]

mod authority;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use authority::Ca;
use bus::Bus;
use router::{AccessLog, Config, Listeners, Record};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Lines(Mutex<Vec<Record>>);

impl AccessLog for Lines {
    fn log(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

struct Router {
    bus: Bus,
    starts: bus::Subscription,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), router::Error>>,
}

async fn start(
    config: Config,
    http: &std::net::TcpListener,
    https: Option<std::net::TcpListener>,
) -> Router {
    let (bus, stop) = (Bus::local(), CancellationToken::new());
    let mut starts = bus.subscribe("router.start").await.unwrap();
    let listeners = Listeners {
        http: vec![http.try_clone().unwrap()],
        https: https.into_iter().collect(),
        ..Listeners::default()
    };
    let log = Arc::<Lines>::default();
    let serving = tokio::spawn(router::serve(config, listeners, bus.clone(), log, stop.clone()));
    timeout(PATIENCE, starts.next()).await.unwrap().unwrap();
    Router { bus, starts, stop, serving }
}

impl Router {
    async fn register(&self, message: serde_json::Value) {
        self.bus.publish("router.register", message.to_string()).await.unwrap();
        // What was said before this is known once it is answered.
        self.bus.request("router.greet", "", PATIENCE).await.unwrap();
    }

    async fn stop(mut self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
        // A router that ends does not ask for routes.
        timeout(Duration::ZERO, self.starts.next()).await.unwrap_err();
    }
}

fn bind() -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("in time");
        match byte {
            Ok(byte) => read.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(read).unwrap()
}

/// Sends a request and reads the response's head and its body, whose length must be told.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str) -> (String, String) {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (String, String) {
    let head = head(stream).await;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    timeout(PATIENCE, stream.read_exact(&mut body)).await.unwrap().unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Answers each request with its own head.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    loop {
        let head = head(&mut stream).await;
        if head.is_empty() {
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_endpoint_with_tls_must_be_the_instance_it_was_registered_as() {
    let ca = Ca::new();
    let acceptor = ca.server("instance-1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backend = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    echo(stream).await;
                }
            });
        }
    });
    let (http, address) = bind();
    let router =
        start(Config { ca_certs: ca.certificate(), ..Config::default() }, &http, None).await;
    for (uri, san) in [("good", "instance-1"), ("bad", "instance-2")] {
        let message = serde_json::json!({
            "host": "127.0.0.1", "port": 1, "tls_port": port, "uris": [uri],
            "server_cert_domain_san": san, "private_instance_id": san,
        });
        router.register(message).await;
    }
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let (head, body) = ask(&mut client, "good").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains("X-Cf-Instanceid: instance-1"), "{body}");
    }
    let (head, _) = ask(&mut client, "bad").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("endpoint_failure (tls"), "{head}");
    // Whoever has the address now is not asked again.
    let (head, _) = ask(&mut client, "bad").await;
    assert!(head.contains("X-Cf-Routererror: no_endpoints"), "{head}");
    drop(client);
    router.stop().await;
    backend.abort();
}

#[tokio::test]
async fn clients_are_shown_the_certificate_of_their_host() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backend = tokio::spawn(async move {
        loop {
            tokio::spawn(echo(listener.accept().await.unwrap().0));
        }
    });
    let (http, _) = bind();
    let (https, address) = bind();
    let tls_pem = vec![ca.pem("first.example.com"), ca.pem("second.example.com")];
    let router = start(Config { tls_pem, ..Config::default() }, &http, Some(https)).await;
    let uris = ["first.example.com", "second.example.com"];
    router.register(serde_json::json!({"host": "127.0.0.1", "port": port, "uris": uris})).await;
    for name in uris {
        let stream = TcpStream::connect(address).await.unwrap();
        let server = ServerName::try_from(name).unwrap();
        let mut client = ca.client().connect(server, stream).await.unwrap();
        let (head, body) = ask(&mut client, name).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains("X-Forwarded-Proto: https"), "{body}");
    }
    router.stop().await;
    backend.abort();
}

#[tokio::test]
async fn what_the_router_adds_cannot_be_taken_away_where_nothing_is_protected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backend = tokio::spawn(async move {
        loop {
            tokio::spawn(echo(listener.accept().await.unwrap().0));
        }
    });
    let (http, address) = bind();
    let config = Config { hop_by_hop_headers_to_filter: Vec::new(), ..Config::default() };
    let router = start(config, &http, None).await;
    let message = serde_json::json!({
        "host": "127.0.0.1", "port": port, "uris": ["app"], "app": "app-1",
    });
    router.register(message).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 1.2.3.4\r\n\
                   X-Forwarded-Proto: https\r\nX-Request-Start: 1\r\nX-Own: 1\r\nConnection: \
                   X-Forwarded-For, X-Forwarded-Proto, X-Request-Start, X-Vcap-Request-Id, \
                   X-CF-ApplicationID, X-Own\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = answer(&mut client).await;
    assert!(head.contains("X-Vcap-Request-Id: "), "{head}");
    // The client's own are taken away, as it wants; the original leaves no others.
    assert!(body.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{body}");
    assert!(body.contains("X-Forwarded-Proto: http"), "{body}");
    assert!(body.contains("X-Request-Start: ") && !body.contains("X-Request-Start: 1\r"), "{body}");
    assert!(body.contains("X-Cf-Applicationid: app-1\r\n"), "{body}");
    assert!(body.contains("X-Vcap-Request-Id: "), "{body}");
    assert!(!body.contains("X-Own"), "{body}");
    drop(client);
    router.stop().await;
    backend.abort();
}

#[tokio::test]
async fn a_stopped_router_finishes_what_it_has_begun_and_the_next_one_takes_who_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (http, address) = bind();
    let message = serde_json::json!({"host": "127.0.0.1", "port": port, "uris": ["app"]});
    let router = start(Config::default(), &http, None).await;
    router.register(message.clone()).await;

    let mut idle = TcpStream::connect(address).await.unwrap();
    let (head, _) = ask(&mut idle, "nowhere").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    let (mut backend, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    self::head(&mut backend).await;

    router.stop.cancel();
    // The one without a request is closed at once; the other has its answer, and is closed then.
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0])).await.unwrap().unwrap(), 0);
    let mut late = TcpStream::connect(address).await.unwrap();
    assert!(!router.serving.is_finished());
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await.unwrap();
    assert_eq!(answer(&mut busy).await.1, "late");
    router.stop().await;

    late.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    let next = start(Config::default(), &http, None).await;
    // It may have been asked before it knew the route.
    next.register(message).await;
    let (head, _) = tokio::select! {
        answered = answer(&mut late) => answered,
        accepted = listener.accept() => {
            tokio::spawn(echo(accepted.unwrap().0));
            answer(&mut late).await
        }
    };
    assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 404"), "{head}");
    drop(late);
    next.stop().await;
}

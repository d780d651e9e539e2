//! Servers and clients over real sockets: who is let in, what streams, how it stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{
    Address, BoxError, Client, Error, Files, Identity, Limits, Listener, Peer, Protocol, Server,
    Timeouts, TraceId,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A CA with a directory for what it signs.
struct Authority {
    place: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(place.path().join("ca.crt"), certificate.pem()).unwrap();
        Self { place, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.place.path().join("ca.crt")
    }

    /// Writes a certificate for both sides of 127.0.0.1 and `localhost`.
    fn sign(&self, name: &str) -> Files {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            ca: self.ca(),
            certificate: self.place.path().join(format!("{name}.crt")),
            key: self.place.path().join(format!("{name}.key")),
        };
        write(&files.certificate, &certificate.pem());
        write(&files.key, &key.serialize_pem());
        files
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::load(self.sign(name)).unwrap()
    }
}

/// As a careful operator would: complete under another name, then renamed.
fn write(file: &Path, text: &str) {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, file).unwrap();
}

struct Running {
    address: Address,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn serve(address: &str, identity: Option<Identity>, routes: Router) -> Running {
    serve_with(address, identity, routes, Limits::default()).await
}

async fn serve_with(
    address: &str,
    identity: Option<Identity>,
    routes: Router,
    limits: Limits,
) -> Running {
    let listener = Listener::bind(&address.parse().unwrap(), identity).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let server = Server::new(listener).with_limits(limits);
    let task = tokio::spawn(server.serve(routes, stop.clone()));
    Running { address, stop, task }
}

impl Running {
    fn client(&self, identity: Option<Identity>) -> Client {
        Client::new(self.address.clone(), identity, Timeouts::default()).unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn hello() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

fn ask(path: &str) -> http::Request<transport::Body> {
    http::Request::get(path).body(transport::empty()).unwrap()
}

async fn text(client: &Client, path: &str) -> Result<String, Error> {
    let answer = client.fetch(ask(path), 1 << 20).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

#[tokio::test]
async fn members_of_one_ca_speak_by_address_and_by_name() {
    let authority = Authority::new();
    let server = serve("https://127.0.0.1:0", Some(authority.identity("server")), hello()).await;
    let member = authority.identity("client");
    assert_eq!(text(&server.client(Some(member.clone())), "/hello").await.unwrap(), "hello");

    let Address::Https { port, .. } = server.address.clone() else { panic!("not TLS") };
    let named = Address::Https { host: "localhost".into(), port };
    let client = Client::new(named, Some(member.clone()), Timeouts::default()).unwrap();
    assert_eq!(text(&client, "/hello").await.unwrap(), "hello");

    let other = Address::Https { host: "other.localhost".into(), port };
    let client = Client::new(other, Some(member), Timeouts::default()).unwrap();
    let error = text(&client, "/hello").await.unwrap_err();
    assert!(error.is_unsent() && chain(&error).contains("other.localhost"), "{}", chain(&error));
    server.stop().await;
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let server =
        serve("https://127.0.0.1:0", Some(Authority::new().identity("server")), hello()).await;
    let stranger = Authority::new();
    let error =
        text(&server.client(Some(stranger.identity("client"))), "/hello").await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
    assert_eq!(error.to_string(), format!("GET /hello at {}: cannot connect", server.address));
    assert!(chain(&error).contains("invalid peer certificate"), "{}", chain(&error));
    server.stop().await;
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let asked = Arc::new(Notify::new());
    let heard = asked.clone();
    let routes = Router::new().route("/hello", get(move || async move { heard.notify_one() }));
    let server = serve("https://127.0.0.1:0", Some(ours.identity("server")), routes).await;
    // It trusts the server, but shows a certificate of another CA.
    let files = Files { ca: ours.ca(), ..other.sign("client") };
    let client = server.client(Some(Identity::load(files).unwrap()));
    // With TLS 1.3 a client may have sent its request before it is told.
    text(&client, "/hello").await.unwrap_err();
    assert!(tokio::time::timeout(Duration::ZERO, asked.notified()).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let asked = Arc::new(Notify::new());
    let heard = asked.clone();
    let routes = Router::new().route("/hello", get(move || async move { heard.notify_one() }));
    let server = serve("https://127.0.0.1:0", Some(authority.identity("server")), routes).await;
    let Address::Https { port, .. } = server.address.clone() else { panic!("not TLS") };

    let mut roots = rustls::RootCertStore::empty();
    let ca =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_file(
            authority.ca(),
        )
        .unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let _ = stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(read.unwrap_err().to_string().contains("CertificateRequired"));
    assert!(answer.is_empty());
    assert!(tokio::time::timeout(Duration::ZERO, asked.notified()).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn plain_clients_and_tls_servers_do_not_understand_each_other() {
    let authority = Authority::new();
    let server = serve("https://127.0.0.1:0", Some(authority.identity("server")), hello()).await;
    let Address::Https { host, port } = server.address.clone() else { panic!("not TLS") };
    let plain = Address::Http { host, port };
    let client = Client::new(plain, None, Timeouts::default()).unwrap();
    let error = text(&client, "/hello").await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");

    let error = Client::new(server.address.clone(), None, Timeouts::default()).unwrap_err();
    assert!(matches!(error, Error::NoIdentity { .. }), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn new_files_serve_new_connections_and_unfit_ones_change_nothing() {
    let authority = Authority::new();
    let files = authority.sign("server");
    let server =
        serve("https://127.0.0.1:0", Some(Identity::load(files.clone()).unwrap()), hello()).await;
    let member = authority.identity("client");

    // Another key alone does not fit the certificate.
    let original = std::fs::read(&files.key).unwrap();
    write(&files.key, &KeyPair::generate().unwrap().serialize_pem());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(text(&server.client(Some(member.clone())), "/hello").await.unwrap(), "hello");
    write(&files.key, std::str::from_utf8(&original).unwrap());

    // The same name of another CA, which only a client of that CA trusts.
    let other = Authority::new();
    let replacement = other.sign("server");
    for (from, to) in [
        (&replacement.ca, &files.ca),
        (&replacement.certificate, &files.certificate),
        (&replacement.key, &files.key),
    ] {
        write(to, &std::fs::read_to_string(from).unwrap());
    }
    let newcomer = other.identity("client");
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A new client each time: a pool would keep an old connection.
        match text(&server.client(Some(newcomer.clone())), "/hello").await {
            Ok(answer) => break assert_eq!(answer, "hello"),
            Err(error) => assert!(Instant::now() < deadline, "{}", chain(&error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[test]
fn files_that_are_no_identity_are_named() {
    let authority = Authority::new();
    let files = authority.sign("server");
    let missing = Files { key: "/nonexistent/key".into(), ..files.clone() };
    let error = Identity::load(missing).unwrap_err();
    assert_eq!(error.to_string(), "cannot use the key in /nonexistent/key");
    let swapped = Files { certificate: files.key.clone(), ..files.clone() };
    let error = Identity::load(swapped).unwrap_err();
    assert!(chain(&error).contains("there is no certificate in it"), "{}", chain(&error));
    let unfit = Files { key: authority.sign("other").key, ..files };
    let error = Identity::load(unfit).unwrap_err();
    assert!(error.to_string().starts_with("cannot use the certificate with its key"), "{error}");
}

#[tokio::test]
async fn unix_sockets_and_handed_in_listeners_serve() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("bbs.sock");
    let server = serve(&format!("unix:{}", path.display()), None, hello()).await;
    assert_eq!(text(&server.client(None), "/hello").await.unwrap(), "hello");
    server.stop().await;
    assert!(!path.exists());

    let held = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener::from_unix(held.try_clone().unwrap()).unwrap();
    assert_eq!(listener.address().unwrap(), Address::Unix(path.clone()));
    let stop = CancellationToken::new();
    let task = tokio::spawn(Server::new(listener).serve(hello(), stop.clone()));
    let client = Client::new(Address::Unix(path.clone()), None, Timeouts::default()).unwrap();
    assert_eq!(text(&client, "/hello").await.unwrap(), "hello");
    stop.cancel();
    task.await.unwrap();

    // The holder's socket outlives the server: who connects now is served by the next one.
    let waiting = tokio::spawn(async move { text(&client, "/hello").await });
    let stop = CancellationToken::new();
    let listener = Listener::from_unix(held).unwrap();
    let task = tokio::spawn(Server::new(listener).serve(hello(), stop.clone()));
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), "hello");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    let echo = |request: Request| async move { axum::body::Body::new(request.into_body()) };
    let authority = Authority::new();
    let identity = authority.identity("both");
    let routes = Router::new().route("/echo", post(echo));
    let server = serve("https://127.0.0.1:0", Some(identity.clone()), routes).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::with_protocol(
            server.address.clone(),
            Some(identity.clone()),
            Timeouts::default(),
            protocol,
        )
        .unwrap();
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((Ok::<_, BoxError>(hyper::body::Frame::data(piece)), receiver))
        });
        let body = http_body_util::StreamBody::new(pieces).boxed_unsync();
        let request = http::Request::post("/echo").body(body).unwrap();
        let answer = client.send(request).await.unwrap();
        let mut answer = answer.into_body().into_data_stream();
        for piece in ["one", "two", "three"] {
            // Each piece comes back before the next is sent.
            sender.send(piece.into()).await.unwrap();
            let back = tokio::time::timeout(PATIENCE, answer.next()).await.unwrap();
            assert_eq!(back.unwrap().unwrap(), piece, "{protocol:?}");
        }
        drop(sender);
        // The end may come as an empty piece.
        while let Some(piece) = answer.next().await {
            assert_eq!(piece.unwrap(), "", "{protocol:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_under_way_are_answered_before_a_server_stops() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (heard, wait) = (asked.clone(), go.clone());
    let slow = move || async move {
        heard.notify_one();
        wait.notified().await;
        "done"
    };
    let server = serve("http://127.0.0.1:0", None, Router::new().route("/slow", get(slow))).await;
    let client = server.client(None);
    let answer = tokio::spawn({
        let client = client.clone();
        async move { text(&client, "/slow").await }
    });
    asked.notified().await;
    server.stop.cancel();
    // It still holds its listener while the request runs; it accepts no more.
    go.notify_one();
    assert_eq!(answer.await.unwrap().unwrap(), "done");
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap();
    let error = text(&client, "/slow").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn endless_requests_are_cut_off_when_grace_ends() {
    let asked = Arc::new(Notify::new());
    let heard = asked.clone();
    let endless = move || async move {
        heard.notify_one();
        std::future::pending::<&str>().await
    };
    let routes = Router::new().route("/", get(endless));
    let limits = Limits { grace: Duration::from_millis(50), ..Limits::default() };
    let server = serve_with("http://127.0.0.1:0", None, routes, limits).await;
    let client = server.client(None).answering_within(None);
    let answer = tokio::spawn(async move { text(&client, "/").await });
    asked.notified().await;
    server.stop().await;
    let error = answer.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn silent_clients_and_endless_heads_are_closed() {
    let limits = Limits { idle: Duration::from_millis(300), head: 16 * 1024, ..Limits::default() };
    let server = serve_with("http://127.0.0.1:0", None, hello(), limits).await;
    let Address::Http { port, .. } = server.address.clone() else { panic!("not TCP") };
    let whole = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    for sent in ["", "P", "GET /hello HT", whole, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Until the server closes, in whatever way.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer.ends_with(b"hello"), sent == whole, "{sent:?}");
    }

    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let long = format!("GET /hello HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    server.stop().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let server = serve_with("http://127.0.0.1:0", None, hello(), limits).await;
    let Address::Http { port, .. } = server.address.clone() else { panic!("not TCP") };
    let first = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let client = server.client(None);
    let short = client.clone().answering_within(Some(Duration::from_millis(200)));
    let error = text(&short, "/hello").await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("no complete answer within 200ms"), "{error}");
    drop(first);
    assert_eq!(text(&client, "/hello").await.unwrap(), "hello");
    drop((short, client));
    server.stop().await;
}

#[tokio::test]
async fn failures_say_what_was_asked_where() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = Address::http(silent.local_addr().unwrap());
    drop(silent);
    let client = Client::new(gone.clone(), None, Timeouts::default()).unwrap();
    let error = text(&client, "/state?x=y").await.unwrap_err();
    assert_eq!(error.to_string(), format!("GET /state at {gone}: cannot connect"));
    assert!(chain(&error).contains("refused"), "{}", chain(&error));

    let routes = Router::new().route("/long", get(|| async { "x".repeat(2_000) }));
    let server = serve("http://127.0.0.1:0", None, routes).await;
    let error = server.client(None).fetch(ask("/long"), 1_999).await.unwrap_err();
    let expected = format!("GET /long at {}: the answer is longer than 1999 bytes", server.address);
    assert_eq!(error.to_string(), expected);
    server.stop().await;
}

#[tokio::test]
async fn requests_carry_their_trace_their_host_and_their_sender() {
    let seen = |Extension(peer): Extension<Peer>, headers: HeaderMap| async move {
        let local = peer.address.is_some_and(|address| address.ip().is_loopback());
        format!("{} {:?} {local}", TraceId::of(&headers), headers["host"])
    };
    let server = serve("http://127.0.0.1:0", None, Router::new().route("/", get(seen))).await;
    let client = server.client(None);
    let mut request = ask("/");
    TraceId::from("b3f1c0de000000000000000000000001").put(request.headers_mut());
    let answer = client.fetch(request, 1_000).await.unwrap().into_body();
    let host = server.address.authority();
    let expected = format!("b3f1c0de000000000000000000000001 {host:?} true");
    assert_eq!(answer, expected);
    server.stop().await;
}

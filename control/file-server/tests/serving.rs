//! A served directory, asked by hand and by a cell's downloads.

use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use executor::{Checksum, Fetched, Transfers, Version};
use file_server::{Config, Listeners};
use http::{Method, Request, Response, StatusCode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::{Client, Timeouts};

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

struct Server {
    address: String,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), file_server::Error>>,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", socket.local_addr().unwrap());
        let config = serde_json::json!({
            "server_address": address,
            "static_directory": directory,
            "debug_server_config": {"debug_address": "127.0.0.1:17005"},
        });
        let config: Config = serde_json::from_value(config).unwrap();
        let stop = CancellationToken::new();
        let listeners = Listeners { http: Some(socket), https: None };
        let serving = tokio::spawn(file_server::serve(config, listeners, stop.clone()));
        Self { address, stop, serving }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let client = Client::new(self.address.parse().unwrap(), None, Timeouts::default()).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client.fetch(request.body(transport::empty()).unwrap(), 1 << 20).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Method::GET, path, &[]).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn files_are_served_with_the_digest_of_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lifecycle")).unwrap();
    std::fs::write(dir.path().join("lifecycle/a b.tgz"), "hello").unwrap();
    let server = Server::start(dir.path());
    let path = "/v1/static/lifecycle/a%20b.tgz";

    let answer = server.get(path).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(answer.headers()["etag"], format!("\"{HELLO}\""));
    assert_eq!(answer.headers()["content-length"], "5");
    let modified = answer.headers()["last-modified"].to_str().unwrap().to_owned();
    assert!(modified.ends_with(" GMT"), "{modified}");

    let answer = server.ask(Method::HEAD, path, &[]).await;
    assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, 0));
    assert_eq!(answer.headers()["content-length"], "5");

    let known = format!("\"{HELLO}\"");
    for (condition, value) in [("if-none-match", &known), ("if-modified-since", &modified)] {
        let answer = server.ask(Method::GET, path, &[(condition, value)]).await;
        assert_eq!((answer.status(), answer.body().len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(answer.headers()["etag"], known);
    }
    let answer = server.ask(Method::GET, path, &[("range", "bytes=1-2")]).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::PARTIAL_CONTENT, &b"el"[..]));
    assert_eq!(answer.headers()["content-range"], "bytes 1-2/5");
    let answer = server.ask(Method::GET, path, &[("range", "bytes=7-")]).await;
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.headers()["content-range"], "bytes */5");
    server.stop().await;
}

#[tokio::test]
async fn nothing_but_files_below_the_directory_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("static");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::write(root.join("file"), "hello").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
    symlink("/proc/self/environ", root.join("magic")).unwrap();
    symlink("../file", root.join("sub/in")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let server = Server::start(&root);
    for (path, status) in [
        ("/v1/static/file", 200),
        ("/v1/static//file", 200),
        ("/v1/static/sub/in", 200),
        ("/v1/static/nothing", 404),
        ("/v1/static/file/below", 404),
        ("/v1/static/out", 404),
        ("/v1/static/absolute", 404),
        ("/v1/static/magic", 404),
        ("/v1/static/loop", 404),
        ("/v1/static/pipe", 404),
        ("/v1/static/fi%00le", 404),
        ("/v1/static/%ff", 404),
        ("/v1/static/..%2fsecret", 400),
        ("/v1/static/../secret", 400),
        ("/v1/static/sub/../file", 400),
        ("/v1/static/sub", 401),
        ("/v1/static/", 401),
        ("/v1/static", 404),
        ("/file", 404),
        ("/", 404),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}: {:?}", answer.body());
        assert!(!answer.body().windows(6).any(|bytes| bytes == b"secret"), "{path}");
    }
    let long = format!("/v1/static/{}", "x".repeat(5000));
    assert_eq!(server.get(&long).await.status(), StatusCode::NOT_FOUND);
    let answer = server.ask(Method::PUT, "/v1/static/file", &[]).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    server.stop().await;
}

#[tokio::test]
async fn cells_download_what_has_changed_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.tgz");
    std::fs::write(&file, "hello").unwrap();
    let server = Server::start(dir.path());
    let url = format!("{}/v1/static/bundle.tgz", server.address);
    let (cell, target) = (Transfers::new(None), dir.path().join("downloaded"));

    let checksum = Checksum::new("sha256", HELLO);
    let new = cell.download(&url, &Version::default(), checksum.as_ref(), &target).await.unwrap();
    let Fetched::New { version, size } = new else { panic!("{new:?}") };
    assert_eq!((size, std::fs::read(&target).unwrap()), (5, b"hello".to_vec()));
    assert_eq!(version.etag.as_deref(), Some(&*format!("\"{HELLO}\"")));
    let again = cell.download(&url, &version, None, &target).await.unwrap();
    assert!(matches!(again, Fetched::Unchanged), "{again:?}");

    // Another file takes its place, of the same size and maybe in the same second.
    std::fs::write(dir.path().join("next"), "world").unwrap();
    std::fs::rename(dir.path().join("next"), &file).unwrap();
    let changed = cell.download(&url, &version, None, &target).await.unwrap();
    assert!(matches!(changed, Fetched::New { .. }), "{changed:?}");
    assert_eq!(std::fs::read(&target).unwrap(), b"world");
    server.stop().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = file_server::routes(&dir.path().join("nothing")).unwrap_err();
    assert!(matches!(error, file_server::Error::Directory { .. }), "{error}");
}

//! The client's commands against a Cloud Controller, a UAA and a log-cache, with cells in memory.

// The runtime in memory that Cloud Controller's own tests use.
#[path = "../../../control/cloud-controller/tests/replay/cell.rs"]
#[allow(dead_code)]
mod cell;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use blobstore::Blobstore;
use bytes::Bytes;
use cell::Cell;
use cloud_controller::{
    AppLog, CloudController, InstanceState, Links, Metrics, Surroundings, Usage,
};
use http::Request;
use log_cache::{Access, AppMetrics, LogCache, Origin, Store, v2};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use transport::{Listener, Server};
use uaa::{ClientDetails, PasswordCost, Peer, Secret, SeedUser, Uaa};

struct Platform {
    api: String,
    cell: Cell,
    store: Store,
    controller: Peer,
    token: String,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

fn bind() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    (socket, address)
}

impl Platform {
    /// With an org `o1`, a space `s1` and a buildpack.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (api_socket, api) = bind();
        let (uaa_socket, uaa_url) = bind();
        let (logs_socket, logs_url) = bind();
        let lookup = ClientDetails {
            secret: Some(Secret("lookup".into())),
            authorized_grant_types: vec!["client_credentials".into()],
            authorities: vec!["scim.userids".into()],
            ..ClientDetails::default()
        };
        let admin = SeedUser {
            user_name: "admin".into(),
            password: Secret("secret".into()),
            groups: vec!["cloud_controller.admin".into()],
            ..SeedUser::default()
        };
        let uaa = Uaa::open(uaa::Config {
            data_dir: dir.path().join("uaa"),
            uaa_url: uaa_url.clone(),
            login_url: uaa_url.clone(),
            users: vec![admin],
            clients: [("lookup".to_owned(), lookup)].into(),
            password_cost: PasswordCost { memory_kib: 64, passes: 1 },
            ..uaa::Config::default()
        })
        .await
        .unwrap();
        let (cell, store) = (Cell::new(), Store::default());
        let lines = store.clone();
        let around = Surroundings {
            blobs: Blobstore::local(&dir.path().join("blobs")).unwrap(),
            tokens: uaa.verifier("cloud_controller"),
            users: Arc::new(uaa::Client::new(
                Peer::local(uaa.routes()),
                "lookup",
                Secret("lookup".into()),
            )),
            runtime: Arc::new(cell.clone()),
            logs: AppLog::new(move |line| {
                let origin = Origin {
                    source_id: line.source_id,
                    instance_id: "0".into(),
                    ..Origin::default()
                };
                lines.add([v2::Envelope::line(origin, line.source_type, false, line.text)]);
            }),
        };
        let config = cloud_controller::Config {
            data_dir: dir.path().join("cc"),
            external_domain: api.strip_prefix("http://").unwrap().into(),
            system_domain: "example.test".into(),
            app_domains: vec!["apps.example.test".into()],
            links: Links {
                uaa: uaa_url.clone(),
                login: uaa_url.clone(),
                log_cache: format!("{logs_url}/some/path"),
                ..Links::default()
            },
            staging: cell::staging(),
            ..cloud_controller::Config::default()
        };
        let measured = store.clone();
        let metrics = Metrics::new(move |app| {
            let latest = measured.latest(app, 0).into_iter();
            let usages = latest.filter_map(|latest| {
                let index = latest.instance_id.parse().ok()?;
                let gauge = |name: &str| latest.numbers.get(name).map(|number| number.value);
                Usage::of_gauges(&latest.process_id, index, 0, gauge)
            });
            std::future::ready(usages.collect())
        });
        let controller = CloudController::open(config, around).await.unwrap();
        let controller = controller.with_metrics(metrics);
        *cell.internal.lock().unwrap() = Some(Peer::local(controller.internal_routes()));
        let peer = Peer::local(controller.routes());
        let access = Access::new(uaa.verifier("cloud_controller"), peer.clone());
        let logs = LogCache::new(store.clone()).routes(Some(access));

        let stop = CancellationToken::new();
        for (socket, routes) in
            [(api_socket, controller.routes()), (uaa_socket, uaa.routes()), (logs_socket, logs)]
        {
            let listener = Listener::from_tcp(socket, None).unwrap();
            tokio::spawn(Server::new(listener).serve(routes, stop.clone()));
        }
        let token = token(&Peer::local(uaa.routes())).await;
        let platform = Self { api, cell, store, controller: peer, token, dir, stop };
        platform.furnish().await;
        platform
    }

    async fn furnish(&self) {
        self.post("/v3/organizations", json!({"name": "o1"})).await;
        let org = self.get("/v3/organizations?names=o1").await["resources"][0]["guid"].clone();
        let org = json!({"organization": {"data": {"guid": org}}});
        self.post("/v3/spaces", json!({"name": "s1", "relationships": org})).await;
        let buildpack = json!({"name": "staticfile_buildpack", "stack": "cflinuxfs4"});
        let made = self.post("/v3/buildpacks", buildpack).await;
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("bin/detect", zip::write::SimpleFileOptions::default()).unwrap();
        let zip = zip.finish().unwrap().into_inner();
        let head = "--b\r\nContent-Disposition: form-data; name=\"bits\"; \
                    filename=\"staticfile_buildpack.zip\"\r\n\r\n";
        let body = [head.as_bytes(), &zip, b"\r\n--b--\r\n"].concat();
        let path = format!("/v3/buildpacks/{}/upload", made["guid"].as_str().unwrap());
        self.send("POST", &path, "multipart/form-data; boundary=b", body).await;
        self.until(&path.replace("/upload", ""), |it| it["state"] == "READY").await;
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("bearer {}", self.token))
            .header("content-type", kind)
            .body(Bytes::from(body));
        let answer = self.controller.send(request.unwrap()).await.unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {answer:?}");
        serde_json::from_slice(answer.body()).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        self.send("GET", path, "application/json", Vec::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, "application/json", body.to_string().into_bytes()).await
    }

    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let seen = self.get(path).await;
            if holds(&seen) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{path}: {seen}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Runs a command in a directory, as a user does.
    async fn cf(&self, directory: &Path, words: &str) -> Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bloomery-cf"));
        command
            .args(words.split(' '))
            .current_dir(directory)
            .env("BLOOMERY_HOME", self.dir.path().join("home"))
            .stdin(std::process::Stdio::null());
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// What a command prints that must succeed.
    #[track_caller]
    fn said(output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
        text
    }

    async fn ok(&self, directory: &Path, words: &str) -> String {
        Self::said(&self.cf(directory, words).await)
    }

    async fn refused(&self, directory: &Path, words: &str) -> String {
        let output = self.cf(directory, words).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED"), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    async fn log_in(&self, directory: &Path) -> String {
        let api = &self.api;
        self.ok(directory, &format!("login -a {api} -u admin -p secret -o o1 -s s1")).await
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn token(uaa: &Peer) -> String {
    let form = "grant_type=password&username=admin&password=secret";
    let request = Request::post("/oauth/token").header("authorization", "Basic Y2Y6");
    let answer = uaa.send(request.body(Bytes::from(form)).unwrap()).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn app_files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.html"), "hello").unwrap();
    dir
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_pushed_looked_at_scaled_and_deleted() {
    let platform = Platform::start().await;
    let files = app_files();
    let dir = files.path();
    let said = platform.log_in(dir).await;
    has(&said, &["Authenticating...\nOK", "Targeted org o1.", "Targeted space s1."]);
    has(&said, &["user:           admin\norg:            o1\nspace:          s1\n"]);
    let home = platform.dir.path().join("home");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home), mode(&home.join("cf.json"))), (0o700, 0o600));

    has(&platform.ok(dir, "apps").await, &["No apps found"]);
    let said = platform.ok(dir, "push web1 -m 64M -b staticfile_buildpack -i 2").await;
    has(
        &said,
        &[
            "Pushing app web1 to org o1 / space s1 as admin...\n",
            "Uploading files...\n",
            "Waiting for API to complete processing files...\n",
            "Staging app and tracing logs...\n",
            "Waiting for app web1 to start...\n",
            "routes:            web1.apps.example.test\n",
            "requested state:   started\n",
            "instances:       2/2\n",
            "memory usage:    64M\n",
            "start command:   $HOME/boot.sh\n",
            "#0   running",
            "#1   running",
            "staticfile_buildpack",
        ],
    );
    assert_eq!(platform.cell.state.lock().unwrap().desired.len(), 1);

    // The same files again: they may be known by now, whatever was uploaded.
    platform.ok(dir, "push web1 -m 64M -b staticfile_buildpack").await;

    has(&platform.ok(dir, "apps").await, &["name   requested state", "web1   started", "web:2/2"]);
    has(&platform.ok(dir, "app web1").await, &["instances:      2/2", "of 64M"]);
    let app = platform.get("/v3/apps?names=web1").await["resources"][0]["guid"].clone();
    let app = app.as_str().unwrap();
    let processes = platform.get(&format!("/v3/apps/{app}/processes")).await;
    let process = processes["resources"][0]["guid"].as_str().unwrap().to_owned();
    let tags = [("process_id".to_owned(), process)].into();
    let origin = Origin { source_id: app.into(), instance_id: "1".into(), tags };
    let (memory, disk) = (19 << 20, 128 << 10);
    let used = AppMetrics { memory, disk, cpu_entitlement: Some(5.0), ..AppMetrics::default() };
    platform.store.add(v2::Envelope::app_metrics(&origin, &used));
    let said = platform.ok(dir, "app web1").await;
    has(&said, &["5.0%", "19M of 64M   128K of 1G   0B/s of unlimited"]);

    has(&platform.ok(dir, "routes").await, &["s1      web1   apps.example.test", "web1"]);
    let said = platform.ok(dir, "scale web1 -i 3").await;
    has(&said, &["Scaling app web1 in org o1 / space s1 as admin...", "instances:      3/3"]);
    has(&platform.ok(dir, "scale web1 -m 128M -f").await, &["memory usage:   128M"]);
    let error = platform.refused(dir, "scale web1 -m 128M").await;
    has(&error, &["needed"]);

    has(&platform.ok(dir, "delete web1 -f -r").await, &["Deleting app web1 in", "\nOK\n"]);
    assert_eq!(platform.get("/v3/apps").await["pagination"]["total_results"], 0);
    assert_eq!(platform.get("/v3/routes").await["pagination"]["total_results"], 0);
    assert!(platform.cell.state.lock().unwrap().desired.is_empty());
    let output = platform.cf(dir, "delete web1 -f").await;
    assert!(output.status.success());
    has(&String::from_utf8_lossy(&output.stderr), &["App 'web1' does not exist."]);
    has(&platform.refused(dir, "app web1").await, &["App 'web1' not found."]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_says_what_is_pushed() {
    let platform = Platform::start().await;
    let files = app_files();
    let dir = files.path();
    platform.log_in(dir).await;
    std::fs::create_dir(dir.join("app")).unwrap();
    std::fs::write(dir.join("app/index.html"), "hello").unwrap();
    let manifest = "applications:\n- name: web1\n  memory: 32M\n  path: app\n  env:\n    A: \"1\"\n  \
                    buildpacks: [staticfile_buildpack]\n- name: web2\n  no-route: true\n  path: app\n  \
                    buildpacks: [staticfile_buildpack]\n";
    std::fs::write(dir.join("manifest.yml"), manifest).unwrap();
    let said = platform.ok(dir, "push web1 -i 2 --no-start").await;
    has(&said, &["Applying manifest file", "Manifest applied", "requested state:   stopped"]);
    has(&said, &["memory: 32M", "There are no running instances of this process."]);
    assert_eq!(platform.get("/v3/apps").await["pagination"]["total_results"], 1);

    let said = platform.ok(dir, "push").await;
    has(&said, &["Pushing apps web1, web2 to org o1", "name:              web2"]);
    let app = platform.get("/v3/apps?names=web1").await["resources"][0]["guid"].clone();
    let env = format!("/v3/apps/{}/environment_variables", app.as_str().unwrap());
    assert_eq!(platform.get(&env).await["var"], json!({"A": "1"}));
    has(&platform.refused(dir, "push -m 1G").await, &["multiple apps from a manifest file"]);
    has(&platform.refused(dir, "push web3").await, &["Could not find app named 'web3'"]);
    let nothing = tempfile::tempdir().unwrap();
    let error = platform.refused(nothing.path(), "push web1 -b staticfile_buildpack").await;
    has(&error, &["No app files found in"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_says_is_shown() {
    let platform = Platform::start().await;
    let files = app_files();
    let dir = files.path();
    platform.log_in(dir).await;
    platform.ok(dir, "push web1 -b staticfile_buildpack").await;
    let app = platform.get("/v3/apps?names=web1").await["resources"][0]["guid"].clone();
    let source_id = app.as_str().unwrap().to_owned();
    let line = |kind: &str, is_error, text: &str| {
        let origin =
            Origin { source_id: source_id.clone(), instance_id: "0".into(), ..Origin::default() };
        v2::Envelope::line(origin, kind, is_error, text.to_owned())
    };
    platform.store.add([line("APP/PROC/WEB", false, "hello"), line("STG", true, "staging")]);
    let said = platform.ok(dir, "logs web1 --recent").await;
    has(&said, &["Retrieving logs for app web1 in org o1 / space s1 as admin...\n"]);
    has(&said, &["[APP/PROC/WEB/0] OUT hello\n", "[STG/0] ERR staging\n"]);

    // Why staging failed is told; lines of others do not belong to it.
    *platform.cell.builder.lock().unwrap() = 223;
    let output = platform.cf(dir, "push web1 -b staticfile_buildpack").await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("OUT hello"), "{said}");
    has(&String::from_utf8_lossy(&output.stderr), &["BuildpackCompileFailed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_as_the_cf_cli_tells_them() {
    let platform = Platform::start().await;
    let files = app_files();
    let dir = files.path();
    has(&platform.refused(dir, "apps").await, &["Not logged in."]);
    let (api, closed) = (&platform.api, bind().1);
    let error = platform.refused(dir, &format!("api {closed}")).await;
    has(&error, &["Request error: GET ", "refused"]);
    let said = platform.ok(dir, &format!("api {api}")).await;
    has(&said, &["OK\n\nAPI endpoint:   http", "Not logged in."]);
    let error = platform.refused(dir, &format!("login -a {api} -u admin -p wrong")).await;
    has(&error, &["Credentials were rejected, please try again."]);
    let error = platform.refused(dir, &format!("login -a {api} -u admin -p secret -o nope")).await;
    has(&error, &["Organization 'nope' not found."]);
    // The log-in itself was good.
    has(&platform.ok(dir, "target -o o1").await, &["org:            o1\nspace:          s1"]);
    has(&platform.refused(dir, "target -s nope").await, &["Space 'nope' not found."]);
    has(&platform.refused(dir, "push web1 -m lots").await, &["Byte quantity must be"]);
    has(&platform.refused(dir, "logs web1").await, &["App 'web1' not found."]);

    *platform.cell.become_.lock().unwrap() = InstanceState::Crashed;
    let output = platform.cf(dir, "push web1 -b staticfile_buildpack").await;
    assert_eq!(output.status.code(), Some(1));
    has(&String::from_utf8_lossy(&output.stdout), &["#0   crashed", "exit 1"]);
    has(&String::from_utf8_lossy(&output.stderr), &["Start unsuccessful", "cf logs web1 --recent"]);
}

//! A UAA, a blobstore, a Cloud Controller and a cell in memory, with users and an app.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloud_controller::{AppLog, CloudController, Config, Line, Links, Surroundings};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use uaa::{ClientDetails, PasswordCost, Peer, Secret, SeedUser, Uaa};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::cell::{self, Cell};

pub const CC: &str = "http://api.example.test";

pub struct Platform {
    pub controller: CloudController,
    pub api: Peer,
    pub cell: Cell,
    pub lines: Arc<Mutex<Vec<Line>>>,
    pub token: String,
    uaa: Uaa,
    dir: tempfile::TempDir,
}

pub struct Answer(pub Response<Bytes>);

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap_or_default()
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.0.status().as_u16(), status, "{:?}", self.0);
        self.json()
    }

    pub fn location(&self) -> String {
        let location = self.0.headers().get("location").expect("no Location");
        location.to_str().unwrap().strip_prefix(CC).expect("a foreign Location").to_owned()
    }
}

impl Platform {
    /// What is in the directory, and nothing else yet.
    async fn open(dir: tempfile::TempDir, cell: Cell) -> Self {
        let client = ClientDetails {
            secret: Some(Secret("lookup".into())),
            authorized_grant_types: vec!["client_credentials".into()],
            authorities: vec!["scim.userids".into()],
            ..ClientDetails::default()
        };
        let groups = ["cloud_controller.admin"].map(String::from).to_vec();
        let user = |name: &str, groups: Vec<String>| SeedUser {
            user_name: name.into(),
            password: Secret("secret".into()),
            groups,
            ..SeedUser::default()
        };
        let uaa = Uaa::open(uaa::Config {
            data_dir: dir.path().join("uaa"),
            uaa_url: "http://uaa.example.test".into(),
            login_url: "http://login.example.test".into(),
            users: vec![user("admin", groups), user("dev", Vec::new())],
            clients: [("lookup".to_owned(), client)].into(),
            password_cost: PasswordCost { memory_kib: 64, passes: 1 },
            ..uaa::Config::default()
        })
        .await
        .unwrap();
        let peer = Peer::local(uaa.routes());
        let config = Config {
            data_dir: dir.path().join("cc"),
            external_domain: "api.example.test".into(),
            system_domain: "example.test".into(),
            app_domains: vec!["apps.example.test".into()],
            links: Links {
                uaa: "http://uaa.example.test".into(),
                login: "http://login.example.test".into(),
                log_cache: "http://log-cache.example.test".into(),
                ..Links::default()
            },
            staging: cell::staging(),
            ..Config::default()
        };
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let taken = Arc::clone(&lines);
        let around = Surroundings {
            blobs: blobstore::Blobstore::local(&dir.path().join("blobs")).unwrap(),
            tokens: uaa.verifier("cloud_controller"),
            users: Arc::new(uaa::Client::new(peer.clone(), "lookup", Secret("lookup".into()))),
            runtime: Arc::new(cell.clone()),
            logs: AppLog::new(move |line| taken.lock().unwrap().push(line)),
        };
        let controller = CloudController::open(config, around).await.unwrap();
        *cell.internal.lock().unwrap() = Some(Peer::local(controller.internal_routes()));
        let api = Peer::local(controller.routes());
        let token = token(&peer, "admin").await;
        Self { controller, api, cell, lines, token, uaa, dir }
    }

    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The same platform, started again.
    pub async fn again(self) -> Self {
        Self::open(self.dir, self.cell).await
    }

    /// An org `o1`, a space `s1`, and two buildpacks.
    pub async fn new() -> Self {
        let platform = Self::open(tempfile::tempdir().unwrap(), Cell::new()).await;
        platform.post("/v3/organizations", json!({"name": "o1"})).await.expect(201);
        let org = platform.guid("/v3/organizations?names=o1").await;
        let body =
            json!({"name": "s1", "relationships": {"organization": {"data": {"guid": org}}}});
        platform.post("/v3/spaces", body).await.expect(201);
        for name in ["staticfile_buildpack", "binary_buildpack"] {
            let body = json!({"name": name, "stack": "cflinuxfs4"});
            let made = platform.post("/v3/buildpacks", body).await.expect(201);
            let path = format!("/v3/buildpacks/{}/upload", made["guid"].as_str().unwrap());
            let filename = format!("{name}-v1.zip");
            let file = zip_of(&[("bin/detect".into(), 2)]);
            let answer = platform.upload(&path, &[("bits", Some(&filename), file)]).await;
            platform.finish(&answer).await;
        }
        platform
    }

    pub async fn token_of(&self, user: &str) -> String {
        token(&Peer::local(self.uaa.routes()), user).await
    }

    pub async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        self.send_as(&self.token, method, path, kind, body).await
    }

    pub async fn send_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("bearer {token}"))
            .header("content-type", kind)
            .body(Bytes::from(body))
            .unwrap();
        Answer(self.api.send(request).await.unwrap())
    }

    pub async fn get(&self, path: &str) -> Value {
        self.send("GET", path, "application/json", Vec::new()).await.expect(200)
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string().into_bytes()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, "application/json", body.to_string().into_bytes()).await
    }

    /// Guid of the first resource of a list.
    pub async fn guid(&self, path: &str) -> String {
        let found = self.get(path).await;
        let guid = found["resources"][0]["guid"].as_str();
        guid.unwrap_or_else(|| panic!("{path}: {found}")).to_owned()
    }

    /// Waits for the job of an answer.
    pub async fn finish(&self, answer: &Answer) {
        assert_eq!(answer.0.status(), StatusCode::ACCEPTED, "{:?}", answer.0);
        let job = self.get(&answer.location()).await;
        assert_eq!(job["state"], "COMPLETE", "{job}");
    }

    pub async fn upload(&self, path: &str, parts: &[(&str, Option<&str>, Vec<u8>)]) -> Answer {
        let kind = "multipart/form-data; boundary=boundary";
        self.send("POST", path, kind, multipart(parts)).await
    }

    /// An app as `cf push` makes it, up to its package.
    pub async fn app(&self, name: &str) -> String {
        let space = self.guid("/v3/spaces?names=s1").await;
        let yaml = format!(
            "applications:\n- name: {name}\n  memory: 64M\n  default-route: true\n  buildpacks:\n  \
             - staticfile_buildpack\n"
        );
        let path = format!("/v3/spaces/{space}/actions/apply_manifest");
        let answer = self.send("POST", &path, "application/x-yaml", yaml.into_bytes()).await;
        self.finish(&answer).await;
        self.guid(&format!("/v3/apps?names={name}")).await
    }

    pub async fn package(&self, app: &str) -> String {
        let body = json!({"type": "bits", "relationships": {"app": {"data": {"guid": app}}}});
        let made = self.post("/v3/packages", body).await.expect(201);
        let guid = made["guid"].as_str().unwrap().to_owned();
        let file = zip_of(&[("index.html".into(), 12)]);
        let path = format!("/v3/packages/{guid}/upload");
        let parts = [("resources", None, b"[]".to_vec()), ("bits", Some("package.zip"), file)];
        let answer = self.upload(&path, &parts).await.expect(200);
        assert_eq!(answer["state"], "READY");
        guid
    }

    /// Stages a package and makes the droplet what its app runs.
    pub async fn stage(&self, app: &str, package: &str) -> String {
        let made = self.post("/v3/builds", json!({"package": {"guid": package}})).await.expect(201);
        let build = self.get(&format!("/v3/builds/{}", made["guid"].as_str().unwrap())).await;
        assert_eq!(build["state"], "STAGED", "{build}");
        let droplet = build["droplet"]["guid"].as_str().unwrap().to_owned();
        let path = format!("/v3/apps/{app}/relationships/current_droplet");
        self.patch(&path, json!({"data": {"guid": droplet}})).await.expect(200);
        droplet
    }

    pub async fn act(&self, app: &str, action: &str) {
        let path = format!("/v3/apps/{app}/actions/{action}");
        self.send("POST", &path, "application/json", Vec::new()).await.expect(200);
    }

    /// The app `name`, staged and started.
    pub async fn started(&self, name: &str) -> String {
        let app = self.app(name).await;
        let package = self.package(&app).await;
        self.stage(&app, &package).await;
        self.act(&app, "start").await;
        app
    }
}

async fn token(uaa: &Peer, user: &str) -> String {
    let form = format!("grant_type=password&username={user}&password=secret");
    let request = Request::post("/oauth/token").header("authorization", "Basic Y2Y6");
    let answer = uaa.send(request.body(Bytes::from(form)).unwrap()).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// A zip of files and directories with these names and sizes.
pub fn zip_of(entries: &[(String, usize)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, size) in entries {
        let options = SimpleFileOptions::default();
        if name.ends_with('/') {
            zip.add_directory(name.as_str(), options).unwrap();
        } else {
            zip.start_file(name.as_str(), options).unwrap();
            zip.write_all(&vec![b'x'; *size]).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

pub fn multipart(parts: &[(&str, Option<&str>, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let filename =
            filename.map(|filename| format!("; filename=\"{filename}\"")).unwrap_or_default();
        let head = format!(
            "--boundary\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--boundary--\r\n");
    body
}

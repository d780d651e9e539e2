//! A user of a platform: `bloomery cf`, the API where that has no command, and apps' own answers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use transport::{Address, Client, Timeouts};

use crate::rig::{BLOOMERY, PATIENCE, ROUTER, eventually, succeed};

/// The administrator, on the network of this thread.
pub struct User {
    /// What `cf login` is given.
    pub api: &'static str,
    /// The domain of apps.
    pub apps: &'static str,
    pub password: &'static str,
    /// The buildpack that there is.
    pub buildpack: &'static str,
    /// Where `bloomery cf` keeps its session.
    pub home: PathBuf,
    /// The app's files.
    pub files: PathBuf,
    pub runtime: Runtime,
}

impl User {
    /// Org, space and buildpack.
    pub fn lay_foundation(&self) {
        let login = ["login", "-a", self.api, "-u", "admin", "-p", self.password];
        eventually("the API answers", || self.cf(&login));
        let token = self.token();
        let org = self.post(&token, "/v3/organizations", json!({"name": "o1"}));
        let space = json!({
            "name": "s1",
            "relationships": {"organization": {"data": {"guid": org["guid"]}}},
        });
        self.post(&token, "/v3/spaces", space);
        let name = self.buildpack;
        let buildpack = self.post(&token, "/v3/buildpacks", json!({ "name": name }));
        let file = self.home.join("buildpack.zip");
        let mut export = Command::new(BLOOMERY);
        export.args(["export", "buildpack", name]).arg(&file);
        succeed(export.output().unwrap());
        let mut body = b"--b\r\nContent-Disposition: form-data; name=\"bits\"; \
                         filename=\"b.zip\"\r\nContent-Type: application/zip\r\n\r\n"
            .to_vec();
        body.extend(fs::read(&file).unwrap());
        body.extend(b"\r\n--b--\r\n");
        let guid = buildpack["guid"].as_str().unwrap();
        let path = format!("/v3/buildpacks/{guid}/upload");
        self.ask(&token, "POST", &path, "multipart/form-data; boundary=b", body).unwrap();
        eventually("the buildpack is ready", || {
            let path = format!("/v3/buildpacks/{guid}");
            let now = self.ask(&token, "GET", &path, "application/json", Vec::new())?;
            if now["state"] == "READY" { Ok(()) } else { Err(now.to_string()) }
        });
        self.cf(&["target", "-o", "o1", "-s", "s1"]).unwrap();
    }

    fn token(&self) -> String {
        let session = fs::read(self.home.join("cf.json")).unwrap();
        let session: Value = serde_json::from_slice(&session).unwrap();
        session["access_token"].as_str().unwrap().to_owned()
    }

    fn post(&self, token: &str, path: &str, body: Value) -> Value {
        self.ask(token, "POST", path, "application/json", body.to_string().into_bytes()).unwrap()
    }

    fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Value, String> {
        let api: Uri = self.api.parse().unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", api.authority().unwrap().as_str())
            .header("authorization", format!("bearer {token}"))
            .header("content-type", kind)
            .body(transport::full(Bytes::from(body)))
            .unwrap();
        let address = Address::Http { host: "127.0.0.1".into(), port: ROUTER };
        let answer = self.runtime.block_on(async {
            let client = Client::new(address, None, Timeouts::default()).unwrap();
            client.fetch(request, 1 << 20).await
        });
        let answer = answer.map_err(|error| format!("{path}: {error}"))?;
        let (status, body) = (answer.status(), answer.into_body());
        if !status.is_success() {
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)));
        }
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// `bloomery cf`, which reaches all names through the router.
    fn cf_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BLOOMERY);
        command.arg("cf").args(words).current_dir(&self.files);
        command.env("BLOOMERY_HOME", &self.home);
        command.env("http_proxy", format!("http://127.0.0.1:{ROUTER}"));
        command.env_remove("no_proxy").env_remove("NO_PROXY").stdin(Stdio::null());
        command
    }

    /// What it prints, or everything that it prints when it fails.
    pub fn cf(&self, words: &[&str]) -> Result<String, String> {
        told(self.cf_command(words).output().unwrap())
    }

    pub fn push(&self, app: &str) -> Result<String, String> {
        self.cf(&["push", app, "-b", self.buildpack, "-m", "64M"])
    }

    pub fn begin_push(&self, app: &str) -> Pushing {
        let words = ["push", app, "-b", self.buildpack, "-m", "64M"];
        let mut child =
            self.cf_command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, said) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reading = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        Pushing { child, said, reading }
    }

    /// What an app serves at a path, through the router.
    pub fn app(&self, app: &str, path: &str) -> Result<String, String> {
        body(ROUTER, &format!("{app}.{}", self.apps), path)
    }

    /// Which process an app is, by its own words.
    pub fn life(&self, app: &str) -> Result<String, String> {
        self.app(app, "/life").and_then(life)
    }

    /// Waits until an app answers.
    pub fn answers(&self, app: &str) -> String {
        eventually("the app answers", || self.life(app))
    }
}

/// The same word from a port of an app's own.
pub fn life_at(port: u16) -> Result<String, String> {
    body(port, "app", "/life").and_then(life)
}

fn life(answer: String) -> Result<String, String> {
    let life = answer.trim();
    if life.len() == 36 { Ok(life.to_owned()) } else { Err(answer) }
}

fn body(port: u16, host: &str, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("connecting: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

/// A push under way.
pub struct Pushing {
    child: Child,
    said: mpsc::Receiver<String>,
    reading: std::thread::JoinHandle<()>,
}

impl Pushing {
    /// Waits for a line with this word, or for the end; all lines until then.
    pub fn until(&self, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut all = String::new();
        while let Ok(line) =
            self.said.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            all.push_str(&line);
            all.push('\n');
            if line.contains(word) {
                return all;
            }
        }
        panic!("no {word:?}: {all}");
    }

    /// What else it says, if it succeeds, and everything if it does not.
    pub fn end(mut self) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the push does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reading.join().unwrap();
        let stdout: String = self.said.try_iter().map(|line| line + "\n").collect();
        let mut stderr = Vec::new();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        told(Output { status, stdout: stdout.into_bytes(), stderr })
    }
}

fn told(output: Output) -> Result<String, String> {
    let out = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(out.into_owned());
    }
    Err(format!("{out}{}{}", String::from_utf8_lossy(&output.stderr), output.status))
}

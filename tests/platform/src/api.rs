//! A user of Cloud Controller who sends what the cf CLI sends.

use std::io::{self, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Uri};
use serde_json::{Value, json};

use crate::apps::App;
use crate::eventually;
use crate::http::Answer;
use crate::platform::Platform;

/// Org and space that each installation has.
pub const SPACE: (&str, &str) = ("dev", "dev");
const BOUNDARY: &str = "1f3870be274f6c49b3e31a0c6728957f";
const BITS: &str = "multipart/form-data; boundary=1f3870be274f6c49b3e31a0c6728957f";

/// What came of a call: what it answered, or why that is no answer.
pub type Told<T> = Result<T, String>;

/// How far a push is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The package is there, and has no files.
    Uploads,
    /// The build has begun.
    Builds,
    /// The app is to run.
    Starts,
}

/// What of an upload has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A half.
    Half,
    /// All but the last byte.
    AllButOne,
    /// The whole.
    All,
}

/// A user who has logged in and chosen a space.
#[derive(Debug)]
pub struct Api<'a> {
    platform: &'a Platform,
    token: String,
    /// Address of Log Cache.
    log_cache: String,
    /// The space's guid.
    pub space: String,
}

impl<'a> Api<'a> {
    /// As `cf login -a A -u admin -p P -o dev -s dev` does.
    pub fn log_in(platform: &'a Platform) -> Told<Self> {
        let plain = |request: http::request::Builder, body: String| {
            let request = request.body(body.into()).map_err(|error| error.to_string())?;
            expect(platform.send(request), 200, "log in").map(|answer| answer.json())
        };
        let api = platform.url("api");
        let root = plain(get(&api), String::new())?;
        let link = |name: &str| root["links"][name]["href"].as_str().unwrap().to_owned();
        assert!(root["links"]["cloud_controller_v3"]["meta"]["version"].is_string(), "{root}");
        let prompts = plain(get(&format!("{}/login", link("login"))), String::new())?;
        assert_eq!(prompts["prompts"]["username"][0], "text", "{prompts}");
        let form = format!("grant_type=password&username=admin&password={}", platform.password());
        let basic = base64::engine::general_purpose::STANDARD.encode("cf:");
        let request = at(Method::POST, &format!("{}/oauth/token", link("login")))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded");
        let tokens = plain(request, form)?;
        let token = tokens["access_token"].as_str().unwrap().to_owned();
        let mut api = Self { platform, token, log_cache: link("log_cache"), space: String::new() };
        let (org, space) = SPACE;
        let org = api.one(&format!("/v3/organizations?names={org}&page=1&per_page=1"))?;
        let filter = format!("names={space}&organization_guids={}&page=1&per_page=1", guid(&org));
        api.space = guid(&api.one(&format!("/v3/spaces?{filter}"))?);
        Ok(api)
    }

    /// Sends something with the token, to a path of Cloud Controller or an address.
    fn ask(
        &self,
        method: Method,
        to: &str,
        kind: &str,
        body: impl Into<Bytes>,
        status: u16,
    ) -> Told<Answer> {
        let address =
            if to.starts_with('/') { self.platform.url("api") + to } else { to.to_owned() };
        let request = at(method, &address)
            .header("authorization", format!("bearer {}", self.token))
            .header("content-type", kind)
            .body(body.into());
        expect(self.platform.send(request.unwrap()), status, to)
    }

    fn json(&self, method: Method, to: &str, body: &Value, status: u16) -> Told<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, to, "application/json", body, status)
    }

    /// Gets something that is there.
    pub fn get(&self, to: &str) -> Told<Value> {
        Ok(self.json(Method::GET, to, &Value::Null, 200)?.json())
    }

    /// Gets an answer of this status.
    pub fn get_status(&self, to: &str, status: u16) -> Told<()> {
        self.json(Method::GET, to, &Value::Null, status).map(|_| ())
    }

    /// The only one of a list.
    pub fn one(&self, to: &str) -> Told<Value> {
        let list = self.get(to)?;
        match list["resources"].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            _ => Err(format!("{to}: {list}")),
        }
    }

    /// Posts, for an answer of this status.
    pub fn post(&self, to: &str, body: &Value, status: u16) -> Told<Value> {
        Ok(self.json(Method::POST, to, body, status)?.json())
    }

    /// Patches.
    pub fn patch(&self, to: &str, body: &Value) -> Told<Value> {
        Ok(self.json(Method::PATCH, to, body, 200)?.json())
    }

    /// Deletes what is deleted at once.
    pub fn delete(&self, to: &str) -> Told<()> {
        self.json(Method::DELETE, to, &Value::Null, 204).map(|_| ())
    }

    /// Deletes what a job deletes.
    pub fn delete_by_job(&self, to: &str) -> Told<()> {
        self.job(&self.json(Method::DELETE, to, &Value::Null, 202)?)
    }

    /// Waits for the job of an answer, which has to succeed.
    fn job(&self, answer: &Answer) -> Told<()> {
        let job = self.polled(answer.header("location"), &["PROCESSING", "POLLING"]);
        if job["state"] == "COMPLETE" { Ok(()) } else { Err(job.to_string()) }
    }

    /// Asks again and again until the state is none of these.
    pub fn polled(&self, to: &str, not: &[&str]) -> Value {
        eventually("what is asked for comes to its end", || {
            let now = self.get(to)?;
            let is_on = now["state"].as_str().is_some_and(|state| not.contains(&state));
            if is_on { Err(now.to_string()) } else { Ok(now) }
        })
    }

    fn manifest(&self, path: &str, manifest: &str, status: u16) -> Told<Answer> {
        let path = format!("/v3/spaces/{}/{path}", self.space);
        self.ask(Method::POST, &path, "application/x-yaml", manifest.to_owned(), status)
    }

    /// What a manifest would change.
    pub fn diff(&self, manifest: &str) -> Told<Value> {
        Ok(self.manifest("manifest_diff", manifest, 201)?.json())
    }

    /// Applies a manifest; the app of this name.
    pub fn apply(&self, manifest: &str, name: &str) -> Told<Value> {
        self.job(&self.manifest("actions/apply_manifest", manifest, 202)?)?;
        self.one(&format!("/v3/apps?names={name}&space_guids={}", self.space))
    }

    /// Asks which files are there already.
    pub fn matches(&self, app: &App) -> Told<Vec<Value>> {
        let body = json!({ "resources": app.resources() });
        let answer = self.post("/v3/resource_matches", &body, 201)?;
        Ok(answer["resources"].as_array().cloned().unwrap_or_default())
    }

    /// Makes a package.
    pub fn package(&self, app: &str) -> Told<Value> {
        let app = json!({ "app": { "data": { "guid": app } } });
        self.post("/v3/packages", &json!({ "type": "bits", "relationships": app }), 201)
    }

    /// Sends an app's files for a package and waits until it is ready.
    pub fn upload(&self, package: &str, app: &App, matched: &[Value]) -> Told<Value> {
        let package = format!("/v3/packages/{package}");
        self.ask(Method::POST, &format!("{package}/upload"), BITS, bits(app, matched), 200)?;
        let package = self.polled(&package, &["AWAITING_UPLOAD", "PROCESSING_UPLOAD"]);
        if package["state"] == "READY" { Ok(package) } else { Err(package.to_string()) }
    }

    /// Begins to send an app's files for a package. The connection is open still.
    pub fn begin_upload(&self, package: &str, app: &App, sent: Sent) -> io::Result<TcpStream> {
        let body = bits(app, &[]);
        let length = match sent {
            Sent::Half => body.len() / 2,
            Sent::AllButOne => body.len() - 1,
            Sent::All => body.len(),
        };
        let api: Uri = self.platform.url("api").parse().unwrap();
        let head = format!(
            "POST /v3/packages/{package}/upload HTTP/1.1\r\nHost: {}\r\nAuthorization: bearer {}\r\n\
             Content-Type: {BITS}\r\nContent-Length: {}\r\n\r\n",
            api.authority().unwrap(),
            self.token,
            body.len()
        );
        let mut stream = self.platform.world().connect(self.platform.port())?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body[..length])?;
        Ok(stream)
    }

    /// The files of a package, as a cell would have them.
    pub fn download(&self, package: &str) -> Told<Bytes> {
        let to = format!("/v3/packages/{package}/download");
        self.json(Method::GET, &to, &Value::Null, 200).map(|answer| answer.body)
    }

    /// Begins to build a package; the build's guid.
    pub fn build(&self, package: &str) -> Told<String> {
        let body = json!({ "package": { "guid": package } });
        self.post("/v3/builds", &body, 201).map(|build| guid(&build))
    }

    /// Waits for a build, which has to succeed; its droplet's guid.
    pub fn droplet(&self, build: &str) -> Told<String> {
        let build = self.polled(&format!("/v3/builds/{build}"), &["STAGING"]);
        if build["state"] == "STAGED" {
            Ok(guid(&build["droplet"]))
        } else {
            Err(build.to_string())
        }
    }

    /// Makes a droplet the app's own.
    pub fn assign(&self, app: &str, droplet: &str) -> Told<()> {
        let to = format!("/v3/apps/{app}/relationships/current_droplet");
        self.patch(&to, &json!({ "data": { "guid": droplet } })).map(|_| ())
    }

    /// Starts, stops or restarts an app; its state then.
    pub fn act(&self, app: &str, action: &str) -> Told<String> {
        let app = self.post(&format!("/v3/apps/{app}/actions/{action}"), &Value::Null, 200)?;
        Ok(app["state"].as_str().unwrap_or_default().to_owned())
    }

    /// The guid of an app's process `web`.
    pub fn web(&self, app: &str) -> Told<String> {
        self.one(&format!("/v3/apps/{app}/processes?types=web")).map(|process| guid(&process))
    }

    /// Waits until stats say that one instance runs, as the cf CLI does.
    pub fn started(&self, process: &str) -> Value {
        eventually("an instance runs", || {
            let stats = self.get(&format!("/v3/processes/{process}/stats"))?;
            let all = stats["resources"].as_array().unwrap();
            let one_runs = all.iter().any(|instance| instance["state"] == "RUNNING");
            if one_runs { Ok(stats) } else { Err(stats.to_string()) }
        })
    }

    /// All of a push, up to where an instance runs; the app's guid.
    pub fn push(&self, files: &App) -> Told<String> {
        self.push_watched(files, &mut |_| {})
    }

    /// A push that tells of its steps.
    pub fn push_watched(&self, files: &App, told: &mut dyn FnMut(Step)) -> Told<String> {
        let app = guid(&self.apply(&files.manifest("memory: 64M"), files.name)?);
        let matched = self.matches(files)?;
        let package = guid(&self.package(&app)?);
        told(Step::Uploads);
        self.upload(&package, files, &matched)?;
        let build = self.build(&package)?;
        told(Step::Builds);
        let droplet = self.droplet(&build)?;
        self.assign(&app, &droplet)?;
        self.act(&app, "restart")?;
        told(Step::Starts);
        self.started(&self.web(&app)?);
        Ok(app)
    }

    /// Texts of an app's log that Log Cache has, oldest first, with their source types.
    pub fn logs(&self, app: &str) -> Told<Vec<(String, String)>> {
        let to = format!(
            "{}/api/v1/read/{app}?descending=true&envelope_types=LOG&limit=1000&\
             start_time=-6795364578871345152",
            self.log_cache
        );
        let answer = self.get(&to)?;
        let batch = answer["envelopes"]["batch"].as_array().unwrap();
        let line = |envelope: &Value| {
            let payload = envelope["log"]["payload"].as_str().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
            let source = envelope["tags"]["source_type"].as_str().unwrap_or_default();
            (source.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(batch.iter().rev().map(line).collect())
    }

    /// Waits for a line from this source that has this text in it.
    pub fn logged(&self, app: &str, source: &str, text: &str) {
        eventually("a line is logged", || {
            let logs = self.logs(app)?;
            let found = logs.iter().any(|(of, line)| of == source && line.contains(text));
            if found { Ok(()) } else { Err(format!("no {text:?} of {source} in {logs:#?}")) }
        });
    }
}

/// A form with an app's files that are not among those matched.
fn bits(app: &App, matched: &[Value]) -> Vec<u8> {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"resources\"\r\n\r\n{}\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"bits\"; \
         filename=\"package.zip\"\r\nContent-Type: application/octet-stream\r\n\r\n",
        Value::from(matched)
    )
    .into_bytes();
    body.extend(app.archive_without(matched));
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
    body
}

/// A request for an absolute address.
fn at(method: Method, address: &str) -> http::request::Builder {
    let address: Uri = address.parse().unwrap();
    let path = address.path_and_query().map_or("/", |path| path.as_str());
    let host = address.authority().unwrap().as_str().to_owned();
    Request::builder().method(method).uri(path.to_owned()).header("host", host)
}

fn get(address: &str) -> http::request::Builder {
    at(Method::GET, address)
}

fn expect(answer: io::Result<Answer>, status: u16, to: &str) -> Told<Answer> {
    let answer = answer.map_err(|error| format!("{to}: {error}"))?;
    if answer.status != status {
        return Err(format!("{to}: {} {}", answer.status, answer.text()));
    }
    Ok(answer)
}

/// The guid of a resource.
pub fn guid(resource: &Value) -> String {
    resource["guid"].as_str().unwrap_or_else(|| panic!("no guid: {resource}")).to_owned()
}

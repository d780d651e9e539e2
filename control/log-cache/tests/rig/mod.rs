//! Recordings, and what a log-cache has around it.

// Each test program uses its part.
#![allow(dead_code)]

pub mod grpc;

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use log_cache::{Access, v1, v2};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use transport::{Address, Listener};
use uaa::{ClientDetails, Config, PasswordCost, Peer, Secret, SeedUser, Uaa};

/// One recorded exchange.
pub struct Exchange(Value);

pub fn load(flow: &str) -> Vec<Exchange> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let text = std::fs::read_to_string(path.join(format!("{flow}.jsonl"))).unwrap();
    // The first line says what the others are.
    let lines = text.lines().skip(1);
    lines.map(|line| Exchange(serde_json::from_str(line).unwrap())).collect()
}

impl Exchange {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    pub fn step(&self) -> &str {
        self.text("step")
    }

    pub fn from(&self) -> &str {
        self.text("from")
    }

    pub fn goes(&self, from: &str, to: &str) -> bool {
        self.from() == from && self.text("to") == to
    }

    pub fn call(&self) -> Option<&str> {
        self.0["call"].as_str()
    }

    pub fn about(&self) -> String {
        format!("{} {}: {}", self.0["n"], self.step(), self.0["request"]["line"])
    }

    /// Method, target and headers.
    pub fn request(&self) -> (Method, String, Vec<(String, String)>) {
        let line = self.0["request"]["line"].as_str().unwrap();
        let mut words = line.split(' ');
        let method = words.next().unwrap().parse().unwrap();
        let target = words.next().unwrap().to_owned();
        let headers = self.0["request"]["headers"].as_array().unwrap().iter();
        let headers = headers.map(|header| header.as_str().unwrap().split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (method, target, headers.collect())
    }

    /// Status, content type and body.
    pub fn response(&self) -> (u16, Option<String>, String) {
        let response = &self.0["response"];
        let status = response["line"].as_str().unwrap().split(' ').nth(1).unwrap();
        let headers = response["headers"].as_array().unwrap().iter();
        let mut kind = headers
            .filter_map(|header| header.as_str().unwrap().strip_prefix("Content-Type: "))
            .map(ToOwned::to_owned);
        let body = response["body_text"].as_str().unwrap_or_default();
        (status.parse().unwrap(), kind.next_back(), body.to_owned())
    }

    /// The one message of this side.
    pub fn message(&self, side: &str) -> Vec<u8> {
        let frames = self.0["frames"].as_array().unwrap().iter();
        let bytes =
            frames.filter(|frame| frame["by"] == side).find_map(|frame| frame["b64"].as_str());
        BASE64_STANDARD.decode(bytes.unwrap()).unwrap()
    }

    /// Code and text that end a gRPC call.
    pub fn status(&self) -> Option<(i32, String)> {
        let frames = self.0["frames"].as_array()?.iter();
        let trailers = frames.filter_map(|frame| frame["trailers"].as_array()).flatten();
        let mut trailers = trailers.filter_map(|trailer| trailer.as_str()?.split_once(": "));
        let code = trailers.find(|(name, _)| *name == "grpc-status")?.1.parse().unwrap();
        let text = trailers.find(|(name, _)| *name == "grpc-message").map_or("", |text| text.1);
        Some((code, text.to_owned()))
    }

    /// Envelopes that came in by this exchange.
    pub fn sent(&self) -> Vec<v2::Envelope> {
        if self.call() != Some("/logcache.v1.Ingress/Send") {
            return Vec::new();
        }
        let message = v1::SendRequest::decode(&self.message("client")[..]).unwrap();
        message.envelopes.unwrap().batch
    }

    /// Puts values in the place of their names.
    pub fn fill_in(&mut self, values: &[(&str, String)]) {
        let mut text = self.0.to_string();
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        self.0 = serde_json::from_str(&text).unwrap();
    }
}

pub fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// Equal, where 1.0 is 1.
#[track_caller]
pub fn same_json(own: &Value, expected: &Value, about: &str) {
    fn plain(value: &Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64()),
            Value::Array(items) => items.iter().map(plain).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
            }
            other => other.clone(),
        }
    }
    assert_eq!(plain(own), plain(expected), "{about}");
}

/// A UAA, and a Cloud Controller that shows everybody two apps and remembers what it was asked.
pub struct Platform {
    uaa: Uaa,
    pub tokens: Vec<(&'static str, String)>,
    asked: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

const APPS: [&str; 2] =
    ["11111111-aaaa-4bbb-8ccc-000000000001", "66666666-aaaa-4bbb-8ccc-000000000006"];

impl Platform {
    pub async fn start() -> Self {
        let (uaa, dir) = open_uaa().await;
        let (stranger, _other_dir) = open_uaa().await;
        let mut tokens = Vec::new();
        for (name, user) in [
            ("token with doppler.firehose", "firehose"),
            ("token with logs.admin", "logs"),
            ("user token", "user"),
        ] {
            tokens.push((name, token(&uaa, user).await));
        }
        tokens.push(("token of unknown key", token(&stranger, "firehose").await));
        // Another way to be no good: how UAA's tokens expire is tested there.
        tokens.push(("expired token", tokens[0].1.replace('A', "B")));
        Self { uaa, tokens, asked: Arc::default(), stop: CancellationToken::new(), _dir: dir }
    }

    pub fn access(&self) -> Access {
        let asked = self.asked.clone();
        let cloud_controller = Peer::new(move |request: Request<Bytes>| {
            let target = request.uri().to_string();
            let answer = cloud_controller(&target);
            asked.lock().unwrap().push(target);
            Box::pin(async move { Ok(answer) })
        });
        Access::new(self.uaa.verifier("cloud_controller"), cloud_controller)
    }

    /// The issuer that tokens name.
    pub fn issuer(&self) -> String {
        self.uaa.issuer()
    }

    /// UAA on a socket.
    pub async fn serve_uaa(&self) -> Address {
        self.serve(self.uaa.routes()).await
    }

    /// Cloud Controller on a socket.
    pub async fn serve_cloud_controller(&self) -> Address {
        self.serve(Router::new().fallback(async |request: axum::extract::Request| {
            cloud_controller(&request.uri().to_string()).map(axum::body::Body::from)
        }))
        .await
    }

    async fn serve(&self, routes: Router) -> Address {
        let listener = Listener::bind(&"http://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = listener.address().unwrap();
        tokio::spawn(transport::Server::new(listener).serve(routes, self.stop.clone()));
        address
    }

    /// Ends what was served.
    pub async fn stop(self) {
        self.stop.cancel();
        self.uaa.close().await;
    }

    /// What Cloud Controller was asked since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens.iter().find(|(own, _)| *own == name).unwrap().1
    }
}

fn cloud_controller(target: &str) -> Response<Bytes> {
    let (status, body) = match target {
        "/v3/apps?per_page=5000" => {
            let apps: Vec<Value> = APPS.iter().map(|guid| json!({"guid": guid})).collect();
            (StatusCode::OK, json!({"pagination": {"next": null}, "resources": apps}))
        }
        "/v3/service_instances?per_page=5000" => {
            (StatusCode::OK, json!({"pagination": {"next": null}, "resources": []}))
        }
        _ if APPS.iter().any(|guid| target == format!("/v3/apps/{guid}")) => {
            (StatusCode::OK, json!({}))
        }
        _ => (StatusCode::NOT_FOUND, json!({"errors": []})),
    };
    Response::builder().status(status).body(Bytes::from(body.to_string())).unwrap()
}

async fn open_uaa() -> (Uaa, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let tester = ClientDetails {
        secret: Some(Secret("s".into())),
        authorized_grant_types: words("password refresh_token"),
        scope: words("cloud_controller.read doppler.firehose logs.admin"),
        ..ClientDetails::default()
    };
    let user = |name: &str, groups: &str| SeedUser {
        user_name: name.into(),
        password: Secret("p".into()),
        groups: words(groups),
        ..SeedUser::default()
    };
    let config = Config {
        data_dir: dir.path().into(),
        users: vec![
            user("firehose", "doppler.firehose"),
            user("logs", "logs.admin"),
            user("user", "cloud_controller.read"),
        ],
        clients: [("tester".to_owned(), tester)].into(),
        password_cost: PasswordCost { memory_kib: 64, passes: 1 },
        ..Config::default()
    };
    (Uaa::open(config).await.unwrap(), dir)
}

async fn token(uaa: &Uaa, user: &str) -> String {
    let basic = BASE64_STANDARD.encode("tester:s");
    let request = Request::post("/oauth/token")
        .header("authorization", format!("Basic {basic}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(format!("grant_type=password&username={user}&password=p")));
    let answer = Peer::local(uaa.routes()).send(request.unwrap()).await.unwrap();
    let answer = json_of(answer.body());
    answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

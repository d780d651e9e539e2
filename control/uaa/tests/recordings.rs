//! The cf CLI's log-ins, as recorded, against our routes.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use uaa::{
    ClientDetails, Config, PasswordCost, Peer, PublicKeys, Secret, SeedUser, TokenVerifier, Uaa,
};

fn config(dir: &Path) -> Config {
    let cid = ClientDetails {
        secret: Some(Secret("csecret".into())),
        authorized_grant_types: vec!["client_credentials".into()],
        authorities: vec!["cloud_controller.admin".into(), "scim.userids".into()],
        ..ClientDetails::default()
    };
    Config {
        data_dir: dir.into(),
        uaa_url: "http://uaa.example.test".into(),
        login_url: "http://login.example.test".into(),
        users: vec![SeedUser {
            user_name: "admin".into(),
            password: Secret("secret".into()),
            groups: ["cloud_controller.admin", "scim.read", "scim.write", "clients.read"]
                .map(String::from)
                .into(),
            ..SeedUser::default()
        }],
        clients: [("cid".to_owned(), cid)].into(),
        client_secrets: [("network-policy".to_owned(), Secret("np".into()))].into(),
        password_cost: PasswordCost { memory_kib: 64, passes: 1 },
    }
}

struct Server {
    uaa: Uaa,
    peer: Peer,
    _dir: tempfile::TempDir,
}

async fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let uaa = Uaa::open(config(dir.path())).await.unwrap();
    Server { peer: Peer::local(uaa.routes()), uaa, _dir: dir }
}

impl Server {
    async fn ask(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let answer = self.peer.send(request.body(body.into()).unwrap()).await.unwrap();
        Answer(answer)
    }

    async fn token(&self, form: &str) -> Answer {
        self.ask(
            Request::post("/oauth/token").header("authorization", "Basic Y2Y6"),
            form.to_owned(),
        )
        .await
    }

    async fn log_in(&self, password: &str) -> Answer {
        self.token(&format!("grant_type=password&username=admin&password={password}")).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        Answer(self.peer.get(path, Some(token)).await.unwrap())
    }
}

struct Answer(Response<Bytes>);

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap()
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.0.status(), StatusCode::OK, "{:?}", self.0);
        self.json()
    }

    #[track_caller]
    fn refused(&self, status: u16, error: &str) {
        assert_eq!(self.0.status().as_u16(), status, "{:?}", self.0);
        assert_eq!(self.json()["error"], error);
    }
}

fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Everything that `small` names is in `whole`; values may differ, kinds and lengths may not.
fn covers(whole: &Value, small: &Value, at: &str) {
    match small {
        Value::Object(fields) => {
            for (name, value) in fields {
                let found = whole.get(name).unwrap_or_else(|| panic!("{at}.{name} is missing"));
                covers(found, value, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                covers(&whole[index], value, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(whole),
            std::mem::discriminant(small),
            "{at} is {whole}, not like {small}"
        ),
    }
}

/// Cases in which the stand-in was told to fail, or which need what is not served: passcodes.
const NOT_OURS: [&str; 9] = [
    "auth-locked",
    "auth-uaa-500",
    "auth-old-api",
    "login-passcode",
    "login-no-prompts",
    "login-uaa-login-404",
    "target-token-without-exp",
    "target-token-without-origin",
    "target-token-without-user-id",
];

#[tokio::test]
async fn the_clis_requests_get_what_the_cli_needs() {
    let server = server().await;
    let mut seen = 0;
    for file in ["auth", "login"] {
        let path = format!("{}/tests/recordings/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let mut case = String::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(name) = line["case"].as_str() {
                case = name.to_owned();
            }
            let ours = ["LOGIN", "UAA"].iter().any(|to| line["to"] == **to);
            if !ours || line["auth"] == "bearer" || NOT_OURS.contains(&&*case) {
                continue;
            }
            let (method, path) = line["request"].as_str().unwrap().split_once(' ').unwrap();
            let mut request = Request::builder().method(method).uri(path);
            if line["auth"] == "basic cf:" {
                request = request.header("authorization", "Basic Y2Y6");
            }
            let body = line["body"].as_str().unwrap_or_default().to_owned();
            let answer = server.ask(request, body).await;
            assert_eq!(
                json!(answer.0.status().as_u16()),
                line["status"],
                "{case}: {answer:?}",
                answer = answer.0
            );
            covers(&answer.json(), &line["answer"], &case);
            if answer.0.status().is_client_error() {
                assert_eq!(answer.json(), line["answer"], "{case}");
            } else if method == "POST" {
                assert_eq!(claims(&answer.json()["access_token"])["zid"], "uaa");
            }
            seen += 1;
        }
    }
    assert!(seen >= 18, "{seen}");
}

#[tokio::test]
async fn a_users_token_says_what_clients_read() {
    let server = server().await;
    let answer = server.log_in("secret").await.ok();
    assert_eq!(answer["token_type"], "bearer");
    assert_eq!(answer["expires_in"], 1199);
    let claims = claims(&answer["access_token"]);
    assert_eq!(claims["user_name"], "admin");
    assert_eq!(claims["origin"], "uaa");
    assert_eq!(claims["sub"], claims["user_id"]);
    assert_eq!(claims["iss"], "http://uaa.example.test/oauth/token");
    assert_eq!(claims["jti"], answer["jti"]);
    let scope: Vec<&str> = answer["scope"].as_str().unwrap().split(' ').collect();
    assert!(scope.contains(&"cloud_controller.admin") && scope.contains(&"openid"), "{scope:?}");
    assert!(!scope.contains(&"network.admin"), "the user is not in that group: {scope:?}");
    assert!(claims["aud"].as_array().unwrap().contains(&json!("cloud_controller")));
    let verifier = server.uaa.verifier("cloud_controller");
    let verified = verifier.verify(answer["access_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(verified.user_name.as_deref(), Some("admin"));
    let elsewhere = server.uaa.verifier("credhub");
    assert!(elsewhere.verify(answer["access_token"].as_str().unwrap()).await.is_err());
}

#[tokio::test]
async fn tokens_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = Uaa::open(config(dir.path())).await.unwrap();
    let server = Server { peer: Peer::local(first.routes()), uaa: first, _dir: dir };
    let before = server.log_in("secret").await.ok();
    server.uaa.close().await;
    let again = Uaa::open(config(server._dir.path())).await.unwrap();
    let access = before["access_token"].as_str().unwrap();
    again.verifier("cloud_controller").verify(access).await.unwrap();
    let server = Server { peer: Peer::local(again.routes()), uaa: again, _dir: server._dir };
    let refresh = before["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let after = server.token(&form).await.ok();
    assert_ne!(after["jti"], before["jti"]);
    assert_eq!(
        claims(&after["access_token"])["user_id"],
        claims(&before["access_token"])["user_id"]
    );
    server.token("grant_type=refresh_token&refresh_token=x").await.refused(401, "invalid_token");
    let form = format!("grant_type=refresh_token&refresh_token={access}");
    server.token(&form).await.refused(401, "invalid_token");
    let verifier = server.uaa.verifier("cloud_controller");
    assert!(verifier.verify(refresh).await.is_err(), "a refresh token is no access token");
}

#[tokio::test]
async fn a_new_password_ends_old_tokens() {
    let server = server().await;
    let tokens = server.log_in("secret").await.ok();
    let (access, refresh) = (&tokens["access_token"], &tokens["refresh_token"]);
    let id = claims(access)["user_id"].as_str().unwrap().to_owned();
    let change = |old: &str, new: &str| {
        let body = json!({"oldPassword": old, "password": new}).to_string();
        let request = Request::put(format!("/Users/{id}/password"))
            .header("content-type", "application/json")
            .header("authorization", format!("bearer {}", access.as_str().unwrap()));
        server.ask(request, body)
    };
    change("wrong", "new").await.refused(401, "unauthorized");
    change("secret", "secret").await.refused(422, "invalid_password");
    change("secret", "new").await.ok();
    server.log_in("secret").await.refused(401, "unauthorized");
    server.log_in("new").await.ok();
    let form = format!("grant_type=refresh_token&refresh_token={}", refresh.as_str().unwrap());
    server.token(&form).await.refused(401, "invalid_token");
    server.get("/Users", access.as_str().unwrap()).await.refused(401, "invalid_token");
}

#[tokio::test]
async fn guessing_locks_the_account() {
    let server = server().await;
    for _ in 0..5 {
        server.log_in("wrong").await.refused(401, "unauthorized");
    }
    let answer = server.log_in("secret").await;
    answer.refused(401, "unauthorized");
    let description = answer.json()["error_description"].clone();
    assert_eq!(
        description,
        "Your account has been locked because of too many failed attempts to login."
    );
}

#[tokio::test]
async fn users_come_and_go_as_the_cli_asks() {
    let server = server().await;
    let token = server.log_in("secret").await.ok()["access_token"].as_str().unwrap().to_owned();
    let create = |body: Value| {
        let request = Request::post("/Users")
            .header("content-type", "application/json")
            .header("authorization", format!("bearer {token}"));
        server.ask(request, body.to_string())
    };
    let body = json!({"userName": "u9", "password": "pw", "origin": "",
        "name": {"familyName": "u9", "givenName": "u9"}, "emails": [{"value": "u9", "primary": true}]});
    let answer = create(body.clone()).await;
    assert_eq!(answer.0.status(), StatusCode::CREATED);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.json()["origin"], "uaa");
    create(body).await.refused(409, "scim_resource_already_exists");
    let query = "/Users?filter=userName+eq+%22U9%22+and+origin+eq+%22uaa%22";
    let found = server.get(query, &token).await.ok();
    assert_eq!(found["resources"][0]["id"], json!(id));
    assert_eq!(found["totalResults"], 1);
    let own = server.token("grant_type=password&username=u9&password=pw").await.ok();
    let own = own["access_token"].as_str().unwrap();
    server.get(query, own).await.refused(403, "insufficient_scope");
    server.get(&format!("/Users/{id}"), own).await.ok();
    let request =
        Request::delete(format!("/Users/{id}")).header("authorization", format!("bearer {token}"));
    server.ask(request, "").await.ok();
    server.token("grant_type=password&username=u9&password=pw").await.refused(401, "unauthorized");
    server.get(&format!("/Users/{id}"), &token).await.refused(404, "scim_resource_not_found");
    server.get(&format!("/Users/{id}"), own).await.refused(401, "invalid_token");
    server.get("/oauth/clients/nope", &token).await.refused(404, "invalid_client");
    assert_eq!(server.get("/oauth/clients/cid", &token).await.ok()["client_id"], "cid");
}

#[tokio::test]
async fn a_component_learns_names_and_keys_over_http() {
    let server = server().await;
    let client = uaa::Client::new(server.peer.clone(), "cid", Secret("csecret".into()));
    let users = client.users_by_name(&["admin".into(), "a\"b".into()], Some("uaa")).await.unwrap();
    assert_eq!(users.len(), 1);
    let again = client.users_by_id(&[users[0].id.clone(), "unknown".into()]).await.unwrap();
    assert_eq!(again, users);
    assert!(client.client_exists("cf").await.is_err(), "it lacks clients.read");

    let token = server.log_in("secret").await.ok()["access_token"].as_str().unwrap().to_owned();
    let keys = PublicKeys::remote(server.peer.clone());
    let verifier = TokenVerifier::new(keys, &server.uaa.issuer(), Some("cloud_controller"));
    assert_eq!(verifier.verify(&token).await.unwrap().user_name.as_deref(), Some("admin"));
    let forged = format!("{}x", &token[..token.len() - 1]);
    assert!(verifier.verify(&forged).await.is_err());
    assert!(verifier.verify("no token").await.is_err());

    let check = |secret: &str, form: String| {
        let basic =
            base64::engine::general_purpose::STANDARD.encode(format!("network-policy:{secret}"));
        server.ask(
            Request::post("/check_token").header("authorization", format!("Basic {basic}")),
            form,
        )
    };
    let answer = check("np", format!("token={token}&scopes=cloud_controller.read")).await.ok();
    assert_eq!(answer["user_name"], "admin");
    check("np", format!("token={token}&scopes=network.admin")).await.refused(400, "invalid_scope");
    check("np", "token=x".into()).await.refused(400, "invalid_token");
    check("no", format!("token={token}")).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn scopes_can_be_narrowed_but_not_widened() {
    let server = server().await;
    let form = "grant_type=password&username=admin&password=secret&scope=";
    let all = server.token(form).await.ok();
    assert!(all["scope"].as_str().unwrap().contains("cloud_controller.admin"));
    let one = server.token(&format!("{form}openid")).await.ok();
    assert_eq!(one["scope"], "openid");
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        one["refresh_token"].as_str().unwrap()
    );
    assert_eq!(server.token(&form).await.ok()["scope"], "openid");
    server
        .token("grant_type=password&username=admin&password=secret&scope=uaa.admin")
        .await
        .refused(400, "invalid_scope");
    server.token("grant_type=implicit").await.refused(400, "unsupported_grant_type");
    server.token("grant_type=client_credentials").await.refused(401, "invalid_client");
    server.token("").await.refused(400, "invalid_request");
}

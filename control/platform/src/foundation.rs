//! What every installation has, made through the public API at the first start.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use lifecycle::buildpacks::{self, Buildpack};
use serde_json::{Value, json};
use uaa::Peer;

use crate::error::Error;

/// The org and the space that are there to push to.
const ORG: &str = "dev";
const SPACE: &str = "dev";

const BOUNDARY: &str = "bloomery-buildpack";

/// The API, asked as the user `admin`.
#[derive(Debug)]
pub struct Api {
    peer: Peer,
    token: String,
}

impl Api {
    /// Logs in.
    pub async fn log_in(api: Peer, uaa: &Peer, password: &str) -> Result<Self, Error> {
        let form = format!("grant_type=password&username=admin&password={password}");
        let request = Request::post("/oauth/token")
            .header("authorization", "Basic Y2Y6")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(form));
        let answer = ask(uaa, "log in as admin", request).await?;
        let token = answer["access_token"].as_str().unwrap_or_default().to_owned();
        Ok(Self { peer: api, token })
    }

    async fn call(
        &self,
        action: &str,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Value, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("bearer {}", self.token))
            .header("content-type", kind)
            .body(Bytes::from(body));
        ask(&self.peer, action, request).await
    }

    async fn get(&self, action: &str, path: &str) -> Result<Value, Error> {
        self.call(action, Method::GET, path, "application/json", Vec::new()).await
    }

    async fn post(&self, action: &str, path: &str, body: Value) -> Result<Value, Error> {
        let body = body.to_string().into_bytes();
        self.call(action, Method::POST, path, "application/json", body).await
    }

    /// Guid of the first of a list, if there is one.
    async fn find(&self, what: &str, path: &str) -> Result<Option<String>, Error> {
        let found = self.get(&format!("look for {what}"), path).await?;
        Ok(found["resources"][0]["guid"].as_str().map(str::to_owned))
    }
}

async fn ask(
    peer: &Peer,
    action: &str,
    request: Result<Request<Bytes>, http::Error>,
) -> Result<Value, Error> {
    let failed = |answer: String| Error::Foundation { action: action.to_owned(), answer };
    let request = request.map_err(|error| failed(error.to_string()))?;
    let answer = peer.send(request).await.map_err(|error| failed(error.to_string()))?;
    let (status, body) = (answer.status(), answer.into_body());
    if !status.is_success() {
        return Err(failed(format!("{status} {}", String::from_utf8_lossy(&body))));
    }
    if status == StatusCode::ACCEPTED || body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}

/// Makes org, space and buildpacks where they are missing. What a user has deleted comes back with
/// the next start only if nothing of its kind is left.
pub async fn lay(api: &Api) -> Result<(), Error> {
    if api.find("orgs", "/v3/organizations?per_page=1").await?.is_none() {
        let org = api.post("make the org", "/v3/organizations", json!({ "name": ORG })).await?;
        let space = json!({
            "name": SPACE,
            "relationships": { "organization": { "data": { "guid": org["guid"] } } },
        });
        api.post("make the space", "/v3/spaces", space).await?;
    }
    for (position, buildpack) in (1..).zip(buildpacks::ALL) {
        install(api, buildpack, position).await?;
    }
    Ok(())
}

/// Installs a buildpack under its name, unless it is there with the same content: its file's name
/// carries the version of the platform that brought it.
async fn install(api: &Api, buildpack: &Buildpack, position: u32) -> Result<(), Error> {
    let name = buildpack.name;
    let file = format!("{name}-v{}.zip", env!("CARGO_PKG_VERSION"));
    let path = format!("/v3/buildpacks?names={name}");
    let found = api.get("look for buildpacks", &path).await?;
    let found = &found["resources"][0];
    if found["filename"] == file.as_str() || found["locked"] == true {
        return Ok(());
    }
    let guid = match found["guid"].as_str() {
        Some(guid) => guid.to_owned(),
        None => {
            let body = json!({ "name": name, "position": position });
            let made = api.post("make a buildpack", "/v3/buildpacks", body).await?;
            made["guid"].as_str().unwrap_or_default().to_owned()
        }
    };
    let archive = buildpack.archive().map_err(|error| Error::Foundation {
        action: format!("pack {name}"),
        answer: error.to_string(),
    })?;
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"bits\"; filename=\"{file}\"\r\n\
         Content-Type: application/zip\r\n\r\n"
    )
    .into_bytes();
    body.extend(archive);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let path = format!("/v3/buildpacks/{guid}/upload");
    api.call(&format!("upload {file}"), Method::POST, &path, &kind, body).await?;
    Ok(())
}

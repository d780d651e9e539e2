//! Asking Cloud Controller, UAA and log-cache.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Refusal};
use crate::names::Names;
use crate::session::{Named, Session};

/// As the cf CLI calls itself, since servers tell it apart: log-cache gives it its lines at once.
const AGENT: &str = concat!("cf/8.99.0 (bloomery ", env!("CARGO_PKG_VERSION"), ")");
/// A token that ends sooner is renewed first.
const SOON: u64 = 60;
/// Between two looks at something that is under way. Our servers hold the answer until it changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a question that changes nothing is asked.
const TRIES: u32 = 3;

/// Asks with the session's tokens, and keeps the session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub session: Session,
    file: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Tokens {
    access_token: String,
    #[serde(default)]
    refresh_token: String,
}

/// What of a token is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    user_name: String,
    client_id: String,
    exp: u64,
}

fn claims(token: &str) -> Option<Claims> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

impl Client {
    pub fn new(session: Session, file: PathBuf) -> Result<Self, Error> {
        let http = http(session.skip_ssl_validation)?;
        Ok(Self { http, session, file })
    }

    /// Another endpoint: everything that was known is forgotten.
    pub fn start_over(&mut self, api: &str, skip_ssl_validation: bool) -> Result<(), Error> {
        self.http = http(skip_ssl_validation)?;
        self.session = Session { api: api.into(), skip_ssl_validation, ..Session::default() };
        Ok(())
    }

    pub fn save(&self) -> Result<(), Error> {
        self.session.save(&self.file)
    }

    /// The name of who is logged in.
    pub fn user(&self) -> Result<String, Error> {
        let claims = claims(&self.session.access_token).ok_or(Error::NotLoggedIn)?;
        Ok(if claims.user_name.is_empty() { claims.client_id } else { claims.user_name })
    }

    pub fn space(&self) -> Result<Named, Error> {
        self.user()?;
        self.session.org.as_ref().ok_or(Error::NoOrg)?;
        self.session.space.clone().ok_or(Error::NoSpace)
    }

    /// `org o1 / space s1 as admin`.
    pub fn place(&self) -> Result<String, Error> {
        let (user, space) = (self.user()?, self.space()?);
        let org = self.session.org.clone().ok_or(Error::NoOrg)?;
        Ok(format!("org {} / space {} as {user}", org.name, space.name))
    }

    /// The answer of a server that is asked without a token.
    pub async fn get_openly(&self, url: &str) -> Result<Value, Error> {
        decode(self.try_thrice(|| self.http.get(url), url).await?).await
    }

    /// New tokens from UAA, by this form.
    pub async fn grant(&mut self, form: &[(&str, &str)]) -> Result<(), Error> {
        let url = format!("{}/oauth/token", self.session.login);
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let request = self
            .http
            .post(&url)
            .basic_auth("cf", Some(""))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(body.join("&"));
        let tokens: Tokens = decode(send(request, "POST", &url).await?).await?;
        self.session.access_token = tokens.access_token;
        if !tokens.refresh_token.is_empty() {
            self.session.refresh_token = tokens.refresh_token;
        }
        Ok(())
    }

    async fn token(&mut self) -> Result<String, Error> {
        if self.session.api.is_empty() {
            return Err(Error::NoApi);
        }
        let claims = claims(&self.session.access_token).ok_or(Error::NotLoggedIn)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if claims.exp < now + SOON {
            let refresh = self.session.refresh_token.clone();
            let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh)];
            match self.grant(&form).await {
                Err(error) if matches!(error.status(), Some(400 | 401)) => {
                    return Err(Error::NotLoggedIn);
                }
                granted => granted?,
            }
            self.save()?;
        }
        Ok(self.session.access_token.clone())
    }

    /// A request to Cloud Controller, not sent yet.
    pub async fn request(&mut self, method: Method, path: &str) -> Result<RequestBuilder, Error> {
        let token = self.token().await?;
        let request = self.http.request(method, self.url(path));
        Ok(request.bearer_auth(token).header(header::ACCEPT, "application/json"))
    }

    /// Paths are Cloud Controller's; it names others by whole URLs.
    fn url(&self, path: &str) -> String {
        if path.contains("://") { path.to_owned() } else { format!("{}{path}", self.session.api) }
    }

    pub async fn get(&mut self, path: &str) -> Result<Value, Error> {
        let (token, url) = (self.token().await?, self.url(path));
        self.get_with(&token, &url).await
    }

    /// An answer of log-cache.
    pub async fn get_logs(&mut self, path: &str) -> Result<Value, Error> {
        let (token, url) = (self.token().await?, format!("{}{path}", self.session.log_cache));
        self.get_with(&token, &url).await
    }

    async fn get_with(&self, token: &str, url: &str) -> Result<Value, Error> {
        let request = || {
            let request = self.http.get(url).bearer_auth(token);
            request.header(header::ACCEPT, "application/json")
        };
        decode(self.try_thrice(request, url).await?).await
    }

    async fn try_thrice(
        &self,
        request: impl Fn() -> RequestBuilder,
        url: &str,
    ) -> Result<Response, Error> {
        let mut tried = 1;
        loop {
            match send(request(), "GET", url).await {
                Err(error) if tried < TRIES && may_pass(&error) => tried += 1,
                result => return result,
            }
        }
    }

    /// All resources of a list, page after page.
    pub async fn list<T: DeserializeOwned>(&mut self, path: &str) -> Result<Vec<T>, Error> {
        #[derive(Deserialize)]
        struct Page<T> {
            resources: Vec<T>,
            #[serde(default)]
            pagination: Pagination,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Pagination {
            next: Option<Link>,
        }
        #[derive(Deserialize)]
        struct Link {
            href: String,
        }
        let mut all = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let page: Page<T> = read(self.get(&path).await?, &path)?;
            all.extend(page.resources);
            next = page.pagination.next.map(|link| link.href);
        }
        Ok(all)
    }

    /// What a POST, PATCH or DELETE with this JSON is answered with, and where its job is.
    pub async fn change(
        &mut self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(Value, Option<String>), Error> {
        let mut request = self.request(method.clone(), path).await?;
        if !body.is_null() {
            request = request.json(body);
        }
        self.finish(request, &method, path).await
    }

    /// Sends a request that changes something.
    pub async fn finish(
        &self,
        request: RequestBuilder,
        method: &Method,
        path: &str,
    ) -> Result<(Value, Option<String>), Error> {
        let answer = send(request, method.as_str(), &self.url(path)).await?;
        let location = answer.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let job = location.filter(|_| answer.status() == StatusCode::ACCEPTED);
        let body = answer.bytes().await.unwrap_or_default();
        Ok((serde_json::from_slice(&body).unwrap_or_default(), job))
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, Error> {
        Ok(self.change(Method::POST, path, body).await?.0)
    }

    /// Waits for a job to end.
    pub async fn wait_for(&mut self, job: Option<String>) -> Result<(), Error> {
        let Some(job) = job else { return Ok(()) };
        loop {
            let seen = self.get(&job).await?;
            for warning in seen["warnings"].as_array().into_iter().flatten() {
                eprintln!("{}", warning["detail"].as_str().unwrap_or_default());
            }
            match seen["state"].as_str() {
                Some("COMPLETE") => return Ok(()),
                Some("FAILED") => {
                    let errors = seen["errors"].as_array();
                    let details = errors.into_iter().flatten();
                    let details: Vec<&str> =
                        details.filter_map(|error| error["detail"].as_str()).collect();
                    let none = "Job failed with no error. This is unexpected, contact your \
                                operator for details.";
                    return Err(Error::said(match &details[..] {
                        [] => none.to_owned(),
                        details => details.join("\n"),
                    }));
                }
                _ => pause().await,
            }
        }
    }
}

/// Between two looks at something that is under way.
pub(crate) async fn pause() {
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Percent-encoded, for a place in a query or a path.
pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// An answer as what it should be.
pub(crate) fn read<T: DeserializeOwned>(answer: Value, of: &str) -> Result<T, Error> {
    serde_json::from_value(answer)
        .map_err(|error| Error::said(format!("Invalid JSON content from server: {of}: {error}")))
}

fn http(skip_ssl_validation: bool) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .user_agent(AGENT)
        .dns_resolver(std::sync::Arc::new(Names))
        .connect_timeout(Duration::from_secs(6))
        .tls_danger_accept_invalid_certs(skip_ssl_validation)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|source| Error::Unreachable { call: "preparing".into(), source })
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused(refusal) => matches!(refusal.status, 500 | 502..=504),
        _ => false,
    }
}

async fn send(request: RequestBuilder, method: &str, url: &str) -> Result<Response, Error> {
    let lost = |source| Error::Unreachable { call: format!("{method} {url}"), source };
    let answer = request.send().await.map_err(lost)?;
    let warnings = answer.headers().get_all("x-cf-warnings").iter();
    for warning in warnings.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(',')) {
        let warning = warning.replace('+', " ");
        eprintln!("{}", percent_encoding::percent_decode_str(&warning).decode_utf8_lossy());
    }
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.text().await.map_err(lost)?;
    Err(Error::Refused(Refusal { status: status.as_u16(), body }))
}

async fn decode<T: DeserializeOwned>(answer: Response) -> Result<T, Error> {
    let url = answer.url().to_string();
    let body = answer.bytes().await;
    let body = body.map_err(|source| Error::Unreachable { call: url.clone(), source })?;
    serde_json::from_slice(&body)
        .map_err(|error| Error::said(format!("Invalid JSON content from server: {url}: {error}")))
}

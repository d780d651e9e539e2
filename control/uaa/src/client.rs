//! What other components ask of a UAA, over its HTTP API.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};
use tower::ServiceExt;

use crate::config::Secret;

type Answer = Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

/// The most that an answer may hold.
const LIMIT: usize = 8 << 20;
/// Names asked for in one request.
const BATCH: usize = 200;

/// A way to an HTTP server: requests carry a path and no host. A clone is the same way.
#[derive(Clone)]
pub struct Peer(Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync>);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer")
    }
}

impl Peer {
    /// A peer that `ask` reaches, over whatever connection.
    pub fn new(
        ask: impl Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// The server of these routes, in this process: the same requests and answers without a socket.
    pub fn local(routes: Router) -> Self {
        Self::new(move |request| {
            let routes = routes.clone();
            Box::pin(async move {
                let answer = routes.oneshot(request.map(axum::body::Body::from)).await?;
                let (head, body) = answer.into_parts();
                Ok(Response::from_parts(head, axum::body::to_bytes(body, LIMIT).await?))
            })
        })
    }

    /// Sends a request.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        (self.0)(request).await
    }

    /// Sends a GET, with a bearer token if one is given.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::builder().method(Method::GET).uri(path);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("bearer {token}"));
        }
        self.send(request.body(Bytes::new())?).await
    }
}

/// Why a UAA did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("cannot ask UAA for {path}: {source}")]
    Unreachable {
        /// What was asked for.
        path: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refused, or said what is no answer.
    #[error("UAA answers {status} to {path}: {reason}")]
    Refused {
        /// What was asked for.
        path: String,
        /// Status of the answer.
        status: StatusCode,
        /// What is wrong.
        reason: String,
    },
}

/// A user as `/ids/Users` tells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KnownUser {
    /// Id.
    pub id: String,
    /// Name to log in with.
    #[serde(rename = "userName")]
    pub user_name: String,
    /// Identity provider.
    pub origin: String,
}

/// Asks as a client with a token of its own, which it keeps until shortly before it expires.
#[derive(Debug)]
pub struct Client {
    peer: Peer,
    id: String,
    secret: Secret,
    token: Mutex<Option<(String, Instant)>>,
}

impl Client {
    /// `id` needs the scope `scim.userids` for users, `clients.read` for clients.
    pub fn new(peer: Peer, id: impl Into<String>, secret: Secret) -> Self {
        Self { peer, id: id.into(), secret, token: Mutex::new(None) }
    }

    /// Users with one of these ids; those that do not exist are left out.
    pub async fn users_by_id(&self, ids: &[String]) -> Result<Vec<KnownUser>, ClientError> {
        let mut users = Vec::new();
        for ids in ids.chunks(BATCH) {
            let ids: Vec<String> = ids.iter().map(|id| format!("id eq {}", quote(id))).collect();
            users.extend(self.users(&ids.join(" or ")).await?);
        }
        Ok(users)
    }

    /// Users with one of these names, of one origin if it is given.
    pub async fn users_by_name(
        &self,
        names: &[String],
        origin: Option<&str>,
    ) -> Result<Vec<KnownUser>, ClientError> {
        let mut users = Vec::new();
        for names in names.chunks(BATCH) {
            let names = names.iter().map(|name| match origin {
                Some(origin) => {
                    format!("(userName eq {} and origin eq {})", quote(name), quote(origin))
                }
                None => format!("userName eq {}", quote(name)),
            });
            users.extend(self.users(&names.collect::<Vec<_>>().join(" or ")).await?);
        }
        Ok(users)
    }

    /// Whether a client of this id exists.
    pub async fn client_exists(&self, id: &str) -> Result<bool, ClientError> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("/oauth/clients/{}", id.replace('+', "%20"));
        let answer = self.get(&path).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(&path, &answer)),
        }
    }

    async fn users(&self, filter: &str) -> Result<Vec<KnownUser>, ClientError> {
        #[derive(Deserialize)]
        struct Found {
            resources: Vec<KnownUser>,
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("filter", filter)
            .append_pair("includeInactive", "true")
            .append_pair("count", &BATCH.to_string())
            .finish();
        let path = format!("/ids/Users?{query}");
        let answer = self.get(&path).await?;
        let found: Found = read("/ids/Users", &answer)?;
        Ok(found.resources)
    }

    async fn get(&self, path: &str) -> Result<Response<Bytes>, ClientError> {
        let token = self.token().await?;
        let answer = self.peer.get(path, Some(&token)).await;
        answer.map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })
    }

    async fn token(&self) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            expires_in: u64,
        }
        const PATH: &str = "/oauth/token";
        let mut kept = self.token.lock().await;
        if let Some((token, until)) = &*kept
            && *until > Instant::now()
        {
            return Ok(token.clone());
        }
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.id)
            .append_pair("client_secret", &self.secret.0)
            .finish();
        let unreachable = |source| ClientError::Unreachable { path: PATH.into(), source };
        let request = Request::post(PATH)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Bytes::from(form))
            .map_err(|err| unreachable(err.into()))?;
        let answer = self.peer.send(request).await.map_err(unreachable)?;
        let granted: Granted = read(PATH, &answer)?;
        let lasts = Duration::from_secs(granted.expires_in.saturating_sub(60));
        *kept = Some((granted.access_token.clone(), Instant::now() + lasts));
        Ok(granted.access_token)
    }
}

fn read<T: for<'de> Deserialize<'de>>(
    path: &str,
    answer: &Response<Bytes>,
) -> Result<T, ClientError> {
    if answer.status() != StatusCode::OK {
        return Err(refused(path, answer));
    }
    serde_json::from_slice(answer.body()).map_err(|err| ClientError::Refused {
        path: path.to_owned(),
        status: answer.status(),
        reason: err.to_string(),
    })
}

fn refused(path: &str, answer: &Response<Bytes>) -> ClientError {
    let reason = String::from_utf8_lossy(answer.body()).chars().take(300).collect();
    ClientError::Refused { path: path.to_owned(), status: answer.status(), reason }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

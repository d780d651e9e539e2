//! Who may read what: the original's cf-auth-proxy.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use transport::Client;
use uaa::{Claims, Peer, TokenVerifier};

/// How long a yes is good for.
const KEPT: Duration = Duration::from_secs(60);
/// Yeses that are kept.
const MOST: usize = 10_000;
/// Pages of a list that are read.
const PAGES: usize = 20;
/// Bytes of an answer.
const ANSWER: usize = 32 << 20;
/// Scopes of those who may read everything.
const ALL: [&str; 2] = ["doppler.firehose", "logs.admin"];
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Decides by a user's token, UAA's keys and what Cloud Controller shows that user.
#[derive(Debug)]
pub struct Access {
    verifier: TokenVerifier,
    cloud_controller: Peer,
    allowed: Mutex<HashMap<(String, String), Instant>>,
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Reader {
    token: String,
    claims: Claims,
}

/// What a reader may see.
#[derive(Debug)]
pub(crate) enum Sources {
    All,
    These(BTreeSet<String>),
}

impl Access {
    /// `cloud_controller` is asked for apps and service instances with the readers' own tokens.
    pub fn new(verifier: TokenVerifier, cloud_controller: Peer) -> Self {
        Self { verifier, cloud_controller, allowed: Mutex::default() }
    }

    /// The reader behind an `Authorization` header.
    pub(crate) async fn reader(&self, headers: &http::HeaderMap) -> Option<Reader> {
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let token = token.trim().to_owned();
        let claims = self.verifier.verify(&token).await.inspect_err(|refusal| {
            tracing::debug!(%refusal, "a reader of logs is refused");
        });
        Some(Reader { claims: claims.ok()?, token })
    }

    /// Whether a reader may see a source.
    pub(crate) async fn allows(&self, reader: &Reader, source_id: &str) -> bool {
        if reader.sees_all() {
            return true;
        }
        let key = (reader.claims.jti.clone(), source_id.to_owned());
        if self.kept().get(&key).is_some_and(|since| since.elapsed() < KEPT) {
            return true;
        }
        // A source's id is anything; in a path it must stay one name.
        let id = utf8_percent_encode(source_id, UNRESERVED).to_string();
        if [".", "..", ""].contains(&id.as_str()) {
            return false;
        }
        for list in ["apps", "service_instances"] {
            let answer = self.ask(&format!("/v3/{list}/{id}"), reader).await;
            if answer.is_some_and(|answer| answer.status() == http::StatusCode::OK) {
                let mut kept = self.kept();
                if kept.len() >= MOST {
                    kept.retain(|_, since| since.elapsed() < KEPT);
                }
                if kept.len() < MOST {
                    kept.insert(key, Instant::now());
                }
                return true;
            }
        }
        false
    }

    /// All sources that a reader may see. Nothing where Cloud Controller does not tell.
    pub(crate) async fn sources(&self, reader: &Reader) -> Sources {
        #[derive(Deserialize)]
        struct Page {
            pagination: Pagination,
            resources: Vec<Resource>,
        }
        #[derive(Deserialize)]
        struct Pagination {
            #[serde(default)]
            next: Option<Link>,
        }
        #[derive(Deserialize)]
        struct Link {
            href: String,
        }
        #[derive(Deserialize)]
        struct Resource {
            guid: String,
        }

        if reader.sees_all() {
            return Sources::All;
        }
        let mut guids = BTreeSet::new();
        for list in ["apps", "service_instances"] {
            let mut next = Some(format!("/v3/{list}?per_page=5000"));
            for _ in 0..PAGES {
                let Some(path) = next.take() else { break };
                let Some(answer) = self.ask(&path, reader).await else { break };
                let Ok(page) = serde_json::from_slice::<Page>(answer.body()) else { break };
                guids.extend(page.resources.into_iter().map(|resource| resource.guid));
                // An absolute address, of which Cloud Controller itself may be another name.
                next = page.pagination.next.and_then(|link| {
                    let link: http::Uri = link.href.parse().ok()?;
                    Some(link.path_and_query()?.as_str().to_owned())
                });
            }
        }
        Sources::These(guids)
    }

    async fn ask(&self, path: &str, reader: &Reader) -> Option<Response<Bytes>> {
        let answer = self.cloud_controller.get(path, Some(&reader.token)).await;
        answer
            .inspect_err(|error| {
                tracing::warn!(%error, path, "Cloud Controller does not say who may read logs");
            })
            .ok()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Instant>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn sees_all(&self) -> bool {
        ALL.iter().any(|scope| self.claims.allows(scope))
    }
}

impl Sources {
    pub fn contains(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(id),
        }
    }
}

/// The server that a client asks, as [`Access`] and UAA's keys want it.
pub fn peer(client: Client) -> Peer {
    Peer::new(move |request: Request<Bytes>| {
        let client = client.clone();
        Box::pin(async move {
            let answer = client.fetch(request.map(transport::full), ANSWER).await?;
            Ok(answer)
        })
    })
}

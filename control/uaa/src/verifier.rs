//! Checks access tokens by the public keys of a UAA, in this process or elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::Peer;
use crate::key::Jwk;
use crate::token::Claims;

/// How long a token is accepted after its end: clients refresh by their own clock, and none but one
/// tries again when a token is refused.
const LEEWAY: Duration = Duration::from_secs(60);
/// How often at most a remote UAA is asked because of a key that is not known.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is no token, or not one of this UAA for this audience.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// UAA's keys cannot be had now; the token may be good.
    #[error("cannot fetch UAA's token keys: {0}")]
    NoKeys(String),
}

/// The public keys of a UAA by id. A clone shows the same keys.
#[derive(Clone, Debug)]
pub struct PublicKeys {
    known: Arc<RwLock<HashMap<String, DecodingKey>>>,
    remote: Option<Arc<Remote>>,
}

#[derive(Debug)]
struct Remote {
    peer: Peer,
    asked: Mutex<Option<Instant>>,
}

impl PublicKeys {
    pub(crate) fn own(jwk: &Jwk) -> Result<Self, jsonwebtoken::errors::Error> {
        let key = DecodingKey::from_rsa_components(&jwk.n, &jwk.e)?;
        let known = HashMap::from([(jwk.kid.clone(), key)]);
        Ok(Self { known: Arc::new(RwLock::new(known)), remote: None })
    }

    /// Keys of the UAA behind `peer`, fetched when a token names one that is not known.
    pub fn remote(peer: Peer) -> Self {
        let remote = Remote { peer, asked: Mutex::new(None) };
        Self { known: Arc::default(), remote: Some(Arc::new(remote)) }
    }

    fn find(&self, kid: &str) -> Option<DecodingKey> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(kid).cloned()
    }

    async fn get(&self, kid: &str) -> Result<DecodingKey, Refusal> {
        let unknown = || Refusal::Invalid(format!("its key {kid:?} is not known"));
        if let Some(key) = self.find(kid) {
            return Ok(key);
        }
        let remote = self.remote.as_ref().ok_or_else(unknown)?;
        // One asks, the others wait for it and then look again.
        let mut asked = remote.asked.lock().await;
        if let Some(key) = self.find(kid) {
            return Ok(key);
        }
        if asked.is_some_and(|when| when.elapsed() < FETCH_PAUSE) {
            return Err(unknown());
        }
        let keys = fetch(&remote.peer).await?;
        *asked = Some(Instant::now());
        *self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        drop(asked);
        self.find(kid).ok_or_else(unknown)
    }
}

async fn fetch(peer: &Peer) -> Result<HashMap<String, DecodingKey>, Refusal> {
    #[derive(Deserialize)]
    struct Answer {
        keys: Vec<Jwk>,
    }
    let answer = peer.get("/token_keys", None).await;
    let answer = answer.map_err(|err| Refusal::NoKeys(err.to_string()))?;
    if !answer.status().is_success() {
        return Err(Refusal::NoKeys(format!("UAA answers {}", answer.status())));
    }
    let answer: Answer = serde_json::from_slice(answer.body())
        .map_err(|err| Refusal::NoKeys(format!("UAA's answer: {err}")))?;
    let usable =
        answer.keys.into_iter().filter(|jwk| jwk.kty == "RSA").filter_map(|jwk| {
            Some((jwk.kid, DecodingKey::from_rsa_components(&jwk.n, &jwk.e).ok()?))
        });
    Ok(usable.collect())
}

/// Accepts the access tokens of one UAA for one audience.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    keys: PublicKeys,
    validation: Validation,
}

impl TokenVerifier {
    /// `issuer` is what tokens name, `https://uaa.…/oauth/token`; `audience` the component that they
    /// must be for, or any.
    pub fn new(keys: PublicKeys, issuer: &str, audience: Option<&str>) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = LEEWAY.as_secs();
        validation.set_issuer(&[issuer]);
        match audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            }
            None => {
                validation.validate_aud = false;
                validation.set_required_spec_claims(&["exp", "iss"]);
            }
        }
        Self { keys, validation }
    }

    /// The claims of a good access token, given without the word `bearer`.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = self.verify_any(token).await?;
        if claims.is_refresh_token() {
            return Err(Refusal::Invalid("it is a refresh token".into()));
        }
        Ok(claims)
    }

    /// The same for access and refresh tokens.
    pub(crate) async fn verify_any(&self, token: &str) -> Result<Claims, Refusal> {
        let refused = |err: jsonwebtoken::errors::Error| match err.kind() {
            ErrorKind::ExpiredSignature => Refusal::Expired,
            _ => Refusal::Invalid(err.to_string()),
        };
        let header = decode_header(token).map_err(refused)?;
        let kid = header.kid.ok_or_else(|| Refusal::Invalid("it names no key".into()))?;
        let key = self.keys.get(&kid).await?;
        let token = decode::<Claims>(token, &key, &self.validation).map_err(refused)?;
        Ok(token.claims)
    }
}

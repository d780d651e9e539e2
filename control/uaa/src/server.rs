//! One UAA: its parts, its routes, and who calls.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::routing::{delete, get, post, put};
use http::header;
use http::request::Parts;

use crate::clients::Clients;
use crate::config::Config;
use crate::error::{Error, Refused};
use crate::key::SigningKey;
use crate::password::Passwords;
use crate::store::{Store, User};
use crate::token::Claims;
use crate::verifier::{PublicKeys, Refusal, TokenVerifier};
use crate::{discovery, grant, scim};

/// In the data directory.
const DATABASE: &str = "uaa.db";

/// A UAA. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Uaa(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub config: Config,
    pub clients: Clients,
    pub store: Store,
    pub passwords: Passwords,
    pub key: SigningKey,
    pub keys: PublicKeys,
    /// Accepts this UAA's own tokens for any audience.
    pub verifier: TokenVerifier,
}

impl Uaa {
    /// Opens the data directory, which it closes to other users, makes the key and the tables that it
    /// lacks, and adds the users of the configuration that do not exist yet.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let dir = config.data_dir.clone();
        let key = tokio::task::spawn_blocking(move || {
            let database = dir.join(DATABASE);
            let failed = |path: &Path| {
                let path = path.to_owned();
                |source| Error::File { action: "make", path, source }
            };
            private::directory(&dir).map_err(failed(&dir))?;
            private::database(&database).map_err(failed(&database))?;
            SigningKey::open(&dir)
        });
        let key = key.await.map_err(|err| Error::Password(err.to_string()))??;
        let store = Store::open(&config.data_dir.join(DATABASE)).await?;
        let keys = PublicKeys::own(&key.public).map_err(|err| Error::Key {
            path: config.data_dir.join("signing-key.der"),
            reason: err.to_string(),
        })?;
        let verifier = TokenVerifier::new(keys.clone(), &issuer(&config), None);
        let passwords = Passwords::new(config.password_cost)?;
        let clients = Clients::new(&config);
        let uaa = Self(Arc::new(Inner { config, clients, store, passwords, key, keys, verifier }));
        uaa.seed().await?;
        Ok(uaa)
    }

    async fn seed(&self) -> Result<(), Error> {
        for seed in &self.0.config.users {
            if self.0.store.by_name(&seed.user_name, "uaa").await?.is_some() {
                continue;
            }
            let now = now();
            let email = if seed.email.is_empty() { &seed.user_name } else { &seed.email };
            let user = User {
                id: uuid::Uuid::new_v4().to_string(),
                user_name: seed.user_name.clone(),
                origin: "uaa".into(),
                password_hash: self.0.passwords.hash(&seed.password.0).await?,
                email: email.clone(),
                created_at: now,
                updated_at: now,
                password_changed_at: now,
                ..User::default()
            };
            self.0.store.add(&user, &seed.groups).await?;
        }
        Ok(())
    }

    /// What answers UAA's HTTP API.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/oauth/token", post(grant::token))
            .route("/check_token", post(grant::check_token))
            .route("/oauth/clients/{id}", get(scim::client))
            .route("/login", get(discovery::login))
            .route("/info", get(discovery::login))
            .route("/token_key", get(discovery::token_key))
            .route("/token_keys", get(discovery::token_keys))
            .route("/.well-known/openid-configuration", get(discovery::openid))
            .route("/oauth/token/.well-known/openid-configuration", get(discovery::openid))
            .route("/userinfo", get(scim::userinfo).post(scim::userinfo))
            .route("/Users", get(scim::list).post(scim::create))
            .route("/Users/{id}", get(scim::show).merge(delete(scim::remove)))
            .route("/Users/{id}/password", put(scim::change_password))
            .route("/ids/Users", get(scim::ids))
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(|| async { Refused::not_found() })
            .with_state(self.clone())
    }

    /// Accepts this UAA's access tokens for `audience`, for components in this process.
    pub fn verifier(&self, audience: &str) -> TokenVerifier {
        TokenVerifier::new(self.0.keys.clone(), &self.issuer(), Some(audience))
    }

    /// What its tokens name as their issuer.
    pub fn issuer(&self) -> String {
        issuer(&self.0.config)
    }

    /// Closes the database. Requests after it fail.
    pub async fn close(&self) {
        self.0.store.close().await;
    }
}

fn issuer(config: &Config) -> String {
    format!("{}/oauth/token", config.uaa_url)
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_secs()).unwrap_or(i64::MAX)
}

/// The holder of a request's bearer token.
#[derive(Debug)]
pub(crate) struct Bearer(pub Claims);

impl Bearer {
    /// Whoever has one of the scopes may pass.
    pub fn require(&self, scopes: &[&str]) -> Result<(), Refused> {
        if scopes.iter().any(|scope| self.0.allows(scope)) {
            return Ok(());
        }
        Err(Refused::insufficient_scope(&scopes.join(" ")))
    }
}

impl FromRequestParts<Uaa> for Bearer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, uaa: &Uaa) -> Result<Self, Refused> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let full = "Full authentication is required to access this resource";
        let token = token.ok_or_else(|| Refused::unauthorized(full))?;
        uaa.live_claims(token).await.map(Self)
    }
}

impl Uaa {
    /// The claims of an access token whose user and client still are what they were.
    pub(crate) async fn live_claims(&self, token: &str) -> Result<Claims, Refused> {
        let claims = self.0.verifier.verify(token).await.map_err(refused)?;
        self.check_revocation(&claims).await?;
        Ok(claims)
    }

    /// The user of a token, if nothing has revoked it.
    pub(crate) async fn check_revocation(&self, claims: &Claims) -> Result<Option<User>, Refused> {
        let revoked = || Refused::invalid_token("The token has been revoked.");
        let client = self.0.clients.get(&claims.client_id).ok_or_else(revoked)?;
        let user = match &claims.user_id {
            Some(id) => Some(self.0.store.by_id(id).await?.ok_or_else(revoked)?),
            None => None,
        };
        let current = crate::token::revocation_signature(&claims.client_id, client, user.as_ref());
        if current == claims.rev_sig { Ok(user) } else { Err(revoked()) }
    }
}

pub(crate) fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Expired => Refused::invalid_token("The token expired."),
        Refusal::Invalid(_) | Refusal::NoKeys(_) => {
            Refused::invalid_token("The token is not valid.")
        }
    }
}

pub(crate) type App = State<Uaa>;

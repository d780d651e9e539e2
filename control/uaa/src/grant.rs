//! `POST /oauth/token`: who gets a token for what. And `POST /check_token`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::clients::ClientDetails;
use crate::error::Refused;
use crate::form::{Form, credentials};
use crate::server::{App, Uaa, now, refused};
use crate::store::User;
use crate::token::{Claims, Draft};

/// Failures in a row after which a user is locked out.
const FAILURES: i64 = 5;
/// For how many seconds.
const LOCKOUT: i64 = 300;
/// How many seconds a failure counts.
const FAILURES_COUNT_FOR: i64 = 3600;

const LOCKED: &str = "Your account has been locked because of too many failed attempts to login.";

type Granted = Result<([(header::HeaderName, &'static str); 2], Json<Value>), Refused>;

/// `POST /oauth/token`.
pub(crate) async fn token(
    State(uaa): App,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Granted {
    let form = Form::parse(&body)?;
    let (id, secret) = credentials(&headers, &form).ok_or_else(|| {
        Refused::unauthorized("Full authentication is required to access this resource")
    })?;
    let client = uaa.0.clients.authenticate(&id, &secret);
    let client = client.ok_or_else(Refused::bad_credentials)?;
    let grant_type =
        form.get("grant_type").ok_or_else(|| Refused::invalid_request("Missing grant type"))?;
    const SERVED: [&str; 3] = ["password", "refresh_token", "client_credentials"];
    if !SERVED.contains(&grant_type) {
        let description = format!("Unsupported grant type: {grant_type}");
        return Err(Refused::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", description));
    }
    if !client.may_use(grant_type) {
        let description = format!("Unauthorized grant type: {grant_type}");
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "invalid_client", description));
    }
    let caller = Caller { uaa: &uaa, id: &id, client, form: &form };
    let answer = match grant_type {
        "password" => caller.password(query.as_deref()).await?,
        "refresh_token" => caller.refresh().await?,
        _ => caller.own().await?,
    };
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(answer)))
}

struct Caller<'a> {
    uaa: &'a Uaa,
    id: &'a str,
    client: &'a ClientDetails,
    form: &'a Form,
}

impl Caller<'_> {
    async fn password(&self, query: Option<&str>) -> Result<Value, Refused> {
        check_origin(self.form, query)?;
        if self.form.get("passcode").is_some() {
            return Err(Refused::unauthorized("Invalid passcode"));
        }
        let name = self.form.get("username").unwrap_or_default();
        let password = self.form.get("password").unwrap_or_default();
        let user = log_in(self.uaa, name, password).await?;
        let scope = self.scope_of(&user, None).await?;
        let draft = self.draft(Some(&user), scope, "password", now());
        let refresh = match self.client.may_use("refresh_token") {
            true => Some(self.sign(&draft.refresh())?),
            false => None,
        };
        self.answer(&draft.access(), refresh)
    }

    async fn refresh(&self) -> Result<Value, Refused> {
        let missing = || Refused::invalid_request("refresh_token is missing");
        let token = self.form.get("refresh_token").ok_or_else(missing)?;
        let claims = self.uaa.0.verifier.verify_any(token).await.map_err(refused)?;
        if !claims.is_refresh_token() {
            return Err(Refused::invalid_token("The token is not a refresh token."));
        }
        if claims.client_id != self.id {
            let description = "The refresh token was issued to another client.";
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_grant", description));
        }
        let user = self.uaa.check_revocation(&claims).await?;
        let user = user.ok_or_else(|| Refused::invalid_token("The token names no user."))?;
        let scope = self.scope_of(&user, Some(&claims.scope)).await?;
        let authenticated = claims.auth_time.unwrap_or(claims.iat);
        let draft = self.draft(Some(&user), scope, &claims.grant_type, authenticated);
        self.answer(&draft.access(), Some(token.to_owned()))
    }

    async fn own(&self) -> Result<Value, Refused> {
        let scope = self.requested(&self.client.authorities)?;
        let draft = self.draft(None, scope, "client_credentials", now());
        self.answer(&draft.access(), None)
    }

    fn draft<'a>(
        &'a self,
        user: Option<&'a User>,
        scope: Vec<String>,
        grant_type: &'a str,
        auth_time: i64,
    ) -> Draft<'a> {
        let (client_id, client, now) = (self.id, self.client, now());
        let issuer = self.uaa.issuer();
        Draft { client_id, client, user, scope, grant_type, auth_time, now, issuer }
    }

    /// The client's scopes that the user's groups cover, of those asked for and granted before.
    async fn scope_of(
        &self,
        user: &User,
        granted: Option<&[String]>,
    ) -> Result<Vec<String>, Refused> {
        let groups = self.uaa.0.store.groups(&user.id).await?;
        let mut scope = self.requested(&self.client.scope)?;
        scope.retain(|scope| groups.contains(scope));
        if let Some(granted) = granted {
            scope.retain(|scope| granted.contains(scope));
        }
        if scope.is_empty() {
            let description = "None of the requested scopes can be granted.";
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_scope", description));
        }
        Ok(scope)
    }

    /// What the form asks for, all of `allowed` if it does not say.
    fn requested(&self, allowed: &[String]) -> Result<Vec<String>, Refused> {
        let Some(wanted) = self.form.get("scope") else { return Ok(allowed.to_vec()) };
        let wanted: Vec<String> = wanted.split_whitespace().map(str::to_owned).collect();
        match wanted.iter().find(|scope| !allowed.contains(scope)) {
            None => Ok(wanted),
            Some(other) => {
                let description = format!("Invalid scope: {other}");
                Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_scope", description))
            }
        }
    }

    fn sign(&self, claims: &Claims) -> Result<String, Refused> {
        let jku = format!("{}/token_keys", self.uaa.0.config.uaa_url);
        Ok(self.uaa.0.key.sign(claims, &jku)?)
    }

    fn answer(&self, access: &Claims, refresh: Option<String>) -> Result<Value, Refused> {
        let mut answer = json!({
            "access_token": self.sign(access)?,
            "token_type": "bearer",
            "refresh_token": refresh,
            "expires_in": access.exp - access.iat - 1,
            "scope": access.scope.join(" "),
            "jti": access.jti,
        });
        if refresh.is_none()
            && let Some(answer) = answer.as_object_mut()
        {
            answer.shift_remove("refresh_token");
        }
        Ok(answer)
    }
}

/// Users of other identity providers cannot log in here.
fn check_origin(form: &Form, query: Option<&str>) -> Result<(), Refused> {
    let in_query = query.and_then(|query| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == "login_hint").map(|(_, value)| value.into_owned())
    });
    let hint = form.get("login_hint").map(str::to_owned).or(in_query);
    let Some(hint) = hint.filter(|hint| !hint.is_empty()) else { return Ok(()) };
    let hint: Value = serde_json::from_str(&hint).unwrap_or_default();
    if hint["origin"] == "uaa" {
        return Ok(());
    }
    Err(Refused::unauthorized(
        "The origin provided in the login_hint does not match an active Identity Provider, that \
         supports password grant.",
    ))
}

async fn log_in(uaa: &Uaa, name: &str, password: &str) -> Result<User, Refused> {
    let user = uaa.0.store.by_name(name, "uaa").await?;
    let time = now();
    if let Some(user) = &user
        && user.failed_logins >= FAILURES
        && user.last_failure_at > time - LOCKOUT
    {
        return Err(Refused::unauthorized(LOCKED));
    }
    let stored = user.as_ref().map(|user| &*user.password_hash);
    let right = uaa.0.passwords.verify(password, stored).await?;
    match user {
        Some(user) if right => {
            uaa.0.store.login_succeeded(&user.id).await?;
            Ok(user)
        }
        Some(user) => {
            uaa.0.store.login_failed(&user.id, time, time - FAILURES_COUNT_FOR).await?;
            Err(Refused::bad_credentials())
        }
        None => Err(Refused::bad_credentials()),
    }
}

/// `POST /check_token`: the claims of a token, for a client with `uaa.resource`.
pub(crate) async fn check_token(
    State(uaa): App,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let form = Form::parse(&body)?;
    let client = credentials(&headers, &Form::default())
        .and_then(|(id, secret)| uaa.0.clients.authenticate(&id, &secret).cloned());
    let client = client.ok_or_else(Refused::bad_credentials)?;
    if !client.authorities.iter().any(|own| own == "uaa.resource") {
        return Err(Refused::insufficient_scope("uaa.resource"));
    }
    let token = form.get("token").ok_or_else(|| Refused::invalid_request("token is missing"))?;
    let claims = uaa
        .live_claims(token)
        .await
        .map_err(|refused| Refused { status: StatusCode::BAD_REQUEST, ..refused })?;
    let wanted = form.get("scopes").unwrap_or_default().split(',').map(str::trim);
    let lacking: Vec<&str> =
        wanted.filter(|scope| !scope.is_empty() && !claims.allows(scope)).collect();
    if !lacking.is_empty() {
        let description = format!("Some requested scopes are missing: {}", lacking.join(","));
        return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_scope", description));
    }
    Ok(Json(json!(claims)))
}

//! Users and clients as other components and administrators see them.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Secret;
use crate::error::Refused;
use crate::filter::Filter;
use crate::server::{App, Bearer, Uaa, now};
use crate::store::{DEFAULT_GROUPS, User};

const SCHEMAS: [&str; 1] = ["urn:scim:schemas:core:1.0"];
/// The most users in one answer.
const MOST: i64 = 500;

/// What `GET /Users` and `GET /ids/Users` may be asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
}

impl Listing {
    async fn find(&self, uaa: &Uaa) -> Result<(Vec<User>, Value), Refused> {
        let filter = match &self.filter {
            None => None,
            Some(text) => Some(Filter::parse(text).map_err(|reason| {
                let description = format!("Invalid filter expression: [{text}]: {reason}");
                Refused::new(StatusCode::BAD_REQUEST, "scim", description)
            })?),
        };
        let start = self.start_index.unwrap_or(1).max(1);
        let count = self.count.unwrap_or(100).clamp(0, MOST);
        let (users, total) = uaa.0.store.find(filter.as_ref(), start, count).await?;
        let frame = json!({
            "resources": [],
            "startIndex": start,
            "itemsPerPage": count,
            "totalResults": total,
            "schemas": SCHEMAS,
        });
        Ok((users, frame))
    }
}

/// `GET /Users`.
pub(crate) async fn list(
    State(uaa): App,
    bearer: Bearer,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Refused> {
    bearer.require(&["scim.read", "uaa.admin"])?;
    let (users, mut frame) = listing.find(&uaa).await?;
    let mut resources = Vec::with_capacity(users.len());
    for user in &users {
        resources.push(present(user, &uaa.0.store.groups(&user.id).await?));
    }
    frame["resources"] = resources.into();
    Ok(Json(frame))
}

/// `GET /ids/Users`: ids and names only.
pub(crate) async fn ids(
    State(uaa): App,
    bearer: Bearer,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Refused> {
    bearer.require(&["scim.userids"])?;
    if listing.filter.is_none() {
        return Err(Refused::invalid_request("a filter is required"));
    }
    let (users, mut frame) = listing.find(&uaa).await?;
    let resources = users
        .iter()
        .map(|user| json!({"id": user.id, "userName": user.user_name, "origin": user.origin}));
    frame["resources"] = resources.collect();
    Ok(Json(frame))
}

/// `GET /Users/:id`.
pub(crate) async fn show(
    State(uaa): App,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    if bearer.0.user_id.as_ref() != Some(&id) {
        bearer.require(&["scim.read", "uaa.admin"])?;
    }
    let user = uaa.0.store.by_id(&id).await?.ok_or_else(|| Refused::no_such_user(&id))?;
    Ok(Json(present(&user, &uaa.0.store.groups(&id).await?)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NewUser {
    user_name: String,
    password: Secret,
    /// Empty means ours.
    origin: String,
    name: Name,
    emails: Vec<Email>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Name {
    given_name: Option<String>,
    family_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Email {
    value: String,
}

/// `POST /Users`.
pub(crate) async fn create(
    State(uaa): App,
    bearer: Bearer,
    body: Result<Json<NewUser>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    bearer.require(&["scim.write", "uaa.admin"])?;
    let invalid =
        |text: String| Refused::new(StatusCode::BAD_REQUEST, "invalid_scim_resource", text);
    let Json(new) = body.map_err(|err| invalid(err.body_text()))?;
    if new.user_name.trim().is_empty() {
        return Err(invalid("A username must be provided.".into()));
    }
    let origin = if new.origin.is_empty() { "uaa".to_owned() } else { new.origin };
    if origin == "uaa" && new.password.0.is_empty() {
        let text = "Password must be at least 1 characters in length.";
        return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_password", text));
    }
    // A user of another provider is known here but has no password that could match.
    let password_hash = match origin.as_str() {
        "uaa" => uaa.0.passwords.hash(&new.password.0).await?,
        _ => String::new(),
    };
    let email = new.emails.into_iter().next().map(|email| email.value);
    let now = now();
    let user = User {
        id: uuid::Uuid::new_v4().to_string(),
        email: email.unwrap_or_else(|| new.user_name.clone()),
        user_name: new.user_name,
        origin,
        password_hash,
        given_name: new.name.given_name.unwrap_or_default(),
        family_name: new.name.family_name.unwrap_or_default(),
        created_at: now,
        updated_at: now,
        password_changed_at: now,
        ..User::default()
    };
    if !uaa.0.store.add(&user, &[]).await? {
        let description = format!("Username already in use: {}", user.user_name);
        return Err(Refused::new(
            StatusCode::CONFLICT,
            "scim_resource_already_exists",
            description,
        ));
    }
    let groups = uaa.0.store.groups(&user.id).await?;
    Ok((StatusCode::CREATED, Json(present(&user, &groups))))
}

/// `DELETE /Users/:id`.
pub(crate) async fn remove(
    State(uaa): App,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    bearer.require(&["scim.write", "uaa.admin"])?;
    let user = uaa.0.store.by_id(&id).await?.ok_or_else(|| Refused::no_such_user(&id))?;
    let groups = uaa.0.store.groups(&id).await?;
    if !uaa.0.store.remove(&id).await? {
        return Err(Refused::no_such_user(&id));
    }
    Ok(Json(present(&user, &groups)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PasswordChange {
    #[serde(default)]
    old_password: Secret,
    password: Secret,
}

/// `PUT /Users/:id/password`: by the user with the old password, or by an administrator.
pub(crate) async fn change_password(
    State(uaa): App,
    bearer: Bearer,
    Path(id): Path<String>,
    body: Result<Json<PasswordChange>, JsonRejection>,
) -> Result<Json<Value>, Refused> {
    let own = bearer.0.user_id.as_ref() == Some(&id);
    bearer.require(if own { &["password.write", "uaa.admin"] } else { &["uaa.admin"] })?;
    let Json(change) = body.map_err(|err| Refused::invalid_request(err.body_text()))?;
    let user = uaa.0.store.by_id(&id).await?.ok_or_else(|| Refused::no_such_user(&id))?;
    let invalid =
        |text| Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_password", text));
    if own {
        let right = uaa.0.passwords.verify(&change.old_password.0, Some(&user.password_hash));
        if !right.await? {
            return Err(Refused::unauthorized("Old password is incorrect"));
        }
        if change.old_password == change.password {
            return invalid("Your new password cannot be the same as the old password.");
        }
    }
    if change.password.0.is_empty() {
        return invalid("Password must be at least 1 characters in length.");
    }
    let hash = uaa.0.passwords.hash(&change.password.0).await?;
    uaa.0.store.set_password(&id, &hash, now()).await?;
    Ok(Json(json!({"status": "ok", "message": "password updated"})))
}

/// `GET /userinfo`.
pub(crate) async fn userinfo(State(uaa): App, bearer: Bearer) -> Result<Json<Value>, Refused> {
    bearer.require(&["openid"])?;
    let id = bearer.0.user_id.unwrap_or_default();
    let user = uaa.0.store.by_id(&id).await?.ok_or_else(|| Refused::no_such_user(&id))?;
    Ok(Json(json!({
        "user_id": user.id,
        "sub": user.id,
        "user_name": user.user_name,
        "origin": user.origin,
        "email": user.email,
        "email_verified": true,
        "given_name": user.given_name,
        "family_name": user.family_name,
        "name": format!("{} {}", user.given_name, user.family_name).trim(),
        "phone_number": null,
        "previous_logon_time": null,
    })))
}

/// `GET /oauth/clients/:id`.
pub(crate) async fn client(
    State(uaa): App,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    bearer.require(&["clients.read", "clients.admin", "uaa.admin"])?;
    match uaa.0.clients.get(&id) {
        Some(client) => Ok(Json(client.show(&id))),
        None => {
            let description = format!("No client with requested id: {id}");
            Err(Refused::new(StatusCode::NOT_FOUND, "invalid_client", description))
        }
    }
}

fn present(user: &User, groups: &[String]) -> Value {
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            let kind = if DEFAULT_GROUPS.contains(&&**group) { "INDIRECT" } else { "DIRECT" };
            json!({"value": group, "display": group, "type": kind})
        })
        .collect();
    json!({
        "id": user.id,
        "externalId": "",
        "meta": {
            "version": user.version,
            "created": time(user.created_at),
            "lastModified": time(user.updated_at),
        },
        "userName": user.user_name,
        "name": {"familyName": user.family_name, "givenName": user.given_name},
        "emails": [{"value": user.email, "primary": true}],
        "groups": groups,
        "approvals": [],
        "phoneNumbers": [],
        "active": true,
        "verified": true,
        "origin": user.origin,
        "zoneId": "uaa",
        "passwordLastModified": time(user.password_changed_at),
        "schemas": SCHEMAS,
    })
}

fn time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

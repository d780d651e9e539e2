//! Users: guids and roles are ours, names are UAA's.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use uaa::client::{ClientError, KnownUser};

use super::{Answer, App, link};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::roles::{self, User};
use crate::store::select::{Select, by_guid};
use crate::time;

pub(crate) fn unreachable(err: ClientError) -> ApiError {
    tracing::warn!(error = &err as &dyn std::error::Error, "cannot ask UAA for users");
    ApiError::unavailable("The UAA service is currently unavailable")
}

/// What UAA knows of users with these guids.
pub(crate) async fn names(
    controller: &CloudController,
    guids: &[String],
) -> Result<Vec<KnownUser>, ApiError> {
    if guids.is_empty() {
        return Ok(Vec::new());
    }
    controller.users.users_by_id(guids).await.map_err(unreachable)
}

/// Users with their names.
pub(crate) async fn show_users(
    controller: &CloudController,
    users: &[User],
) -> Result<Vec<Value>, ApiError> {
    let guids: Vec<String> = users.iter().map(|user| user.guid.clone()).collect();
    let known = names(controller, &guids).await?;
    let shown = users.iter().map(|user| {
        let name = known.iter().find(|known| known.id == user.guid);
        show_user(controller, user, name)
    });
    Ok(shown.collect())
}

fn show_user(controller: &CloudController, user: &User, known: Option<&KnownUser>) -> Value {
    let guid = &user.guid;
    let name = known.map(|known| &known.user_name);
    json!({
        "guid": guid,
        "created_at": time::show(user.created_at),
        "updated_at": time::show(user.updated_at),
        "username": name,
        "presentation_name": name.unwrap_or(guid),
        "origin": known.map(|known| &known.origin),
        "metadata": Metadata::read(&user.labels, &user.annotations).show(),
        "links": {"self": link(controller, &format!("/v3/users/{guid}"))},
    })
}

/// Everybody, for administrators; else those with roles where the caller has some, and the caller.
fn visible(caller: &Caller, select: &mut Select) {
    if caller.reads_all() {
        return;
    }
    let mut spaces = Select::from("roles");
    caller.only_visible_spaces(&mut spaces, "roles.space_guid");
    let mut orgs = Select::from("roles");
    caller.only_visible_orgs(&mut orgs, "roles.org_guid");
    let mut seen = Select::from("roles");
    seen.either(spaces, orgs);
    let mut own = Select::from("users");
    own.only("users.guid = ?", [&*caller.guid]);
    let mut others = Select::from("users");
    others.within("users.guid", "user_guid", &seen);
    select.either(own, others);
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["usernames", "partial_usernames", "origins"])?;
    if query.get("partial_usernames").is_some() {
        return Err(ApiError::bad_query("partial_usernames is not served yet"));
    }
    let usernames = query.list("usernames");
    if query.get("origins").is_some() && usernames.is_none() {
        return Err(ApiError::bad_query("Origins filter cannot be provided without usernames."));
    }
    if let Some(usernames) = usernames {
        let found = controller.users.users_by_name(&usernames, None).await.map_err(unreachable)?;
        let origins = query.list("origins");
        let of_origin = |user: &KnownUser| {
            origins.as_ref().is_none_or(|origins| origins.contains(&user.origin))
        };
        let guids: Vec<String> = found.into_iter().filter(of_origin).map(|user| user.id).collect();
        select.any("users.guid", &guids);
    }
    select.common_filters(query)?.labels(query)?.order(query, &[])?;
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (users, total) = select.page::<User>(&mut conn, paging).await?;
    drop(conn);
    let shown = show_users(controller, &users).await?;
    Ok(Json(page::document(&controller.url(path), query, paging, total, shown, None)))
}

/// `GET /v3/users`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("users");
    visible(&caller, &mut select);
    page_of(&controller, "/v3/users", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/organizations/:guid/users`.
pub(crate) async fn of_org(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.org(&mut conn, &guid).await?;
    drop(conn);
    let mut with_role = Select::from("roles");
    with_role.only("roles.org_guid = ?", [&*guid]);
    let mut select = Select::from("users");
    select.within("users.guid", "user_guid", &with_role);
    let path = format!("/v3/organizations/{guid}/users");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/spaces/:guid/users`.
pub(crate) async fn of_space(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.space(&mut conn, &guid).await?;
    drop(conn);
    let mut with_role = Select::from("roles");
    with_role.only("roles.space_guid = ?", [&*guid]);
    let mut select = Select::from("users");
    select.within("users.guid", "user_guid", &with_role);
    let path = format!("/v3/spaces/{guid}/users");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/users/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let user: User =
        super::find(&mut conn, "users", "User", &guid, |select| visible(&caller, select)).await?;
    drop(conn);
    let shown = show_users(&controller, &[user]).await?;
    Ok(Json(shown.into_iter().next().unwrap_or_default()))
}

/// `POST /v3/users`: a user of UAA by guid, or by name.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let guid = fields.string("guid");
    let username = fields.string("username");
    let origin = fields.string("origin");
    let change = fields.metadata();
    if guid.is_none() && username.is_none() {
        fields.fault("Guid must be a string");
    }
    fields.finish()?;
    caller.require_admin()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let guid = match (guid, username) {
        (Some(guid), _) => guid,
        (None, username) => {
            let name = username.unwrap_or_default();
            let found =
                controller.users.users_by_name(std::slice::from_ref(&name), origin.as_deref());
            let found = found.await.map_err(unreachable)?.into_iter().next();
            let missing =
                || ApiError::unprocessable(format!("No user exists with the username '{name}'."));
            found.ok_or_else(missing)?.id
        }
    };
    let mut tx = controller.store.begin().await?;
    if !roles::ensure_user(&mut tx, &guid).await? {
        return Err(ApiError::unprocessable(format!("User with guid '{guid}' already exists.")));
    }
    crate::store::set_metadata(&mut tx, "users", &guid, &metadata).await?;
    let user: Option<User> = by_guid(&mut tx, "users", &guid).await?;
    let user = user.ok_or_else(|| ApiError::not_found("User"))?;
    tx.commit().await?;
    let shown = show_users(&controller, &[user]).await?;
    Ok((StatusCode::CREATED, Json(shown.into_iter().next().unwrap_or_default())))
}

/// `DELETE /v3/users/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let _: User =
        super::find(&mut tx, "users", "User", &guid, |select| visible(&caller, select)).await?;
    caller.require_admin()?;
    job::accept(&controller, tx, Work::DeleteUser { guid }, caller.party()).await
}

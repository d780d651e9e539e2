//! The resources of the API: for each its routes, and how it is shown.

pub(crate) mod app_actions;
pub(crate) mod app_env;
pub(crate) mod apps;
pub(crate) mod buildpacks;
pub(crate) mod builds;
pub(crate) mod collections;
pub(crate) mod destinations;
pub(crate) mod domains;
pub(crate) mod droplets;
pub(crate) mod events;
pub(crate) mod flags;
pub(crate) mod internal;
pub(crate) mod jobs;
pub(crate) mod manifests;
pub(crate) mod orgs;
pub(crate) mod packages;
pub(crate) mod processes;
pub(crate) mod quotas;
pub(crate) mod roles;
pub(crate) mod root;
pub(crate) mod routes;
pub(crate) mod security_groups;
pub(crate) mod spaces;
pub(crate) mod stacks;
pub(crate) mod stats;
pub(crate) mod users;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, SqliteConnection};

use crate::CloudController;
use crate::error::ApiError;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::select::Select;

/// The controller of a route.
pub(crate) type App = State<CloudController>;
/// An answer of JSON.
pub(crate) type Answer = Result<Json<Value>, ApiError>;

/// A link to a resource.
pub(crate) fn link(controller: &CloudController, path: &str) -> Value {
    json!({"href": controller.url(path)})
}

/// A link to something to be done.
pub(crate) fn action(controller: &CloudController, path: &str) -> Value {
    json!({"href": controller.url(path), "method": "POST"})
}

/// A relationship to one resource, or to none.
pub(crate) fn to_one(guid: Option<&str>) -> Value {
    json!({"data": guid.map(|guid| json!({"guid": guid}))})
}

/// One page of `select` as the document of a list at `path`.
pub(crate) async fn list<T>(
    controller: &CloudController,
    path: &str,
    query: &Query,
    select: &Select,
    show: impl Fn(&T) -> Value,
) -> Answer
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (rows, total) = select.page::<T>(&mut conn, paging).await?;
    let resources = rows.iter().map(show).collect();
    Ok(Json(page::document(&controller.url(path), query, paging, total, resources, None)))
}

/// The row `guid` of a table, of those that `narrow` leaves.
pub(crate) async fn find<T>(
    conn: &mut SqliteConnection,
    table: &'static str,
    kind: &str,
    guid: &str,
    narrow: impl FnOnce(&mut Select),
) -> Result<T, ApiError>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    let mut select = Select::from(table);
    select.only(format!("{table}.guid = ?"), [guid]);
    narrow(&mut select);
    select.first(conn).await?.ok_or_else(|| ApiError::not_found(kind))
}

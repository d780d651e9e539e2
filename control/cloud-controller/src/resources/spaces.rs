//! Spaces.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, App, action, find, link, orgs::show_org, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::events::{Party, Place, record};
use crate::store::orgs::{self, Org, Space};
use crate::store::select::{Select, by_guid};
use crate::store::set_metadata;
use crate::time;

pub(crate) fn show_space(controller: &CloudController, space: &Space, suspended: bool) -> Value {
    let guid = &space.guid;
    let path = format!("/v3/spaces/{guid}");
    json!({
        "guid": guid,
        "created_at": time::show(space.created_at),
        "updated_at": time::show(space.updated_at),
        "name": space.name,
        "suspended": suspended,
        "relationships": {
            "organization": to_one(Some(&space.org_guid)),
            "quota": to_one(None),
        },
        "metadata": Metadata::read(&space.labels, &space.annotations).show(),
        "links": {
            "self": link(controller, &path),
            "organization": link(controller, &format!("/v3/organizations/{}", space.org_guid)),
            "features": link(controller, &format!("{path}/features")),
            "apply_manifest": action(controller, &format!("{path}/actions/apply_manifest")),
        },
    })
}

/// `GET /v3/spaces`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["names", "organization_guids"])?;
    // The CLI's other name for it.
    let include = query.include(&["org", "organization"])?;
    let mut select = Select::from("spaces");
    caller.only_visible_spaces(&mut select, "spaces.guid");
    select.filter(&query, "names", "spaces.name");
    select.filter(&query, "organization_guids", "spaces.org_guid").common_filters(&query)?;
    select.labels(&query)?.order(&query, &["name"])?;
    let paging = Paging::of(&query)?;
    let mut conn = controller.store.read().await?;
    let (spaces, total) = select.page::<Space>(&mut conn, paging).await?;
    let mut orgs: Vec<String> = spaces.iter().map(|space| space.org_guid.clone()).collect();
    orgs.sort_unstable();
    orgs.dedup();
    let mut of_spaces = Select::from("organizations");
    let orgs: Vec<Org> = of_spaces.any("organizations.guid", &orgs).all(&mut conn).await?;
    let suspended =
        |space: &Space| orgs.iter().any(|org| org.guid == space.org_guid && org.suspended);
    let included = (!include.is_empty()).then(|| {
        let orgs: Vec<Value> = orgs.iter().map(|org| show_org(&controller, org)).collect();
        json!({"organizations": orgs})
    });
    let spaces = spaces.iter().map(|space| show_space(&controller, space, suspended(space)));
    let address = controller.url("/v3/spaces");
    Ok(Json(page::document(&address, &query, paging, total, spaces.collect(), included)))
}

/// `GET /v3/spaces/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    let include = query.include(&["org", "organization"])?;
    let mut conn = controller.store.read().await?;
    let access = caller.space(&mut conn, &guid).await?;
    let mut shown = show_space(&controller, &access.space, access.org.suspended);
    if !include.is_empty() {
        shown["included"] = json!({"organizations": [show_org(&controller, &access.org)]});
    }
    Ok(Json(shown))
}

/// `POST /v3/spaces`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = fields.required("name");
    let change = fields.metadata();
    let org_guid = match fields.object("relationships") {
        Some(mut relationships) => {
            let guid = relationships.guid("organization");
            fields.absorb(relationships);
            guid
        }
        None => None,
    };
    if org_guid.is_none() {
        fields.fault("Relationships 'relationships' must include organization");
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let org_guid = org_guid.unwrap_or_default();
    let mut tx = controller.store.begin().await?;
    let access = caller.org(&mut tx, &org_guid).await.map_err(|err| match err.status {
        StatusCode::NOT_FOUND => ApiError::unprocessable(
            "Invalid organization. Ensure the organization exists and you have access to it.",
        ),
        _ => err,
    })?;
    access.require_manager()?;
    let guid = orgs::insert_space(&mut tx, &name, &org_guid, &metadata).await.map_err(taken)?;
    let target = Party::new("space", &guid, &name);
    let place = Place { space_guid: Some(&guid), org_guid: None };
    let data = json!({"request": {"name": name}});
    record(&mut tx, "audit.space.create", &caller.party(), &target, place, &data).await?;
    let space: Option<Space> = by_guid(&mut tx, "spaces", &guid).await?;
    let space = space.ok_or_else(|| ApiError::not_found("Space"))?;
    tx.commit().await?;
    let shown = show_space(&controller, &space, access.org.suspended);
    Ok((StatusCode::CREATED, Json(shown)))
}

fn taken(err: sqlx::Error) -> ApiError {
    match is_taken(&err) {
        true => ApiError::unprocessable("Name must be unique per organization"),
        false => err.into(),
    }
}

/// `PATCH /v3/spaces/:guid`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let name = fields.string("name");
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let access = caller.space(&mut tx, &guid).await?;
    access.require_manager()?;
    let space = &access.space;
    let metadata = Metadata::read(&space.labels, &space.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    let name = name.unwrap_or_else(|| space.name.clone());
    orgs::update_space(&mut tx, &guid, &name, space.allow_ssh).await.map_err(taken)?;
    set_metadata(&mut tx, "spaces", &guid, &metadata).await?;
    let target = Party::new("space", &guid, &name);
    let place = Place { space_guid: Some(&guid), org_guid: None };
    record(&mut tx, "audit.space.update", &caller.party(), &target, place, &json!({})).await?;
    let space: Option<Space> = by_guid(&mut tx, "spaces", &guid).await?;
    let space = space.ok_or_else(|| ApiError::not_found("Space"))?;
    tx.commit().await?;
    Ok(Json(show_space(&controller, &space, access.org.suspended)))
}

/// `DELETE /v3/spaces/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    caller.space(&mut tx, &guid).await?.require_org_manager()?;
    job::accept(&controller, tx, Work::DeleteSpace { guid }, caller.party()).await
}

fn show_ssh(enabled: bool) -> Value {
    json!({
        "name": "ssh",
        "description": "Enable SSHing into apps in the space.",
        "enabled": enabled,
    })
}

/// `GET /v3/spaces/:guid/features/ssh`.
pub(crate) async fn ssh(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let space: Space = find(&mut conn, "spaces", "Space", &guid, |select| {
        caller.only_visible_spaces(select, "spaces.guid");
    })
    .await?;
    Ok(Json(show_ssh(space.allow_ssh)))
}

/// `PATCH /v3/spaces/:guid/features/ssh`.
pub(crate) async fn set_ssh(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let enabled = fields.flag("enabled");
    if enabled.is_none() {
        fields.fault("Enabled must be a boolean");
    }
    fields.finish()?;
    let enabled = enabled.unwrap_or_default();
    let mut tx = controller.store.begin().await?;
    let access = caller.space(&mut tx, &guid).await?;
    access.require_manager()?;
    orgs::update_space(&mut tx, &guid, &access.space.name, enabled).await?;
    tx.commit().await?;
    Ok(Json(show_ssh(enabled)))
}

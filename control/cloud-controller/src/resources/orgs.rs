//! Organizations.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, App, find, link, list as list_of, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::query::Query;
use crate::store::events::{Party, Place, record};
use crate::store::orgs::{self, Org};
use crate::store::select::{Select, by_guid};
use crate::store::{roles, set_metadata, settings};
use crate::time;

pub(crate) fn show_org(controller: &CloudController, org: &Org) -> Value {
    let guid = &org.guid;
    let path = format!("/v3/organizations/{guid}");
    json!({
        "guid": guid,
        "created_at": time::show(org.created_at),
        "updated_at": time::show(org.updated_at),
        "name": org.name,
        "suspended": org.suspended,
        "relationships": {"quota": to_one(Some(&org.quota_guid))},
        "metadata": Metadata::read(&org.labels, &org.annotations).show(),
        "links": {
            "self": link(controller, &path),
            "domains": link(controller, &format!("{path}/domains")),
            "default_domain": link(controller, &format!("{path}/domains/default")),
            "quota": link(controller, &format!("/v3/organization_quotas/{}", org.quota_guid)),
        },
    })
}

/// `GET /v3/organizations`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["names"])?;
    let mut select = Select::from("organizations");
    caller.only_visible_orgs(&mut select, "organizations.guid");
    select.filter(&query, "names", "organizations.name").common_filters(&query)?;
    select.labels(&query)?.order(&query, &["name"])?;
    list_of(&controller, "/v3/organizations", &query, &select, |org: &Org| {
        show_org(&controller, org)
    })
    .await
}

/// `GET /v3/organizations/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let org = find(&mut conn, "organizations", "Organization", &guid, |select| {
        caller.only_visible_orgs(select, "organizations.guid");
    });
    Ok(Json(show_org(&controller, &org.await?)))
}

/// `POST /v3/organizations`: by an administrator, or by anybody if a flag says so.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = fields.required("name");
    let suspended = fields.flag("suspended").unwrap_or(false);
    let metadata = Metadata::default().merge(&fields.metadata());
    let metadata = metadata.unwrap_or_else(|faults| {
        faults.into_iter().for_each(|fault| fields.fault(fault));
        Metadata::default()
    });
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    if !caller.is_admin() {
        let open = settings::flag(&mut tx, "user_org_creation").await?;
        if !open.is_some_and(|flag| flag.enabled) {
            return Err(ApiError::not_authorized());
        }
    }
    let guid = orgs::insert_org(&mut tx, &name, suspended, &metadata).await;
    let guid = guid.map_err(|err| taken(err, &name))?;
    if !caller.is_admin() {
        roles::ensure_user(&mut tx, &caller.guid).await?;
        for kind in ["organization_user", "organization_manager"] {
            roles::insert_role(&mut tx, kind, &caller.guid, Some(&guid), None).await?;
        }
    }
    let target = Party::new("organization", &guid, &name);
    let place = Place { space_guid: None, org_guid: Some(&guid) };
    let data = json!({"request": {"name": name}});
    record(&mut tx, "audit.organization.create", &caller.party(), &target, place, &data).await?;
    let org: Option<Org> = by_guid(&mut tx, "organizations", &guid).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization"))?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(show_org(&controller, &org))))
}

fn taken(err: sqlx::Error, name: &str) -> ApiError {
    match is_taken(&err) {
        true => ApiError::unprocessable(format!("Organization '{name}' already exists.")),
        false => err.into(),
    }
}

/// `PATCH /v3/organizations/:guid`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let name = fields.string("name");
    let suspended = fields.flag("suspended");
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let access = caller.org(&mut tx, &guid).await?;
    access.require_manager()?;
    if suspended.is_some() {
        caller.require_admin()?;
    }
    let org = access.org;
    let metadata = Metadata::read(&org.labels, &org.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    let name = name.unwrap_or_else(|| org.name.clone());
    let done = orgs::update_org(&mut tx, &guid, &name, suspended.unwrap_or(org.suspended)).await;
    done.map_err(|err| taken(err, &name))?;
    set_metadata(&mut tx, "organizations", &guid, &metadata).await?;
    let target = Party::new("organization", &guid, &name);
    let place = Place { space_guid: None, org_guid: Some(&guid) };
    record(&mut tx, "audit.organization.update", &caller.party(), &target, place, &json!({}))
        .await?;
    let org: Option<Org> = by_guid(&mut tx, "organizations", &guid).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization"))?;
    tx.commit().await?;
    Ok(Json(show_org(&controller, &org)))
}

/// `DELETE /v3/organizations/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    caller.org(&mut tx, &guid).await?;
    caller.require_admin()?;
    job::accept(&controller, tx, Work::DeleteOrg { guid }, caller.party()).await
}

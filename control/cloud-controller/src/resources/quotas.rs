//! Quotas of organizations. They are shown; setting and enforcing them is not served yet.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, find, link};
use crate::CloudController;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::orgs::Quota;
use crate::store::select::Select;
use crate::time;

async fn show_quota(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    caller: &Caller,
    quota: &Quota,
) -> Result<Value, ApiError> {
    let limits: Value = serde_json::from_str(&quota.limits).unwrap_or_default();
    let mut with_it = Select::from("organizations");
    with_it.only("organizations.quota_guid = ?", [&*quota.guid]);
    caller.only_visible_orgs(&mut with_it, "organizations.guid");
    let orgs: Vec<crate::store::orgs::Org> = with_it.all(conn).await?;
    let orgs: Vec<Value> = orgs.iter().map(|org| json!({"guid": org.guid})).collect();
    Ok(json!({
        "guid": quota.guid,
        "created_at": time::show(quota.created_at),
        "updated_at": time::show(quota.updated_at),
        "name": quota.name,
        "apps": limits["apps"],
        "services": limits["services"],
        "routes": limits["routes"],
        "domains": limits["domains"],
        "relationships": {"organizations": {"data": orgs}},
        "links": {
            "self": link(controller, &format!("/v3/organization_quotas/{}", quota.guid)),
        },
    }))
}

/// `GET /v3/organization_quotas`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["names", "organization_guids"])?;
    let mut select = Select::from("organization_quotas");
    select.filter(&query, "names", "organization_quotas.name").common_filters(&query)?;
    if let Some(orgs) = query.list("organization_guids") {
        let mut of = Select::from("organizations");
        of.any("organizations.guid", &orgs);
        select.within("organization_quotas.guid", "quota_guid", &of);
    }
    select.order(&query, &["name"])?;
    let paging = Paging::of(&query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Quota>(&mut conn, paging).await?;
    let mut shown = Vec::new();
    for quota in &found {
        shown.push(show_quota(&controller, &mut conn, &caller, quota).await?);
    }
    let address = controller.url("/v3/organization_quotas");
    Ok(Json(page::document(&address, &query, paging, total, shown, None)))
}

/// `GET /v3/organization_quotas/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let quota: Quota =
        find(&mut conn, "organization_quotas", "Organization quota", &guid, |_| ()).await?;
    Ok(Json(show_quota(&controller, &mut conn, &caller, &quota).await?))
}

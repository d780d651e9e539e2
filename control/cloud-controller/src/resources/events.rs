//! Audit events.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};

use super::{Answer, App, find, link, list as list_of};
use crate::CloudController;
use crate::caller::Caller;
use crate::query::Query;
use crate::store::events::Event;
use crate::store::select::Select;
use crate::time;

fn show_event(controller: &CloudController, event: &Event) -> Value {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let place = |guid: &Option<String>| guid.as_ref().map(|guid| json!({"guid": guid}));
    json!({
        "guid": event.guid,
        "created_at": time::show(event.created_at),
        "updated_at": time::show(event.updated_at),
        "type": event.r#type,
        "actor": {
            "guid": event.actor_guid,
            "type": event.actor_type,
            "name": event.actor_name,
        },
        "target": {
            "guid": event.target_guid,
            "type": event.target_type,
            "name": event.target_name,
        },
        "data": data,
        "space": place(&event.space_guid),
        "organization": place(&event.org_guid),
        "links": {"self": link(controller, &format!("/v3/audit_events/{}", event.guid))},
    })
}

fn visible(caller: &Caller, select: &mut Select) {
    if caller.reads_all() {
        return;
    }
    let mut spaces = Select::from("audit_events");
    caller.only_visible_spaces(&mut spaces, "audit_events.space_guid");
    let mut orgs = Select::from("audit_events");
    orgs.only(
        "audit_events.space_guid IS NULL AND audit_events.org_guid IN (SELECT org_guid FROM roles \
         WHERE user_guid = ? AND type IN ('organization_manager', 'organization_auditor'))",
        [&*caller.guid],
    );
    select.either(spaces, orgs);
}

/// `GET /v3/audit_events`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["types", "target_guids", "space_guids", "organization_guids"])?;
    let mut select = Select::from("audit_events");
    visible(&caller, &mut select);
    select.filter(&query, "types", "audit_events.type");
    select.filter(&query, "target_guids", "audit_events.target_guid");
    select.filter(&query, "space_guids", "audit_events.space_guid");
    select.filter(&query, "organization_guids", "audit_events.org_guid");
    select.common_filters(&query)?.order(&query, &[])?;
    list_of(&controller, "/v3/audit_events", &query, &select, |event| {
        show_event(&controller, event)
    })
    .await
}

/// `GET /v3/audit_events/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let event: Event =
        find(&mut conn, "audit_events", "Event", &guid, |select| visible(&caller, select)).await?;
    Ok(Json(show_event(&controller, &event)))
}

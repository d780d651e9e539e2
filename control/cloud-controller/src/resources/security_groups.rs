//! Security groups: rules for what leaves containers. They are shown and applied; changing them is
//! not served yet.

use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};

use super::{Answer, App, link, list as list_of};
use crate::CloudController;
use crate::caller::Caller;
use crate::query::Query;
use crate::store::select::Select;
use crate::store::settings::SecurityGroup;
use crate::time;

fn show_group(controller: &CloudController, group: &SecurityGroup) -> Value {
    let rules: Value = serde_json::from_str(&group.rules).unwrap_or_default();
    json!({
        "guid": group.guid,
        "created_at": time::show(group.created_at),
        "updated_at": time::show(group.updated_at),
        "name": group.name,
        "rules": rules,
        "globally_enabled": {"running": group.running, "staging": group.staging},
        "relationships": {"running_spaces": {"data": []}, "staging_spaces": {"data": []}},
        "links": {"self": link(controller, &format!("/v3/security_groups/{}", group.guid))},
    })
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    raw: Option<&str>,
    column: Option<&str>,
) -> Answer {
    let query = Query::parse(raw);
    query.allow(&["names", "globally_enabled_running", "globally_enabled_staging"])?;
    let mut select = Select::from("security_groups");
    select.filter(&query, "names", "security_groups.name").common_filters(&query)?;
    for phase in ["running", "staging"] {
        if let Some(on) = query.flag(&format!("globally_enabled_{phase}"))? {
            select.only(format!("security_groups.{phase} = ?"), [i64::from(on)]);
        }
    }
    if let Some(column) = column {
        select.only(format!("security_groups.{column} = 1"), [""; 0]);
    }
    select.order(&query, &["name"])?;
    list_of(controller, path, &query, &select, |group| show_group(controller, group)).await
}

/// `GET /v3/security_groups`.
pub(crate) async fn list(State(controller): App, _: Caller, RawQuery(raw): RawQuery) -> Answer {
    page_of(&controller, "/v3/security_groups", raw.as_deref(), None).await
}

/// `GET /v3/spaces/:guid/running_security_groups`.
pub(crate) async fn running(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    of_space(&controller, &caller, &guid, raw.as_deref(), "running").await
}

/// `GET /v3/spaces/:guid/staging_security_groups`.
pub(crate) async fn staging(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    of_space(&controller, &caller, &guid, raw.as_deref(), "staging").await
}

async fn of_space(
    controller: &CloudController,
    caller: &Caller,
    guid: &str,
    raw: Option<&str>,
    phase: &str,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.space(&mut conn, guid).await?;
    drop(conn);
    let path = format!("/v3/spaces/{guid}/{phase}_security_groups");
    page_of(controller, &path, raw, Some(phase)).await
}

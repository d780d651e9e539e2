//! Stacks: root file systems, as the configuration names them.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};

use super::{Answer, App, find, link, list as list_of};
use crate::CloudController;
use crate::caller::Caller;
use crate::metadata::Metadata;
use crate::query::Query;
use crate::store::select::Select;
use crate::store::settings::Stack;
use crate::time;

fn show_stack(controller: &CloudController, stack: &Stack) -> Value {
    json!({
        "guid": stack.guid,
        "created_at": time::show(stack.created_at),
        "updated_at": time::show(stack.updated_at),
        "name": stack.name,
        "description": stack.description,
        "state": "ACTIVE",
        "state_reason": null,
        "build_rootfs_image": stack.build_rootfs,
        "run_rootfs_image": stack.run_rootfs,
        "default": stack.is_default,
        "metadata": Metadata::read(&stack.labels, &stack.annotations).show(),
        "links": {"self": link(controller, &format!("/v3/stacks/{}", stack.guid))},
    })
}

/// `GET /v3/stacks`.
pub(crate) async fn list(State(controller): App, _: Caller, RawQuery(raw): RawQuery) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["names", "default"])?;
    let mut select = Select::from("stacks");
    select.filter(&query, "names", "stacks.name").common_filters(&query)?;
    if let Some(default) = query.flag("default")? {
        select.only("stacks.is_default = ?", [i64::from(default)]);
    }
    select.labels(&query)?.order(&query, &["name"])?;
    list_of(&controller, "/v3/stacks", &query, &select, |stack| show_stack(&controller, stack))
        .await
}

/// `GET /v3/stacks/:guid`.
pub(crate) async fn show(State(controller): App, _: Caller, Path(guid): Path<String>) -> Answer {
    let mut conn = controller.store.read().await?;
    let stack: Stack = find(&mut conn, "stacks", "Stack", &guid, |_| ()).await?;
    Ok(Json(show_stack(&controller, &stack)))
}

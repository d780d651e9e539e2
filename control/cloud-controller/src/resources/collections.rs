//! Collections that hold nothing yet, since nothing can be added to them: services, bindings,
//! deployments, isolation segments. Clients read them beside what they are after.

use axum::Json;
use axum::extract::{OriginalUri, Path, RawQuery, State};
use serde_json::{Value, json};

use super::{Answer, App, link};
use crate::CloudController;
use crate::caller::Caller;
use crate::page::{self, Paging};
use crate::query::Query;

/// A list that is empty whatever it is filtered by.
pub(crate) async fn empty(
    State(controller): App,
    _: Caller,
    OriginalUri(uri): OriginalUri,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    let paging = Paging::of(&query)?;
    let address = controller.url(uri.path());
    Ok(Json(page::document(&address, &query, paging, 0, Vec::new(), None)))
}

/// `GET /v3/isolation_segments`.
pub(crate) async fn isolation_segments(
    state: App,
    caller: Caller,
    uri: OriginalUri,
    raw: RawQuery,
) -> Answer {
    empty(state, caller, uri, raw).await
}

fn no_segment(controller: &CloudController, path: &str, relationship: &str) -> Value {
    let address = format!("{path}/relationships/{relationship}");
    json!({"data": null, "links": {"self": link(controller, &address)}})
}

/// `GET /v3/organizations/:guid/relationships/default_isolation_segment`.
pub(crate) async fn org_isolation_segment(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.org(&mut conn, &guid).await?;
    let path = format!("/v3/organizations/{guid}");
    Ok(Json(no_segment(&controller, &path, "default_isolation_segment")))
}

/// `GET /v3/spaces/:guid/relationships/isolation_segment`.
pub(crate) async fn space_isolation_segment(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.space(&mut conn, &guid).await?;
    let path = format!("/v3/spaces/{guid}");
    Ok(Json(no_segment(&controller, &path, "isolation_segment")))
}

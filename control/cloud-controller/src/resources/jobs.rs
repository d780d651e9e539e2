//! Jobs: how work that was accepted is going.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{Answer, App, link};
use crate::CloudController;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::store::jobs::Job;
use crate::store::select::by_guid;
use crate::time;

/// How long an answer waits for the end of what it tells about. Clients have no limit of their own.
pub(crate) const HOLD: Duration = Duration::from_secs(20);

fn show_job(controller: &CloudController, job: &Job) -> Value {
    let list = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!([]));
    let mut links = json!({"self": link(controller, &format!("/v3/jobs/{}", job.guid))});
    if !job.operation.contains("delete") {
        let name = job.resource_type.trim_end_matches('s');
        let path = format!("/v3/{}/{}", job.resource_type, job.resource_guid);
        links[name] = link(controller, &path);
    }
    json!({
        "guid": job.guid,
        "created_at": time::show(job.created_at),
        "updated_at": time::show(job.updated_at),
        "operation": job.operation,
        "state": job.state,
        "errors": list(&job.errors),
        "warnings": list(&job.warnings),
        "links": links,
    })
}

/// `GET /v3/jobs/:guid`: held until the job has ended.
pub(crate) async fn show(State(controller): App, _: Caller, Path(guid): Path<String>) -> Answer {
    let job = controller.waiting.hold(&guid, HOLD, &controller.stop, || async {
        let mut conn = controller.store.read().await?;
        let job: Option<Job> = by_guid(&mut conn, "jobs", &guid).await?;
        let job = job.ok_or_else(|| ApiError::not_found("Job"))?;
        let ended = job.state != "PROCESSING";
        Ok::<_, ApiError>((job, ended))
    });
    Ok(Json(show_job(&controller, &job.await?)))
}

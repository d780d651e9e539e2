//! Work that goes on after its request is answered with 202 and a job.
//!
//! What is to be done is written down with the job, in the transaction that accepts it. So a job that
//! a crash interrupts is done again at the next start; each kind of work can be repeated.

use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, Transaction};

use crate::CloudController;
use crate::error::ApiError;
use crate::store::events::Party;
use crate::store::{OpenError, jobs};
use crate::{deletion, manifest};

/// What a job does, on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Work {
    DeleteApp {
        guid: String,
    },
    DeleteBuildpack {
        guid: String,
    },
    DeleteDomain {
        guid: String,
    },
    DeleteDroplet {
        guid: String,
    },
    DeleteOrg {
        guid: String,
    },
    DeletePackage {
        guid: String,
    },
    DeleteRole {
        guid: String,
    },
    DeleteRoute {
        guid: String,
    },
    DeleteSpace {
        guid: String,
    },
    DeleteUnmappedRoutes {
        space_guid: String,
    },
    DeleteUser {
        guid: String,
    },
    ApplyManifest {
        space_guid: String,
        yaml: String,
    },
    /// Nothing: the work is done already, and clients want a job all the same.
    UploadBuildpack {
        guid: String,
    },
}

impl Work {
    /// Operation, type of resource and guid, as the job shows them.
    fn names(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::DeleteApp { guid } => ("app.delete", "apps", guid),
            Self::DeleteBuildpack { guid } => ("buildpack.delete", "buildpacks", guid),
            Self::DeleteDomain { guid } => ("domain.delete", "domains", guid),
            Self::DeleteDroplet { guid } => ("droplet.delete", "droplets", guid),
            Self::DeleteOrg { guid } => ("organization.delete", "organizations", guid),
            Self::DeletePackage { guid } => ("package.delete", "packages", guid),
            Self::DeleteRole { guid } => ("role.delete", "roles", guid),
            Self::DeleteRoute { guid } => ("route.delete", "routes", guid),
            Self::DeleteSpace { guid } => ("space.delete", "spaces", guid),
            Self::DeleteUnmappedRoutes { space_guid } => {
                ("space.delete_unmapped_routes", "spaces", space_guid)
            }
            Self::DeleteUser { guid } => ("user.delete", "users", guid),
            Self::ApplyManifest { space_guid, .. } => {
                ("space.apply_manifest", "spaces", space_guid)
            }
            Self::UploadBuildpack { guid } => ("buildpack.upload", "buildpacks", guid),
        }
    }
}

/// Work, and for whom it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    work: Work,
    actor: Party,
}

/// Writes the job down, commits, begins it, and answers with its address.
pub(crate) async fn accept(
    controller: &CloudController,
    mut tx: Transaction<'static, Sqlite>,
    work: Work,
    actor: Party,
) -> Result<Response, ApiError> {
    let order = Order { work, actor };
    let (operation, resource_type, resource_guid) = order.work.names();
    let guid = jobs::insert(&mut tx, operation, &order, resource_type, resource_guid).await?;
    tx.commit().await?;
    begin(controller, guid.clone(), order);
    let response = Response::builder()
        .status(StatusCode::ACCEPTED)
        .header(header::LOCATION, controller.url(&format!("/v3/jobs/{guid}")));
    response.body(Body::empty()).map_err(|err| ApiError::unknown(&err))
}

/// Begins all jobs that a crash interrupted.
pub(crate) async fn resume(controller: &CloudController) -> Result<(), OpenError> {
    let mut conn = controller.store.read().await?;
    let unfinished = jobs::unfinished(&mut conn).await?;
    drop(conn);
    for job in unfinished {
        match serde_json::from_str(&job.work) {
            Ok(order) => begin(controller, job.guid, order),
            Err(err) => {
                let error = ApiError::unknown(&err);
                let mut tx = controller.store.begin().await?;
                jobs::finish(&mut tx, &job.guid, &error.errors, &[]).await?;
                tx.commit().await?;
            }
        }
    }
    Ok(())
}

fn begin(controller: &CloudController, guid: String, order: Order) {
    let (controller, tasks) = (controller.clone(), controller.tasks.clone());
    tasks.spawn(async move {
        let (errors, warnings) = match run(&controller, &order).await {
            Ok(warnings) => (Vec::new(), warnings),
            Err(err) => (err.errors, Vec::new()),
        };
        let ended = async {
            let mut tx = controller.store.begin().await?;
            jobs::finish(&mut tx, &guid, &errors, &warnings).await?;
            tx.commit().await
        };
        // A job whose end cannot be written is done again at the next start.
        if let Err(err) = ended.await {
            tracing::error!(job = %guid, error = %err, "cannot write down a job's end");
        }
        controller.waiting.changed(&guid);
    });
}

/// Warnings, or why it failed.
async fn run(controller: &CloudController, order: &Order) -> Result<Vec<String>, ApiError> {
    let actor = &order.actor;
    match &order.work {
        Work::DeleteApp { guid } => deletion::app(controller, guid, actor).await?,
        Work::DeleteBuildpack { guid } => deletion::buildpack(controller, guid, actor).await?,
        Work::DeleteDomain { guid } => deletion::domain(controller, guid, actor).await?,
        Work::DeleteDroplet { guid } => deletion::droplet(controller, guid, actor).await?,
        Work::DeleteOrg { guid } => deletion::org(controller, guid, actor).await?,
        Work::DeletePackage { guid } => deletion::package(controller, guid, actor).await?,
        Work::DeleteRole { guid } => deletion::role(controller, guid, actor).await?,
        Work::DeleteRoute { guid } => deletion::route(controller, guid, actor).await?,
        Work::DeleteSpace { guid } => deletion::space(controller, guid, actor).await?,
        Work::DeleteUnmappedRoutes { space_guid } => {
            deletion::unmapped_routes(controller, space_guid, actor).await?;
        }
        Work::DeleteUser { guid } => deletion::user(controller, guid).await?,
        Work::ApplyManifest { space_guid, yaml } => {
            return manifest::apply::run(controller, space_guid, yaml, actor).await;
        }
        Work::UploadBuildpack { .. } => {}
    }
    Ok(Vec::new())
}

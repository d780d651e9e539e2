//! Deletes, each repeatable: what is gone already stays gone.
//!
//! The database forgets first, then the runtime, then the blobstore. What a crash leaves in the
//! runtime is a stray that the next sync removes.

use blobstore::{Bucket, Key};
use serde_json::json;

use crate::CloudController;
use crate::error::ApiError;
use crate::resources::routes::{touch, touch_apps};
use crate::running;
use crate::store::apps::App;
use crate::store::buildpacks::Buildpack;
use crate::store::domains::Domain;
use crate::store::events::{Party, Place, record};
use crate::store::orgs::{Org, Space};
use crate::store::packages::{Droplet, Package};
use crate::store::roles::Role;
use crate::store::routes::Route;
use crate::store::select::by_guid;
use crate::store::{apps, buildpacks, domains, orgs, packages, processes, roles, routes};

pub(crate) async fn app(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(app) = by_guid::<App>(&mut tx, "apps", guid).await? else { return Ok(()) };
    let running = processes::of_app(&mut tx, guid).await?;
    let droplets = packages::droplets_of_app(&mut tx, guid).await?;
    let all_packages = packages::packages_of_app(&mut tx, guid).await?;
    let builds: Vec<String> = packages::staging_builds(&mut tx)
        .await?
        .into_iter()
        .filter(|build| build.app_guid == guid)
        .map(|build| build.guid)
        .collect();
    apps::delete(&mut tx, guid).await?;
    let target = Party::new("app", guid, &app.name);
    let place = Place { space_guid: Some(&app.space_guid), org_guid: None };
    let data = json!({"request": {"recursive": true}});
    record(&mut tx, "audit.app.delete-request", actor, &target, place, &data).await?;
    tx.commit().await?;
    let gone: Vec<String> = running.iter().map(|process| process.process_guid()).collect();
    running::stop(controller, &gone).await;
    for build in builds {
        if let Err(err) = controller.runtime.cancel(&build).await {
            tracing::warn!(%build, error = %err, "cannot cancel the staging of a deleted app");
        }
    }
    for droplet in &droplets {
        drop_blob(controller, Bucket::Droplets, droplet.key()).await;
    }
    for package in &all_packages {
        drop_blob(controller, Bucket::Packages, Some(package.guid.clone())).await;
    }
    if let Some(cache) = Key::new(Bucket::BuildpackCache, guid)
        && let Err(err) = controller.blobs.delete_below(&cache).await
    {
        tracing::warn!(app = guid, error = %err, "cannot delete a buildpack cache");
    }
    Ok(())
}

/// A blob that cannot be deleted costs space and nothing else, so the delete goes on.
pub(crate) async fn drop_blob(controller: &CloudController, bucket: Bucket, name: Option<String>) {
    let Some(key) = name.and_then(|name| Key::new(bucket, &name)) else { return };
    if let Err(err) = controller.blobs.delete(&key).await {
        tracing::warn!(%key, error = %err, "cannot delete a blob");
    }
}

pub(crate) async fn buildpack(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let found = by_guid::<Buildpack>(&mut tx, "buildpacks", guid).await?;
    let Some(buildpack) = found else { return Ok(()) };
    buildpacks::delete(&mut tx, guid).await?;
    let target = Party::new("buildpack", guid, &buildpack.name);
    record(&mut tx, "audit.buildpack.delete", actor, &target, Place::default(), &json!({})).await?;
    tx.commit().await?;
    drop_blob(controller, Bucket::Buildpacks, buildpack.key()).await;
    Ok(())
}

pub(crate) async fn domain(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(domain) = by_guid::<Domain>(&mut tx, "domains", guid).await? else { return Ok(()) };
    let led_to: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT app_guid, process_type FROM destinations WHERE route_guid IN \
         (SELECT guid FROM routes WHERE domain_guid = ?)",
    )
    .bind(guid)
    .fetch_all(&mut *tx)
    .await?;
    for (app, kind) in &led_to {
        touch(&mut tx, app, kind).await?;
    }
    domains::delete(&mut tx, guid).await?;
    let target = Party::new("domain", guid, &domain.name);
    let place = Place { space_guid: None, org_guid: domain.org_guid.as_deref() };
    record(&mut tx, "audit.domain.delete-request", actor, &target, place, &json!({})).await?;
    tx.commit().await?;
    for (app, _) in led_to {
        running::settle(controller, &app, &[]).await;
    }
    Ok(())
}

pub(crate) async fn droplet(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(droplet) = by_guid::<Droplet>(&mut tx, "droplets", guid).await? else {
        return Ok(());
    };
    packages::delete_droplet(&mut tx, guid).await?;
    record_for_app(
        &mut tx,
        "audit.app.droplet.delete",
        actor,
        &droplet.app_guid,
        &json!({"droplet_guid": guid}),
    )
    .await?;
    tx.commit().await?;
    drop_blob(controller, Bucket::Droplets, droplet.key()).await;
    Ok(())
}

pub(crate) async fn package(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(package) = by_guid::<Package>(&mut tx, "packages", guid).await? else {
        return Ok(());
    };
    packages::delete_package(&mut tx, guid).await?;
    record_for_app(
        &mut tx,
        "audit.app.package.delete",
        actor,
        &package.app_guid,
        &json!({"package_guid": guid}),
    )
    .await?;
    tx.commit().await?;
    drop_blob(controller, Bucket::Packages, Some(guid.to_owned())).await;
    Ok(())
}

/// Records an event whose target is an app.
pub(crate) async fn record_for_app(
    conn: &mut sqlx::SqliteConnection,
    kind: &str,
    actor: &Party,
    app_guid: &str,
    data: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    let app = by_guid::<App>(conn, "apps", app_guid).await?;
    let name = app.as_ref().map_or("", |app| &app.name);
    let target = Party::new("app", app_guid, name);
    let place = Place { space_guid: app.as_ref().map(|app| &*app.space_guid), org_guid: None };
    record(conn, kind, actor, &target, place, data).await
}

pub(crate) async fn role(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(role) = by_guid::<Role>(&mut tx, "roles", guid).await? else { return Ok(()) };
    roles::delete_role(&mut tx, guid).await?;
    let target = Party::new("user", &role.user_guid, "");
    let place =
        Place { space_guid: role.space_guid.as_deref(), org_guid: role.org_guid.as_deref() };
    let kind = format!("audit.user.{}_remove", role.r#type);
    record(&mut tx, &kind, actor, &target, place, &json!({})).await?;
    tx.commit().await?;
    Ok(())
}

pub(crate) async fn route(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let Some(route) = by_guid::<Route>(&mut tx, "routes", guid).await? else { return Ok(()) };
    let led_to = routes::destinations(&mut tx, guid).await?;
    touch_apps(&mut tx, guid).await?;
    routes::delete(&mut tx, guid).await?;
    let target = Party::new("route", guid, &route.host);
    let place = Place { space_guid: Some(&route.space_guid), org_guid: None };
    let data = json!({"request": {"recursive": true}});
    record(&mut tx, "audit.route.delete-request", actor, &target, place, &data).await?;
    tx.commit().await?;
    for destination in led_to {
        running::settle(controller, &destination.app_guid, &[]).await;
    }
    Ok(())
}

pub(crate) async fn unmapped_routes(
    controller: &CloudController,
    space_guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    for route in routes::delete_unmapped(&mut tx, space_guid).await? {
        let target = Party::new("route", &route.guid, &route.host);
        let place = Place { space_guid: Some(space_guid), org_guid: None };
        record(&mut tx, "audit.route.delete-request", actor, &target, place, &json!({})).await?;
    }
    tx.commit().await?;
    Ok(())
}

pub(crate) async fn space(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    // An app can be pushed while the others are deleted, so look again until there is none.
    loop {
        let mut conn = controller.store.read().await?;
        let left = apps::of_space(&mut conn, guid).await?;
        drop(conn);
        if left.is_empty() {
            let mut tx = controller.store.begin().await?;
            let Some(space) = by_guid::<Space>(&mut tx, "spaces", guid).await? else {
                return Ok(());
            };
            if !apps::of_space(&mut tx, guid).await?.is_empty() {
                continue;
            }
            orgs::delete_space(&mut tx, guid).await?;
            let target = Party::new("space", guid, &space.name);
            let place = Place { space_guid: None, org_guid: Some(&space.org_guid) };
            record(&mut tx, "audit.space.delete-request", actor, &target, place, &json!({}))
                .await?;
            tx.commit().await?;
            return Ok(());
        }
        for left in left {
            app(controller, &left.guid, actor).await?;
        }
    }
}

pub(crate) async fn org(
    controller: &CloudController,
    guid: &str,
    actor: &Party,
) -> Result<(), ApiError> {
    loop {
        let mut conn = controller.store.read().await?;
        let left = orgs::spaces_of_org(&mut conn, guid).await?;
        drop(conn);
        if left.is_empty() {
            let mut tx = controller.store.begin().await?;
            let Some(org) = by_guid::<Org>(&mut tx, "organizations", guid).await? else {
                return Ok(());
            };
            if !orgs::spaces_of_org(&mut tx, guid).await?.is_empty() {
                continue;
            }
            orgs::delete_org(&mut tx, guid).await?;
            let target = Party::new("organization", guid, &org.name);
            let place = Place { space_guid: None, org_guid: Some(guid) };
            record(&mut tx, "audit.organization.delete-request", actor, &target, place, &json!({}))
                .await?;
            tx.commit().await?;
            return Ok(());
        }
        for left in left {
            space(controller, &left, actor).await?;
        }
    }
}

pub(crate) async fn user(controller: &CloudController, guid: &str) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    roles::delete_user(&mut tx, guid).await?;
    tx.commit().await?;
    Ok(())
}

//! Packages, builds and droplets: an app on its way from source to what runs.

use serde_json::{Map, Value};
use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::metadata::Metadata;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Package {
    pub guid: String,
    pub app_guid: String,
    /// `bits` or `docker`.
    pub r#type: String,
    /// `AWAITING_UPLOAD`, `PROCESSING_UPLOAD`, `READY`, `FAILED` or `EXPIRED`.
    pub state: String,
    pub error: Option<String>,
    /// For `docker`.
    pub image: Option<String>,
    pub sha1: Option<String>,
    pub sha256: Option<String>,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Droplet {
    pub guid: String,
    pub app_guid: String,
    pub package_guid: Option<String>,
    /// `STAGING`, `STAGED`, `FAILED` or `EXPIRED`.
    pub state: String,
    pub error: Option<String>,
    pub lifecycle: String,
    pub stack: Option<String>,
    pub image: Option<String>,
    /// A JSON list in the shape of the API.
    pub buildpacks: String,
    pub execution_metadata: String,
    /// A JSON object, type to command.
    pub process_types: String,
    /// A JSON list as the builder gave it.
    pub sidecars: String,
    pub sha256: Option<String>,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl Droplet {
    pub fn process_types(&self) -> Map<String, Value> {
        serde_json::from_str(&self.process_types).unwrap_or_default()
    }

    /// Key of its file in the blobstore.
    pub fn key(&self) -> Option<String> {
        self.sha256.as_ref().map(|sha256| format!("{}/{sha256}", self.guid))
    }
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Build {
    pub guid: String,
    pub app_guid: String,
    pub package_guid: String,
    /// What it will make; it exists once the build is `STAGED`.
    pub droplet_guid: String,
    /// `STAGING`, `STAGED` or `FAILED`.
    pub state: String,
    /// `<id> - <description>`.
    pub error: Option<String>,
    pub lifecycle: String,
    /// A JSON list.
    pub buildpacks: String,
    pub stack: Option<String>,
    pub memory_mb: i64,
    pub disk_mb: i64,
    pub log_rate: i64,
    /// A JSON object: guid, name, email.
    pub creator: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl Build {
    pub fn buildpacks(&self) -> Vec<String> {
        serde_json::from_str(&self.buildpacks).unwrap_or_default()
    }
}

pub(crate) async fn insert_package(
    conn: &mut SqliteConnection,
    app_guid: &str,
    image: Option<&str>,
    metadata: &Metadata,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    let (kind, state) =
        if image.is_some() { ("docker", "READY") } else { ("bits", "AWAITING_UPLOAD") };
    sqlx::query(
        "INSERT INTO packages (guid, app_guid, type, state, image, labels, annotations, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(app_guid)
    .bind(kind)
    .bind(state)
    .bind(image)
    .bind(json_text(&metadata.labels))
    .bind(json_text(&metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

/// Moves a package on if it still is in the state `from`. Whether it was.
pub(crate) async fn move_package(
    conn: &mut SqliteConnection,
    guid: &str,
    from: &str,
    to: &str,
    error: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE packages SET state = ?, error = ?, updated_at = ? WHERE guid = ? AND state = ?",
    )
    .bind(to)
    .bind(error)
    .bind(time::now())
    .bind(guid)
    .bind(from)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(crate) async fn package_ready(
    conn: &mut SqliteConnection,
    guid: &str,
    digests: &blobstore::Digests,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE packages SET state = 'READY', error = NULL, sha1 = ?, sha256 = ?, updated_at = ? \
         WHERE guid = ?",
    )
    .bind(&digests.sha1)
    .bind(&digests.sha256)
    .bind(time::now())
    .bind(guid)
    .execute(conn)
    .await?;
    Ok(())
}

/// Uploads that a crash interrupted have failed: their bytes are lost.
pub(crate) async fn fail_interrupted_uploads(
    conn: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE packages SET state = 'FAILED', error = 'The upload was interrupted.', \
         updated_at = ? WHERE state = 'PROCESSING_UPLOAD'",
    )
    .bind(time::now())
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn delete_package(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM packages WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

/// Expires ready packages of an app but the newest `keep`, and those that a build still needs. Their
/// guids, so that their files can go.
pub(crate) async fn expire_packages(
    conn: &mut SqliteConnection,
    app_guid: &str,
    keep: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE packages SET state = 'EXPIRED', updated_at = ? WHERE app_guid = ? \
         AND type = 'bits' AND state = 'READY' AND guid NOT IN \
         (SELECT guid FROM packages WHERE app_guid = ? AND type = 'bits' AND state = 'READY' \
         ORDER BY id DESC LIMIT ?) AND guid NOT IN \
         (SELECT package_guid FROM builds WHERE app_guid = ? AND state = 'STAGING') \
         RETURNING guid",
    )
    .bind(time::now())
    .bind(app_guid)
    .bind(app_guid)
    .bind(keep)
    .bind(app_guid)
    .fetch_all(conn)
    .await
}

/// Fails with a unique violation if another build of the app is being staged.
pub(crate) async fn insert_build(
    conn: &mut SqliteConnection,
    build: &Build,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO builds (guid, app_guid, package_guid, droplet_guid, state, lifecycle, \
         buildpacks, stack, memory_mb, disk_mb, log_rate, creator, labels, annotations, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&build.guid)
    .bind(&build.app_guid)
    .bind(&build.package_guid)
    .bind(&build.droplet_guid)
    .bind(&build.state)
    .bind(&build.lifecycle)
    .bind(&build.buildpacks)
    .bind(&build.stack)
    .bind(build.memory_mb)
    .bind(build.disk_mb)
    .bind(build.log_rate)
    .bind(&build.creator)
    .bind(&build.labels)
    .bind(&build.annotations)
    .bind(build.created_at)
    .bind(build.updated_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a build that is being staged. False if it is not: an answer that comes twice or too late.
pub(crate) async fn end_build(
    conn: &mut SqliteConnection,
    guid: &str,
    error: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let state = if error.is_some() { "FAILED" } else { "STAGED" };
    let done = sqlx::query(
        "UPDATE builds SET state = ?, error = ?, updated_at = ? \
         WHERE guid = ? AND state = 'STAGING'",
    )
    .bind(state)
    .bind(error)
    .bind(time::now())
    .bind(guid)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Builds that are being staged, oldest first.
pub(crate) async fn staging_builds(conn: &mut SqliteConnection) -> Result<Vec<Build>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM builds WHERE state = 'STAGING' ORDER BY id").fetch_all(conn).await
}

pub(crate) async fn insert_droplet(
    conn: &mut SqliteConnection,
    droplet: &Droplet,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO droplets (guid, app_guid, package_guid, state, error, lifecycle, stack, \
         image, buildpacks, execution_metadata, process_types, sidecars, sha256, labels, \
         annotations, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&droplet.guid)
    .bind(&droplet.app_guid)
    .bind(&droplet.package_guid)
    .bind(&droplet.state)
    .bind(&droplet.error)
    .bind(&droplet.lifecycle)
    .bind(&droplet.stack)
    .bind(&droplet.image)
    .bind(&droplet.buildpacks)
    .bind(&droplet.execution_metadata)
    .bind(&droplet.process_types)
    .bind(&droplet.sidecars)
    .bind(&droplet.sha256)
    .bind(&droplet.labels)
    .bind(&droplet.annotations)
    .bind(droplet.created_at)
    .bind(droplet.updated_at)
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn delete_droplet(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM droplets WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

/// The file of a droplet that is being staged has arrived.
pub(crate) async fn droplet_uploaded(
    conn: &mut SqliteConnection,
    guid: &str,
    sha256: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE droplets SET sha256 = ?, updated_at = ? WHERE guid = ? AND state = 'STAGING'",
    )
    .bind(sha256)
    .bind(time::now())
    .bind(guid)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A droplet is done, with what the builder tells about it.
pub(crate) async fn droplet_staged(
    conn: &mut SqliteConnection,
    guid: &str,
    buildpacks: &Value,
    execution_metadata: &str,
    process_types: &Map<String, Value>,
    sidecars: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE droplets SET state = 'STAGED', buildpacks = ?, execution_metadata = ?, \
         process_types = ?, sidecars = ?, updated_at = ? WHERE guid = ?",
    )
    .bind(json_text(buildpacks))
    .bind(execution_metadata)
    .bind(json_text(process_types))
    .bind(json_text(sidecars))
    .bind(time::now())
    .bind(guid)
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn droplet_failed(
    conn: &mut SqliteConnection,
    guid: &str,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE droplets SET state = 'FAILED', error = ?, updated_at = ? WHERE guid = ?")
        .bind(error)
        .bind(time::now())
        .bind(guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// Expires staged droplets of an app but the newest `keep` and the current one. What had a file.
pub(crate) async fn expire_droplets(
    conn: &mut SqliteConnection,
    app_guid: &str,
    keep: i64,
) -> Result<Vec<Droplet>, sqlx::Error> {
    sqlx::query_as(
        "UPDATE droplets SET state = 'EXPIRED', updated_at = ? WHERE app_guid = ? \
         AND state = 'STAGED' AND guid NOT IN \
         (SELECT guid FROM droplets WHERE app_guid = ? AND state = 'STAGED' \
         ORDER BY id DESC LIMIT ?) \
         AND guid IS NOT (SELECT droplet_guid FROM apps WHERE guid = ?) RETURNING *",
    )
    .bind(time::now())
    .bind(app_guid)
    .bind(app_guid)
    .bind(keep)
    .bind(app_guid)
    .fetch_all(conn)
    .await
}

/// All droplets of an app.
pub(crate) async fn droplets_of_app(
    conn: &mut SqliteConnection,
    app_guid: &str,
) -> Result<Vec<Droplet>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM droplets WHERE app_guid = ?").bind(app_guid).fetch_all(conn).await
}

/// All packages of an app.
pub(crate) async fn packages_of_app(
    conn: &mut SqliteConnection,
    app_guid: &str,
) -> Result<Vec<Package>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM packages WHERE app_guid = ?").bind(app_guid).fetch_all(conn).await
}

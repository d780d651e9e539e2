//! What an administrator sets for the whole platform: feature flags, environment groups, security
//! groups, stacks.

use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Flag {
    pub name: String,
    pub enabled: bool,
    pub message: Option<String>,
    pub updated_at: Micros,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Stack {
    pub guid: String,
    pub name: String,
    pub description: String,
    pub build_rootfs: String,
    pub run_rootfs: String,
    pub is_default: bool,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct SecurityGroup {
    pub guid: String,
    pub name: String,
    pub rules: String,
    pub running: bool,
    pub staging: bool,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// Flags that differ from the defaults.
pub(crate) async fn flags(conn: &mut SqliteConnection) -> Result<Vec<Flag>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM feature_flags").fetch_all(conn).await
}

pub(crate) async fn flag(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Flag>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM feature_flags WHERE name = ?")
        .bind(name)
        .fetch_optional(conn)
        .await
}

pub(crate) async fn set_flag(
    conn: &mut SqliteConnection,
    name: &str,
    enabled: bool,
    message: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO feature_flags (name, enabled, message, updated_at) \
         VALUES (?, ?, ?, ?)",
    )
    .bind(name)
    .bind(enabled)
    .bind(message)
    .bind(time::now())
    .execute(conn)
    .await?;
    Ok(())
}

/// The variables of a group as a JSON text, and when they were set.
pub(crate) async fn environment_group(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Option<(String, Micros)>, sqlx::Error> {
    sqlx::query_as("SELECT vars, updated_at FROM environment_groups WHERE name = ?")
        .bind(name)
        .fetch_optional(conn)
        .await
}

pub(crate) async fn set_environment_group(
    conn: &mut SqliteConnection,
    name: &str,
    vars: &serde_json::Map<String, serde_json::Value>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO environment_groups (name, vars, updated_at) VALUES (?, ?, ?)",
    )
    .bind(name)
    .bind(json_text(vars))
    .bind(time::now())
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a group that applies to all apps, if there is none of that name.
pub(crate) async fn seed_security_group(
    conn: &mut SqliteConnection,
    name: &str,
    rules: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    let now = time::now();
    sqlx::query(
        "INSERT INTO security_groups (guid, name, rules, running, staging, created_at, updated_at) \
         VALUES (?, ?, ?, 1, 1, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(new_guid())
    .bind(name)
    .bind(json_text(rules))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a stack, or brings what the configuration says about it up to date.
pub(crate) async fn seed_stack(
    conn: &mut SqliteConnection,
    stack: &crate::config::Stack,
    is_default: bool,
) -> Result<(), sqlx::Error> {
    let now = time::now();
    let build = stack.build_rootfs_image.as_ref().unwrap_or(&stack.name);
    let run = stack.run_rootfs_image.as_ref().unwrap_or(&stack.name);
    sqlx::query(
        "INSERT INTO stacks (guid, name, description, build_rootfs, run_rootfs, is_default, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET description = excluded.description, \
         build_rootfs = excluded.build_rootfs, run_rootfs = excluded.run_rootfs, \
         is_default = excluded.is_default",
    )
    .bind(new_guid())
    .bind(&stack.name)
    .bind(&stack.description)
    .bind(build)
    .bind(run)
    .bind(is_default)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn stack(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Stack>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM stacks WHERE name = ?").bind(name).fetch_optional(conn).await
}

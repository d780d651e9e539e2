//! Users and their groups, in SQLite.
//!
//! One connection: UAA's load is small and its slow part, hashing, happens elsewhere.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row};

use crate::error::Error;
use crate::filter::{Attribute, Filter};

/// Groups that every user is in.
pub(crate) const DEFAULT_GROUPS: [&str; 14] = [
    "openid",
    "scim.me",
    "cloud_controller.read",
    "cloud_controller.write",
    "cloud_controller_service_permissions.read",
    "password.write",
    "scim.userids",
    "uaa.user",
    "approvals.me",
    "oauth.approvals",
    "profile",
    "roles",
    "user_attributes",
    "uaa.offline_token",
];

/// A user. Times are seconds since the epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    pub id: String,
    pub user_name: String,
    pub origin: String,
    pub password_hash: String,
    pub email: String,
    pub given_name: String,
    pub family_name: String,
    pub version: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub password_changed_at: i64,
    pub failed_logins: i64,
    pub last_failure_at: i64,
}

impl User {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            user_name: row.try_get("user_name")?,
            origin: row.try_get("origin")?,
            password_hash: row.try_get("password_hash")?,
            email: row.try_get("email")?,
            given_name: row.try_get("given_name")?,
            family_name: row.try_get("family_name")?,
            version: row.try_get("version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            password_changed_at: row.try_get("password_changed_at")?,
            failed_logins: row.try_get("failed_logins")?,
            last_failure_at: row.try_get("last_failure_at")?,
        })
    }
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store(SqlitePool);

impl Store {
    pub async fn open(file: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!().run(&pool).await?;
        Ok(Self(pool))
    }

    pub async fn close(&self) {
        self.0.close().await;
    }

    /// Adds a user; false if the origin has one of that name.
    pub async fn add(&self, user: &User, groups: &[String]) -> Result<bool, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        let added = sqlx::query(
            "INSERT INTO users (id, user_name, origin, password_hash, email, given_name, \
             family_name, created_at, updated_at, password_changed_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&user.id)
        .bind(&user.user_name)
        .bind(&user.origin)
        .bind(&user.password_hash)
        .bind(&user.email)
        .bind(&user.given_name)
        .bind(&user.family_name)
        .bind(user.created_at)
        .bind(user.updated_at)
        .bind(user.password_changed_at)
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        for group in groups {
            sqlx::query("INSERT OR IGNORE INTO memberships (user_id, group_name) VALUES (?, ?)")
                .bind(&user.id)
                .bind(group)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    pub async fn by_name(&self, name: &str, origin: &str) -> Result<Option<User>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM users WHERE user_name = ? AND origin = ?")
            .bind(name)
            .bind(origin)
            .fetch_optional(&self.0)
            .await?;
        row.as_ref().map(User::from_row).transpose()
    }

    pub async fn by_id(&self, id: &str) -> Result<Option<User>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM users WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.0)
            .await?;
        row.as_ref().map(User::from_row).transpose()
    }

    /// The groups of a user: the default ones and the user's own, in order of name.
    pub async fn groups(&self, user_id: &str) -> Result<Vec<String>, sqlx::Error> {
        let own: Vec<String> =
            sqlx::query_scalar("SELECT group_name FROM memberships WHERE user_id = ?")
                .bind(user_id)
                .fetch_all(&self.0)
                .await?;
        let mut groups: Vec<String> = DEFAULT_GROUPS.iter().map(|&group| group.into()).collect();
        groups.extend(own);
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    /// Users that match, in order of creation, `count` of them from the one-based `start`; and how
    /// many match in all.
    pub async fn find(
        &self,
        filter: Option<&Filter>,
        start: i64,
        count: i64,
    ) -> Result<(Vec<User>, i64), sqlx::Error> {
        let mut total = QueryBuilder::new("SELECT count(*) FROM users");
        push_filter(&mut total, filter);
        let total: i64 = total.build_query_scalar().fetch_one(&self.0).await?;
        let mut page = QueryBuilder::new("SELECT * FROM users");
        push_filter(&mut page, filter);
        page.push(" ORDER BY created_at, id LIMIT ").push_bind(count);
        page.push(" OFFSET ").push_bind(start - 1);
        let rows = page.build().fetch_all(&self.0).await?;
        Ok((rows.iter().map(User::from_row).collect::<Result<_, _>>()?, total))
    }

    /// Forgets a user. Whether there was one.
    pub async fn remove(&self, id: &str) -> Result<bool, sqlx::Error> {
        let done = sqlx::query("DELETE FROM users WHERE id = ?").bind(id).execute(&self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn set_password(&self, id: &str, hash: &str, now: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE users SET password_hash = ?, password_changed_at = ?, updated_at = ?, \
             version = version + 1, failed_logins = 0 WHERE id = ?",
        )
        .bind(hash)
        .bind(now)
        .bind(now)
        .bind(id)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Counts a failed log-in; failures before `since` no longer count.
    pub async fn login_failed(&self, id: &str, now: i64, since: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE users SET failed_logins = CASE WHEN last_failure_at < ? THEN 1 \
             ELSE failed_logins + 1 END, last_failure_at = ? WHERE id = ?",
        )
        .bind(since)
        .bind(now)
        .bind(id)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    pub async fn login_succeeded(&self, id: &str) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE users SET failed_logins = 0 WHERE id = ? AND failed_logins > 0")
            .bind(id)
            .execute(&self.0)
            .await?;
        Ok(())
    }
}

fn push_filter(query: &mut QueryBuilder<sqlx::Sqlite>, filter: Option<&Filter>) {
    let Some(Filter { any_of }) = filter else { return };
    let mut word = " WHERE (";
    for all_of in any_of {
        query.push(word);
        word = " OR (";
        let mut word = "";
        for comparison in all_of {
            let column = match comparison.attribute {
                Attribute::Id => "id = ",
                Attribute::UserName => "user_name = ",
                Attribute::Origin => "origin = ",
                Attribute::Email => "email COLLATE NOCASE = ",
            };
            query.push(word).push(column).push_bind(comparison.value.clone());
            word = " AND ";
        }
        query.push(")");
    }
}

//! Failures of a UAA, and how clients see them.

use std::path::PathBuf;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

/// Why a UAA cannot be opened or cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory or a file in it cannot be used.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("UAA's database failed")]
    Database(#[from] sqlx::Error),
    /// The database is of a newer version, or a migration failed.
    #[error("UAA's database cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The signing key is unusable.
    #[error("signing key {}: {reason}", .path.display())]
    Key {
        /// File of the key.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A password could not be hashed.
    #[error("cannot hash a password: {0}")]
    Password(String),
    /// A token could not be signed.
    #[error("cannot sign a token: {0}")]
    Sign(String),
}

/// An answer that refuses, in OAuth's shape: `{"error": …, "error_description": …}`.
#[derive(Debug)]
pub(crate) struct Refused {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
}

impl Refused {
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }

    pub fn bad_credentials() -> Self {
        Self::unauthorized("Bad credentials")
    }

    pub fn unauthorized(description: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", description)
    }

    pub fn invalid_token(description: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", description)
    }

    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    pub fn insufficient_scope(wanted: &str) -> Self {
        let description = format!("Insufficient scope for this resource: {wanted}");
        Self::new(StatusCode::FORBIDDEN, "insufficient_scope", description)
    }

    pub fn no_such_user(id: &str) -> Self {
        let description = format!("User {id} does not exist");
        Self::new(StatusCode::NOT_FOUND, "scim_resource_not_found", description)
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "This UAA does not serve that path")
    }
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        tracing::error!(error = &err as &dyn std::error::Error, "UAA cannot answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", err.to_string())
    }
}

impl From<sqlx::Error> for Refused {
    fn from(err: sqlx::Error) -> Self {
        Error::from(err).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "error_description": self.description});
        let mut response =
            (self.status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = format!("Bearer realm=\"UAA\", error=\"{}\"", self.error);
            if let Ok(value) = challenge.parse() {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

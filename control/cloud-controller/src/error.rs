//! Refusals in Cloud Controller's shape: `{"errors":[{"code","title","detail"}]}`.
//!
//! Codes, titles and several details are protocol: clients match them word for word.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One entry of `errors`, of an answer or of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Number that names the kind.
    pub code: u32,
    /// Name of the kind, `CF-…`.
    pub title: String,
    /// What a person reads.
    pub detail: String,
}

/// An answer that refuses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {}", .errors.first().map_or("no reason", |error| &error.detail))]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// At least one.
    pub errors: Vec<Detail>,
}

impl ApiError {
    fn new(status: StatusCode, code: u32, title: &str, detail: impl Into<String>) -> Self {
        let detail = Detail { code, title: title.into(), detail: detail.into() };
        Self { status, errors: vec![detail] }
    }

    /// 401: there is a token, but it is not good.
    pub fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")
    }

    /// 401: no token.
    pub fn not_authenticated() -> Self {
        let detail = "Authentication error";
        Self::new(StatusCode::UNAUTHORIZED, 10002, "CF-NotAuthenticated", detail)
    }

    /// 403: the caller's role does not allow it.
    pub fn not_authorized() -> Self {
        let detail = "You are not authorized to perform the requested action";
        Self::new(StatusCode::FORBIDDEN, 10003, "CF-NotAuthorized", detail)
    }

    /// 403: the token does not allow it, whatever the caller's roles.
    pub fn insufficient_scope() -> Self {
        let detail = "Your token lacks the necessary scopes to access this resource.";
        Self::new(StatusCode::FORBIDDEN, 10007, "CF-InsufficientScope", detail)
    }

    /// 403: an administrator has turned the feature off.
    pub fn feature_disabled(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, 330002, "CF-FeatureDisabled", detail)
    }

    /// 404: `kind` as the message begins, `App`.
    pub fn not_found(kind: &str) -> Self {
        let detail = format!("{kind} not found");
        Self::new(StatusCode::NOT_FOUND, 10010, "CF-ResourceNotFound", detail)
    }

    /// 404: there is no such route in this API.
    pub fn unknown_request() -> Self {
        Self::new(StatusCode::NOT_FOUND, 10000, "CF-NotFound", "Unknown request")
    }

    /// 400: the body is not the JSON or YAML that it must be.
    pub fn message_parse(detail: impl Into<String>) -> Self {
        let detail = format!("Request invalid due to parse error: {}", detail.into());
        Self::new(StatusCode::BAD_REQUEST, 1001, "CF-MessageParseError", detail)
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 1004, "CF-BadRequest", detail)
    }

    /// 400: a query parameter is unknown or malformed.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        let detail = format!("The query parameter is invalid: {}", detail.into());
        Self::new(StatusCode::BAD_REQUEST, 10005, "CF-BadQueryParameter", detail)
    }

    /// 422.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 10008, "CF-UnprocessableEntity", detail)
    }

    /// 422 with an entry for each detail; there is at least one.
    pub fn unprocessable_all(details: impl IntoIterator<Item = String>) -> Self {
        let mut all = Self { status: StatusCode::UNPROCESSABLE_ENTITY, errors: Vec::new() };
        for detail in details {
            all.errors.extend(Self::unprocessable(detail).errors);
        }
        all
    }

    /// 422: another build of the app is being staged.
    pub fn staging_in_progress() -> Self {
        let detail = "Only one build can be STAGING at a time per application.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 170017, "CF-StagingInProgress", detail)
    }

    /// 413: an upload is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, 10010, "CF-PayloadTooLarge", detail)
    }

    /// 503: a part of the platform that the request needs does not answer.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 10015, "CF-ServiceUnavailable", detail)
    }

    /// 500, with the cause in our log and not in the answer.
    pub fn unknown(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "a request failed");
        let detail = "An unknown error occurred.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 10001, "UnknownError", detail)
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(err: sqlx::Error) -> Self {
        Self::unknown(&err)
    }
}

impl From<blobstore::Error> for ApiError {
    fn from(err: blobstore::Error) -> Self {
        Self::unknown(&err)
    }
}

impl From<std::io::Error> for ApiError {
    fn from(err: std::io::Error) -> Self {
        Self::unknown(&err)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"errors": self.errors}))).into_response()
    }
}

/// Whether the database refused because a unique name is taken.
pub(crate) fn is_taken(err: &sqlx::Error) -> bool {
    err.as_database_error().is_some_and(|err| err.is_unique_violation())
}

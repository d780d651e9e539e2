//! What is said after `FAILED`.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// Why a command failed, in the cf CLI's words where it has them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no API endpoint yet.
    #[error("No API endpoint set. Use 'cf login' or 'cf api' to target an endpoint.")]
    NoApi,
    /// There is no token, or UAA takes it no longer.
    #[error("Not logged in. Use 'cf login' to log in.")]
    NotLoggedIn,
    /// No org is targeted.
    #[error("No org targeted, use 'cf target -o ORG' to target an org.")]
    NoOrg,
    /// No space is targeted.
    #[error("No space targeted, use 'cf target -s SPACE' to target a space.")]
    NoSpace,
    /// A server refused.
    #[error("{0}")]
    Refused(Refusal),
    /// A server cannot be asked.
    #[error("Request error: {call}: {}", Chain(.source))]
    Unreachable {
        /// Method and URL.
        call: String,
        /// What became of the connection.
        source: reqwest::Error,
    },
    /// A file of this machine.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything that is a sentence.
    #[error("{0}")]
    Said(String),
}

/// The answer of a server that refused.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: String,
}

#[derive(Deserialize)]
struct Body {
    errors: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = matches!(self.status, 400 | 401 | 403 | 404 | 422 | 503);
        let details = serde_json::from_str::<Body>(&self.body).map(|body| body.errors);
        match details.as_deref() {
            Ok([one]) if plain && one.title == "CF-InvalidAuthToken" => {
                f.write_str("Invalid Auth Token")
            }
            Ok([one]) if plain => f.write_str(&one.detail),
            Ok([first, rest @ ..]) if plain => {
                write!(f, "Multiple errors occurred:\n- {}", first.detail)?;
                rest.iter().try_for_each(|one| write!(f, "\n- {}", one.detail))
            }
            Ok([one, ..]) => {
                writeln!(f, "Unexpected Response\nResponse Code: {}", self.status)?;
                write!(f, "Code: {}, Title: {}, Detail: {}", one.code, one.title, one.detail)
            }
            _ => {
                let body: String = self.body.chars().take(2000).collect();
                write!(f, "Unexpected Response\nResponse Code: {}\n{body}", self.status)
            }
        }
    }
}

impl Error {
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { doing, path, source }
    }

    /// HTTP status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }
}

/// An error and its causes on one line.
struct Chain<'a>(&'a reqwest::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = std::error::Error::source(self.0);
        if cause.is_none() {
            return write!(f, "{}", self.0);
        }
        let mut between = "";
        while let Some(error) = cause {
            write!(f, "{between}{error}")?;
            (between, cause) = (": ", error.source());
        }
        Ok(())
    }
}

//! Lines that the platform itself writes to an app's log.

use std::fmt;
use std::sync::Arc;

/// One line. Its time is when it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Guid of the app.
    pub source_id: String,
    /// `API` for the Cloud Controller, `STG` for staging.
    pub source_type: &'static str,
    /// Without a newline at its end.
    pub text: String,
}

/// Takes lines for apps. A clone writes to the same place.
#[derive(Clone)]
pub struct AppLog(Arc<dyn Fn(Line) + Send + Sync>);

impl AppLog {
    /// `take` must not block.
    pub fn new(take: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn api(&self, app_guid: &str, text: impl Into<String>) {
        let (source_id, text) = (app_guid.to_owned(), text.into());
        (self.0)(Line { source_id, source_type: "API", text });
    }
}

impl fmt::Debug for AppLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppLog")
    }
}

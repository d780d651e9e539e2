//! A URL that others name: where to ask, for what, and what to show there.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::Address;

/// A URL in its parts. Name and password in it are shown by Basic authentication, as Go's client does:
/// Cloud Controller's addresses for cells and the BBS have them.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whom to ask.
    pub address: Address,
    /// Path and query.
    pub path: String,
    /// The value of `Authorization`.
    pub credentials: Option<HeaderValue>,
}

/// Why a text is no [`Target`]. The text may hold a password, so it is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a URL with scheme and host is wanted: {0}")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(url: &str) -> Result<Self, BadTarget> {
        let parsed: Uri = url.parse().map_err(bad)?;
        let (Some(scheme), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
            return Err(BadTarget("one of them is missing".into()));
        };
        let (credentials, host) = match authority.as_str().rsplit_once('@') {
            Some((credentials, host)) => (Some(basic(credentials)), host),
            None => (None, authority.as_str()),
        };
        let address = format!("{scheme}://{host}").parse().map_err(bad)?;
        let path = parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address, path, credentials })
    }
}

fn bad(error: impl fmt::Display) -> BadTarget {
    BadTarget(error.to_string())
}

/// `NAME:PASSWORD` of a URL, percent-encoded, as a header.
fn basic(credentials: &str) -> HeaderValue {
    let (name, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let plain = [decode(name), b":".to_vec(), decode(password)].concat();
    let text = format!("Basic {}", BASE64_STANDARD.encode(plain));
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// A URL for logs and messages: without name and password.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::{Target, without_credentials};

    #[test]
    fn credentials_of_a_url_are_for_its_server_and_nobody_else() {
        let target: Target = "http://cell:p%40ss@127.0.0.1:1/a?b=c".parse().unwrap();
        assert_eq!(target.address.to_string(), "http://127.0.0.1:1");
        assert_eq!(target.path, "/a?b=c");
        assert_eq!(target.credentials.unwrap(), "Basic Y2VsbDpwQHNz");
        let open: Target = "https://host.test".parse().unwrap();
        assert_eq!((open.path.as_str(), open.credentials), ("/", None));
        let at: Target = "http://127.0.0.1:1/a@b:c".parse().unwrap();
        assert!(at.credentials.is_none());
        assert_eq!(without_credentials("http://cell:p@127.0.0.1:1/a@b"), "http://127.0.0.1:1/a@b");
        for bad in ["/path", "host:1", "ftp://cell:secret@host/", "http://cell:secret@ho st/"] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

//! Sessions that stay with the instance that began them.

use bytes::Bytes;

use crate::config::Config;
use crate::fields::Fields;

/// The router's own cookie, which names the instance.
const INSTANCE: &str = "__VCAP_ID__";

/// The instance that a client's session is at: it must send both the app's cookie and the router's.
pub(crate) fn wanted(request: &Fields, config: &Config) -> Option<String> {
    let mut session = false;
    let mut instance = None;
    for line in request.all("Cookie") {
        for cookie in line.split(|byte| *byte == b';') {
            let (name, value) = pair(cookie);
            session |= is_session(name, config);
            if name == INSTANCE.as_bytes() && instance.is_none() {
                instance = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    instance.filter(|_| session)
}

/// The cookie that a response to a request gets, for an instance's `id`. `wanted` is where the session
/// was; `path` the route's.
pub(crate) fn cookie(
    response: &Fields,
    config: &Config,
    wanted: Option<&str>,
    id: &str,
    path: &str,
) -> Option<Bytes> {
    if id.is_empty() {
        return None;
    }
    let mut session = None;
    for line in response.all("Set-Cookie") {
        let mut parts = line.split(|byte| *byte == b';');
        let (name, _) = pair(parts.next().unwrap_or_default());
        if name == INSTANCE.as_bytes() {
            return None;
        }
        if session.is_none() && is_session(name, config) {
            session = Some(parts.map(pair).collect::<Vec<_>>());
        }
    }
    let moved = wanted.is_some_and(|wanted| wanted != id);
    let attributes = match session {
        Some(attributes) => attributes,
        None if moved => Vec::new(),
        None => return None,
    };
    let given = |name: &str| {
        attributes
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let mut cookie = format!("{INSTANCE}={id}; Path={}", if path.is_empty() { "/" } else { path });
    if let Some(expires) = given("Expires") {
        cookie += &format!("; Expires={expires}");
    }
    // A session that lasts has no fixed instance; one that ends does so at both.
    if given("Max-Age").and_then(|age| age.parse::<i64>().ok()).is_some_and(|age| age <= 0) {
        cookie += "; Max-Age=0";
    }
    cookie += "; HttpOnly";
    if config.secure_cookies || given("Secure").is_some() {
        cookie += "; Secure";
    }
    cookie += match given("SameSite").map(|site| site.to_ascii_lowercase()).as_deref() {
        Some("strict") => "; SameSite=Strict",
        Some("lax") => "; SameSite=Lax",
        Some("none") => "; SameSite=None",
        _ => "",
    };
    if given("Partitioned").is_some() {
        cookie += "; Partitioned";
    }
    Some(cookie.into())
}

fn is_session(name: &[u8], config: &Config) -> bool {
    config.sticky_session_cookie_names.iter().any(|session| name == session.as_bytes())
}

fn pair(cookie: &[u8]) -> (&[u8], &[u8]) {
    let cookie = cookie.trim_ascii();
    match cookie.iter().position(|byte| *byte == b'=') {
        Some(at) => (cookie[..at].trim_ascii(), cookie[at + 1..].trim_ascii()),
        None => (cookie, b""),
    }
}

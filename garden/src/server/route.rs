//! Which call a method and a path mean.

use crate::http::target::decode;

/// Garden's calls, by how a connection serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Plain(Plain),
    StreamIn,
    StreamOut,
    Run,
    Attach,
    /// Stdout (0) or stderr (1) of an attach.
    Output(usize),
}

/// Calls with a JSON answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Ping,
    Capacity,
    List,
    Create,
    BulkInfo,
    BulkMetrics,
    Destroy,
    Info,
    Metrics,
    Stop,
    BandwidthLimits,
    CpuLimits,
    DiskLimits,
    MemoryLimits,
    NetIn,
    NetOut,
    BulkNetOut,
    SetGraceTime,
    Properties,
    Property,
    SetProperty,
    RemoveProperty,
}

/// Segments that begin with a colon stand for any text; the last one of a path for any but none.
const ROUTES: [(&str, &str, Call); 28] = [
    ("GET", "/ping", Call::Plain(Plain::Ping)),
    ("GET", "/capacity", Call::Plain(Plain::Capacity)),
    ("GET", "/containers", Call::Plain(Plain::List)),
    ("POST", "/containers", Call::Plain(Plain::Create)),
    ("GET", "/containers/bulk_info", Call::Plain(Plain::BulkInfo)),
    ("GET", "/containers/bulk_metrics", Call::Plain(Plain::BulkMetrics)),
    ("DELETE", "/containers/:handle", Call::Plain(Plain::Destroy)),
    ("GET", "/containers/:handle/info", Call::Plain(Plain::Info)),
    ("GET", "/containers/:handle/metrics", Call::Plain(Plain::Metrics)),
    ("PUT", "/containers/:handle/stop", Call::Plain(Plain::Stop)),
    ("PUT", "/containers/:handle/files", Call::StreamIn),
    ("GET", "/containers/:handle/files", Call::StreamOut),
    ("GET", "/containers/:handle/limits/bandwidth", Call::Plain(Plain::BandwidthLimits)),
    ("GET", "/containers/:handle/limits/cpu", Call::Plain(Plain::CpuLimits)),
    ("GET", "/containers/:handle/limits/disk", Call::Plain(Plain::DiskLimits)),
    ("GET", "/containers/:handle/limits/memory", Call::Plain(Plain::MemoryLimits)),
    ("POST", "/containers/:handle/net/in", Call::Plain(Plain::NetIn)),
    ("POST", "/containers/:handle/net/out", Call::Plain(Plain::NetOut)),
    ("POST", "/containers/:handle/net/out/bulk", Call::Plain(Plain::BulkNetOut)),
    ("POST", "/containers/:handle/processes", Call::Run),
    ("GET", "/containers/:handle/processes/:process", Call::Attach),
    ("GET", "/containers/:handle/processes/:process/attaches/:token/stdout", Call::Output(0)),
    ("GET", "/containers/:handle/processes/:process/attaches/:token/stderr", Call::Output(1)),
    ("PUT", "/containers/:handle/grace_time", Call::Plain(Plain::SetGraceTime)),
    ("GET", "/containers/:handle/properties", Call::Plain(Plain::Properties)),
    ("GET", "/containers/:handle/properties/:key", Call::Plain(Plain::Property)),
    ("PUT", "/containers/:handle/properties/:key", Call::Plain(Plain::SetProperty)),
    ("DELETE", "/containers/:handle/properties/:key", Call::Plain(Plain::RemoveProperty)),
];

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Call {
        call: Call,
        /// Its place among [`names`].
        number: usize,
        /// The path's first variable segment, decoded; empty where there is none.
        handle: String,
        /// Its last one: a property's key, a process's id, a stream's token.
        item: String,
    },
    /// The path takes other methods: these.
    OtherMethods(String),
    Nowhere,
}

impl Route {
    /// The path, without what differs between containers.
    pub(super) fn pattern(&self) -> &'static str {
        match self {
            Self::Call { number, .. } => ROUTES[*number].1,
            Self::OtherMethods(_) | Self::Nowhere => "none",
        }
    }

    /// What has happened to a container when it has been served, if that is for everybody's log.
    pub(super) fn event(&self) -> Option<&'static str> {
        match self {
            Self::Call { call: Call::Plain(Plain::Create), .. } => Some("created"),
            Self::Call { call: Call::Plain(Plain::Destroy), .. } => Some("destroyed"),
            Self::Call { call: Call::Plain(Plain::Stop), .. } => Some("stopped"),
            _ => None,
        }
    }

    /// Its place among [`names`].
    pub(super) fn number(&self) -> usize {
        match self {
            Self::Call { number, .. } => *number,
            Self::OtherMethods(_) => ROUTES.len(),
            Self::Nowhere => ROUTES.len() + 1,
        }
    }
}

/// The place among [`names`] of what is no request.
pub(super) const MALFORMED: usize = ROUTES.len() + 2;

/// Names of all routes, and of what leads to none.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let routes = ROUTES.iter().map(|(method, pattern, _)| format!("{method} {pattern}"));
    routes.chain(["other method", "unknown", "malformed"].map(str::to_owned))
}

/// Looks a path up as it was sent: an escaped slash divides nothing.
pub(super) fn route(method: &str, path: &str) -> Route {
    let mut others: Vec<&str> = Vec::new();
    for (number, (takes, pattern, call)) in ROUTES.iter().enumerate() {
        let Some(mut variables) = matched(pattern, path) else { continue };
        if *takes != method {
            others.push(takes);
            continue;
        }
        let item = variables.pop().unwrap_or_default();
        let handle = variables.into_iter().next().unwrap_or_else(|| item.clone());
        return Route::Call { call: *call, number, handle, item };
    }
    if others.is_empty() { Route::Nowhere } else { Route::OtherMethods(others.join(", ")) }
}

fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/').peekable(), path.split('/'));
    let mut variables = Vec::new();
    while let Some(segment) = wanted.next() {
        let text = given.next()?;
        if segment.starts_with(':') {
            if text.is_empty() && wanted.peek().is_none() {
                return None;
            }
            variables.push(decode(text)?);
        } else if segment != text {
            return None;
        }
    }
    given.next().is_none().then_some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, path: &str) -> (Call, String, String) {
        match route(method, path) {
            Route::Call { call, handle, item, .. } => (call, handle, item),
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    #[test]
    fn every_route_is_found_by_itself() {
        for (method, pattern, wanted) in ROUTES {
            assert_eq!(call(method, pattern).0, wanted, "{method} {pattern}");
        }
    }

    #[test]
    fn segments_are_decoded_after_the_path_is_cut() {
        let property = |path| call("GET", path);
        assert_eq!(
            property("/containers/b%6fx/properties/a%2Fb"),
            (Call::Plain(Plain::Property), "box".into(), "a/b".into())
        );
        assert_eq!(
            property("/containers/a+b/info"),
            (Call::Plain(Plain::Info), "a b".into(), "a b".into())
        );
        assert_eq!(
            property("/containers//info"),
            (Call::Plain(Plain::Info), String::new(), String::new())
        );
        assert_eq!(
            property("/containers/h/processes/p/attaches/7/stderr"),
            (Call::Output(1), "h".into(), "7".into())
        );
    }

    #[test]
    fn paths_of_no_route_lead_nowhere() {
        for path in [
            "/",
            "",
            "*",
            "/nope",
            "/ping/",
            "//ping",
            "/PING",
            "/containers/",
            "/containers/box/",
            "/containers/box/info/",
            "/containers/box/../box/info",
            "/containers/box/properties/",
            "/containers/box/processes/p1/attaches/1/stdin",
        ] {
            assert_eq!(route("GET", path), Route::Nowhere, "{path}");
        }
    }

    #[test]
    fn wrong_methods_hear_of_the_right_ones() {
        for (method, path, allow) in [
            ("HEAD", "/ping", "GET"),
            ("PUT", "/containers", "GET, POST"),
            ("PATCH", "/containers/box/properties/k", "GET, PUT, DELETE"),
            ("GET", "/containers/box%2Finfo", "DELETE"),
        ] {
            assert_eq!(route(method, path), Route::OtherMethods(allow.into()), "{method} {path}");
        }
    }
}

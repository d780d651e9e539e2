//! All routes: changed by registrars' messages, read by every request.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::endpoint::Said;
use crate::message::Message;
use crate::route::Route;

/// A change copies the hosts of one of so many parts, so that 100,000 routes can change in a second.
const PARTS: usize = 256;

/// The table. Readers take what is there and are never held up; a refresh changes no part.
pub(crate) struct Table {
    parts: Vec<ArcSwap<Hosts>>,
    hasher: RandomState,
    changing: Mutex<()>,
    rules: Rules,
}

/// The routes of each host, the longest path first.
type Hosts = HashMap<Box<str>, Arc<[Arc<Route>]>>;

/// When routes and endpoints go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) stale_threshold: Duration,
    /// How long a route is remembered without endpoints; none if it is not.
    pub(crate) remembered: Option<Duration>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Table {
    pub(crate) fn new(rules: Rules) -> Self {
        let parts = (0..PARTS).map(|_| ArcSwap::default()).collect();
        Self { parts, hasher: RandomState::new(), changing: Mutex::default(), rules }
    }

    pub(crate) fn register(&self, message: &Message) {
        let said = Said::new(message, self.rules.stale_threshold);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for uri in &message.uris {
            let uri = normal(uri);
            let (host, path) = split(&uri);
            if let Some(route) = self.exact(host, path) {
                route.put(&said);
                continue;
            }
            let route = Arc::new(Route::new(host, path));
            route.put(&said);
            self.change(host, |routes| {
                routes.push(route);
                routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
            });
            tracing::info!(uri, backend = said.address, "route-registered");
        }
    }

    pub(crate) fn unregister(&self, message: &Message) {
        let said = Said::new(message, self.rules.stale_threshold);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for uri in &message.uris {
            let uri = normal(uri);
            let (host, path) = split(&uri);
            let Some(route) = self.exact(host, path) else { continue };
            let event = if route.remove(&said.address) {
                "endpoint-unregistered"
            } else {
                "endpoint-not-unregistered"
            };
            tracing::info!(uri, backend = said.address, "{event}");
            if route.is_empty() && self.rules.remembered.is_none_or(|time| time.is_zero()) {
                self.forget(&route);
            }
        }
    }

    /// Removes endpoints that are not refreshed any more, and routes that have been without any for
    /// long enough.
    pub(crate) fn prune(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for route in self.routes() {
            let endpoints = route.prune();
            if !endpoints.is_empty() {
                tracing::info!(uri = route.uri(), ?endpoints, "pruned-route");
            }
            let remembered = self.rules.remembered.unwrap_or(Duration::ZERO);
            if route.empty_for().is_some_and(|time| time >= remembered) {
                self.forget(&route);
            }
        }
    }

    pub(crate) fn refresh_all(&self) {
        for route in self.routes() {
            route.endpoints().iter().for_each(|endpoint| endpoint.refresh());
        }
    }

    /// The route of a host, without port and in any case, and a path that may have a query.
    pub(crate) fn look_up(&self, host: &str, path: &str) -> Option<Arc<Route>> {
        let host = host.to_ascii_lowercase();
        let path = path.split('?').next().unwrap_or_default().to_ascii_lowercase();
        if let Some(route) = self.match_path(&host, &path) {
            return Some(route);
        }
        let mut rest = &host[..];
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(route) = self.match_path(&format!("*.{parent}"), &path) {
                return Some(route);
            }
            rest = parent;
        }
        None
    }

    fn match_path(&self, host: &str, path: &str) -> Option<Arc<Route>> {
        let hosts = self.part(host).load();
        let found = hosts.get(host)?.iter().find(|route| {
            (self.rules.remembered.is_some() || !route.is_empty())
                && path
                    .strip_prefix(&*route.path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        found.cloned()
    }

    /// `/routes`: each URI with what is known of its endpoints.
    pub(crate) fn to_json(&self) -> Value {
        let mut routes: Vec<(String, Arc<Route>)> =
            self.routes().map(|route| (route.uri(), route)).collect();
        routes.sort_by(|one, other| one.0.cmp(&other.0));
        let listed = routes.into_iter().map(|(uri, route)| {
            let endpoints = route.endpoints();
            let endpoints = endpoints.iter().map(|endpoint| Listed::of(&endpoint.said));
            let endpoints =
                endpoints.map(|listed| serde_json::to_value(listed).unwrap_or_default());
            (uri, Value::Array(endpoints.collect()))
        });
        Value::Object(listed.collect::<Map<_, _>>())
    }

    /// Closes idle connections that are of no use; tells how many are left.
    pub(crate) async fn sweep_connections(&self) -> usize {
        let mut left = 0;
        for route in self.routes() {
            for endpoint in route.endpoints() {
                left += endpoint.connections.sweep().await;
            }
        }
        left
    }

    fn routes(&self) -> impl Iterator<Item = Arc<Route>> {
        self.parts.iter().flat_map(|part| {
            let hosts = part.load_full();
            let routes: Vec<_> = hosts.values().flat_map(|routes| routes.iter().cloned()).collect();
            routes
        })
    }

    fn part(&self, host: &str) -> &ArcSwap<Hosts> {
        #[allow(clippy::cast_possible_truncation)] // Any bits of the hash will do.
        let hash = self.hasher.hash_one(host) as usize;
        &self.parts[hash % PARTS]
    }

    fn exact(&self, host: &str, path: &str) -> Option<Arc<Route>> {
        let hosts = self.part(host).load();
        hosts.get(host)?.iter().find(|route| &*route.path == path).cloned()
    }

    fn forget(&self, route: &Arc<Route>) {
        self.change(&route.host, |routes| routes.retain(|known| !Arc::ptr_eq(known, route)));
        tracing::info!(uri = route.uri(), "route-unregistered");
    }

    /// The lock on changes must be held.
    fn change(&self, host: &str, change: impl FnOnce(&mut Vec<Arc<Route>>)) {
        let part = self.part(host);
        let mut hosts = Hosts::clone(&part.load());
        let mut routes = hosts.get(host).map(|routes| routes.to_vec()).unwrap_or_default();
        change(&mut routes);
        if routes.is_empty() {
            hosts.remove(host);
        } else {
            hosts.insert(host.into(), routes.into());
        }
        part.store(Arc::new(hosts));
    }
}

/// A URI as the table knows it: lower case, no query, no slash at its end.
fn normal(uri: &str) -> String {
    let uri = uri.split('?').next().unwrap_or_default();
    uri.strip_suffix('/').unwrap_or(uri).to_lowercase()
}

fn split(uri: &str) -> (&str, &str) {
    uri.split_at(uri.find('/').unwrap_or(uri.len()))
}

#[derive(Serialize)]
struct Listed<'a> {
    address: &'a str,
    availability_zone: &'a str,
    protocol: &'a str,
    tls: bool,
    ttl: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    route_service_url: &'a str,
    tags: &'a Option<std::collections::BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    isolation_segment: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    private_instance_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    server_cert_domain_san: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    load_balancing_algorithm: &'a str,
}

impl<'a> Listed<'a> {
    fn of(said: &'a Said) -> Self {
        Self {
            address: &said.address,
            availability_zone: &said.availability_zone,
            protocol: &said.protocol,
            tls: said.tls,
            ttl: said.ttl,
            route_service_url: &said.route_service_url,
            tags: &said.tags,
            isolation_segment: &said.isolation_segment,
            private_instance_id: &said.instance_id,
            server_cert_domain_san: &said.server_cert_domain_san,
            load_balancing_algorithm: &said.load_balancing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(remembered: Option<Duration>) -> Table {
        Table::new(Rules { stale_threshold: Duration::from_secs(120), remembered })
    }

    fn message(port: u16, uris: &[&str]) -> Message {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        Message { host: "10.0.0.1".into(), port, uris, ..Message::default() }
    }

    #[test]
    fn the_longest_path_of_whole_segments_is_found() {
        let table = table(None);
        table.register(&message(1, &["app.example.com"]));
        table.register(&message(2, &["app.example.com/Path/"]));
        table.register(&message(3, &["app.example.com/path/deep?x"]));
        table.register(&message(4, &["*.example.com"]));
        table.register(&message(5, &["*.sub.example.com", "*"]));
        table.register(&message(6, &["only.example.com/p"]));
        for (host, path, port) in [
            ("APP.example.com", "/", Some(1)),
            ("app.example.com", "", Some(1)),
            ("app.example.com", "/path?x", Some(2)),
            ("app.example.com", "/PATH/x", Some(2)),
            ("app.example.com", "/pathx", Some(1)),
            ("app.example.com", "//path", Some(1)),
            ("app.example.com", "/path/deep/er", Some(3)),
            ("app.example.com", "*", None),
            ("x.y.example.com", "/", Some(4)),
            ("x.sub.example.com", "/", Some(5)),
            ("sub.example.com", "/", Some(4)),
            ("only.example.com", "/q", Some(4)),
            ("example.com", "/", None),
            ("app.example.com.", "/", None),
            ("", "/", None),
        ] {
            let found = table.look_up(host, path).map(|route| route.endpoints()[0].said.port);
            assert_eq!(found, port, "{host}{path}");
        }
    }

    #[test]
    fn a_route_goes_with_its_last_endpoint() {
        for (remembered, found) in [(None, false), (Some(Duration::from_secs(60)), true)] {
            let table = table(remembered);
            table.register(&message(1, &["a", "b/c"]));
            table.register(&message(2, &["a"]));
            table.unregister(&message(1, &["a", "B/c/?x"]));
            assert_eq!(table.look_up("a", "/").unwrap().endpoints().len(), 1);
            assert_eq!(table.look_up("b", "/c").is_some(), found);
        }
    }

    #[test]
    fn what_is_not_refreshed_is_pruned() {
        let table = table(None);
        let own = |stale_threshold| Message { stale_threshold, ..message(1, &["a"]) };
        table.register(&own(-1));
        table.prune();
        assert!(table.look_up("a", "/").is_none());
        table.register(&own(500));
        table.prune();
        assert_eq!(table.to_json()["a"][0]["ttl"], 120);
    }
}

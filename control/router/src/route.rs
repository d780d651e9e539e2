//! One route: its endpoints, and which of them is next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Balancing;
use crate::endpoint::{Endpoint, Said};

#[derive(Debug)]
pub(crate) struct Route {
    /// Lower case, without a port; `*.` at its start stands for any number of labels.
    pub(crate) host: Box<str>,
    /// Empty, or from its first slash on, without one at its end.
    pub(crate) path: Box<str>,
    endpoints: Mutex<Endpoints>,
}

#[derive(Debug)]
struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    next: usize,
    balancing: Option<Balancing>,
    emptied: Option<Instant>,
}

/// Which endpoint a request goes to.
#[derive(Debug)]
pub(crate) enum Choice {
    Endpoint(Arc<Endpoint>),
    /// All have as many requests as they may.
    Full,
    /// There is none, or all have been tried.
    None,
}

impl Route {
    pub(crate) fn new(host: &str, path: &str) -> Self {
        // Of several routers not all begin with the same endpoint.
        let next = rand::random_range(0..usize::from(u16::MAX));
        let endpoints = Endpoints { all: Vec::new(), next, balancing: None, emptied: None };
        Self { host: host.into(), path: path.into(), endpoints: Mutex::new(endpoints) }
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uri(&self) -> String {
        format!("{}{}", self.host, self.path)
    }

    /// Adds an endpoint, or changes or refreshes what has its address.
    pub(crate) fn put(&self, said: &Said) {
        let mut endpoints = self.lock();
        endpoints.emptied = None;
        if let Some(balancing) = said.balancing() {
            endpoints.balancing = Some(balancing);
        }
        match endpoints.all.iter_mut().find(|known| known.said.address == said.address) {
            Some(known) if known.said == *said => known.refresh(),
            Some(known) => *known = Arc::new(known.changed(said.clone())),
            None => endpoints.all.push(Arc::new(Endpoint::new(said.clone()))),
        }
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, address: &str) -> bool {
        let mut endpoints = self.lock();
        let before = endpoints.all.len();
        endpoints.retain(|known| known.said.address != address);
        endpoints.all.len() < before
    }

    /// Removes what is not refreshed any more; tells what that was.
    pub(crate) fn prune(&self) -> Vec<String> {
        let mut endpoints = self.lock();
        let stale = endpoints.all.iter().filter(|known| known.is_stale());
        let addresses = stale.map(|known| known.said.address.clone()).collect();
        endpoints.retain(|known| !known.is_stale());
        addresses
    }

    /// An endpoint that cannot be reached is passed over for a while. One with TLS is gone: whatever
    /// has its address now may be another's.
    pub(crate) fn failed(&self, endpoint: &Arc<Endpoint>, unreachable: bool) {
        if unreachable && endpoint.said.tls {
            self.lock().retain(|known| !Arc::ptr_eq(known, endpoint));
        } else {
            endpoint.set_failed(true);
        }
    }

    /// How long it has been without endpoints.
    pub(crate) fn empty_for(&self) -> Option<Duration> {
        self.lock().emptied.map(|since| since.elapsed())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().all.is_empty()
    }

    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.lock().all.clone()
    }

    /// The last registered endpoint of which that is true.
    pub(crate) fn find(&self, is: impl Fn(&Said) -> bool) -> Option<Arc<Endpoint>> {
        self.lock().all.iter().rev().find(|known| is(&known.said)).cloned()
    }

    /// The next endpoint of those that this request has not tried.
    pub(crate) fn choose(
        &self,
        tried: &[Arc<Endpoint>],
        most: usize,
        balancing: Balancing,
    ) -> Choice {
        let mut endpoints = self.lock();
        let count = endpoints.all.len();
        let untried = |known: &Arc<Endpoint>| !tried.iter().any(|other| Arc::ptr_eq(other, known));
        let mut left: Vec<usize> = (0..count)
            .map(|offset| endpoints.next.wrapping_add(offset) % count)
            .filter(|at| untried(&endpoints.all[*at]))
            .collect();
        if left.is_empty() {
            return Choice::None;
        }
        if left.iter().any(|at| !endpoints.all[*at].has_failed()) {
            left.retain(|at| !endpoints.all[*at].has_failed());
        } else {
            left.iter().for_each(|at| endpoints.all[*at].set_failed(false));
        }
        if most > 0 {
            left.retain(|at| endpoints.all[*at].connections.under_way() < most);
        }
        let chosen = match endpoints.balancing.unwrap_or(balancing) {
            Balancing::RoundRobin => left.first(),
            Balancing::LeastConnection => {
                // Those with equally few are not always taken in the same order.
                let first = rand::random_range(0..left.len().max(1));
                let first = first.min(left.len());
                left.rotate_left(first);
                left.iter().min_by_key(|at| endpoints.all[**at].connections.under_way())
            }
        };
        let Some(chosen) = chosen.copied() else { return Choice::Full };
        endpoints.next = chosen + 1;
        Choice::Endpoint(endpoints.all[chosen].clone())
    }
}

impl Endpoints {
    fn retain(&mut self, keep: impl FnMut(&Arc<Endpoint>) -> bool) {
        self.all.retain(keep);
        if self.all.is_empty() && self.emptied.is_none() {
            self.emptied = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn said(port: u16, tls: bool) -> Said {
        let (plain, tls_port) = if tls { (0, port) } else { (port, 0) };
        let host = "10.0.0.1".to_owned();
        let message = Message { host, port: plain, tls_port, ..Message::default() };
        Said::new(&message, Duration::from_secs(120))
    }

    fn ports(route: &Route, count: usize) -> Vec<u16> {
        (0..count)
            .map(|_| match route.choose(&[], 0, Balancing::RoundRobin) {
                Choice::Endpoint(endpoint) => endpoint.said.port,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn endpoints_take_turns() {
        let route = Route::new("a", "");
        (1..=3).for_each(|port| route.put(&said(port, false)));
        let turns = ports(&route, 6);
        assert_eq!(turns[..3], turns[3..]);
        let mut once = turns[..3].to_vec();
        once.sort_unstable();
        assert_eq!(once, [1, 2, 3]);
    }

    #[test]
    fn a_failed_endpoint_is_passed_over_unless_all_failed() {
        let route = Route::new("a", "");
        (1..=2).for_each(|port| route.put(&said(port, false)));
        let all = route.endpoints();
        route.failed(&all[0], true);
        assert_eq!(ports(&route, 4), [2; 4]);
        route.failed(&all[1], true);
        let turns = ports(&route, 4);
        assert!(turns.contains(&1) && turns.contains(&2), "{turns:?}");
    }

    #[test]
    fn an_endpoint_with_tls_that_cannot_be_reached_is_gone() {
        let route = Route::new("a", "");
        route.put(&said(1, true));
        let endpoint = route.endpoints().remove(0);
        route.failed(&endpoint, false);
        assert!(!route.is_empty());
        route.failed(&endpoint, true);
        assert!(route.is_empty() && route.empty_for().is_some());
        route.put(&said(1, true));
        assert!(route.empty_for().is_none());
    }

    #[test]
    fn requests_go_where_few_are_under_way() {
        let route = Route::new("a", "");
        (1..=2).for_each(|port| route.put(&said(port, false)));
        let all = route.endpoints();
        let _first = all[0].begin();
        for _ in 0..3 {
            let Choice::Endpoint(chosen) = route.choose(&[], 0, Balancing::LeastConnection) else {
                panic!("none is free");
            };
            assert_eq!(chosen.said.port, 2);
        }
        let _second = all[1].begin();
        assert!(matches!(route.choose(&[], 1, Balancing::RoundRobin), Choice::Full));
        assert!(matches!(route.choose(&all, 0, Balancing::RoundRobin), Choice::None));
    }

    #[test]
    fn registering_again_keeps_connections() {
        let route = Route::new("a", "");
        route.put(&said(1, false));
        let before = route.endpoints().remove(0);
        route.put(&said(1, false));
        assert!(Arc::ptr_eq(&before, &route.endpoints()[0]));
        route.put(&Said { app: "other".into(), ..said(1, false) });
        let after = route.endpoints().remove(0);
        assert_eq!(after.said.app, "other");
        assert!(Arc::ptr_eq(&before.connections, &after.connections));
    }
}

//! The life of a request: where it belongs, what is said to the app, how often it is tried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, Record};
use crate::body::{Decoder, Found, Framing};
use crate::config::{Config, ForwardedClientCert};
use crate::dial::Dialer;
use crate::endpoint::{Endpoint, Said};
use crate::exchange::{Answered, Forward, Limits, Manner, Progress, attempt};
use crate::failure::{Failure, Kind};
use crate::head::{Request, Response, Version};
use crate::instance::{self, Instance};
use crate::refusal::Refusal;
use crate::route::{Choice, Route};
use crate::sticky;
use crate::table::Table;
use crate::wire::Wire;

/// The most that is read of a body that nobody wants, and for how long.
const DISCARDED: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_millis(500);

/// What all requests share.
pub(crate) struct Proxy {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) dialer: Dialer,
    pub(crate) access_log: Arc<dyn AccessLog>,
    /// Whether a load balancer should send requests here.
    pub(crate) healthy: AtomicBool,
    /// No connection waits for another request any more.
    pub(crate) draining: CancellationToken,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Stays,
    Closes,
    /// It is closed, but the client still sends.
    Lingers,
}

impl Proxy {
    /// Answers one request, whose body is still to be read from `client`.
    pub(crate) async fn answer(
        &self,
        request: Request,
        origin: Origin,
        client: &mut Wire,
    ) -> After {
        let begun = Instant::now();
        let mut request = request;
        let id = uuid::Uuid::new_v4().to_string();
        request.fields.set("X-Vcap-Request-Id", id.clone());
        let mut record = self.record(&request, origin, &id);
        let keep_alive = request.keep_alive && !self.draining.is_cancelled();
        let progress = Progress::default();
        let mut body = Decoder::new(request.framing);
        let expects = request.fields.get("Expect").is_some();
        let head_only = request.method == "HEAD";
        let version = request.version;
        let has_body = request.framing != Framing::Length(0);

        let answered = match self.find(&request, origin) {
            Place::Health(refusal) => Err(refusal),
            Place::Nothing(refusal) => Err(refusal),
            Place::Route { route, pinned } => match self.too_large(&request) {
                Some(refusal) => {
                    if let Some(endpoint) = route.endpoints().first() {
                        describe(&mut record, &endpoint.said);
                    }
                    Err(refusal)
                }
                None => {
                    let host = String::from_utf8_lossy(&request.host).into_owned();
                    let target = Target { route, pinned, host, id };
                    let forward = self.forward(request, origin, keep_alive);
                    let under_way = (&mut body, &progress);
                    self.send(&target, forward, client, under_way, &mut record).await
                }
            },
        };
        let after = match answered {
            Ok(answered) => {
                record.status = answered.status;
                record.response_bytes = answered.bytes;
                if !answered.router_error.is_empty() {
                    record.router_error = answered.router_error;
                }
                if answered.is_cut {
                    return After::Closes;
                }
                if answered.client_stays {
                    After::Stays
                } else if progress.is_done() || !has_body {
                    After::Closes
                } else {
                    After::Lingers
                }
            }
            Err(refusal) => {
                if !expects {
                    discard(client, &mut body, &progress).await;
                }
                // A body that is not read would be taken for the next request.
                let closes = !keep_alive || has_body && !progress.is_done();
                record.status = refusal.status;
                record.router_error = refusal.error();
                record.response_bytes = match (head_only, record.backend.is_empty()) {
                    (true, _)
                        if record.user_agent != self.config.healthcheck_user_agent.as_bytes() =>
                    {
                        0
                    }
                    _ => refusal.body.len() as u64,
                };
                let sent = client.send(&refusal.write(version, closes, head_only)).await;
                match (sent, closes, has_body) {
                    (Ok(()), false, _) => After::Stays,
                    (Ok(()), true, true) => After::Lingers,
                    _ => After::Closes,
                }
            }
        };
        record.request_bytes = progress.bytes();
        record.took = begun.elapsed();
        self.access_log.log(record);
        after
    }

    /// The route of a request, or why there is none.
    fn find(&self, request: &Request, origin: Origin) -> Place {
        let agent = request.fields.get("User-Agent");
        let monitor = &self.config.healthcheck_user_agent;
        if !monitor.is_empty() && agent.is_some_and(|agent| agent == monitor.as_bytes()) {
            return Place::Health(self.health());
        }
        let host = String::from_utf8_lossy(&request.host);
        let name = without_port(&host);
        if name.is_empty() || name.parse() == Ok(origin.peer.ip()) {
            let text = "Bad Request: Request had empty Host header";
            return Place::Nothing(Refusal::new(400, "empty_host", text).cached_briefly());
        }
        let instance = match Instance::wanted(&request.fields) {
            Ok(instance) => instance,
            Err(refusal) => return Place::Nothing(refusal),
        };
        let route = self.table.look_up(name, &String::from_utf8_lossy(&request.path));
        if let Some(instance) = instance {
            let endpoint = route.as_ref().and_then(|route| route.find(|said| instance.is(said)));
            return match (route, endpoint) {
                (Some(route), Some(endpoint)) => Place::Route { route, pinned: Some(endpoint) },
                _ => Place::Nothing(instance::unknown(&request.fields, &host)),
            };
        }
        match route {
            None => Place::Nothing(Refusal::unknown_route(&host)),
            Some(route) if route.is_empty() => Place::Nothing(Refusal::no_endpoints(&host)),
            Some(route) if uses_route_service(&route) => {
                let text = "Bad Gateway: Support for route services is disabled.";
                Place::Nothing(Refusal::new(502, "route_service_unsupported", text))
            }
            Some(route) => Place::Route { route, pinned: None },
        }
    }

    fn too_large(&self, request: &Request) -> Option<Refusal> {
        let config = &self.config;
        let too_many =
            config.max_request_headers > 0 && request.fields.len() > config.max_request_headers;
        (too_many || request.length >= config.max_request_header_bytes)
            .then(|| Refusal::bare(431, Some("max-request-size-exceeded")))
    }

    /// What is said to endpoints.
    fn forward(&self, request: Request, origin: Origin, keep_alive: bool) -> Forward {
        let config = &self.config;
        let Request { method, target, path, host, version, mut fields, framing, .. } = request;
        let upgrade = fields
            .lists("Connection", "upgrade")
            .then(|| fields.get("Upgrade").cloned())
            .flatten()
            .filter(|protocol| !protocol.is_empty());
        let trailer = fields.get("Trailer").cloned();
        let takes_trailers = fields.lists("Te", "trailers");
        let id = fields.get("X-Vcap-Request-Id").cloned().unwrap_or_default();
        fields.strip_hop_by_hop(&config.hop_by_hop_headers_to_filter);
        // Not for the client to take away: it is how a request is found in logs.
        fields.set("X-Vcap-Request-Id", id);
        if takes_trailers {
            fields.add("Te", "trailers");
        }
        let user_agent = fields.get("User-Agent").cloned().filter(|agent| !agent.is_empty());
        fields.remove("User-Agent");
        fields.remove("X-Cf-App-Instance");

        let mut hops: Vec<u8> = Vec::new();
        for hop in fields.all("X-Forwarded-For") {
            hops.extend_from_slice(hop);
            hops.extend_from_slice(b", ");
        }
        hops.extend_from_slice(origin.peer.ip().to_string().as_bytes());
        fields.set("X-Forwarded-For", hops);
        let own = if origin.tls { "https" } else { "http" };
        let given = fields.get("X-Forwarded-Proto").is_some_and(|proto| !proto.is_empty());
        if config.force_forwarded_proto_https {
            fields.set("X-Forwarded-Proto", "https");
        } else if config.sanitize_forwarded_proto || !given {
            fields.set("X-Forwarded-Proto", own);
        }
        if fields.get("X-Request-Start").is_none() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            fields.add("X-Request-Start", now.as_millis().to_string());
        }
        if config.forwarded_client_cert != ForwardedClientCert::AlwaysForward {
            fields.remove("X-Forwarded-Client-Cert");
        }

        let is_websocket =
            upgrade.as_ref().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
        let timeout = config.endpoint_timeout;
        let deadline = (!timeout.is_zero() && !is_websocket).then(|| Instant::now() + timeout);
        let expects = framing != Framing::Length(0)
            && version == Version::Http11
            && fields.get("Expect").is_some();
        let target = if path.starts_with(b"//") && path == target {
            // As the original writes it: an app might take the first part for a host.
            [b"http://", &host[..], &target[..]].concat().into()
        } else {
            target
        };
        let limits =
            Limits { bytes: config.max_response_header_bytes, fields: config.max_response_headers };
        Forward {
            method,
            target,
            host,
            user_agent,
            fields,
            framing,
            trailer,
            upgrade,
            expects,
            version,
            keep_alive,
            deadline,
            limits,
        }
    }

    /// Tries endpoints until one answers. A request is tried again only if no app can have acted on it.
    async fn send(
        &self,
        target: &Target,
        forward: Forward,
        client: &mut Wire,
        (body, progress): (&mut Decoder, &Progress),
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        let config = &self.config;
        let Target { route, pinned, host, id } = target;
        let wanted = sticky::wanted(&forward.fields, config);
        let can_repeat = can_repeat(&forward);
        let is_websocket = forward.deadline.is_none() && forward.upgrade.is_some();
        let patience =
            if is_websocket { config.websocket_dial_timeout } else { config.endpoint_dial_timeout };
        let manner = Manner {
            closes: forward.expects && !config.keep_alive_100_continue_requests,
            last: config.disable_keep_alives,
        };
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut failed_attempts = 0;
        let mut last: Option<Failure> = None;
        let refusal = loop {
            let endpoint = match self.next(target, wanted.as_deref(), &tried) {
                Choice::Endpoint(endpoint) => endpoint,
                Choice::Full if last.is_none() => break Refusal::connection_limit(host),
                Choice::None if last.is_none() => break Refusal::no_endpoints(host),
                Choice::Full | Choice::None => {
                    break last.unwrap_or_else(Failure::closed).refusal();
                }
            };
            describe(record, &endpoint.said);
            let said = |field: &str| forward.fields.get(field).map(|value| value.to_vec());
            record.forwarded_proto = said("X-Forwarded-Proto").unwrap_or_default();
            if !config.logging.disable_log_forwarded_for {
                record.forwarded_for = said("X-Forwarded-For").unwrap_or_default();
            }
            let _under_way = endpoint.begin();
            let begun = Instant::now();
            let cookie = |response: &mut Response| {
                let (wanted, own) = (wanted.as_deref(), &endpoint.said.instance_id);
                let cookie = sticky::cookie(&response.fields, config, wanted, own, &route.path);
                if let Some(cookie) = cookie {
                    response.fields.add("Set-Cookie", cookie);
                }
                if response.fields.get("X-Vcap-Request-Id").is_none() {
                    response.fields.add("X-Vcap-Request-Id", id.clone());
                }
            };
            let tried_once = loop {
                let mut dialed = match self.dialer.dial(&endpoint, patience).await {
                    Ok(dialed) => dialed,
                    Err(failure) => break Err(failure),
                };
                let under_way = (&mut *body, progress);
                let result = attempt(
                    &forward,
                    &endpoint.said,
                    manner,
                    client,
                    &mut dialed,
                    under_way,
                    cookie,
                )
                .await;
                match &result {
                    // It closed a connection that waited too long, just as it was used again.
                    Err(failure)
                        if dialed.used
                            && can_repeat
                            && matches!(failure.kind, Kind::Closed | Kind::Reset) => {}
                    Ok(answered) if answered.endpoint_stays && !manner.last => {
                        self.dialer.keep(&endpoint, dialed.wire);
                        break result;
                    }
                    _ => break result,
                }
            };
            record.backend_took += begun.elapsed();
            let failure = match tried_once {
                Ok(answered) => {
                    endpoint.set_failed(false);
                    if let Some(failed) = &mut record.failed_attempts {
                        *failed = failed_attempts;
                    }
                    return Ok(answered);
                }
                Err(failure) => failure,
            };
            failed_attempts += 1;
            tracing::warn!(
                backend = endpoint.said.address,
                attempt = failed_attempts,
                ?failure,
                "backend-endpoint-failed"
            );
            let unreached = failure.is_unreached();
            if unreached || failure.kind == Kind::Reset {
                route.failed(&endpoint, unreached);
            }
            let again = !progress.has_begun()
                && (unreached || failure.kind == Kind::Closed && can_repeat)
                && failed_attempts < config.backends.max_attempts.max(1)
                && pinned.is_none();
            if !again {
                break failure.refusal();
            }
            tried.push(endpoint);
            last = Some(failure);
        };
        if let Some(failed) = &mut record.failed_attempts {
            *failed = failed_attempts;
        }
        Err(refusal)
    }

    fn next(&self, target: &Target, wanted: Option<&str>, tried: &[Arc<Endpoint>]) -> Choice {
        if let Some(pinned) = &target.pinned {
            return Choice::Endpoint(pinned.clone());
        }
        let most = self.config.backends.max_conns;
        if let Some(wanted) = wanted.filter(|_| tried.is_empty()) {
            let is = |said: &Said| said.id() == wanted || said.address == wanted;
            if let Some(endpoint) = target.route.find(is)
                && (most == 0 || endpoint.connections.under_way() < most)
            {
                return Choice::Endpoint(endpoint);
            }
        }
        target.route.choose(tried, most, self.config.balancing_algorithm)
    }

    fn record(&self, request: &Request, origin: Origin, id: &str) -> Record {
        let Config { logging, extra_headers_to_log, .. } = &self.config;
        let value = |name: &str| request.fields.get(name).map(|value| value.to_vec());
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let extra = extra_headers_to_log.iter().map(|name| {
            let mut canonical = name.as_bytes().to_vec();
            let known = crate::fields::canonicalize(&mut canonical);
            let canonical = String::from_utf8_lossy(&canonical);
            let value = known.and_then(|()| value(&canonical)).unwrap_or_default();
            (name.to_ascii_lowercase().replace('-', "_"), value)
        });
        let router_error =
            if request.target.contains(&b';') { "deprecated-semicolon-params" } else { "" };
        Record {
            started: SystemTime::now(),
            took: Duration::ZERO,
            backend_took: Duration::ZERO,
            host: text(&request.host),
            method: text(&request.method),
            uri: crate::target::in_log(&request.path),
            protocol: request.version.text(),
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            referer: value("Referer").unwrap_or_default(),
            user_agent: value("User-Agent").unwrap_or_default(),
            client: if logging.disable_log_source_ip {
                String::new()
            } else {
                origin.peer.to_string()
            },
            backend: String::new(),
            forwarded_for: value("X-Forwarded-For")
                .filter(|_| !logging.disable_log_forwarded_for)
                .unwrap_or_default(),
            forwarded_proto: value("X-Forwarded-Proto").unwrap_or_default(),
            request_id: id.to_owned(),
            app_id: String::new(),
            app_index: String::new(),
            instance_id: String::new(),
            tags: Default::default(),
            failed_attempts: logging
                .extra_access_log_fields
                .iter()
                .any(|field| field == "failed_attempts")
                .then_some(0),
            router_error: router_error.to_owned(),
            extra: extra.collect(),
        }
    }
}

enum Place {
    Health(Refusal),
    Nothing(Refusal),
    Route {
        route: Arc<Route>,
        /// The one instance that the client wants.
        pinned: Option<Arc<Endpoint>>,
    },
}

struct Target {
    route: Arc<Route>,
    pinned: Option<Arc<Endpoint>>,
    host: String,
    id: String,
}

/// Reads what is left of a body, so that the connection can stay: not much, and not for long.
async fn discard(client: &mut Wire, body: &mut Decoder, progress: &Progress) {
    let reading = async {
        let mut left = DISCARDED;
        while left > 0 {
            match body.take(&mut client.reading.bytes) {
                Ok(Found::Data(data)) => left = left.saturating_sub(data.len()),
                Ok(Found::Nothing) => {
                    if !matches!(client.reading.fill().await, Ok(1..)) {
                        return;
                    }
                }
                Ok(Found::End) => return progress.finish(),
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
}

fn describe(record: &mut Record, said: &Said) {
    record.backend.clone_from(&said.address);
    record.app_id.clone_from(&said.app);
    record.app_index.clone_from(&said.instance_index);
    record.instance_id.clone_from(&said.instance_id);
    record.tags = said.tags.clone().unwrap_or_default();
}

/// Whether doing it twice is the same as doing it once.
fn can_repeat(forward: &Forward) -> bool {
    let fields = &forward.fields;
    let is_safe = matches!(&forward.method[..], b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
    let has_key = fields.get("Idempotency-Key").or(fields.get("X-Idempotency-Key")).is_some();
    forward.framing == Framing::Length(0) && (is_safe || has_key)
}

/// The last registration decides.
fn uses_route_service(route: &Route) -> bool {
    route.endpoints().last().is_some_and(|known| !known.said.route_service_url.is_empty())
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

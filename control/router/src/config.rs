//! The router's settings, with the names of gorouter's configuration file.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Deserializer};
use transport::configured::{duration, period};

use crate::dial::client_tls;
use crate::error::Error;
use crate::router::Listeners;

/// Settings that are missing have the defaults of the original's BOSH job, but for the start delay and
/// the wait before draining, which are none, and the time for a head, which is a minute; unknown ones
/// are ignored. Durations are texts such as `1m30s`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The port of plain HTTP, on all addresses, as all of these.
    pub port: u16,
    /// There is no plain HTTP.
    pub disable_http: bool,
    /// TLS by `tls_pem` is spoken on `ssl_port`.
    pub enable_ssl: bool,
    /// See `enable_ssl`.
    pub ssl_port: u16,
    /// The NATS servers.
    pub nats: Nats,
    /// Which of several routers this is; in its id and its logs.
    pub index: u32,
    /// The status listener's access.
    pub status: Status,
    /// The address told to registrars; found out if it is missing.
    pub ip: Option<String>,
    /// How long `/health` says 503 after the start, while routes come in.
    #[serde(deserialize_with = "duration")]
    pub start_response_delay_interval: Duration,
    /// How long requests are still served while `/health` says 503 already.
    #[serde(deserialize_with = "duration")]
    pub drain_wait: Duration,
    /// For requests that are under way after that.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// From a request to the end of its response; 0 is no limit. Tunnels have none.
    #[serde(deserialize_with = "duration")]
    pub endpoint_timeout: Duration,
    /// For connecting to an endpoint.
    #[serde(deserialize_with = "duration")]
    pub endpoint_dial_timeout: Duration,
    /// The same for websockets.
    #[serde(deserialize_with = "duration")]
    pub websocket_dial_timeout: Duration,
    /// For a handshake with an endpoint, and with a client.
    #[serde(deserialize_with = "duration")]
    pub tls_handshake_timeout: Duration,
    /// For a client's connection without a request.
    #[serde(deserialize_with = "duration")]
    pub frontend_idle_timeout: Duration,
    /// From the first byte of a head to its last; 0 is as above.
    #[serde(deserialize_with = "duration")]
    pub read_header_timeout: Duration,
    /// Between looks for endpoints that are not refreshed.
    #[serde(deserialize_with = "period")]
    pub prune_stale_droplets_interval: Duration,
    /// How long an endpoint stays without being refreshed.
    #[serde(deserialize_with = "duration")]
    pub droplet_stale_threshold: Duration,
    /// Keep all endpoints while there is no NATS server.
    pub suspend_pruning_if_nats_unavailable: bool,
    /// 503 instead of 404 for routes that have lost all their endpoints.
    pub empty_pool_response_code_503: bool,
    /// How long such a route is remembered.
    #[serde(deserialize_with = "duration")]
    pub empty_pool_timeout: Duration,
    /// `round-robin` or `least-connection`, for routes that do not choose.
    pub balancing_algorithm: Balancing,
    /// Limits and identity towards endpoints.
    pub backends: Backends,
    /// CAs of endpoints: PEM.
    #[serde(deserialize_with = "one_or_many")]
    pub ca_certs: String,
    /// Endpoints' certificates are not checked.
    pub skip_ssl_validation: bool,
    /// Certificates of the TLS listener, the first for clients that name no other's host.
    pub tls_pem: Vec<Pem>,
    /// Close connections to endpoints after each request.
    pub disable_keep_alives: bool,
    /// Idle connections to endpoints, of all together.
    pub max_idle_conns: usize,
    /// Of one endpoint.
    pub max_idle_conns_per_host: usize,
    /// Keep the connection of a request with `Expect: 100-continue`.
    pub keep_alive_100_continue_requests: bool,
    /// Bytes of a request's head.
    pub max_request_header_bytes: usize,
    /// Lines of it; 0 is any number.
    pub max_request_headers: usize,
    /// Bytes of a response's head.
    pub max_response_header_bytes: usize,
    /// Lines of it; 0 is any number.
    pub max_response_headers: usize,
    /// Headers that `Connection` cannot take away.
    pub hop_by_hop_headers_to_filter: Vec<String>,
    /// Set `X-Forwarded-Proto` from the connection, whatever the client says.
    pub sanitize_forwarded_proto: bool,
    /// Set it to `https`.
    pub force_forwarded_proto_https: bool,
    /// What to do with `X-Forwarded-Client-Cert`.
    pub forwarded_client_cert: ForwardedClientCert,
    /// Cookies that make a session stick to its instance.
    pub sticky_session_cookie_names: Vec<String>,
    /// Mark the router's own cookie `Secure`.
    pub secure_cookies: bool,
    /// A client of this name is told the router's health.
    pub healthcheck_user_agent: String,
    /// Request headers at the end of each line of the access log.
    pub extra_headers_to_log: Vec<String>,
    /// What is in the access log.
    pub logging: Logging,
}

impl Default for Config {
    fn default() -> Self {
        const NONE: Duration = Duration::ZERO;
        let seconds = Duration::from_secs;
        Self {
            port: 80,
            disable_http: false,
            enable_ssl: false,
            ssl_port: 443,
            nats: Nats::default(),
            index: 0,
            status: Status::default(),
            ip: None,
            start_response_delay_interval: NONE,
            drain_wait: NONE,
            drain_timeout: seconds(900),
            endpoint_timeout: seconds(900),
            endpoint_dial_timeout: seconds(5),
            websocket_dial_timeout: seconds(5),
            tls_handshake_timeout: seconds(10),
            frontend_idle_timeout: seconds(900),
            read_header_timeout: seconds(60),
            prune_stale_droplets_interval: seconds(30),
            droplet_stale_threshold: seconds(120),
            suspend_pruning_if_nats_unavailable: true,
            empty_pool_response_code_503: true,
            empty_pool_timeout: NONE,
            balancing_algorithm: Balancing::RoundRobin,
            backends: Backends::default(),
            ca_certs: String::new(),
            skip_ssl_validation: false,
            tls_pem: Vec::new(),
            disable_keep_alives: false,
            max_idle_conns: 100,
            max_idle_conns_per_host: 100,
            keep_alive_100_continue_requests: false,
            max_request_header_bytes: 1 << 20,
            max_request_headers: 0,
            max_response_header_bytes: 1 << 20,
            max_response_headers: 0,
            hop_by_hop_headers_to_filter: [
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "B3",
                "X-B3",
                "X-B3-SpanID",
                "X-B3-TraceID",
                "X-Request-Start",
                "X-Forwarded-Client-Cert",
            ]
            .map(str::to_owned)
            .to_vec(),
            sanitize_forwarded_proto: false,
            force_forwarded_proto_https: false,
            forwarded_client_cert: ForwardedClientCert::AlwaysForward,
            sticky_session_cookie_names: vec!["JSESSIONID".to_owned()],
            secure_cookies: false,
            healthcheck_user_agent: "HTTP-Monitor/1.1".to_owned(),
            extra_headers_to_log: Vec::new(),
            logging: Logging::default(),
        }
    }
}

/// What operators and load balancers ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The port of `/health`, on all addresses.
    pub port: u16,
    /// Who may read `/routes`.
    pub user: String,
    /// The password; without one nobody may.
    pub pass: String,
    /// Where `/routes` is.
    pub routes: StatusRoutes,
}

impl Default for Status {
    fn default() -> Self {
        let (user, pass) = (String::new(), String::new());
        Self { port: 8080, user, pass, routes: StatusRoutes::default() }
    }
}

/// Where `/routes` is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct StatusRoutes {
    /// A port of 127.0.0.1.
    pub port: u16,
}

impl Default for StatusRoutes {
    fn default() -> Self {
        Self { port: 8082 }
    }
}

/// The NATS servers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Nats {
    /// Where they are.
    pub hosts: Vec<NatsHost>,
    /// Empty: they want no name.
    pub user: String,
    /// The name's password.
    pub pass: String,
    /// They speak mutual TLS.
    pub tls_enabled: bool,
    /// Their CAs: PEM.
    pub ca_certs: String,
    /// The certificate that is shown to them: PEM.
    pub cert_chain: String,
    /// Its key: PEM.
    pub private_key: String,
}

/// Where a NATS server is.
#[derive(Clone, Debug, Deserialize)]
pub struct NatsHost {
    /// A name or an address.
    pub hostname: String,
    /// TCP port.
    pub port: u16,
}

/// Towards endpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Backends {
    /// How often a request is tried.
    pub max_attempts: usize,
    /// Requests under way at one endpoint; 0 is any number.
    pub max_conns: usize,
    /// The router's own certificate for endpoints that want one: PEM.
    pub cert_chain: String,
    /// Its key: PEM.
    pub private_key: String,
}

impl Default for Backends {
    fn default() -> Self {
        let (cert_chain, private_key) = (String::new(), String::new());
        Self { max_attempts: 3, max_conns: 500, cert_chain, private_key }
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pem {
    /// The certificate, then those between it and its CA.
    pub cert_chain: String,
    /// The key.
    pub private_key: String,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastConnection,
}

impl Balancing {
    /// A route's own choice; none for a text that names no algorithm.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "round-robin" => Some(Self::RoundRobin),
            "least-connection" => Some(Self::LeastConnection),
            _ => None,
        }
    }
}

/// What becomes of a client's `X-Forwarded-Client-Cert`. The router asks no client for a certificate,
/// so `forward` never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedClientCert {
    /// It passes.
    AlwaysForward,
    /// It passes on connections with a client's certificate.
    Forward,
    /// It is replaced by the connection's certificate, if there is one.
    SanitizeSet,
}

/// The access log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// Leave out `X-Forwarded-For`.
    pub disable_log_forwarded_for: bool,
    /// Leave out the client's address.
    pub disable_log_source_ip: bool,
    /// Fields that are not always there, such as `failed_attempts`.
    pub extra_access_log_fields: Vec<String>,
}

impl Nats {
    fn tls(&self) -> Result<ClientConfig, Error> {
        let keys = ["nats.ca_certs", "nats.cert_chain", "nats.private_key"];
        client_tls(keys, [&self.ca_certs, &self.cert_chain, &self.private_key], false)
    }
}

impl Config {
    /// The NATS servers, for a [`bus::Bus`].
    pub fn servers(&self) -> Result<bus::Servers, Error> {
        let Nats { hosts, user, pass, .. } = &self.nats;
        let address = |host: &NatsHost| match host.hostname.contains(':') {
            true => format!("[{}]:{}", host.hostname, host.port),
            false => format!("{}:{}", host.hostname, host.port),
        };
        Ok(bus::Servers {
            addresses: hosts.iter().map(address).collect(),
            login: (!user.is_empty()).then(|| (user.clone(), pass.clone())),
            tls: if self.nats.tls_enabled { Some(Arc::new(self.nats.tls()?)) } else { None },
        })
    }

    /// Binds the configured ports, but that of plain HTTP if the caller holds it.
    pub fn listen(&self, http: Option<TcpListener>) -> Result<Listeners, Error> {
        let every = |key, port| {
            // As Go does: one socket for both families where there are both.
            let bound = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
            bound
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
                .map_err(|source| Error::Bind { key, port, source })
        };
        let mut listeners = Listeners::default();
        if !self.disable_http {
            listeners.http.push(match http {
                Some(held) => held,
                None => every("port", self.port)?,
            });
        }
        if self.enable_ssl {
            listeners.https.push(every("ssl_port", self.ssl_port)?);
        }
        listeners.status = Some(every("status.port", self.status.port)?);
        let port = self.status.routes.port;
        let routes = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|source| Error::Bind { key: "status.routes.port", port, source })?;
        listeners.routes = Some(routes);
        Ok(listeners)
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Certificates {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Certificates::deserialize(from)? {
        Certificates::One(pem) => pem,
        Certificates::Many(pems) => pems.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_its_default() {
        let config: Config = serde_json::from_str(
            r#"{"endpoint_timeout":"1s","backends":{"max_attempts":5},"unknown":1,
                "forwarded_client_cert":"sanitize_set","balancing_algorithm":"least-connection"}"#,
        )
        .unwrap();
        assert_eq!(config.endpoint_timeout, Duration::from_secs(1));
        assert_eq!((config.backends.max_attempts, config.backends.max_conns), (5, 500));
        assert_eq!(config.droplet_stale_threshold, Duration::from_secs(120));
        assert_eq!(config.balancing_algorithm, Balancing::LeastConnection);
    }
}

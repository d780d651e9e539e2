//! The router's settings, with the names of gorouter's configuration file.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Settings that are missing have the defaults of the original's BOSH job, but for the start delay and
/// the wait before draining, which are none, and the time for a head, which is a minute; unknown ones
/// are ignored. Durations are texts such as `1m30s`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
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
    #[serde(deserialize_with = "duration")]
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

/// Who may read `/routes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// User.
    pub user: String,
    /// Password.
    pub pass: String,
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

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration such as 1m30s")))
}

/// Go's form of durations, without fractions and signs.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    loop {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|char: char| char.is_ascii_digit()).unwrap_or(rest.len());
        let one = match &rest[..unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        sum = sum.checked_add(one.checked_mul(number)?)?;
        rest = &rest[unit..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in
            [("0", 0), ("0s", 0), ("1m30s", 90_000), ("250ms", 250), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "1", "s", "-1s", "1d", "1.5s", "99999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

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

//! Asking one address.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::address::Address;
use crate::body::Body;
use crate::connector::{Connector, Protocol};
use crate::error::{BoxError, Error};
use crate::identity::Identity;

/// Kept connections leave before a server of ours would close them.
const IDLE: Duration = Duration::from_secs(60);
const MOST_IDLE: usize = 32;

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection: look-up, connecting, TLS handshake.
    pub connect: Duration,
    /// For an answer, from sending on: [`Client::send`] counts to its head, [`Client::fetch`] to
    /// the end of its body. `None` waits for ever.
    pub answer: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), answer: Some(Duration::from_secs(30)) }
    }
}

/// A client of one address with a pool of connections; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    http: legacy::Client<Connector, Body>,
    timeouts: Timeouts,
}

impl Client {
    /// Speaks HTTP/1.1. Connects when first asked. An `https` address without an identity is an
    /// error.
    pub fn new(
        address: Address,
        identity: Option<Identity>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        Self::with_protocol(address, identity, timeouts, Protocol::Http1)
    }

    /// As [`Client::new`], with a choice of the protocol.
    pub fn with_protocol(
        address: Address,
        identity: Option<Identity>,
        timeouts: Timeouts,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        let connector = Connector::new(address.clone(), identity, protocol, timeouts.connect)?;
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .http2_only(protocol == Protocol::Http2)
            .set_host(false)
            .build(connector);
        Ok(Self { address, http, timeouts })
    }

    /// Whom it asks.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The same client and pool, with other timeouts for answers.
    pub fn answering_within(mut self, answer: Option<Duration>) -> Self {
        self.timeouts.answer = answer;
        self
    }

    /// Sends a request whose URI is a path, and returns once the answer's head is there. The body
    /// then streams, with no time limit of ours.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let call = name(&request);
        let answered = self.start(&call, request);
        self.in_time(&call, answered).await
    }

    /// Sends a request whose URI is a path, and returns the complete answer, whose body may have
    /// `limit` bytes.
    pub async fn fetch(
        &self,
        request: Request<Body>,
        limit: usize,
    ) -> Result<Response<Bytes>, Error> {
        let call = name(&request);
        self.in_time(&call, async {
            let (head, body) = self.start(&call, request).await?.into_parts();
            let body = self.collect(&call, body, limit).await?;
            Ok(Response::from_parts(head, body))
        })
        .await
    }

    async fn start(
        &self,
        call: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let unfit = |source: BoxError| Error::Request {
            call: call.to_owned(),
            address: self.address.clone(),
            source,
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder()
            .scheme(self.address.scheme())
            .authority(self.address.authority())
            .path_and_query(path)
            .build()
            .map_err(|error| unfit(error.into()))?;
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(&self.address.authority())
                .map_err(|error| unfit(error.into()))?;
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = uri;
        self.http.request(request).await.map_err(|error| {
            let (call, address) = (call.to_owned(), self.address.clone());
            if error.is_connect() {
                // The pool's own words ("client error (Connect)") say nothing more.
                let source = match std::error::Error::source(&error) {
                    Some(cause) => cause.to_string().into(),
                    None => error.into(),
                };
                Error::Connect { call, address, source }
            } else {
                Error::Broken { call, address, source: error.into() }
            }
        })
    }

    async fn collect(&self, call: &str, body: Incoming, limit: usize) -> Result<Bytes, Error> {
        let collected = Limited::new(body, limit).collect().await.map_err(|source| {
            let (call, address) = (call.to_owned(), self.address.clone());
            if source.is::<LengthLimitError>() {
                Error::TooLong { call, address, limit }
            } else {
                Error::Broken { call, address, source }
            }
        })?;
        Ok(collected.to_bytes())
    }

    async fn in_time<T>(
        &self,
        call: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(after) = self.timeouts.answer else { return answer.await };
        tokio::time::timeout(after, answer).await.unwrap_or_else(|_| {
            Err(Error::Timeout { call: call.to_owned(), address: self.address.clone(), after })
        })
    }
}

fn name(request: &Request<Body>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

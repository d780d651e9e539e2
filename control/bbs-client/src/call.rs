//! One call: a message to a path, tried again while the BBS cannot be reached.

use std::time::Duration;

use bbs_models::*;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use transport::{Address, Identity, Timeouts, TraceId};

use crate::error::Error;

/// Tries to reach the BBS.
const TRIES: usize = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(500);
/// For an answer. A list of everything may take long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read: everything of a very large board.
const ANSWER: usize = 1024 * 1024 * 1024;

/// A client of one BBS. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: transport::Client,
    trace: TraceId,
}

/// An answer, which may be a refusal.
pub(crate) trait Answer: Message {
    fn take_error(&mut self) -> Option<bbs_models::Error>;
}

macro_rules! answers {
    ($($message:ident)*) => {
        $(impl Answer for $message {
            fn take_error(&mut self) -> Option<bbs_models::Error> {
                self.error.take()
            }
        })*
    };
}

answers! {
    ActualLRPLifecycleResponse ActualLRPsByProcessGuidsResponse ActualLRPsResponse CellsResponse
    DesiredLRPLifecycleResponse DesiredLRPResponse DesiredLRPSchedulingInfoByProcessGuidResponse
    DesiredLRPSchedulingInfosResponse DesiredLRPsResponse DomainsResponse EvacuationResponse
    RemoveEvacuatingActualLRPResponse StartTaskResponse TaskLifecycleResponse TaskResponse
    TasksResponse UpsertDomainResponse
}

impl Answer for PingResponse {
    fn take_error(&mut self) -> Option<bbs_models::Error> {
        None
    }
}

impl Client {
    /// Asks the BBS at `address`. Connects when first asked.
    pub fn new(address: Address, identity: Option<Identity>) -> Result<Self, Error> {
        let timeouts = Timeouts { answer: Some(PATIENCE), ..Timeouts::default() };
        let http = transport::Client::new(address, identity, timeouts)
            .map_err(|source| Error::Unreachable { call: "connect", source: Box::new(source) })?;
        Ok(Self { http, trace: TraceId::default() })
    }

    /// The same client, whose calls carry this trace id.
    pub fn tracing(&self, trace: TraceId) -> Self {
        Self { trace, ..self.clone() }
    }

    /// The same client, which waits for an answer so long; for ever with `None`.
    pub fn answering_within(&self, answer: Option<Duration>) -> Self {
        Self { http: self.http.clone().answering_within(answer), ..self.clone() }
    }

    /// Whether the BBS serves.
    pub async fn ping(&self) -> Result<bool, Error> {
        let answer: PingResponse = self.ask("/v1/ping", Bytes::new()).await?;
        Ok(answer.available)
    }

    /// The fresh domains.
    pub async fn domains(&self) -> Result<Vec<String>, Error> {
        let answer: DomainsResponse = self.ask("/v1/domains/list", Bytes::new()).await?;
        Ok(answer.domains)
    }

    /// Makes a domain fresh for a time, in whole seconds; for ever if that is none.
    pub async fn upsert_domain(&self, domain: &str, ttl: Duration) -> Result<(), Error> {
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let request = UpsertDomainRequest { domain: domain.into(), ttl, ..Default::default() };
        let _: UpsertDomainResponse = self.call("/v1/domains/upsert", &request).await?;
        Ok(())
    }

    /// The registered cells.
    pub async fn cells(&self) -> Result<Vec<CellPresence>, Error> {
        let answer: CellsResponse = self.ask("/v1/cells/list.r1", Bytes::new()).await?;
        Ok(answer.cells)
    }

    pub(crate) async fn call<A: Answer>(
        &self,
        call: &'static str,
        request: &impl Message,
    ) -> Result<A, Error> {
        self.ask(call, request.encode_to_bytes()).await
    }

    async fn ask<A: Answer>(&self, call: &'static str, body: Bytes) -> Result<A, Error> {
        let mut tried = 1;
        let answer = loop {
            match self.http.fetch(self.request(call, body.clone()), ANSWER).await {
                Ok(answer) => break answer,
                Err(source) if tried == TRIES => {
                    return Err(Error::Unreachable { call, source: Box::new(source) });
                }
                Err(error) => {
                    // Cast within the statement: held over the pause, it would tie a call to its thread.
                    tracing::info!(
                        call,
                        tried,
                        error = &error as &dyn std::error::Error,
                        "the BBS is asked again"
                    );
                    tokio::time::sleep(PAUSE).await;
                    tried += 1;
                }
            }
        };
        check(call, answer.status(), answer.headers())?;
        let mut answer =
            A::decode_from_slice(answer.body()).map_err(|source| Error::Answer { call, source })?;
        match answer.take_error() {
            Some(error) => Err(Error::Refused { call, error: Box::new(error) }),
            None => Ok(answer),
        }
    }

    /// Starts to read an endless answer.
    pub(crate) async fn stream(
        &self,
        call: &'static str,
        body: Bytes,
    ) -> Result<hyper::body::Incoming, Error> {
        let answer = self
            .http
            .send(self.request(call, body))
            .await
            .map_err(|source| Error::Unreachable { call, source: Box::new(source) })?;
        check(call, answer.status(), answer.headers())?;
        Ok(answer.into_body())
    }

    fn request(&self, call: &'static str, body: Bytes) -> Request<transport::Body> {
        let mut request = Request::new(transport::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(call);
        let kind = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        if !self.trace.is_empty() {
            self.trace.put(request.headers_mut());
        }
        request
    }
}

fn check(call: &'static str, status: StatusCode, headers: &http::HeaderMap) -> Result<(), Error> {
    let router = headers.contains_key("x-cf-routererror");
    match status {
        _ if router => Err(Error::Status { call, status, router }),
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND => Err(Error::NotServed { call }),
        _ => Err(Error::Status { call, status, router }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_can_move_between_threads() {
        fn movable<F: Future + Send>(_: F) {}
        let client = Client::new("unix:/nowhere.sock".parse().unwrap(), None).unwrap();
        movable(client.domains());
        movable(client.upsert_domain("cf-apps", Duration::ZERO));
    }
}

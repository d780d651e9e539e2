//! One request and its answer.

use std::io;

use garden_api::WireError;
use garden_api::go_json::decode;
use serde::de::DeserializeOwned;

use super::request::Request;
use super::{Client, Error};
use crate::http::{Body, ResponseHead, Wire};

/// An answer is at most so long; Info of ten thousand containers is a tenth of it.
const LONGEST_ANSWER: usize = 256 << 20;
/// Of an answer that is not understood, as much is shown.
const EXCERPT: usize = 200;

/// The answer of calls that answer nothing: any JSON value.
pub(super) type Nothing = serde::de::IgnoredAny;

/// An answer whose body has not been read.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    pub(super) body: Body,
    pub(super) wire: Wire,
}

impl Client {
    pub(super) async fn connect(&self, call: &'static str) -> Result<Wire, Error> {
        let address = &self.address;
        address.connect().await.map_err(|source| Error::Unreachable {
            call,
            address: address.clone(),
            source,
        })
    }

    pub(super) fn broken(&self, call: &'static str, source: io::Error) -> Error {
        Error::Broken { call, address: self.address.clone(), source }
    }

    /// The head and the JSON body as one piece.
    pub(super) fn message(&self, request: &Request, hijack: bool) -> Vec<u8> {
        let mut message = request.head(self.request_id.as_deref(), hijack).into_bytes();
        message.extend_from_slice(&request.body);
        message
    }

    /// A plain call: sends it and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        let answer = self.exchange(&request, false).await?;
        self.value(request.call, answer).await
    }

    /// Sends a request and reads the answer up to its body, if it is a success.
    pub(super) async fn exchange(&self, request: &Request, hijack: bool) -> Result<Answer, Error> {
        let call = request.call;
        let mut wire = self.connect(call).await?;
        // A server may answer without having read everything; then the answer counts.
        let sent = wire.write(&self.message(request, hijack)).await;
        match (ResponseHead::read(&mut wire).await, sent) {
            (Ok(head), _) => self.succeeded(call, head, wire).await,
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(self.broken(call, error)),
        }
    }

    /// The same answer if it is a success; a failure's body becomes the error.
    pub(super) async fn succeeded(
        &self,
        call: &'static str,
        ResponseHead { status, body }: ResponseHead,
        wire: Wire,
    ) -> Result<Answer, Error> {
        let mut answer = Answer { status, body, wire };
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let text = self.collect(call, &mut answer).await?;
        let error = decode::<WireError>(&text);
        Err(error.map_or_else(|_| self.bad_response(call, status, excerpt(&text)), Error::from))
    }

    /// Reads a success's JSON.
    pub(super) async fn value<T: DeserializeOwned>(
        &self,
        call: &'static str,
        mut answer: Answer,
    ) -> Result<T, Error> {
        let text = self.collect(call, &mut answer).await?;
        decode(&text).map_err(|error| self.bad_response(call, answer.status, error.to_string()))
    }

    async fn collect(&self, call: &'static str, answer: &mut Answer) -> Result<Vec<u8>, Error> {
        let text = answer.body.collect(&mut answer.wire, LONGEST_ANSWER).await;
        let text = text.map_err(|error| self.broken(call, error))?;
        text.ok_or_else(|| self.bad_response(call, answer.status, "it is too long".into()))
    }

    fn bad_response(&self, call: &'static str, status: u16, what: String) -> Error {
        Error::BadResponse { call, address: self.address.clone(), status, what }
    }
}

fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(EXCERPT)]).trim().to_owned()
}

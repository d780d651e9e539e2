//! One rep.

use http::{Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rep_api::{CellState, ContainerMetricsCollection, LrpUpdate, Work};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::{Address, Client, Identity, Timeouts, TraceId};

use crate::error::Error;

/// The longest answer: the state of a cell with some ten thousand containers.
const LONGEST: usize = 16 * 1024 * 1024;

/// What stands in a path as it is: what guids are made of.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A client of one rep's network address; clones share its connections.
#[derive(Clone, Debug)]
pub struct RepClient {
    http: Client,
}

impl RepClient {
    /// Connects when first asked. An `https` address without an identity is an error.
    pub fn new(
        address: Address,
        identity: Option<Identity>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        Ok(Self { http: Client::new(address, identity, timeouts)? })
    }

    /// What the cell has and runs. A cell whose Garden is not healthy answers 503, which is an error.
    pub async fn state(&self, trace: &TraceId) -> Result<CellState, Error> {
        self.ask(Method::GET, "/state", trace, None::<&()>).await
    }

    /// What the cell's containers use.
    pub async fn container_metrics(
        &self,
        trace: &TraceId,
    ) -> Result<ContainerMetricsCollection, Error> {
        self.ask(Method::GET, "/container_metrics", trace, None::<&()>).await
    }

    /// Gives the cell work; returns what it did not take. After a [`transport::Error`] that is not
    /// unsent it may have taken all of it.
    pub async fn perform(&self, trace: &TraceId, work: &Work) -> Result<Work, Error> {
        self.ask(Method::POST, "/work", trace, Some(work)).await
    }

    /// Stops an instance; returns once it is told to stop.
    pub async fn stop_lrp(
        &self,
        trace: &TraceId,
        process_guid: &str,
        instance_guid: &str,
    ) -> Result<(), Error> {
        let path = format!("{}/stop", instance_path(1, process_guid, instance_guid));
        self.tell(Method::POST, &path, trace, None::<&()>).await
    }

    /// Changes the routes or tags of a running instance. Reps that do not know tags yet are told
    /// the routes alone.
    pub async fn update_lrp(&self, trace: &TraceId, update: &LrpUpdate) -> Result<(), Error> {
        let path = |version| instance_path(version, &update.process_guid, &update.instance_guid);
        match self.tell(Method::PUT, &path(2), trace, Some(update)).await {
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => {
                self.tell(Method::PUT, &path(1), trace, Some(update)).await
            }
            told => told,
        }
    }

    /// Ends a task; returns before its container is gone, and also when there is none.
    pub async fn cancel_task(&self, trace: &TraceId, task_guid: &str) -> Result<(), Error> {
        let path = format!("/v1/tasks/{}/cancel", utf8_percent_encode(task_guid, PLAIN));
        self.tell(Method::POST, &path, trace, None::<&()>).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        trace: &TraceId,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let call = format!("{method} {path}");
        let (address, answer) = (self.http.address(), self.call(method, path, trace, body).await?);
        if answer.status() != StatusCode::OK {
            return Err(Error::Status { call, address: address.clone(), status: answer.status() });
        }
        serde_json::from_slice(answer.body().as_ref()).map_err(|source| Error::Body {
            call,
            address: address.clone(),
            source,
        })
    }

    async fn tell(
        &self,
        method: Method,
        path: &str,
        trace: &TraceId,
        body: Option<&impl Serialize>,
    ) -> Result<(), Error> {
        let call = format!("{method} {path}");
        let answer = self.call(method, path, trace, body).await?;
        if answer.status() == StatusCode::ACCEPTED {
            return Ok(());
        }
        let address = self.http.address().clone();
        Err(Error::Status { call, address, status: answer.status() })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        trace: &TraceId,
        body: Option<&impl Serialize>,
    ) -> Result<Response<impl AsRef<[u8]>>, Error> {
        let unfit = |source| {
            let call = format!("{method} {path}");
            Error::Body { call, address: self.http.address().clone(), source }
        };
        let body = match body {
            Some(body) => transport::full(serde_json::to_vec(body).map_err(unfit)?),
            None => transport::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() =
            path.parse().map_err(|error: http::uri::InvalidUri| transport::Error::Request {
                call: format!("{method} {path}"),
                address: self.http.address().clone(),
                source: error.into(),
            })?;
        trace.put(request.headers_mut());
        Ok(self.http.fetch(request, LONGEST).await?)
    }
}

fn instance_path(version: u8, process_guid: &str, instance_guid: &str) -> String {
    let process = utf8_percent_encode(process_guid, PLAIN);
    let instance = utf8_percent_encode(instance_guid, PLAIN);
    format!("/v{version}/lrps/{process}/instances/{instance}")
}

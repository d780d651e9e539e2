//! Which cells are registered, and where their reps are.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbs_models::{ActualLRP, ActualLRPKey, CellPresence, Error};
use http::{Method, Request};
use transport::{Address, Client, Identity, Timeouts, TraceId};

/// The registered cells. Locket keeps them; a test keeps its own.
pub trait Cells: std::fmt::Debug + Send + Sync {
    /// All cells that are registered now. None is a valid answer; an error says nothing about
    /// which there are.
    fn list(&self) -> Pin<Box<dyn Future<Output = Result<Vec<CellPresence>, Error>> + Send + '_>>;
}

/// For one call to a rep.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a rep's answer that are read.
const ANSWER: usize = 64 * 1024;

/// What a rep is told of an instance whose desired LRP has changed. What has not is `null`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Update {
    instance_guid: String,
    process_guid: String,
    index: i32,
    domain: String,
    /// All routes of the instance.
    pub internal_routes: Option<Vec<InternalRoute>>,
    /// All tags of the instance.
    pub metric_tags: Option<std::collections::BTreeMap<String, String>>,
}

/// A name inside, as a rep reads it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InternalRoute {
    /// The name.
    pub hostname: String,
}

impl Update {
    /// Nothing of this instance has changed yet.
    pub fn of(row: &ActualLRP) -> Self {
        let ActualLRPKey { process_guid, index, domain, .. } = (*row.actual_lrp_key).clone();
        let instance_guid = row.actual_lrp_instance_key.instance_guid.clone();
        let (internal_routes, metric_tags) = (None, None);
        Self { instance_guid, process_guid, index, domain, internal_routes, metric_tags }
    }
}

/// Why a rep was not told something.
#[derive(Debug, thiserror::Error)]
pub enum RepError {
    /// The board does not know where the cell is.
    #[error("cell {0:?} is not registered")]
    NotRegistered(String),
    /// The cell's presence has no usable address.
    #[error("cell {cell:?} has no usable address")]
    Address {
        /// Which cell.
        cell: String,
        /// What is wrong with it.
        source: transport::BadAddress,
    },
    /// It cannot be reached, or its answer cannot be read.
    #[error("cell {cell:?} does not answer")]
    Call {
        /// Which cell.
        cell: String,
        /// Why.
        source: Box<transport::Error>,
    },
    /// It does not do it.
    #[error("cell {cell:?} refuses {call}: {status}")]
    Refused {
        /// Which cell.
        cell: String,
        /// What it was asked.
        call: String,
        /// Its answer.
        status: http::StatusCode,
    },
}

/// The reps of the registered cells.
#[derive(Debug)]
pub struct Reps {
    cells: Arc<dyn Cells>,
    identity: Option<Identity>,
    clients: Mutex<HashMap<Address, Client>>,
}

impl Reps {
    /// Reps are asked as `identity`, where their address is of mutual TLS.
    pub fn new(cells: Arc<dyn Cells>, identity: Option<Identity>) -> Self {
        Self { cells, identity, clients: Mutex::default() }
    }

    /// All cells by their ids.
    pub async fn registered(&self) -> Result<HashMap<String, CellPresence>, Error> {
        let cells = self.cells.list().await?;
        Ok(cells.into_iter().map(|cell| (cell.cell_id.clone(), cell)).collect())
    }

    /// Tells the rep of an instance's cell to stop it.
    pub async fn stop(
        &self,
        cell: &CellPresence,
        row: &ActualLRP,
        trace: &TraceId,
    ) -> Result<(), RepError> {
        let path = format!("/v1/lrps/{}/stop", instance_path(row));
        self.tell(cell, Method::POST, &path, Some(Vec::new()), trace).await
    }

    /// Tells the rep of an instance's cell what has changed.
    pub async fn update(
        &self,
        cell: &CellPresence,
        row: &ActualLRP,
        update: &Update,
        trace: &TraceId,
    ) -> Result<(), RepError> {
        let path = format!("/v2/lrps/{}", instance_path(row));
        // A struct of texts and numbers is always representable.
        let body = serde_json::to_vec(update).unwrap_or_default();
        self.tell(cell, Method::PUT, &path, Some(body), trace).await
    }

    /// Tells the rep of a task's cell to end it.
    pub async fn cancel(
        &self,
        cell: &CellPresence,
        task_guid: &str,
        trace: &TraceId,
    ) -> Result<(), RepError> {
        self.tell(cell, Method::POST, &format!("/v1/tasks/{task_guid}/cancel"), None, trace).await
    }

    async fn tell(
        &self,
        cell: &CellPresence,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        trace: &TraceId,
    ) -> Result<(), RepError> {
        let failed =
            |source| RepError::Call { cell: cell.cell_id.clone(), source: Box::new(source) };
        let client = self.client(cell)?;
        let mut request = Request::new(transport::empty());
        *request.method_mut() = method.clone();
        // Guids are letters, digits, `_` and `-`.
        *request.uri_mut() = path.parse().unwrap_or_default();
        if let Some(body) = body {
            let json = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(http::header::CONTENT_TYPE, json);
            *request.body_mut() = transport::full(body);
        }
        trace.put(request.headers_mut());
        let answer = client.fetch(request, ANSWER).await.map_err(failed)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let (cell, call) = (cell.cell_id.clone(), format!("{method} {path}"));
        Err(RepError::Refused { cell, call, status: answer.status() })
    }

    fn client(&self, cell: &CellPresence) -> Result<Client, RepError> {
        let url = if cell.rep_url.is_empty() { &cell.rep_address } else { &cell.rep_url };
        let address: Address = url
            .parse()
            .map_err(|source| RepError::Address { cell: cell.cell_id.clone(), source })?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        let timeouts = Timeouts { answer: Some(PATIENCE), ..Timeouts::default() };
        let client =
            Client::new(address.clone(), self.identity.clone(), timeouts).map_err(|source| {
                RepError::Call { cell: cell.cell_id.clone(), source: Box::new(source) }
            })?;
        clients.insert(address, client.clone());
        Ok(client)
    }
}

fn instance_path(row: &ActualLRP) -> String {
    let process_guid = &row.actual_lrp_key.process_guid;
    format!("{process_guid}/instances/{}", row.actual_lrp_instance_key.instance_guid)
}

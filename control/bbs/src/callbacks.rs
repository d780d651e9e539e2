//! Delivering the results of tasks to whoever wanted them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbs_models::Task;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use transport::{Address, Client, Identity, Timeouts};

/// Tries to deliver one result.
const TRIES: usize = 3;
/// For one try.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

/// What the receiver of a result is told.
#[derive(Debug, Serialize)]
struct Result<'a> {
    task_guid: &'a str,
    failed: bool,
    failure_reason: &'a str,
    result: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    annotation: &'a str,
    created_at: i64,
}

/// Delivers results, a bounded number at a time.
#[derive(Debug)]
pub struct Callbacks {
    identity: Option<Identity>,
    clients: Mutex<HashMap<Address, Client>>,
    places: Arc<Semaphore>,
}

impl Callbacks {
    /// As `identity` where a URL is of TLS; `workers` results at a time.
    pub fn new(identity: Option<Identity>, workers: usize) -> Self {
        Self { identity, clients: Mutex::default(), places: Arc::new(Semaphore::new(workers)) }
    }

    /// Waits until a result may be delivered.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// Whether the result has reached its receiver, whatever it answered: only 503 and 504 say
    /// that it was not there.
    pub(crate) async fn deliver(&self, task: &Task) -> bool {
        let url = &task.task_definition.completion_callback_url;
        let (client, path) = match self.client(url) {
            Ok(found) => found,
            Err(reason) => {
                tracing::error!(
                    guid = task.task_guid,
                    url,
                    reason,
                    "a task's result has no receiver"
                );
                return false;
            }
        };
        for _ in 0..TRIES {
            match client.fetch(request(task, &path), ANSWER).await {
                Ok(answer)
                    if answer.status() == StatusCode::SERVICE_UNAVAILABLE
                        || answer.status() == StatusCode::GATEWAY_TIMEOUT => {}
                Ok(_) => return true,
                // The receiver was too slow or went away: it may be better next time.
                Err(
                    error @ (transport::Error::Timeout { .. } | transport::Error::Broken { .. }),
                ) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(
                        guid = task.task_guid,
                        error,
                        "a task's result is delivered again"
                    );
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        guid = task.task_guid,
                        error,
                        "a task's result is not delivered"
                    );
                    return false;
                }
            }
        }
        false
    }

    fn client(&self, url: &str) -> std::result::Result<(Client, Uri), String> {
        let url: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err("it is no URL of a server".into());
        };
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let address: Address =
            format!("{scheme}://{host}").parse().map_err(|error| format!("{error}"))?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok((client.clone(), url));
        }
        let timeouts = Timeouts { answer: Some(PATIENCE), ..Timeouts::default() };
        let client = Client::new(address.clone(), self.identity.clone(), timeouts)
            .map_err(|error| format!("{error}"))?;
        clients.insert(address, client.clone());
        Ok((client, url))
    }
}

fn request(task: &Task, url: &Uri) -> Request<transport::Body> {
    let result = Result {
        task_guid: &task.task_guid,
        failed: task.failed,
        failure_reason: &task.failure_reason,
        result: &task.result,
        annotation: &task.task_definition.annotation,
        created_at: task.created_at,
    };
    // Texts and numbers are always representable.
    let mut request =
        Request::new(transport::full(serde_json::to_vec(&result).unwrap_or_default()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

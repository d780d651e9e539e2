//! Delivering the results of tasks to whoever wanted them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbs_models::Task;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use transport::{Address, Client, Identity, Target, Timeouts, without_credentials};

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
        let target = url.parse::<Target>().map_err(|error| error.to_string());
        let found = target.and_then(|target| {
            let client = self.client(target.address.clone()).map_err(|error| error.to_string())?;
            Ok((client, target))
        });
        let (client, target) = match found {
            Ok(found) => found,
            Err(reason) => {
                tracing::error!(
                    guid = task.task_guid,
                    url = without_credentials(url),
                    reason,
                    "a task's result has no receiver"
                );
                return false;
            }
        };
        for _ in 0..TRIES {
            match client.fetch(request(task, &target), ANSWER).await {
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

    fn client(&self, address: Address) -> std::result::Result<Client, transport::Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        let timeouts = Timeouts { answer: Some(PATIENCE), ..Timeouts::default() };
        let client = Client::new(address.clone(), self.identity.clone(), timeouts)?;
        clients.insert(address, client.clone());
        Ok(client)
    }
}

fn request(task: &Task, target: &Target) -> Request<transport::Body> {
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
    // It was part of one.
    *request.uri_mut() = target.path.parse().unwrap_or_default();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(credentials) = &target.credentials {
        request.headers_mut().insert(AUTHORIZATION, credentials.clone());
    }
    request
}

//! What the auctioneer is asked: a cell for instances, a cell for tasks.

use std::sync::Arc;
use std::time::Duration;

use bbs_models::Task;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use transport::{Client, TraceId};

use crate::desired::{Desired, Placement};

/// Bytes of the auctioneer's answer that are read.
const ANSWER: usize = 64 * 1024;
/// Before an auctioneer that is not there is asked again: three seconds in all, in which a restarted
/// one is back.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// Instances of one process that wait for a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LrpStart {
    process_guid: String,
    domain: String,
    indices: Vec<i32>,
    #[serde(flatten)]
    needs: Needs,
}

/// A task that waits for a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskStart {
    #[serde(rename = "TaskGuid")]
    task_guid: String,
    #[serde(rename = "Domain")]
    domain: String,
    #[serde(flatten)]
    needs: Needs,
    state: &'static str,
    failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Needs {
    placement_tags: Option<Vec<String>>,
    volume_drivers: Option<Vec<String>>,
    root_fs: String,
    #[serde(rename = "MemoryMB")]
    memory_mb: i32,
    #[serde(rename = "DiskMB")]
    disk_mb: i32,
    max_pids: i32,
}

impl Needs {
    /// A request that follows from the client's own message says that there are no drivers; one
    /// that follows from a record says nothing.
    fn new(placement: &Placement, told: bool) -> Self {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let drivers = &placement.volume_drivers;
        Self {
            placement_tags: some(&placement.placement_tags),
            volume_drivers: if told { Some(drivers.clone()) } else { some(drivers) },
            root_fs: placement.root_fs.clone(),
            memory_mb: placement.memory_mb,
            disk_mb: placement.disk_mb,
            max_pids: placement.max_pids,
        }
    }
}

impl LrpStart {
    /// These indices of a process. `told` when a client has just told what it needs.
    pub fn new(desired: &Desired, indices: Vec<i32>, told: bool) -> Self {
        Self {
            process_guid: desired.process_guid.to_string(),
            domain: desired.domain.to_string(),
            indices,
            needs: Needs::new(&desired.placement, told),
        }
    }

    /// How many instances it asks for.
    pub fn count(&self) -> usize {
        self.indices.len()
    }
}

impl TaskStart {
    /// This task.
    pub fn new(task: &Task) -> Self {
        let definition = &task.task_definition;
        let placement = Placement {
            root_fs: definition.root_fs.clone(),
            memory_mb: definition.memory_mb,
            disk_mb: definition.disk_mb,
            max_pids: definition.max_pids,
            placement_tags: definition.placement_tags.clone(),
            volume_drivers: definition.volume_mounts.iter().map(|m| m.driver.clone()).collect(),
        };
        Self {
            task_guid: task.task_guid.clone(),
            domain: task.domain.clone(),
            needs: Needs::new(&placement, true),
            state: "Invalid",
            failed: false,
        }
    }
}

/// A request for each index: the original's does not gather those of one process either.
pub fn each<'a>(starts: impl IntoIterator<Item = (&'a Arc<Desired>, i32)>) -> Vec<LrpStart> {
    starts.into_iter().map(|(desired, index)| LrpStart::new(desired, vec![index], false)).collect()
}

/// Asks the auctioneer, for a while if it is not there. A request that fails is only logged:
/// convergence asks again.
#[derive(Clone, Debug)]
pub struct Auctioneer {
    client: Client,
}

impl Auctioneer {
    /// Through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Cells for instances.
    pub async fn start_lrps(&self, starts: &[LrpStart], trace: &TraceId) {
        let count: usize = starts.iter().map(LrpStart::count).sum();
        if count > 0 {
            self.post("/v1/lrps", starts, count, trace).await;
        }
    }

    /// Cells for tasks.
    pub async fn start_tasks(&self, starts: &[TaskStart]) {
        if !starts.is_empty() {
            self.post("/v1/tasks", starts, starts.len(), &TraceId::default()).await;
        }
    }

    async fn post<T: Serialize>(
        &self,
        path: &'static str,
        starts: &[T],
        count: usize,
        trace: &TraceId,
    ) {
        // Texts and numbers are always representable.
        let body = serde_json::to_vec(starts).map(Bytes::from).unwrap_or_default();
        let request = || {
            let mut request = Request::new(transport::full(body.clone()));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = http::Uri::from_static(path);
            let json = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            trace.put(request.headers_mut());
            request
        };
        let mut answer = self.client.fetch(request(), ANSWER).await;
        for pause in PAUSES {
            if !answer.as_ref().is_err_and(transport::Error::is_unsent) {
                break;
            }
            tokio::time::sleep(pause).await;
            answer = self.client.fetch(request(), ANSWER).await;
        }
        match answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                tracing::error!(path, count, status = %answer.status(), "the auctioneer refuses");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(path, count, error, "the auctioneer is not asked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Response, StatusCode};
    use tokio_util::sync::CancellationToken;
    use tower::service_fn;
    use transport::{Address, Listener, Server, Timeouts};

    use super::*;

    #[tokio::test]
    async fn an_auctioneer_that_is_late_is_asked() {
        let place = tempfile::tempdir().unwrap();
        let address = Address::Unix(place.path().join("auctioneer.sock"));
        let client = Client::new(address.clone(), None, Timeouts::default()).unwrap();
        let auctioneer = Auctioneer::new(client);
        let start = TaskStart::new(&Task::default());
        let stop = CancellationToken::new();
        let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
        let late = async {
            // The first try has failed by then, and several are left.
            tokio::time::sleep(PAUSES[0] / 2).await;
            let listener = Listener::bind(&address, None).await.unwrap();
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                asked.send(request.uri().path().to_owned()).unwrap();
                let answer = Response::builder().status(StatusCode::ACCEPTED);
                std::future::ready(Ok::<_, Infallible>(
                    answer.body(transport::full(Bytes::from_static(b"{}"))).unwrap(),
                ))
            });
            Server::new(listener).serve(answer, stop.clone()).await;
        };
        let ask = async {
            auctioneer.start_tasks(&[start]).await;
            stop.cancel();
        };
        tokio::join!(ask, late);
        assert_eq!(asks.recv().await.as_deref(), Some("/v1/tasks"));
        assert!(asks.try_recv().is_err(), "once");
    }
}

//! The API: a path and a message in, a message out.
//!
//! A call is answered with 200 also when it fails; the answer's first field is then the error.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use bbs_models::error::Type;
use bbs_models::*;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use transport::TraceId;

use crate::board::Board;
use crate::events::{Hubs, Revision, Topic};
use crate::{lists, versions};

/// Bytes of a request; a desired LRP that the board accepts has less than 2 MiB.
const REQUEST: usize = 16 * 1024 * 1024;

/// An answer: a message, or an endless stream of events.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers the API's calls on one board.
#[derive(Clone, Debug)]
pub struct Api {
    board: Board,
    hubs: Arc<Hubs>,
    stop: CancellationToken,
}

/// The method by which a call of this name is made; none if it is not served.
fn method(path: &str) -> Option<Method> {
    match path {
        "/v1/ping"
        | "/v1/domains/list"
        | "/v1/domains/upsert"
        | "/v1/actual_lrps/list"
        | "/v1/actual_lrps/list_by_process_guids"
        | "/v1/actual_lrps/claim"
        | "/v1/actual_lrps/start"
        | "/v1/actual_lrps/start.r1"
        | "/v1/actual_lrps/crash"
        | "/v1/actual_lrps/fail"
        | "/v1/actual_lrps/remove"
        | "/v1/actual_lrps/retire"
        | "/v1/actual_lrps/remove_evacuating"
        | "/v1/actual_lrps/evacuate_claimed"
        | "/v1/actual_lrps/evacuate_crashed"
        | "/v1/actual_lrps/evacuate_stopped"
        | "/v1/actual_lrps/evacuate_running"
        | "/v1/actual_lrps/evacuate_running.r1"
        | "/v1/actual_lrp_groups/list"
        | "/v1/actual_lrp_groups/list_by_process_guid"
        | "/v1/actual_lrp_groups/get_by_process_guid_and_index"
        | "/v1/desired_lrp_scheduling_infos/list"
        | "/v1/desired_lrp_scheduling_infos/get_by_process_guid"
        | "/v1/desired_lrp_routing_infos/list"
        | "/v1/desired_lrps/list.r3"
        | "/v1/desired_lrps/get_by_process_guid.r3"
        | "/v1/desired_lrp/desire.r2"
        | "/v1/desired_lrp/update"
        | "/v1/desired_lrp/remove"
        | "/v1/tasks/list.r3"
        | "/v1/tasks/get_by_task_guid.r3"
        | "/v1/tasks/desire.r2"
        | "/v1/tasks/start"
        | "/v1/tasks/cancel"
        | "/v1/tasks/fail"
        | "/v1/tasks/reject"
        | "/v1/tasks/complete"
        | "/v1/tasks/resolving"
        | "/v1/tasks/delete"
        | "/v1/events/lrp_instances.r1"
        | "/v1/events/tasks.r1"
        | "/v1/cells/list.r1"
        | "/v1/desired_lrps/list.r2"
        | "/v1/desired_lrps/get_by_process_guid.r2"
        | "/v1/tasks/list.r2"
        | "/v1/tasks/get_by_task_guid.r2"
        | "/v1/events/lrp_instances"
        | "/v1/events/tasks" => Some(Method::POST),
        "/v1/events" | "/v1/events.r1" => Some(Method::GET),
        _ => None,
    }
}

impl Api {
    /// Event streams end when `stop` is cancelled.
    pub fn new(board: Board, hubs: Arc<Hubs>, stop: CancellationToken) -> Self {
        Self { board, hubs, stop }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let Some(method) = method(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        if *request.method() != method {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            let allowed = if method == Method::GET { "GET" } else { "POST" };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        let trace = TraceId::of(request.headers());
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, REQUEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                tracing::info!(path = head.uri.path(), error, "a request is not readable");
                // Every answer has its error in the same place.
                return message(&TaskLifecycleResponse {
                    error: Error::from(Type::UnknownError).into(),
                    ..Default::default()
                });
            }
        };
        self.call(head.uri.path(), &body, &trace).await
    }

    async fn call(&self, path: &str, body: &Bytes, trace: &TraceId) -> Answer {
        match path {
            path if path.starts_with("/v1/events") => self.event_call(path, body),
            path if path.starts_with("/v1/tasks/") => self.task_call(path, body, trace).await,
            path if path.starts_with("/v1/actual_lrp") => self.actual_call(path, body, trace).await,
            path if path.starts_with("/v1/desired_lrp") => {
                self.desired_call(path, body, trace).await
            }
            "/v1/ping" => message(&PingResponse { available: true, ..Default::default() }),
            "/v1/domains/list" => {
                let (error, domains) = split(self.board.domains());
                message(&DomainsResponse { error, domains, ..Default::default() })
            }
            "/v1/domains/upsert" => {
                let done = match read(body) {
                    Ok(request) => self.board.upsert_domain(request).await,
                    Err(error) => Err(error),
                };
                message(&UpsertDomainResponse { error: split(done).0, ..Default::default() })
            }
            _ => {
                let (error, cells) = split(self.board.cells().await);
                message(&CellsResponse { error, cells, ..Default::default() })
            }
        }
    }

    fn event_call(&self, path: &str, body: &Bytes) -> Answer {
        let Ok(EventsByCellId { cell_id, .. }) = EventsByCellId::decode_from_slice(body) else {
            return self.refuse(Type::InvalidRequest);
        };
        let (topic, revision) = match path {
            "/v1/events" => (Topic::Groups { cell_id }, Revision::Unrevised),
            "/v1/events.r1" => (Topic::Groups { cell_id }, Revision::Current),
            "/v1/events/tasks" => (Topic::Tasks, Revision::Unrevised),
            "/v1/events/tasks.r1" => (Topic::Tasks, Revision::Current),
            "/v1/events/lrp_instances" => (Topic::Instances { cell_id }, Revision::Unrevised),
            _ => (Topic::Instances { cell_id }, Revision::Current),
        };
        self.stream(topic, revision)
    }

    async fn desired_call(&self, path: &str, body: &Bytes, trace: &TraceId) -> Answer {
        let board = &self.board;
        match path {
            "/v1/desired_lrps/list.r3" => {
                let found = read(body).and_then(|filter| board.desired_lrps(&filter));
                list(found, |all| lists::encoded(2, all.iter().map(|lrp| lrp.encoded()))).await
            }
            "/v1/desired_lrps/get_by_process_guid.r3" => {
                let found = read::<DesiredLRPByProcessGuidRequest>(body)
                    .and_then(|request| board.desired_lrp(&request.process_guid));
                list(found, |lrp| lists::encoded(2, [lrp.encoded()].into_iter())).await
            }
            "/v1/desired_lrps/list.r2" => {
                let found = read(body).and_then(|filter| board.desired_lrps(&filter));
                list(found, |all| {
                    let old = all.iter().map(|lrp| versions::without_layers(lrp.lrp()));
                    lists::messages(2, &old.collect::<Vec<_>>())
                })
                .await
            }
            "/v1/desired_lrps/get_by_process_guid.r2" => {
                let found = read::<DesiredLRPByProcessGuidRequest>(body)
                    .and_then(|request| board.desired_lrp(&request.process_guid));
                list(found, |lrp| lists::messages(2, [&versions::without_layers(lrp.lrp())])).await
            }
            "/v1/desired_lrp_scheduling_infos/list" => {
                let found = read(body).and_then(|filter: DesiredLRPsRequest| {
                    board.desired_lrps(&DesiredLRPsRequest { app_guids: Vec::new(), ..filter })
                });
                list(found, |all| lists::encoded(2, all.iter().map(|lrp| lrp.scheduling_info())))
                    .await
            }
            "/v1/desired_lrp_scheduling_infos/get_by_process_guid" => {
                let found = read::<DesiredLRPByProcessGuidRequest>(body)
                    .and_then(|request| board.desired_lrp(&request.process_guid));
                list(found, |lrp| lists::encoded(2, [lrp.scheduling_info()].into_iter())).await
            }
            "/v1/desired_lrp_routing_infos/list" => {
                let found = read(body).and_then(|filter: DesiredLRPsRequest| {
                    let process_guids = filter.process_guids;
                    board.desired_lrps(&DesiredLRPsRequest { process_guids, ..Default::default() })
                });
                list(found, |all| lists::routing_infos(&all)).await
            }
            _ => {
                let done = match path {
                    "/v1/desired_lrp/desire.r2" => match read(body) {
                        Ok(request) => board.desire_lrp(request, trace).await,
                        Err(error) => Err(error),
                    },
                    "/v1/desired_lrp/update" => match read(body) {
                        Ok(request) => board.update_lrp(request, trace).await,
                        Err(error) => Err(error),
                    },
                    _ => match read::<RemoveDesiredLRPRequest>(body) {
                        Ok(request) => board.remove_lrp(&request.process_guid, trace).await,
                        Err(error) => Err(error),
                    },
                };
                let error = split(done).0;
                message(&DesiredLRPLifecycleResponse { error, ..Default::default() })
            }
        }
    }

    async fn actual_call(&self, path: &str, body: &Bytes, trace: &TraceId) -> Answer {
        let board = &self.board;
        match path {
            "/v1/actual_lrps/list" => {
                let found = read::<ActualLRPsRequest>(body)
                    .and_then(|request| board.actual_lrps(&request.into()));
                list(found, |all| lists::messages(2, all.iter().map(Arc::as_ref))).await
            }
            "/v1/actual_lrps/list_by_process_guids" => {
                let found = read::<ActualLRPsByProcessGuidsRequest>(body)
                    .and_then(|request| board.actual_lrps_of(&request.process_guids));
                list(found, |all| lists::messages(2, all.iter().map(Arc::as_ref))).await
            }
            path if path.starts_with("/v1/actual_lrp_groups/") => self.group_call(path, body).await,
            "/v1/actual_lrps/evacuate_claimed" => {
                kept(read(body), true, |request| board.evacuate_claimed(request)).await
            }
            "/v1/actual_lrps/evacuate_crashed" => {
                kept(read(body), false, |request| board.evacuate_crashed(request)).await
            }
            "/v1/actual_lrps/evacuate_stopped" => {
                kept(read(body), false, |request| board.evacuate_stopped(request)).await
            }
            "/v1/actual_lrps/evacuate_running.r1" => {
                kept(read(body), true, |request| board.evacuate_running(request)).await
            }
            "/v1/actual_lrps/evacuate_running" => {
                kept(read(body).map(lists::old_evacuation), true, |request| {
                    board.evacuate_running(request)
                })
                .await
            }
            "/v1/actual_lrps/remove_evacuating" => {
                let done = match read(body) {
                    Ok(request) => board.remove_evacuating(request).await,
                    Err(error) => Err(error),
                };
                let error = split(done).0;
                message(&RemoveEvacuatingActualLRPResponse { error, ..Default::default() })
            }
            _ => {
                let done = self.lifecycle_call(path, body, trace).await;
                let error = split(done).0;
                message(&ActualLRPLifecycleResponse { error, ..Default::default() })
            }
        }
    }

    async fn lifecycle_call(&self, path: &str, body: &Bytes, trace: &TraceId) -> Result<(), Error> {
        let board = &self.board;
        match path {
            "/v1/actual_lrps/claim" => board.claim(read(body)?).await,
            "/v1/actual_lrps/start.r1" => board.start(read(body)?).await,
            "/v1/actual_lrps/start" => board.start(lists::old_start(read(body)?)).await,
            "/v1/actual_lrps/crash" => board.crash(read(body)?).await,
            "/v1/actual_lrps/fail" => board.fail(read(body)?).await,
            "/v1/actual_lrps/remove" => board.remove(read(body)?).await,
            _ => board.retire(read(body)?, trace).await,
        }
    }

    async fn group_call(&self, path: &str, body: &Bytes) -> Answer {
        let board = &self.board;
        match path {
            "/v1/actual_lrp_groups/list" => {
                let found = read::<ActualLRPGroupsRequest>(body).and_then(|request| {
                    let ActualLRPGroupsRequest { domain, cell_id, .. } = request;
                    board.actual_lrps(&crate::board::Filter {
                        domain,
                        cell_id,
                        ..Default::default()
                    })
                });
                list(found, |all| lists::messages(2, &lists::groups(&all))).await
            }
            "/v1/actual_lrp_groups/list_by_process_guid" => {
                let found = read::<ActualLRPGroupsByProcessGuidRequest>(body)
                    .and_then(|request| board.actual_lrps_of(&[request.process_guid]));
                list(found, |all| lists::messages(2, &lists::groups(&all))).await
            }
            _ => {
                let found = read::<ActualLRPGroupByProcessGuidAndIndexRequest>(body).and_then(
                    |ActualLRPGroupByProcessGuidAndIndexRequest { process_guid, index, .. }| {
                        let index = Some(index);
                        let filter =
                            crate::board::Filter { process_guid, index, ..Default::default() };
                        let rows = board.actual_lrps(&filter)?;
                        match rows.is_empty() {
                            true => Err(Type::ResourceNotFound.into()),
                            false => Ok(rows),
                        }
                    },
                );
                list(found, |all| lists::messages(2, &lists::groups(&all))).await
            }
        }
    }

    async fn task_call(&self, path: &str, body: &Bytes, trace: &TraceId) -> Answer {
        let board = &self.board;
        match path {
            "/v1/tasks/list.r3" => {
                let found = read::<TasksRequest>(body).and_then(|filter| board.tasks(&filter));
                list(found, |all| lists::messages(2, all.iter().map(Arc::as_ref))).await
            }
            "/v1/tasks/get_by_task_guid.r3" => {
                let found = read::<TaskByGuidRequest>(body)
                    .and_then(|request| board.task(&request.task_guid));
                list(found, |task| lists::messages(2, [&*task])).await
            }
            "/v1/tasks/list.r2" => {
                let found = read::<TasksRequest>(body).and_then(|filter| board.tasks(&filter));
                list(found, |all| {
                    let old =
                        all.iter().map(|task| versions::task_without_layers((**task).clone()));
                    lists::messages(2, &old.collect::<Vec<_>>())
                })
                .await
            }
            "/v1/tasks/get_by_task_guid.r2" => {
                let found = read::<TaskByGuidRequest>(body)
                    .and_then(|request| board.task(&request.task_guid));
                list(found, |task| {
                    lists::messages(2, [&versions::task_without_layers((*task).clone())])
                })
                .await
            }
            "/v1/tasks/start" => {
                let done = match read(body) {
                    Ok(request) => board.start_task(request).await,
                    Err(error) => Err(error),
                };
                let (error, should_start) = split(done);
                message(&StartTaskResponse { error, should_start, ..Default::default() })
            }
            _ => {
                let done = self.task_lifecycle_call(path, body, trace).await;
                let error = split(done).0;
                message(&TaskLifecycleResponse { error, ..Default::default() })
            }
        }
    }

    async fn task_lifecycle_call(
        &self,
        path: &str,
        body: &Bytes,
        trace: &TraceId,
    ) -> Result<(), Error> {
        let board = &self.board;
        let guid = || read::<TaskGuidRequest>(body).map(|request| request.task_guid);
        match path {
            "/v1/tasks/desire.r2" => board.desire_task(read(body)?).await,
            "/v1/tasks/cancel" => board.cancel_task(&guid()?, trace).await,
            "/v1/tasks/fail" => board.fail_task(read(body)?).await,
            "/v1/tasks/reject" => board.reject_task(read(body)?).await,
            "/v1/tasks/complete" => board.complete_task(read(body)?).await,
            "/v1/tasks/resolving" => board.resolve_task(&guid()?).await,
            _ => board.delete_task(&guid()?).await,
        }
    }

    fn stream(&self, topic: Topic, revision: Revision) -> Answer {
        let stream = self.hubs.subscribe(topic, revision, self.stop.clone());
        let mut answer = Response::new(stream.boxed_unsync());
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        headers.insert(CONTENT_TYPE, kind);
        let uncached = HeaderValue::from_static("no-cache, no-store, must-revalidate");
        headers.insert(CACHE_CONTROL, uncached);
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        answer
    }

    fn refuse(&self, kind: Type) -> Answer {
        message(&TaskLifecycleResponse { error: Error::from(kind).into(), ..Default::default() })
    }
}

/// A request that the board accepts.
fn read<M: Message + Validate>(body: &Bytes) -> Result<M, Error> {
    let request = M::decode_from_slice(body).map_err(|_| Error::from(Type::InvalidRequest))?;
    request.validate()?;
    Ok(request)
}

type ErrorField = MessageField<Error, buffa::Inline<Error>>;

fn split<T: Default>(done: Result<T, Error>) -> (ErrorField, T) {
    match done {
        Ok(value) => (ErrorField::none(), value),
        Err(error) => (error.into(), T::default()),
    }
}

/// The answer to an evacuation call. A request that cannot be read keeps some containers.
async fn kept<M, F>(request: Result<M, Error>, unread: bool, call: impl FnOnce(M) -> F) -> Answer
where
    F: Future<Output = Result<bool, Error>>,
{
    let (error, keep_container) = match request {
        Err(error) => (error.into(), unread),
        Ok(request) => split(call(request).await),
    };
    message(&EvacuationResponse { error, keep_container, ..Default::default() })
}

/// Encodes what was found, away from the threads that serve calls: it may be everything.
async fn list<T: Send + 'static>(
    found: Result<T, Error>,
    encode: impl FnOnce(T) -> Bytes + Send + 'static,
) -> Answer {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let error = error.into();
            return message(&TaskLifecycleResponse { error, ..Default::default() });
        }
    };
    match tokio::task::spawn_blocking(move || encode(found)).await {
        Ok(bytes) => answer(bytes),
        Err(error) => {
            tracing::error!(%error, "a list is not encoded");
            message(&TaskLifecycleResponse {
                error: Error::from(Type::UnknownError).into(),
                ..Default::default()
            })
        }
    }
}

fn message<M: Message + Debug>(message: &M) -> Answer {
    answer(message.encode_to_bytes())
}

fn answer(body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed_unsync());
    let kind = HeaderValue::from_static("application/x-protobuf");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync());
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    let plain = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, plain);
    answer
}

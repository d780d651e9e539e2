//! The gRPC service.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use transport::Listener;

use crate::config::Config;
use crate::error::Error;
use crate::locks::{Failure, Locks};
use crate::models::locket_server::{Locket, LocketServer};
use crate::models::{
    FetchAllRequest, FetchAllResponse, FetchRequest, FetchResponse, LockRequest, LockResponse,
    ReleaseRequest, ReleaseResponse,
};
use crate::table::{Entry, Kind, Refusal, Ttl};

/// Opens the configured database and answers on the configured address until told to stop.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let server = Server::open(config.database()?).await?;
    let listener = config.listen().await?;
    tracing::info!(address = config.listen_address, "Locket serves");
    server.serve(listener, stop).await;
    Ok(())
}

/// Keeps locks and presences in one database file.
#[derive(Debug)]
pub struct Server {
    locks: Arc<Locks>,
}

impl Server {
    /// Opens or makes the database. What is in it gets the whole of its time to live again.
    pub async fn open(database: &Path) -> Result<Self, Error> {
        Ok(Self { locks: Arc::new(Locks::open(database).await?) })
    }

    /// Answers until told to stop, then closes the database.
    pub async fn serve(self, listener: Listener, stop: CancellationToken) {
        let service = LocketServer::new(Service { locks: self.locks.clone() });
        let server = transport::Server::new(listener);
        tokio::select! {
            () = server.serve(Routes::new(service), stop) => {}
            never = self.locks.expire() => match never {},
        }
        self.locks.close().await;
    }
}

struct Service {
    locks: Arc<Locks>,
}

#[tonic::async_trait]
impl Locket for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { resource, ttl_in_seconds } = request.into_inner();
        let resource = resource.ok_or(Refusal::NoResource)?;
        let ttl = Ttl::from_seconds(ttl_in_seconds)?;
        if resource.owner.is_empty() {
            return Err(Refusal::Owner.into());
        }
        let kind = Kind::from_code(resource.type_code)?;
        let entry = Entry { owner: resource.owner, value: resource.value, kind, ttl };
        let locks = self.locks.clone();
        to_the_end(async move { locks.lock(resource.key, entry).await }).await?;
        Ok(Response::new(LockResponse {}))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let resource = self.locks.fetch(&request.into_inner().key).await?;
        Ok(Response::new(FetchResponse { resource: Some(resource) }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let resource = request.into_inner().resource.ok_or(Refusal::NoResource)?;
        let locks = self.locks.clone();
        to_the_end(async move { locks.release(&resource.key, &resource.owner).await }).await?;
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn fetch_all(
        &self,
        request: Request<FetchAllRequest>,
    ) -> Result<Response<FetchAllResponse>, Status> {
        let kind = Kind::from_code(request.into_inner().type_code)?;
        let resources = self.locks.fetch_all(kind).await;
        Ok(Response::new(FetchAllResponse { resources }))
    }
}

/// Runs a change even when its caller leaves: a change cut in half would be on disk and not in
/// memory.
async fn to_the_end(
    change: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<(), Status> {
    match tokio::spawn(change).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Failure::Refused(refusal))) => Err(refusal.into()),
        Ok(Err(failure @ Failure::Disk(_))) => {
            tracing::error!(%failure, "a lock is refused");
            Err(Status::unavailable(failure.to_string()))
        }
        Err(panic) => Err(Status::internal(panic.to_string())),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Collision => Self::already_exists(text),
            Refusal::NotFound | Refusal::Kind => Self::not_found(text),
            Refusal::Ttl | Refusal::Owner | Refusal::NoResource => Self::invalid_argument(text),
        }
    }
}

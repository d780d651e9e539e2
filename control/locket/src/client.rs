//! Single calls.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use transport::{Address, Connector, Identity, Protocol};
use uuid::Uuid;

use crate::models::locket_client::LocketClient;
use crate::models::{
    FetchAllRequest, FetchRequest, LockRequest, ReleaseRequest, Resource, TypeCode,
};

/// For the connection; the originals' settings for pings are the two after it.
const CONNECT: Duration = Duration::from_secs(10);
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(22);

/// A client of one server; clones share its connection, which is made when first needed and again
/// when it broke.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: LocketClient<Channel>,
}

impl Client {
    /// Must be called inside a tokio runtime. An `https` address without an identity is an error.
    pub fn new(address: &Address, identity: Option<Identity>) -> Result<Self, transport::Error> {
        let connector = Connector::new(address.clone(), identity, Protocol::Http2, CONNECT)?;
        let scheme = if matches!(address, Address::Https { .. }) { "https" } else { "http" };
        let origin = format!("{scheme}://{}", address.authority()).parse().map_err(
            |error: http::uri::InvalidUri| transport::Error::Request {
                call: "Locket".into(),
                address: address.clone(),
                source: error.into(),
            },
        )?;
        // The scheme of the endpoint's own address would make tonic look for TLS settings; the
        // connector brings TLS itself.
        let channel = Endpoint::from_static("http://locket")
            .origin(origin)
            .http2_keep_alive_interval(KEEPALIVE_TIME)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        Ok(Self { grpc: LocketClient::new(channel) })
    }

    /// Takes or renews a resource for `ttl`, cut to whole seconds. Another owner's is
    /// `AlreadyExists`. `within` is the call's deadline.
    pub async fn lock(
        &self,
        resource: Resource,
        ttl: Duration,
        within: Option<Duration>,
    ) -> Result<(), Status> {
        let ttl_in_seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let message = LockRequest { resource: Some(resource), ttl_in_seconds };
        self.grpc.clone().lock(request(message, within)).await?;
        Ok(())
    }

    /// Lets go of a resource. One that nobody holds is no error, another owner's is
    /// `AlreadyExists`.
    pub async fn release(
        &self,
        resource: Resource,
        within: Option<Duration>,
    ) -> Result<(), Status> {
        let resource = Some(Resource { value: String::new(), ..resource });
        self.grpc.clone().release(request(ReleaseRequest { resource }, within)).await?;
        Ok(())
    }

    /// One resource; `NotFound` if nobody holds it.
    pub async fn fetch(&self, key: &str, within: Option<Duration>) -> Result<Resource, Status> {
        let message = FetchRequest { key: key.to_owned() };
        let answer = self.grpc.clone().fetch(request(message, within)).await?;
        answer.into_inner().resource.ok_or_else(|| Status::internal("an answer without a resource"))
    }

    /// All presences, or all locks.
    pub async fn fetch_all(
        &self,
        type_code: TypeCode,
        within: Option<Duration>,
    ) -> Result<Vec<Resource>, Status> {
        let message =
            FetchAllRequest { r#type: name(type_code).into(), type_code: type_code.into() };
        let answer = self.grpc.clone().fetch_all(request(message, within)).await?;
        Ok(answer.into_inner().resources)
    }
}

/// A resource as clients send it.
pub(crate) fn resource(key: &str, owner: &str, value: &str, type_code: TypeCode) -> Resource {
    Resource {
        key: key.into(),
        owner: owner.into(),
        value: value.into(),
        r#type: name(type_code).into(),
        type_code: type_code.into(),
    }
}

fn name(type_code: TypeCode) -> &'static str {
    match type_code {
        TypeCode::Unknown => "",
        TypeCode::Lock => "lock",
        TypeCode::Presence => "presence",
    }
}

/// With a fresh `uuid`, by which the original's logs name a request, and the deadline, if any.
fn request<T>(message: T, within: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(uuid) = MetadataValue::try_from(Uuid::new_v4().to_string()) {
        request.metadata_mut().insert("uuid", uuid);
    }
    if let Some(within) = within {
        request.set_timeout(within);
    }
    request
}

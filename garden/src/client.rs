//! A client of Garden's API: every call, of this server or of the original one.
//!
//! What goes over the wire is byte for byte what the original's own client sends, so a server
//! cannot tell them apart. One difference is deliberate: handles and property keys are escaped in
//! paths, so that those with `/`, `%`, `?` or `+` reach the container they name.

mod address;
mod archive;
mod error;
mod exchange;
mod frames;
mod process;
mod request;

use std::time::Duration;

use garden_api::go_json::encode;
use garden_api::{
    BandwidthLimits, BulkInfo, BulkMetrics, Capacity, ContainerInfo, ContainerSpec, CpuLimits,
    CreateResponse, DiskLimits, ListResponse, MemoryLimits, Metrics, Nanoseconds, NetInRequest,
    NetInResponse, NetOutRule, ProcessSpec, Properties, PropertyValue, RequestedDiskLimits,
    ServerName, StopRequest,
};
use tokio::io::AsyncRead;

pub use address::{Address, BadAddress};
pub use archive::Archive;
pub use error::Error;
pub use process::{Output, ProcessIo, RunningProcess};

use exchange::Nothing;
use request::{Request, segment};

/// Asks a Garden. Every call has a connection of its own, so one client serves any number of
/// tasks, and there is nothing to close. Connecting is given up after two seconds; an answer is
/// waited for without a limit, as some calls take long.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    request_id: Option<String>,
}

impl Client {
    /// A client of the server at this address. Nothing is sent yet.
    pub fn new(address: Address) -> Self {
        Self { address, request_id: None }
    }

    /// The same client, whose calls carry `X-Vcap-Request-Id`, by which the server's log names
    /// them. Characters that no header may contain are left out.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.chars().filter(|character| !character.is_control()).collect());
        self
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Succeeds if the server serves.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask::<Nothing>(Request::get("Ping", "/ping".into())).await.map(drop)
    }

    /// Whether the server is Bloomery's: a question of our own, to which the original answers as to
    /// [`Client::ping`].
    pub async fn is_own(&self) -> Result<bool, Error> {
        let request = Request::get("Ping", "/ping".into()).with_query([("server", "true")]);
        self.ask(request).await.map(|name: ServerName| name == ServerName::own())
    }

    /// What the machine offers.
    pub async fn capacity(&self) -> Result<Capacity, Error> {
        self.ask(Request::get("Capacity", "/capacity".into())).await
    }

    /// Creates a container and returns its handle.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let request = Request::post("Create", "/containers".into(), encode(spec));
        self.ask(request).await.map(|created: CreateResponse| created.handle)
    }

    /// Handles of the containers that have all these properties, sorted. The property
    /// `garden.state` = `all` asks for half-made containers too.
    pub async fn list(&self, filter: &Properties) -> Result<Vec<String>, Error> {
        let pairs = filter.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let request = Request::get("List", "/containers".into()).with_query(pairs);
        self.ask(request).await.map(|list: ListResponse| list.handles)
    }

    /// Fails with [`Error::ContainerNotFound`] unless the container is listed.
    pub async fn lookup(&self, handle: &str) -> Result<(), Error> {
        let handles = self.list(&Properties::new()).await?;
        let found = handles.iter().any(|listed| listed == handle);
        if found { Ok(()) } else { Err(Error::ContainerNotFound(handle.to_owned())) }
    }

    /// Ends a container's processes and removes it.
    pub async fn destroy(&self, handle: &str) -> Result<(), Error> {
        let target = format!("/containers/{}", segment(handle));
        self.ask::<Nothing>(Request::delete("Destroy", target)).await.map(drop)
    }

    /// Sends SIGTERM to every process of a container but its init, until none is left or ten
    /// seconds have passed, and then SIGKILL; with `kill`, SIGKILL at once.
    pub async fn stop(&self, handle: &str, kill: bool) -> Result<(), Error> {
        let body = encode(&StopRequest { kill });
        self.ask::<Nothing>(Request::put("Stop", about(handle, "stop"), body)).await.map(drop)
    }

    /// What a container is now.
    pub async fn info(&self, handle: &str) -> Result<ContainerInfo, Error> {
        self.ask(Request::get("Info", about(handle, "info"))).await
    }

    /// What several containers are now; one that cannot be told of is an entry with its error.
    pub async fn bulk_info(&self, handles: &[impl AsRef<str>]) -> Result<BulkInfo, Error> {
        self.ask(bulk("BulkInfo", "/containers/bulk_info", handles)).await
    }

    /// What a container uses.
    pub async fn metrics(&self, handle: &str) -> Result<Metrics, Error> {
        self.ask(Request::get("Metrics", about(handle, "metrics"))).await
    }

    /// What several containers use; one that cannot be told of is an entry with its error.
    pub async fn bulk_metrics(&self, handles: &[impl AsRef<str>]) -> Result<BulkMetrics, Error> {
        self.ask(bulk("BulkMetrics", "/containers/bulk_metrics", handles)).await
    }

    /// All properties of a container, the server's own among them.
    pub async fn properties(&self, handle: &str) -> Result<Properties, Error> {
        self.ask(Request::get("Properties", about(handle, "properties"))).await
    }

    /// One property's value.
    pub async fn property(&self, handle: &str, key: &str) -> Result<String, Error> {
        let request = Request::get("Property", property(handle, key));
        self.ask(request).await.map(|property: PropertyValue| property.value)
    }

    /// Sets a property, new or not.
    pub async fn set_property(&self, handle: &str, key: &str, value: &str) -> Result<(), Error> {
        let body = encode(&PropertyValue { value: value.to_owned() });
        let request = Request::put("SetProperty", property(handle, key), body);
        self.ask::<Nothing>(request).await.map(drop)
    }

    /// Removes a property; one that is not there is no error.
    pub async fn remove_property(&self, handle: &str, key: &str) -> Result<(), Error> {
        let request = Request::delete("RemoveProperty", property(handle, key));
        self.ask::<Nothing>(request).await.map(drop)
    }

    /// Has a container destroyed once nobody has called for it for so long; zero is never.
    pub async fn set_grace_time(&self, handle: &str, time: Duration) -> Result<(), Error> {
        let body = encode(&Nanoseconds::from_duration(time));
        let request = Request::put("SetGraceTime", about(handle, "grace_time"), body);
        self.ask::<Nothing>(request).await.map(drop)
    }

    /// The bandwidth limits in effect.
    pub async fn bandwidth_limits(&self, handle: &str) -> Result<BandwidthLimits, Error> {
        self.ask(Request::get("CurrentBandwidthLimits", about(handle, "limits/bandwidth"))).await
    }

    /// The CPU limits in effect.
    pub async fn cpu_limits(&self, handle: &str) -> Result<CpuLimits, Error> {
        self.ask(Request::get("CurrentCPULimits", about(handle, "limits/cpu"))).await
    }

    /// The disk limits in effect.
    pub async fn disk_limits(&self, handle: &str) -> Result<DiskLimits, Error> {
        self.ask(Request::get("CurrentDiskLimits", about(handle, "limits/disk"))).await
    }

    /// The disk limits that were asked for at the creation, and whether they are in effect: a
    /// question of our own, to which the original answers nothing.
    pub async fn requested_disk_limits(&self, handle: &str) -> Result<RequestedDiskLimits, Error> {
        let request = Request::get("RequestedDiskLimits", about(handle, "limits/disk"));
        self.ask(request.with_query([("requested", "true")])).await
    }

    /// The memory limit in effect.
    pub async fn memory_limits(&self, handle: &str) -> Result<MemoryLimits, Error> {
        self.ask(Request::get("CurrentMemoryLimits", about(handle, "limits/memory"))).await
    }

    /// Forwards a host port into a container and returns the ports in effect. Host port 0 is one
    /// from the pool, container port 0 is the host port's number.
    pub async fn net_in(
        &self,
        handle: &str,
        host_port: u32,
        container_port: u32,
    ) -> Result<NetInResponse, Error> {
        let body = encode(&NetInRequest { handle: handle.to_owned(), host_port, container_port });
        self.ask(Request::post("NetIn", about(handle, "net/in"), body)).await
    }

    /// Allows destinations.
    pub async fn net_out(&self, handle: &str, rule: &NetOutRule) -> Result<(), Error> {
        let request = Request::post("NetOut", about(handle, "net/out"), encode(rule));
        self.ask::<Nothing>(request).await.map(drop)
    }

    /// Allows destinations by several rules at once.
    pub async fn bulk_net_out(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        let request = Request::post("BulkNetOut", about(handle, "net/out/bulk"), encode(rules));
        self.ask::<Nothing>(request).await.map(drop)
    }

    /// Unpacks a tar archive, uncompressed, into a directory of the container as a user (empty:
    /// root). A failure of `archive` cuts the call short; what came before it may be there.
    pub async fn stream_in(
        &self,
        handle: &str,
        user: &str,
        destination: &str,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<(), Error> {
        self.send_archive(files(handle, "destination", destination, user), archive).await
    }

    /// As [`Self::stream_in`], from memory.
    pub async fn stream_in_bytes(
        &self,
        handle: &str,
        user: &str,
        destination: &str,
        archive: &[u8],
    ) -> Result<(), Error> {
        self.send_whole_archive(files(handle, "destination", destination, user), archive).await
    }

    /// A tar archive of a file or directory of the container, read as a user (empty: root). With
    /// a trailing slash the entries are relative to the directory, else its name leads them.
    pub async fn stream_out(
        &self,
        handle: &str,
        user: &str,
        source: &str,
    ) -> Result<Archive, Error> {
        self.receive_archive(files(handle, "source", source, user)).await
    }

    /// Starts a process. When this returns, it has been started and the outputs asked for are
    /// connected.
    pub async fn run(
        &self,
        handle: &str,
        spec: &ProcessSpec,
        io: ProcessIo,
    ) -> Result<RunningProcess, Error> {
        let request = Request::post("Run", about(handle, "processes"), encode(spec));
        RunningProcess::open(self, handle, request, io).await
    }

    /// Takes part in a process that was started before: sees its output from now on and its end,
    /// may write to its input.
    pub async fn attach(
        &self,
        handle: &str,
        process: &str,
        io: ProcessIo,
    ) -> Result<RunningProcess, Error> {
        let target = about(handle, &format!("processes/{}", segment(process)));
        RunningProcess::open(self, handle, Request::get("Attach", target), io).await
    }
}

fn about(handle: &str, what: &str) -> String {
    format!("/containers/{}/{what}", segment(handle))
}

fn property(handle: &str, key: &str) -> String {
    about(handle, &format!("properties/{}", segment(key)))
}

fn bulk(call: &'static str, path: &str, handles: &[impl AsRef<str>]) -> Request {
    let handles: Vec<_> = handles.iter().map(AsRef::as_ref).collect();
    Request::get(call, path.to_owned()).with_query([("handles", handles.join(",").as_str())])
}

/// A request for files; keys of the query are sorted, as in the original.
fn files(handle: &str, key: &str, path: &str, user: &str) -> Request {
    Request::get("StreamOut", about(handle, "files")).with_query([(key, path), ("user", user)])
}

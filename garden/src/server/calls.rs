//! Plain calls: decode, one call on the gardener, encode.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use garden_api::{
    BandwidthLimits, BulkEntry, BulkInfo, BulkMetrics, ContainerSpec, CreateResponse, DiskLimits,
    ListResponse, Nanoseconds, NetInRequest, NetInResponse, NetOutRule, Properties, PropertyValue,
    RequestedDiskLimits, ServerName, StopRequest, go_json,
};
use serde::de::DeserializeOwned;

use super::Shared;
use super::reply::{Reply, bulk_error};
use super::route::Plain;
use crate::error::Error;
use crate::gardener::Gardener;
use crate::http::target::Target;
use crate::http::{Body, RequestHead, Wire};

/// JSON bodies, at most. The original has no limit; a thousandth of this is already unusual.
const MOST_JSON: usize = 8 << 20;

/// Answers every call that is not a hijack and moves no archive.
pub(super) async fn answer(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    call: Plain,
    handle: String,
    item: String,
) -> Reply {
    let forms = if call == Plain::Create { Forms::AreRead } else { Forms::AreLost };
    let body = match read_body(shared, wire, head, forms).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let target = head.target.clone();
    let answered = shared
        .call(move |gardener| dispatch(gardener, call, &Request { handle, item, target, body }));
    answered.await.unwrap_or_else(|error| Reply::failure(&error))
}

struct Request {
    handle: String,
    item: String,
    target: Target,
    body: Vec<u8>,
}

impl Request {
    fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode(&self.body)
    }

    /// `handles=a,b`; the original closes the connection where it is missing.
    fn handles(&self) -> Vec<String> {
        let list = self.target.value("handles").unwrap_or_default();
        if list.is_empty() { Vec::new() } else { list.split(',').map(str::to_owned).collect() }
    }

    fn filter(&self) -> Properties {
        let mut filter = Properties::new();
        for (key, value) in self.target.pairs() {
            filter.entry(key).or_insert(value);
        }
        filter
    }
}

fn dispatch(gardener: &Arc<Gardener>, call: Plain, request: &Request) -> Result<Reply, Error> {
    let handle = request.handle.as_str();
    Ok(match call {
        Plain::Ping if request.target.value("server").as_deref() == Some("true") => {
            Reply::json(&ServerName::own())
        }
        Plain::Ping => Reply::done(),
        Plain::Capacity => Reply::json(&gardener.capacity()?),
        Plain::List => Reply::json(&ListResponse { handles: gardener.list(&request.filter()) }),
        Plain::Create => {
            let handle = gardener.create(request.json::<ContainerSpec>()?)?;
            tracing::Span::current().record("handle", handle.as_str());
            Reply::json(&CreateResponse { handle })
        }
        Plain::BulkInfo => Reply::json(&BulkInfo(each(&request.handles(), |handle| {
            gardener.info_untouched(handle)
        }))),
        Plain::BulkMetrics => Reply::json(&BulkMetrics(each(&request.handles(), |handle| {
            gardener.metrics_untouched(handle)
        }))),
        Plain::Destroy => done(gardener.destroy(handle))?,
        Plain::Info => Reply::json(&gardener.info(handle)?),
        Plain::Metrics => Reply::json(&gardener.metrics(handle)?),
        Plain::Stop => done(gardener.stop(handle, request.json::<StopRequest>()?.kill))?,
        Plain::BandwidthLimits => {
            // Accepted at Create and never set, as in the original.
            gardener.limits(handle)?;
            Reply::json(&BandwidthLimits::default())
        }
        Plain::CpuLimits => Reply::json(&gardener.cpu_limits(handle)?),
        Plain::DiskLimits => {
            let (limits, enforced) = gardener.disk_limits(handle)?;
            if request.target.value("requested").as_deref() == Some("true") {
                Reply::json(&RequestedDiskLimits { requested: Some(limits), enforced })
            } else {
                // The original tells none.
                Reply::json(&DiskLimits::default())
            }
        }
        Plain::MemoryLimits => Reply::json(&gardener.memory_limits(handle)?),
        Plain::NetIn => {
            let wanted: NetInRequest = request.json()?;
            let (host_port, container_port) =
                gardener.net_in(handle, wanted.host_port, wanted.container_port)?;
            Reply::json(&NetInResponse { host_port, container_port })
        }
        Plain::NetOut => done(gardener.net_out(handle, &request.json::<NetOutRule>()?))?,
        Plain::BulkNetOut => {
            done(gardener.bulk_net_out(handle, &request.json::<Vec<NetOutRule>>()?))?
        }
        Plain::SetGraceTime => {
            let time = request.json::<Nanoseconds>()?.as_duration().unwrap_or_default();
            done(gardener.set_grace_time(handle, time))?
        }
        Plain::Properties => Reply::json(&gardener.properties(handle)?),
        Plain::Property => {
            Reply::json(&PropertyValue { value: gardener.property(handle, &request.item)? })
        }
        Plain::SetProperty => {
            let wanted: PropertyValue = request.json()?;
            done(gardener.set_property(handle, &request.item, &wanted.value))?
        }
        Plain::RemoveProperty => done(gardener.remove_property(handle, &request.item))?,
    })
}

fn done(called: Result<(), Error>) -> Result<Reply, Error> {
    called.map(|()| Reply::done())
}

/// One answer per handle: no handle's failure is another's.
fn each<T>(
    handles: &[String],
    call: impl Fn(&str) -> Result<T, Error>,
) -> BTreeMap<String, BulkEntry<T>> {
    let entry = |handle: &String| {
        let entry = call(handle)
            .map_or_else(|error| BulkEntry::Failed(bulk_error(&error)), BulkEntry::Value);
        (handle.clone(), entry)
    };
    handles.iter().map(entry).collect()
}

/// A JSON value, or its failure in Go's words.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    go_json::decode(body).map_err(|error| Error::Plain(error.to_string()))
}

/// What happens to a body that says it is a form. The original looks for form values on routes with
/// a handle, and finds the body empty afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    AreRead,
    AreLost,
}

/// Reads a whole body.
pub(super) async fn read_body(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    forms: Forms,
) -> Result<Vec<u8>, Reply> {
    if head.body == Body::Done {
        return Ok(Vec::new());
    }
    let failed = |error: io::Error| Reply::failure(&Error::Plain(in_gos_words(&error)));
    let collecting = async {
        welcome(wire, head).await?;
        head.body.collect(wire, MOST_JSON).await
    };
    let body = tokio::time::timeout(shared.settings.body_patience, collecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the request's body takes too long")))
        .map_err(failed)?
        .ok_or_else(|| Reply::too_large(MOST_JSON))?;
    Ok(if head.is_form && forms == Forms::AreLost { Vec::new() } else { body })
}

/// Tells a client that waits for it to send its body.
pub(super) async fn welcome(wire: &mut Wire, head: &mut RequestHead) -> io::Result<()> {
    if std::mem::replace(&mut head.expects_continue, false) {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    Ok(())
}

fn in_gos_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
        _ => error.to_string(),
    }
}

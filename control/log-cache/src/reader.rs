//! Reading from a log-cache elsewhere.

use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use transport::{Address, Identity};

use crate::client::channel;
use crate::grpc::MESSAGE;
use crate::messages::logcache::v1::{EnvelopeType, ReadRequest, egress_client::EgressClient};
use crate::selection::MAX_LIMIT;
use crate::store::{Latest, Store};

/// For a call, with a connection if there is none: whoever waits for numbers can do without.
const ANSWER: Duration = Duration::from_secs(2);

/// A client of `logcache.v1.Egress`: of a log-cache of ours or the original one. Clones share a
/// connection.
#[derive(Clone, Debug)]
pub struct Reader(EgressClient<Channel>);

impl Reader {
    /// Must be called inside a tokio runtime. An `https` address without an identity is an error.
    pub fn new(address: &Address, identity: Option<Identity>) -> Result<Self, transport::Error> {
        let channel = channel("Egress", address, identity, None)?;
        Ok(Self(EgressClient::new(channel).max_decoding_message_size(MESSAGE)))
    }

    /// What [`Store::latest`] says there, of what was emitted last.
    pub async fn latest(&self, source_id: &str, since: i64) -> Result<Vec<Latest>, Status> {
        let mut request = tonic::Request::new(ReadRequest {
            source_id: source_id.to_owned(),
            start_time: since,
            limit: MAX_LIMIT,
            envelope_types: vec![EnvelopeType::Gauge.into()],
            descending: true,
            ..ReadRequest::default()
        });
        request.set_timeout(ANSWER);
        let read = tokio::time::timeout(ANSWER, self.0.clone().read(request)).await;
        let answer = read.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        let here = Store::default();
        here.add(answer.into_inner().envelopes.unwrap_or_default().batch);
        Ok(here.latest(source_id, since))
    }
}

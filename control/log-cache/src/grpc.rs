//! The gRPC services: envelopes in as Loggregator's agents and Log Cache take them, reads out.

use tonic::{Request, Response, Status, Streaming};

use crate::messages::logcache::v1::{
    self, MetaInfo, MetaRequest, MetaResponse, ReadRequest, ReadResponse, SendRequest,
    egress_server::Egress,
};
use crate::messages::loggregator::v2::{
    BatchSenderResponse, Envelope, EnvelopeBatch, IngressResponse, SendResponse,
    ingress_server::Ingress,
};
use crate::selection::Selection;
use crate::store::Store;

/// Bytes of one message: a hundred of the longest lines, and some.
pub(crate) const MESSAGE: usize = 16 << 20;

/// All services over one store.
#[derive(Clone, Debug)]
pub(crate) struct Services(pub Store);

#[tonic::async_trait]
impl Ingress for Services {
    async fn sender(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<IngressResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(envelope) = stream.message().await? {
            self.0.add([envelope]);
        }
        Ok(Response::new(IngressResponse {}))
    }

    async fn batch_sender(
        &self,
        request: Request<Streaming<EnvelopeBatch>>,
    ) -> Result<Response<BatchSenderResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(envelopes) = stream.message().await? {
            self.0.add(envelopes.batch);
        }
        Ok(Response::new(BatchSenderResponse {}))
    }

    async fn send(
        &self,
        request: Request<EnvelopeBatch>,
    ) -> Result<Response<SendResponse>, Status> {
        self.0.add(request.into_inner().batch);
        Ok(Response::new(SendResponse {}))
    }
}

#[tonic::async_trait]
impl v1::ingress_server::Ingress for Services {
    async fn send(
        &self,
        request: Request<SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        self.0.add(request.into_inner().envelopes.unwrap_or_default().batch);
        Ok(Response::new(v1::SendResponse {}))
    }
}

#[tonic::async_trait]
impl Egress for Services {
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let request = request.into_inner();
        let selection = Selection::of(&request).map_err(|bad| Status::unknown(bad.to_string()))?;
        let entries = self.0.read(&request.source_id, &selection);
        let batch = entries.iter().map(|entry| Envelope::clone(&entry.envelope)).collect();
        Ok(Response::new(ReadResponse { envelopes: Some(EnvelopeBatch { batch }) }))
    }

    async fn meta(&self, _: Request<MetaRequest>) -> Result<Response<MetaResponse>, Status> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let meta = self.0.meta().into_iter().map(|(id, meta)| {
            let info = MetaInfo {
                count: signed(meta.count),
                expired: signed(meta.expired),
                oldest_timestamp: meta.oldest_timestamp,
                newest_timestamp: meta.newest_timestamp,
            };
            (id, info)
        });
        Ok(Response::new(MetaResponse { meta: meta.collect() }))
    }
}

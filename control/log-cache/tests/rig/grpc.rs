//! A log-cache's gRPC on a socket, and channels to it.

use std::time::Duration;

use log_cache::LogCache;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use transport::{Address, Connector, Listener, Protocol};

pub struct Server {
    pub address: Address,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    pub async fn start(cache: &LogCache) -> Self {
        Self::start_at(cache, &"http://127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(cache: &LogCache, address: &Address) -> Self {
        let listener = Listener::bind(address, None).await.unwrap();
        let address = listener.address().unwrap();
        let stop = CancellationToken::new();
        let server = transport::Server::new(listener).serve(cache.grpc(), stop.clone());
        Self { address, stop, serving: tokio::spawn(server) }
    }

    pub fn channel(&self) -> Channel {
        let patience = Duration::from_secs(10);
        let connector =
            Connector::new(self.address.clone(), None, Protocol::Http2, patience).unwrap();
        Endpoint::from_static("http://log-cache").connect_with_connector_lazy(connector)
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

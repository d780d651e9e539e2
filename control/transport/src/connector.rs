//! Making a connection to one address.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::address::{Address, resolve};
use crate::error::Error;
use crate::identity::Identity;
use crate::stream::{self, Stream};

/// Between two tries while a unix socket's queue of new connections is full.
const PAUSE: Duration = Duration::from_millis(5);

/// What is spoken on a connection. With TLS it decides what is offered by ALPN: like the
/// originals, nothing for HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without an upgrade: gRPC.
    Http2,
}

/// Connects to one address, whatever URI is asked for. A tower service, as hyper's client and
/// tonic's endpoints take it.
#[derive(Clone, Debug)]
pub struct Connector {
    address: Address,
    identity: Option<Identity>,
    protocol: Protocol,
    patience: Duration,
    name: Option<String>,
}

impl Connector {
    /// `patience` bounds look-up, connecting and the TLS handshake together. An `https` address
    /// without an identity is an error.
    pub fn new(
        address: Address,
        identity: Option<Identity>,
        protocol: Protocol,
        patience: Duration,
    ) -> Result<Self, Error> {
        if matches!(address, Address::Https { .. }) && identity.is_none() {
            return Err(Error::NoIdentity { address });
        }
        Ok(Self { address, identity, protocol, patience, name: None })
    }

    /// The server's certificate must be valid for `name` instead of the address's host.
    pub fn expecting(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// A fresh connection.
    pub async fn connect(&self) -> io::Result<Stream> {
        tokio::time::timeout(self.patience, self.connect_at_leisure())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn connect_at_leisure(&self) -> io::Result<Stream> {
        match (&self.address, &self.identity) {
            (Address::Unix(path), _) => loop {
                match UnixStream::connect(path).await {
                    // Unlike TCP's, a unix socket's full queue is an error at once, connect(2).
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    connected => return connected.map(Stream::Unix),
                }
            },
            (Address::Http { host, port }, _) => tcp(host, *port).await.map(Stream::Tcp),
            (Address::Https { host, port }, Some(identity)) => {
                let name = self.name.as_ref().unwrap_or(host).clone();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let tls = TlsConnector::from(identity.client_config(self.protocol));
                let stream = tls.connect(name, tcp(host, *port).await?).await?;
                Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
            }
            (Address::Https { .. }, None) => Err(io::Error::other("there is no identity")),
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&*resolve(host, port).await?).await?;
    stream::prepare(&stream)?;
    Ok(stream)
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

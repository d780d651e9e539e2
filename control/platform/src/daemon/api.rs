//! Cloud Controller and UAA. Their files are of our own form: the originals' keys where these have
//! them, and addresses as the other daemons have them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use blobstore::Blobstore;
use cloud_controller::diego::{Diego, Installation};
use cloud_controller::{CloudController, Metrics, Surroundings};
use log_cache::Reader;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use transport::configured::{self, Bare, ConfigError};
use transport::{Client, Identity, Server, Timeouts};
use uaa::{Peer, PublicKeys, Secret, TokenVerifier, Uaa};

use super::Cause;
use crate::logs::Logs;
use crate::serve::{MAX_PIDS, TRUSTED_CERTIFICATES};
use crate::usage;

/// What UAA needs beyond its own settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UaaSettings {
    listen_address: String,
    ca_cert_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
}

/// Serves a UAA until told to stop.
pub async fn uaa(
    config: uaa::Config,
    around: UaaSettings,
    held: Option<TcpListener>,
    stop: CancellationToken,
) -> Result<(), Cause> {
    let UaaSettings { listen_address, ca_cert_file, cert_file, key_file } = &around;
    let own = configured::identity("cert_file", ca_cert_file, cert_file, key_file)?;
    let uaa = Uaa::open(config).await?;
    let listening =
        configured::listener("listen_address", listen_address, Bare::Tls, own, held).await?;
    tracing::info!(address = listen_address, "UAA serves");
    Server::new(listening).serve(uaa.routes(), stop).await;
    uaa.close().await;
    Ok(())
}

/// What Cloud Controller needs beyond its own settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CloudControllerSettings {
    /// For users.
    listen_address: String,
    /// For cells and the BBS.
    internal_listen_address: String,
    ca_cert_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
    bbs_address: String,
    bbs_ca_cert_file: PathBuf,
    bbs_client_cert_file: PathBuf,
    bbs_client_key_file: PathBuf,
    /// UAA, as this process reaches it.
    uaa_address: String,
    cloud_controller_username_lookup_client_secret: Secret,
    /// Directory of packages, droplets and buildpacks; `blobs` in the data directory if empty.
    blobs_dir: PathBuf,
    /// URL of the archive with builder, launcher and health check.
    lifecycle_bundle: String,
    /// Log Cache for programs, which knows what instances use; empty: that is not shown.
    log_cache_address: String,
}

impl CloudControllerSettings {
    fn identity(&self) -> Result<Option<Identity>, ConfigError> {
        configured::identity("cert_file", &self.ca_cert_file, &self.cert_file, &self.key_file)
    }

    fn uaa(&self) -> Result<Peer, ConfigError> {
        let address = configured::address("uaa_address", &self.uaa_address, Bare::Tls)?;
        Client::new(address, self.identity()?, Timeouts::default())
            .map(log_cache::peer)
            .map_err(ConfigError::transport("uaa_address"))
    }

    fn diego(&self) -> Result<Diego, Cause> {
        let identity = configured::identity(
            "bbs_client_cert_file",
            &self.bbs_ca_cert_file,
            &self.bbs_client_cert_file,
            &self.bbs_client_key_file,
        )?;
        let address = configured::address("bbs_address", &self.bbs_address, Bare::Tls)?;
        if self.lifecycle_bundle.is_empty() {
            return Err(ConfigError::missing("lifecycle_bundle").into());
        }
        Ok(Diego::new(
            bbs_client::Client::new(address, identity)?,
            Installation {
                lifecycle_bundle: self.lifecycle_bundle.clone(),
                trusted_certificates: TRUSTED_CERTIFICATES.into(),
                max_pids: MAX_PIDS,
            },
        ))
    }

    fn metrics(&self) -> Result<Metrics, ConfigError> {
        const KEY: &str = "log_cache_address";
        if self.log_cache_address.is_empty() {
            return Ok(Metrics::default());
        }
        let address = configured::address(KEY, &self.log_cache_address, Bare::Tls)?;
        Reader::new(&address, self.identity()?).map(usage::at).map_err(ConfigError::transport(KEY))
    }

    async fn server(
        &self,
        key: &'static str,
        address: &str,
        held: Option<TcpListener>,
    ) -> Result<Server, ConfigError> {
        let own = self.identity()?;
        configured::listener(key, address, Bare::Tls, own, held).await.map(Server::new)
    }
}

/// Serves a Cloud Controller until told to stop.
pub async fn cloud_controller(
    config: cloud_controller::Config,
    around: CloudControllerSettings,
    logs: Logs,
    held: Option<TcpListener>,
    stop: CancellationToken,
) -> Result<(), Cause> {
    let blobs = match around.blobs_dir.as_os_str().is_empty() {
        true => config.data_dir.join("blobs"),
        false => around.blobs_dir.clone(),
    };
    let blobs = tokio::task::spawn_blocking(move || Blobstore::local(&blobs)).await??;
    let uaa = around.uaa()?;
    let keys = PublicKeys::remote(uaa.clone());
    let issuer = format!("{}/oauth/token", config.links.uaa);
    let secret = around.cloud_controller_username_lookup_client_secret.clone();
    let diego = around.diego()?;
    let surroundings = Surroundings {
        blobs,
        tokens: TokenVerifier::new(keys, &issuer, Some("cloud_controller")),
        users: Arc::new(uaa::Client::new(uaa, "cloud_controller_username_lookup", secret)),
        runtime: Arc::new(diego.clone()),
        logs: logs.of_cloud_controller(),
    };
    let metrics = around.metrics()?;
    let controller = CloudController::open(config, surroundings).await?.with_metrics(metrics);
    let internal = &around.internal_listen_address;
    let internal = around.server("internal_listen_address", internal, None).await?;
    let users = around.server("listen_address", &around.listen_address, held).await?;
    tracing::info!(address = around.listen_address, "Cloud Controller serves");
    serve(&controller, &diego, [users, internal], &stop).await;
    controller.close().await;
    Ok(())
}

async fn serve(
    controller: &CloudController,
    diego: &Diego,
    [users, internal]: [Server; 2],
    stop: &CancellationToken,
) {
    let beside = async {
        tokio::join!(controller.run(), diego.watch_crashes(controller));
    };
    tokio::join!(
        users.serve(controller.routes(), stop.clone()),
        internal.serve(controller.internal_routes(), stop.clone()),
        stop.run_until_cancelled(beside),
    );
}

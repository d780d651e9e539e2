//! The router's side of the bus: it asks registrars for their routes and takes what they say.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use bus::Bus;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::message::Message;
use crate::proxy::Proxy;
use crate::table::Table;

/// How often registrars repeat themselves: the original's job waits as long before it listens.
const REGISTER_INTERVAL: Duration = Duration::from_secs(20);

/// What a router says of itself on `router.start` and to who greets it.
#[derive(Serialize)]
struct Start {
    id: String,
    hosts: [String; 1],
    #[serde(rename = "minimumRegisterIntervalInSeconds")]
    register_interval: u64,
    #[serde(rename = "pruneThresholdInSeconds")]
    prune_threshold: u64,
}

/// Keeps the table up to date for as long as there is a bus. When `told` is, and all that was said
/// before is in the table, so is `filled`.
pub(crate) async fn run(
    proxy: &Proxy,
    bus: &Bus,
    mut told: Option<oneshot::Receiver<()>>,
    filled: &CancellationToken,
) -> Result<(), Error> {
    let Proxy { config, table, .. } = proxy;
    let start = Start {
        id: format!("{}-{}", config.index, uuid::Uuid::new_v4()),
        hosts: [config.ip.clone().unwrap_or_else(|| own_address().to_string())],
        register_interval: match config.start_response_delay_interval.as_secs() {
            0 => REGISTER_INTERVAL.as_secs(),
            delay => delay,
        },
        prune_threshold: config.droplet_stale_threshold.as_secs(),
    };
    let start = serde_json::to_vec(&start).unwrap_or_default();
    let mut connection = bus.connection();
    let mut messages = bus.subscribe("router.*").await?;
    // Nobody who was there before us knows that we are.
    let seen = connection.borrow_and_update().times;
    bus.publish("router.start", start.clone()).await?;
    let mut announced = seen.max(1);
    let mut prunes = tokio::time::interval(config.prune_stale_droplets_interval);
    prunes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    prunes.reset();
    let mut suspended = false;
    loop {
        let all_told = async {
            match &mut told {
                Some(told) => told.await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What is rare comes first, and what has to wait for all messages last.
            biased;
            Ok(()) = connection.changed() => {
                let now = *connection.borrow_and_update();
                if now.up && now.times > announced {
                    announced = now.times;
                    say(bus, "router.start", &start).await;
                }
            }
            _ = prunes.tick() => {
                let up = connection.borrow().up || !config.suspend_pruning_if_nats_unavailable;
                match (up, suspended) {
                    (true, true) => {
                        tracing::info!("prune-unsuspended-refresh-routes");
                        table.refresh_all();
                    }
                    (true, false) => table.prune(),
                    (false, false) => tracing::warn!("prune-suspended"),
                    (false, true) => {}
                }
                suspended = !up;
                proxy.dialer.set_idle(table.sweep_connections().await);
            }
            message = messages.next() => match message {
                None => return Ok(()),
                Some(message) => match message.subject.as_str() {
                    "router.register" | "router.unregister" => {
                        take(table, &message.subject, &message.payload);
                    }
                    "router.greet" => if let Some(reply) = message.reply {
                        say(bus, &reply, &start).await;
                    },
                    _ => {}
                },
            },
            all = all_told => {
                told = None;
                if all {
                    filled.cancel();
                }
            }
        }
    }
}

fn take(table: &Table, subject: &str, payload: &[u8]) {
    match Message::read(payload) {
        Ok(message) if subject == "router.register" => table.register(&message),
        Ok(message) => table.unregister(&message),
        Err(error) => tracing::warn!(subject, error, "validation-error"),
    }
}

/// A message that is lost is asked for again.
async fn say(bus: &Bus, subject: &str, payload: &[u8]) {
    if let Err(error) = bus.publish(subject, payload.to_vec()).await {
        tracing::warn!(subject, %error, "cannot tell registrars of this router");
    }
}

/// The address towards the outside. No packet is sent.
fn own_address() -> IpAddr {
    let towards = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    towards().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

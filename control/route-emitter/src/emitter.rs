//! The loop between the BBS and the bus.

use bbs_client::{Client, Events, RESUBSCRIBE};
use bbs_models::{ActualLRP, ActualLRPsRequest, DesiredLRP, DesiredLRPsRequest, Event};
use bus::Bus;
use locket::Lost;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use transport::configured::ConfigError;

use crate::config::Config;
use crate::greeting::Rounds;
use crate::message::{Audience, Notice};
use crate::table::Table;
use crate::unregistrations::Unregistrations;

/// What ends an emitter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus.
    #[error("cannot listen to routers")]
    Bus(#[from] bus::Error),
    /// The configuration makes no sense.
    #[error("the route emitter's configuration")]
    Config(#[from] ConfigError),
    /// A client of the BBS cannot be made.
    #[error("the route emitter has no client of the BBS")]
    Bbs(#[source] bbs_client::Error),
    /// Another emitter may be active.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// The lists that the table is compared with.
type Lists = (Vec<ActualLRP>, Vec<DesiredLRP>, Vec<String>);

/// Tells routers of instances until told to stop, as long as it holds the lock if there is one. While the BBS or the bus is away it goes on with what it
/// knows; routers keep what they were told for their own time.
pub async fn serve(
    config: Config,
    bbs: Client,
    bus: Bus,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (told, _) = oneshot::channel();
    serve_telling(config, bbs, bus, told, stop).await
}

/// Like [`serve`], and says when all that the BBS has is published for the first time.
pub async fn serve_telling(
    config: Config,
    bbs: Client,
    bus: Bus,
    told: oneshot::Sender<()>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(lock) = config.lock()? else { return emit(config, bbs, bus, told, stop).await };
    let Some(mut held) = lock.acquire_unless(&stop).await else { return Ok(()) };
    tokio::select! {
        ended = emit(config, bbs, bus, told, stop) => {
            held.release().await;
            ended
        }
        lost = held.lost() => Err(lost.into()),
    }
}

async fn emit(
    config: Config,
    bbs: Client,
    bus: Bus,
    told: oneshot::Sender<()>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut told = Some(told);
    let mut emitter = Emitter {
        table: Table::new(&config),
        unregistrations: Unregistrations::default(),
        bus: bus.clone(),
        bbs,
        config,
    };
    let jitter = emitter.config.jitter_factor;
    let mut routers = Rounds::begin(&bus, Audience::Router, jitter).await?;
    let mut discovery = Rounds::begin(&bus, Audience::ServiceDiscovery, jitter).await?;
    let mut repetitions = interval(emitter.config.unregistration_interval);
    repetitions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    repetitions.reset();
    let mut syncs = interval(emitter.config.sync_interval);
    syncs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events: Option<Events> = None;
    loop {
        if events.is_none() {
            // Nothing is told twice on a stream: subscribe first, list afterwards.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                opened = emitter.bbs.instance_events(&emitter.config.cell_id) => match opened {
                    Ok(opened) => {
                        events = Some(opened);
                        syncs.reset_immediately();
                    }
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            "cannot follow the BBS's events"
                        );
                    }
                },
            }
        }
        let next = async {
            match &mut events {
                Some(events) => events.next().await,
                None => {
                    sleep(RESUBSCRIBE).await;
                    Ok(None)
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = next => match event {
                Ok(Some(event)) => emitter.take(&event).await,
                Ok(None) => events = None,
                Err(error) => {
                    tracing::warn!(%error, "the BBS's events have ended");
                    events = None;
                    sleep(RESUBSCRIBE).await;
                }
            },
            _ = syncs.tick() => {
                if emitter.sync().await && let Some(told) = told.take() {
                    // Nobody may wait for it.
                    let _ = told.send(());
                }
            }
            () = routers.due(&bus, Audience::Router) => emitter.repeat(Audience::Router).await,
            () = discovery.due(&bus, Audience::ServiceDiscovery), if emitter.config.enable_internal_emitter => {
                emitter.repeat(Audience::ServiceDiscovery).await;
            }
            _ = repetitions.tick() => {
                for notice in emitter.unregistrations.repeat() {
                    emitter.publish(&notice).await;
                }
            }
        }
    }
}

struct Emitter {
    table: Table,
    unregistrations: Unregistrations,
    bus: Bus,
    bbs: Client,
    config: Config,
}

impl Emitter {
    /// Tells whether the BBS has answered.
    async fn sync(&mut self) -> bool {
        match self.lists().await {
            Ok((actual, desired, fresh)) => {
                let notices = self.table.sync(&actual, &desired, &fresh);
                self.tell(notices).await;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compare with the BBS");
                false
            }
        }
    }

    async fn lists(&self) -> Result<Lists, bbs_client::Error> {
        let cell_id = self.config.cell_id.clone();
        let filter = ActualLRPsRequest { cell_id: cell_id.clone(), ..Default::default() };
        let (actual, fresh) = tokio::try_join!(self.bbs.actual_lrps(filter), self.bbs.domains())?;
        let mut process_guids: Vec<String> =
            actual.iter().map(|lrp| lrp.actual_lrp_key.process_guid.clone()).collect();
        process_guids.sort_unstable();
        process_guids.dedup();
        // An empty filter is none.
        if process_guids.is_empty() {
            return Ok((actual, Vec::new(), fresh));
        }
        if cell_id.is_empty() {
            process_guids.clear();
        }
        let filter = DesiredLRPsRequest { process_guids, ..Default::default() };
        let desired = self.bbs.routing_infos(filter).await?;
        Ok((actual, desired, fresh))
    }

    async fn take(&mut self, event: &Event) {
        let unknown = Table::process_of(event).filter(|guid| !self.table.knows(guid));
        let mut notices = Vec::new();
        if let Some(guid) = unknown {
            let filter =
                DesiredLRPsRequest { process_guids: vec![guid.to_owned()], ..Default::default() };
            match self.bbs.routing_infos(filter).await {
                Ok(found) => notices.extend(found.iter().flat_map(|lrp| self.table.desire(lrp))),
                Err(error) => {
                    tracing::warn!(process_guid = guid, %error, "cannot ask for routes");
                }
            }
        }
        notices.extend(self.table.apply(event));
        self.tell(notices).await;
    }

    async fn tell(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.unregistrations.note(&notice, self.config.unregistration_send_count);
            self.publish(&notice).await;
        }
    }

    async fn repeat(&self, audience: Audience) {
        for notice in self.table.registrations(audience) {
            self.publish(&notice).await;
        }
    }

    /// What is lost is repeated soon.
    async fn publish(&self, notice: &Notice) {
        let payload = serde_json::to_vec(&notice.message).unwrap_or_default();
        if let Err(error) = self.bus.publish(notice.subject(), payload).await {
            tracing::warn!(
                subject = notice.subject(),
                %error,
                "cannot tell routers"
            );
        }
    }
}

//! Calls of cells that are being drained. Each says whether the cell keeps the container.

use bbs_models::{
    Error, EvacuateClaimedActualLRPRequest, EvacuateCrashedActualLRPRequest,
    EvacuateRunningActualLRPRequest, EvacuateStoppedActualLRPRequest,
    RemoveEvacuatingActualLRPRequest, state,
};
use transport::TraceId;

use super::{Board, epoch, now};
use crate::image::Image;
use crate::rows::{Rows, Slot};
use crate::transition::{self, Evacuated, Evacuee, Started};

impl Board {
    /// The container is reserved or being made.
    pub async fn evacuate_claimed(
        &self,
        request: EvacuateClaimedActualLRPRequest,
    ) -> Result<bool, Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        self.evacuated(&slot, |_, rows| {
            transition::evacuate_claimed(rows, &request.actual_lrp_instance_key, now())
        })
        .await
    }

    /// The container has crashed.
    pub async fn evacuate_crashed(
        &self,
        request: EvacuateCrashedActualLRPRequest,
    ) -> Result<bool, Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        self.evacuated(&slot, |_, rows| {
            let (instance, why) = (&request.actual_lrp_instance_key, &request.error_message);
            transition::evacuate_crashed(rows, instance, why, now())
        })
        .await
    }

    /// The container was stopped.
    pub async fn evacuate_stopped(
        &self,
        request: EvacuateStoppedActualLRPRequest,
    ) -> Result<bool, Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        self.evacuated(&slot, |_, rows| {
            transition::evacuate_stopped(rows, &request.actual_lrp_instance_key)
        })
        .await
    }

    /// The container runs.
    pub async fn evacuate_running(
        &self,
        request: EvacuateRunningActualLRPRequest,
    ) -> Result<bool, Error> {
        let started = Started {
            key: (*request.actual_lrp_key).clone(),
            instance: (*request.actual_lrp_instance_key).clone(),
            net_info: (*request.actual_lrp_net_info).clone(),
            internal_routes: request.actual_lrp_internal_routes,
            metric_tags: request.metric_tags,
            routable: request.routable.unwrap_or_default(),
            availability_zone: request.availability_zone,
        };
        let slot = Slot::new(&started.key.process_guid, started.key.index);
        self.evacuated(&slot, |image, rows| {
            let evacuee = evacuee(image, &slot);
            Ok(transition::evacuate(rows, started, evacuee, now(), epoch()))
        })
        .await
    }

    /// The cell has an evacuating instance no longer.
    pub async fn remove_evacuating(
        &self,
        request: RemoveEvacuatingActualLRPRequest,
    ) -> Result<(), Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        self.change_rows(&slot, &TraceId::default(), |_, rows| {
            Ok((transition::remove_evacuating(rows, &request.actual_lrp_instance_key)?, ()))
        })
        .await
    }

    async fn evacuated(
        &self,
        slot: &Slot,
        decide: impl FnOnce(&Image, &Rows) -> Result<Evacuated, Error>,
    ) -> Result<bool, Error> {
        let (keep_container, auction) = self
            .change_rows(slot, &TraceId::default(), |image, rows| {
                let evacuated = decide(image, rows)?;
                Ok((evacuated.rows, (evacuated.keep_container, evacuated.auction)))
            })
            .await?;
        if auction {
            self.auction(slot);
        }
        Ok(keep_container)
    }
}

/// How the process of this index wants to be moved. What is not desired any more moves like any.
fn evacuee(image: &Image, slot: &Slot) -> Evacuee {
    match image.desired(&slot.process_guid) {
        Some(desired) if desired.recreate => {
            let runs =
                |rows: &Rows| rows.ordinary.as_ref().is_some_and(|row| row.state == state::RUNNING);
            let running = image.rows_of(&slot.process_guid).filter(|(_, rows)| runs(rows)).count();
            let wanted = usize::try_from(desired.instances).unwrap_or_default();
            Evacuee::Recreate { complete: running >= wanted }
        }
        _ => Evacuee::Rolling,
    }
}

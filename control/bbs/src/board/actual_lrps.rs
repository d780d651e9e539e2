//! Calls about instances: cells tell of them, the auctioneer could not place them, clients list
//! and retire them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bbs_models::error::Type;
use bbs_models::{
    ActualLRP, ActualLRPsRequest, ClaimActualLRPRequest, CrashActualLRPRequest, Error,
    FailActualLRPRequest, RemoveActualLRPRequest, RetireActualLRPRequest, StartActualLRPRequest,
};
use transport::TraceId;

use super::{Board, epoch, is_on_cell, now};
use crate::changes;
use crate::image::Image;
use crate::rows::{Rows, Slot};
use crate::store::Change;
use crate::transition::{self, Started};

/// Tries to retire an instance whose row changes meanwhile.
const RETIRE_TRIES: usize = 5;

impl Board {
    /// A cell takes an instance.
    pub async fn claim(&self, request: ClaimActualLRPRequest) -> Result<(), Error> {
        let slot = Slot::new(&request.process_guid, request.index);
        self.change_rows(&slot, &TraceId::default(), |_, rows| {
            Ok((transition::claim(rows, &request.actual_lrp_instance_key, now())?, ()))
        })
        .await
    }

    /// A cell runs an instance.
    pub async fn start(&self, request: StartActualLRPRequest) -> Result<(), Error> {
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
        self.change_rows(&slot, &TraceId::default(), |_, rows| {
            Ok((transition::start(rows, started, now(), epoch())?, ()))
        })
        .await
    }

    /// An instance ended on its cell without being told to.
    pub async fn crash(&self, request: CrashActualLRPRequest) -> Result<(), Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        let restarts = self
            .change_rows(&slot, &TraceId::default(), |_, rows| {
                let (instance, why) = (&request.actual_lrp_instance_key, &request.error_message);
                let crashed = transition::crash(rows, instance, why, now())?;
                Ok((crashed.rows, crashed.restarts))
            })
            .await?;
        if restarts {
            self.auction(&slot);
        }
        Ok(())
    }

    /// No cell could be found for an instance.
    pub async fn fail(&self, request: FailActualLRPRequest) -> Result<(), Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        self.change_rows(&slot, &TraceId::default(), |_, rows| {
            Ok((transition::fail(rows, &request.error_message, now())?, ()))
        })
        .await
    }

    /// A cell has no instance any more.
    pub async fn remove(&self, request: RemoveActualLRPRequest) -> Result<(), Error> {
        let slot = Slot::new(&request.process_guid, request.index);
        self.change_rows(&slot, &TraceId::default(), |_, rows| {
            Ok((transition::remove(rows, request.actual_lrp_instance_key.as_option())?, ()))
        })
        .await
    }

    /// An instance is not wanted any more.
    pub async fn retire(
        &self,
        request: RetireActualLRPRequest,
        trace: &TraceId,
    ) -> Result<(), Error> {
        let key = &request.actual_lrp_key;
        let slot = Slot::new(&key.process_guid, key.index);
        let mut failure = Type::ResourceNotFound.into();
        for _ in 0..RETIRE_TRIES {
            match self.retire_once(&slot, trace).await {
                Err(error) if !error.is(Type::ResourceNotFound) => failure = error,
                result => return result,
            }
        }
        Err(failure)
    }

    async fn retire_once(&self, slot: &Slot, trace: &TraceId) -> Result<(), Error> {
        let row = self.store().read(|image| image.rows(slot).ordinary)?;
        let row = row.ok_or(Type::ResourceNotFound)?;
        let cell = match is_on_cell(&row) {
            true => self.reps().registered().await?.remove(&row.actual_lrp_instance_key.cell_id),
            false => None,
        };
        let Some(cell) = cell else {
            return self
                .change_rows(slot, trace, |_, rows| {
                    // It may have been claimed meanwhile: then its cell is to be told.
                    let removed = transition::remove(rows, Some(&row.actual_lrp_instance_key));
                    Ok((removed.map_err(|_| Type::ResourceConflict)?, ()))
                })
                .await;
        };
        self.tell_removed(&row, trace).await?;
        self.reps().stop(&cell, &row, trace).await.map_err(|error| {
            let text = &error as &dyn std::error::Error;
            tracing::error!(
                guid = row.actual_lrp_key.process_guid,
                text,
                "an instance is not stopped"
            );
            Type::UnknownError.into()
        })
    }

    /// Subscribers are told that an instance is gone as soon as its cell is told to stop it, so
    /// that it gets no more requests; its row stays until the cell removes it.
    pub(crate) async fn tell_removed(&self, row: &ActualLRP, trace: &TraceId) -> Result<(), Error> {
        let events = vec![changes::removed(row, trace.as_str())];
        self.store().change(|_| Ok((Change { writes: Vec::new(), events }, ()))).await
    }

    /// All rows that every given filter lets pass.
    pub fn actual_lrps(&self, filter: &Filter) -> Result<Vec<Arc<ActualLRP>>, Error> {
        self.store().read(|image| filter.rows(image))
    }

    /// All rows of these processes.
    pub fn actual_lrps_of(&self, guids: &[String]) -> Result<Vec<Arc<ActualLRP>>, Error> {
        let guids: BTreeSet<&str> = guids.iter().map(String::as_str).collect();
        self.store().read(|image| {
            let rows = guids.iter().flat_map(|guid| image.rows_of(guid));
            rows.flat_map(|(_, rows)| rows.iter().cloned()).collect()
        })
    }
}

/// Which rows are listed. What is empty or absent lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The process's domain.
    pub domain: String,
    /// The cell that has the instance.
    pub cell_id: String,
    /// The process.
    pub process_guid: String,
    /// The index; 0 is one.
    pub index: Option<i32>,
}

impl From<ActualLRPsRequest> for Filter {
    fn from(request: ActualLRPsRequest) -> Self {
        let ActualLRPsRequest { domain, cell_id, process_guid, index, .. } = request;
        Self { domain, cell_id, process_guid, index }
    }
}

impl Filter {
    fn rows(&self, image: &Image) -> Vec<Arc<ActualLRP>> {
        if !self.process_guid.is_empty() {
            self.passing(image.rows_of(&self.process_guid))
        } else if !self.cell_id.is_empty() {
            self.passing(image.rows_on(&self.cell_id))
        } else {
            self.passing(image.all_rows())
        }
    }

    fn passing<'a>(&self, rows: impl Iterator<Item = (&'a Slot, &'a Rows)>) -> Vec<Arc<ActualLRP>> {
        let index = |slot: &Slot| self.index.is_none_or(|index| index == slot.index);
        rows.filter(|(slot, _)| index(slot))
            .flat_map(|(_, rows)| rows.iter())
            .filter(|row| {
                let cell = &row.actual_lrp_instance_key.cell_id;
                let domain = &row.actual_lrp_key.domain;
                (self.domain.is_empty() || *domain == self.domain)
                    && (self.cell_id.is_empty() || *cell == self.cell_id)
            })
            .cloned()
            .collect()
    }
}

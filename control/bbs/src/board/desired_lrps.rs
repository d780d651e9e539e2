//! Calls about desired LRPs.

use std::collections::BTreeSet;
use std::sync::Arc;

use bbs_models::error::Type;
use bbs_models::{
    DesireLRPRequest, DesiredLRP, DesiredLRPChangedEvent, DesiredLRPCreatedEvent,
    DesiredLRPRemovedEvent, DesiredLRPUpdate, DesiredLRPsRequest, Error, ModificationTag,
    UpdateDesiredLRPRequest,
};
use transport::TraceId;

use super::{Board, create_missing, epoch, is_on_cell, stop_rows};
use crate::auctions::LrpStart;
use crate::cells::{InternalRoute, Update};
use crate::desired::Desired;
use crate::image::Write;
use crate::store::Change;

impl Board {
    /// Wants a process to run.
    pub async fn desire_lrp(
        &self,
        request: DesireLRPRequest,
        trace: &TraceId,
    ) -> Result<(), Error> {
        let mut lrp = request.desired_lrp.into_option().ok_or(Type::InvalidRequest)?;
        lrp.modification_tag = ModificationTag { epoch: epoch(), ..Default::default() }.into();
        lrp.routes.get_or_insert_default();
        // Subscribers are told what the client said.
        let said = lrp.clone();
        fill_metrics_guid(&mut lrp);
        let desired = Arc::new(Desired::new(&lrp));
        let created = self
            .store()
            .change(|image| {
                if image.desired(&desired.process_guid).is_some() {
                    return Err(Type::ResourceExists.into());
                }
                let write = Write::Desired(desired.process_guid.clone(), Some(desired.clone()));
                let event = DesiredLRPCreatedEvent {
                    desired_lrp: said.into(),
                    trace_id: trace.as_str().into(),
                    ..Default::default()
                };
                let mut change = Change { writes: vec![write], events: vec![event.into()] };
                let all = 0..desired.instances;
                let created = create_missing(&mut change, image, &desired, all, trace.as_str());
                Ok((change, created))
            })
            .await?;
        self.auction_all(&desired, created, trace);
        Ok(())
    }

    /// Changes what can be changed of a process.
    pub async fn update_lrp(
        &self,
        request: UpdateDesiredLRPRequest,
        trace: &TraceId,
    ) -> Result<(), Error> {
        let guid = request.process_guid;
        let update = request.update.into_option().unwrap_or_default();
        let (desired, created, stopped, told) = self
            .store()
            .change(|image| {
                let before = image.desired(&guid).ok_or(Type::ResourceNotFound)?;
                let old = before.lrp();
                let new = updated(old.clone(), update);
                let after = Arc::new(Desired::new(&new));
                let write = Write::Desired(after.process_guid.clone(), Some(after.clone()));
                let event = DesiredLRPChangedEvent {
                    before: told(old).into(),
                    after: told(new).into(),
                    trace_id: trace.as_str().into(),
                    ..Default::default()
                };
                let mut change = Change { writes: vec![write], events: vec![event.into()] };
                let more = before.instances..after.instances;
                let created = create_missing(&mut change, image, &after, more, trace.as_str());
                let rows = image.rows_of(&guid);
                let surplus = rows.filter(|(slot, _)| {
                    slot.index >= after.instances && after.instances < before.instances
                });
                let stopped = stop_rows(&mut change, surplus, trace.as_str());
                let told: Vec<_> = image
                    .rows_of(&guid)
                    .flat_map(|(_, rows)| [&rows.ordinary, &rows.suspect])
                    .flatten()
                    .filter(|row| is_on_cell(row))
                    .filter_map(|row| Some((row.clone(), update_of(row, before, &after)?)))
                    .collect();
                Ok((change, (after, created, stopped, told)))
            })
            .await?;
        self.auction_all(&desired, created, trace);
        self.stop(stopped, trace);
        self.update_instances(told, trace);
        Ok(())
    }

    /// Does not want a process any more.
    pub async fn remove_lrp(&self, process_guid: &str, trace: &TraceId) -> Result<(), Error> {
        let running = self
            .store()
            .change(|image| {
                let desired = image.desired(process_guid).ok_or(Type::ResourceNotFound)?;
                let event = DesiredLRPRemovedEvent {
                    desired_lrp: told(desired.lrp()).into(),
                    trace_id: trace.as_str().into(),
                    ..Default::default()
                };
                let write = Write::Desired(desired.process_guid.clone(), None);
                let mut change = Change { writes: vec![write], events: vec![event.into()] };
                let rows = image.rows_of(process_guid);
                let running = stop_rows(&mut change, rows, trace.as_str());
                Ok((change, running))
            })
            .await?;
        self.stop(running, trace);
        Ok(())
    }

    /// The desired LRP of a guid.
    pub fn desired_lrp(&self, process_guid: &str) -> Result<Arc<Desired>, Error> {
        let found = self.store().read(|image| image.desired(process_guid).cloned())?;
        found.ok_or_else(|| Type::ResourceNotFound.into())
    }

    /// All desired LRPs that every given filter lets pass.
    pub fn desired_lrps(&self, filter: &DesiredLRPsRequest) -> Result<Vec<Arc<Desired>>, Error> {
        let guids: BTreeSet<&str> = filter.process_guids.iter().map(String::as_str).collect();
        let apps: BTreeSet<&str> = filter.app_guids.iter().map(String::as_str).collect();
        let passes = |desired: &&Arc<Desired>| {
            (filter.domain.is_empty() || *desired.domain == *filter.domain)
                && (apps.is_empty() || apps.contains(bbs_models::app_guid(&desired.process_guid)))
        };
        self.store().read(|image| {
            if guids.is_empty() {
                return image.all_desired().filter(passes).cloned().collect();
            }
            let named = guids.iter().filter_map(|guid| image.desired(guid));
            named.filter(passes).cloned().collect()
        })
    }

    fn auction_all(&self, desired: &Desired, indices: Vec<i32>, trace: &TraceId) {
        if indices.is_empty() {
            return;
        }
        let starts = [LrpStart::new(desired, indices, true)];
        let (auctioneer, trace) = (self.auctioneer().clone(), trace.clone());
        self.follow(async move { auctioneer.start_lrps(&starts, &trace).await });
    }

    /// Tells reps what has changed for their instances.
    pub(crate) fn update_instances(
        &self,
        told: Vec<(Arc<bbs_models::ActualLRP>, Update)>,
        trace: &TraceId,
    ) {
        if told.is_empty() {
            return;
        }
        let (board, trace) = (self.clone(), trace.clone());
        self.follow(async move {
            let cells = match board.reps().registered().await {
                Ok(cells) => cells,
                Err(error) => {
                    let instances = told.len();
                    tracing::error!(%error, instances, "instances are not updated: no list of cells");
                    return;
                }
            };
            let mut updates = tokio::task::JoinSet::new();
            for (row, update) in told {
                let Some(cell) = cells.get(&row.actual_lrp_instance_key.cell_id).cloned() else {
                    continue;
                };
                let (board, trace) = (board.clone(), trace.clone());
                updates.spawn(async move {
                    if let Err(error) = board.reps().update(&cell, &row, &update, &trace).await {
                        let guid = &row.actual_lrp_key.process_guid;
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(guid, error, "an instance is not updated");
                    }
                });
            }
            while updates.join_next().await.is_some() {}
        });
    }
}

/// Readers are told the source id as the metrics guid, too.
fn fill_metrics_guid(lrp: &mut DesiredLRP) {
    let source = lrp.metric_tags.get("source_id");
    lrp.metrics_guid = source.map(|tag| tag.r#static.clone()).unwrap_or_default();
}

/// As subscribers are told of what is there already: the original leaves out the metrics guid.
fn told(lrp: DesiredLRP) -> DesiredLRP {
    DesiredLRP { metrics_guid: String::new(), ..lrp }
}

fn updated(mut lrp: DesiredLRP, update: DesiredLRPUpdate) -> DesiredLRP {
    if let Some(instances) = update.instances {
        lrp.instances = instances;
    }
    if update.routes.is_set() {
        lrp.routes = update.routes;
    }
    if let Some(annotation) = update.annotation {
        lrp.annotation = annotation;
    }
    if !update.metric_tags.is_empty() {
        lrp.metric_tags = update.metric_tags;
        fill_metrics_guid(&mut lrp);
    }
    if let (Some(user), Some(password)) = (update.image_username, update.image_password) {
        (lrp.image_username, lrp.image_password) = (user, password);
    }
    lrp.modification_tag.get_or_insert_default().increment();
    lrp
}

/// What an instance's rep is told of a change; `None` when it does not concern it.
fn update_of(row: &bbs_models::ActualLRP, before: &Desired, after: &Desired) -> Option<Update> {
    let mut update = Update::of(row);
    if before.internal_routes != after.internal_routes {
        update.internal_routes = Some(internal_routes(after));
    }
    if before.metric_tags != after.metric_tags {
        let (index, guid) = (row.actual_lrp_key.index, &row.actual_lrp_instance_key.instance_guid);
        update.metric_tags = Some(after.tags_of_instance(index, guid));
    }
    (update.internal_routes.is_some() || update.metric_tags.is_some()).then_some(update)
}

pub(crate) fn internal_routes(desired: &Desired) -> Vec<InternalRoute> {
    let route = |hostname: &String| InternalRoute { hostname: hostname.clone() };
    desired.internal_routes.iter().map(route).collect()
}

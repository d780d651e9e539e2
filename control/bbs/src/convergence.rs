//! Repairs what calls cannot: what was lost, is left over, or has to wait.
//!
//! A pass looks at everything at one moment and plans by [`plan`], which is pure. Then the plan is
//! carried out; a step whose rows have changed meanwhile is left to the next pass.

pub mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bbs_models::Error;
use tokio_util::sync::CancellationToken;
use transport::TraceId;

use self::plan::{LrpPlan, Patience, Snapshot, Step, TaskStep};
use crate::auctions::{self, TaskStart};
use crate::board::{Board, epoch, now, put};
use crate::desired::Desired;
use crate::image::{Image, Write};
use crate::rows::{Rows, Slot};
use crate::store::Change;
use crate::task;
use crate::transition;

/// Converges every `interval` until told to stop. The time counts from the end of a pass.
pub async fn run(board: Board, interval: Duration, patience: Patience, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let (lrps, tasks) = tokio::join!(lrps(&board, &patience), tasks(&board, &patience));
        for error in [lrps, tasks].into_iter().filter_map(Result::err) {
            tracing::error!(%error, "convergence: a pass is not complete");
        }
    }
}

/// One pass over domains and LRPs.
pub async fn lrps(board: &Board, patience: &Patience) -> Result<(), Error> {
    let cells: HashSet<String> = board.reps().registered().await?.into_keys().collect();
    let snapshot = board.store().read(|image| Snapshot {
        now: now(),
        fresh: image.fresh_domains(now()),
        desired: image.all_desired().map(|lrp| (lrp.process_guid.clone(), lrp.clone())).collect(),
        rows: image.all_rows().map(|(slot, rows)| (slot.clone(), rows.clone())).collect(),
        cells,
    })?;
    let plan = tokio::task::spawn_blocking({
        let patience = *patience;
        move || plan::lrps(&snapshot, &patience)
    });
    let LrpPlan { steps, updates } =
        plan.await.map_err(|_| bbs_models::error::Type::UnknownError)?;
    let done = board.store().change(|image| Ok(carry_out(image, steps))).await?;
    let starts = auctions::each(done.starts.iter().map(|(desired, index)| (desired, *index)));
    board.auctioneer().start_lrps(&starts, &TraceId::default()).await;
    board.update_instances(updates, &TraceId::default());
    board.stop(done.stops, &TraceId::default());
    Ok(())
}

/// What follows from a pass's changes.
#[derive(Debug, Default)]
struct Done {
    starts: Vec<(Arc<Desired>, i32)>,
    stops: Vec<Arc<bbs_models::ActualLRP>>,
}

fn carry_out(image: &Image, steps: Vec<(Slot, Rows, Step)>) -> (Change, Done) {
    let (mut change, mut done) = (Change::default(), Done::default());
    let expired = image.expired_domains(now());
    change.writes.extend(expired.into_iter().map(|domain| Write::Domain(domain, None)));
    for (slot, seen, step) in steps {
        let rows = image.rows(&slot);
        if !plan::is_unchanged(&seen, &rows) {
            continue;
        }
        let mut into = |after: Rows| put(&mut change, &slot, &rows, &after, "");
        match step {
            Step::Drop(presences) => {
                let mut after = rows.clone();
                presences.into_iter().for_each(|presence| after.set(presence, None));
                into(after);
            }
            Step::Auction(desired) => done.starts.push((desired, slot.index)),
            Step::Create(desired) => {
                let row = transition::create(desired.key(slot.index), now(), epoch());
                into(rows.with_ordinary(row));
                done.starts.push((desired, slot.index));
            }
            Step::Suspend(desired) => {
                // Where there is a suspect already the ordinary one only waits: a later pass asks
                // for a cell.
                let replaced = rows.suspect.is_none();
                if let Some(after) = transition::suspend(&rows, now(), epoch()) {
                    into(after);
                    done.starts.extend(replaced.then_some((desired, slot.index)));
                }
            }
            Step::Promote => {
                if let Some(after) = transition::promote(&rows) {
                    into(after);
                }
            }
            Step::Restart(desired) => {
                if let Ok(after) = transition::unclaim(&rows, now()) {
                    into(after);
                    done.starts.push((desired, slot.index));
                }
            }
            Step::Stop => {
                // As when a client retires it: it gets no more requests from here on.
                if let Some(row) = &rows.ordinary {
                    change.events.push(crate::changes::removed(row, ""));
                    done.stops.push(row.clone());
                }
            }
        }
    }
    (change, done)
}

/// One pass over tasks.
pub async fn tasks(board: &Board, patience: &Patience) -> Result<(), Error> {
    let cells: HashSet<String> = board.reps().registered().await?.into_keys().collect();
    let all: Vec<_> = board.store().read(|image| image.all_tasks().cloned().collect())?;
    let mut starts = Vec::new();
    for (task, step) in plan::tasks(&all, &cells, now(), patience) {
        let guid = &task.task_guid;
        let done = match step {
            TaskStep::Auction => {
                starts.push(TaskStart::new(&task));
                Ok(())
            }
            TaskStep::GiveUp(why) => {
                board.end_task(guid, |task| task::give_up(task, why, now())).await
            }
            TaskStep::Demote => board.end_task(guid, task::demote).await,
            TaskStep::Abandon => board.abandon_task(guid).await,
            TaskStep::Deliver => {
                board.deliver(&task);
                Ok(())
            }
            TaskStep::Delete => board.forget_task(&task).await,
        };
        if let Err(error) = done {
            // It has changed since.
            tracing::info!(%error, guid, "convergence: a task is left to the next pass");
        }
    }
    board.auctioneer().start_tasks(&starts).await;
    Ok(())
}

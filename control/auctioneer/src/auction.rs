//! One auction after the other: ask the cells, place, give out the work, report what is left.

use std::sync::Arc;
use std::time::Duration;

use bbs_client::Client as Bbs;
use bbs_models::{ActualLRPKey, CellPresence};
use rand::seq::SliceRandom;
use rep_api::{CellState, Lrp, Task, Work};
use rep_client::Fleet;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::TraceId;

use crate::placement::{self, Misfit, Placements, Weights};
use crate::queue::{Queue, Waiting};

/// After the BBS did not tell the cells, and between two rounds of cells that do not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Rounds of cells of which none answers.
const ROUNDS: usize = 4;
/// Failures that are reported at once.
const REPORTS: usize = 100;

/// Who holds auctions.
#[derive(Clone, Debug)]
pub(crate) struct Auctions {
    pub(crate) bbs: Bbs,
    /// Reps that are asked for their state, within the time for that.
    pub(crate) states: Arc<Fleet>,
    /// Reps that are given work.
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) weights: Weights,
    /// Cells that are asked at once.
    pub(crate) workers: usize,
}

impl Auctions {
    /// Holds auctions until told to stop; one that is under way is held to its end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queue.asked() => {}
            }
            let presences = tokio::select! {
                () = stop.cancelled() => return,
                presences = self.cells() => presences,
            };
            self.hold(presences).await;
        }
    }

    async fn hold(&self, presences: Vec<CellPresence>) {
        let presences = Arc::new(presences);
        let mut states = self.ask_states(&presences).await;
        for _ in 1..ROUNDS {
            if !states.is_empty() || presences.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            states = self.ask_states(&presences).await;
        }
        // Only now: what was asked for meanwhile is placed as well.
        let waiting = self.queue.take();
        let (lrps, tasks) = waiting.wishes();
        let (wanted, cells) = (lrps.len() + tasks.len(), states.len());
        // Of equal cells the first is taken: chance shall say which that is.
        states.shuffle(&mut rand::rng());
        let weights = self.weights;
        let placing =
            tokio::task::spawn_blocking(move || placement::place(states, lrps, tasks, &weights));
        let mut placements = match placing.await {
            Ok(placements) => placements,
            Err(error) => {
                tracing::error!(%error, wanted, "an auction is broken");
                return;
            }
        };
        self.give_out(&presences, &waiting, &mut placements).await;
        let failed = placements.failed_lrps.len() + placements.failed_tasks.len();
        tracing::info!(cells, wanted, failed, "an auction is over");
        self.report(&waiting, placements).await;
    }

    /// The registered cells, once the BBS tells them.
    async fn cells(&self) -> Vec<CellPresence> {
        loop {
            match self.bbs.tracing(TraceId::default()).cells().await {
                Ok(cells) => return cells,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the cells are not known; asking again");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The states of the cells that answer, are healthy and take work.
    async fn ask_states(&self, presences: &Arc<Vec<CellPresence>>) -> Vec<CellState> {
        let (places, mut asked) = (Arc::new(Semaphore::new(self.workers)), JoinSet::new());
        for at in 0..presences.len() {
            let (presences, fleet, places) =
                (presences.clone(), self.states.clone(), places.clone());
            asked.spawn(async move {
                let _place = places.acquire_owned().await;
                ask_state(&fleet, &presences[at]).await
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Gives all cells their work at once. What a cell returns has found no place; what a broken
    /// connection leaves in doubt counts as placed, so that nothing runs twice.
    async fn give_out(
        &self,
        presences: &[CellPresence],
        waiting: &Waiting,
        placements: &mut Placements,
    ) {
        let (places, mut given) = (Arc::new(Semaphore::new(self.workers)), JoinSet::new());
        for (cell_id, work) in std::mem::take(&mut placements.work) {
            let Some(presence) = presences.iter().find(|cell| cell.cell_id == cell_id) else {
                continue;
            };
            let trace = work.lrps.first().map(|lrp| waiting.trace_of_lrp(lrp)).unwrap_or_default();
            let (presence, fleet, places) = (presence.clone(), self.fleet.clone(), places.clone());
            given.spawn(async move {
                let _place = places.acquire_owned().await;
                give(&fleet, &presence, &work, &trace).await
            });
        }
        for returned in given.join_all().await {
            let short = || Misfit::Resources(Vec::new());
            let lrps = returned.lrps.into_vec().into_iter().map(|lrp| (lrp, short()));
            placements.failed_lrps.extend(lrps);
            let tasks = returned.tasks.into_vec().into_iter().map(|task| (task, short()));
            placements.failed_tasks.extend(tasks);
        }
    }

    /// Tells the BBS what found no place.
    async fn report(&self, waiting: &Waiting, placements: Placements) {
        let (places, mut told) = (Arc::new(Semaphore::new(REPORTS)), JoinSet::new());
        for (lrp, misfit) in placements.failed_lrps {
            let (bbs, places) = (self.bbs.tracing(waiting.trace_of_lrp(&lrp)), places.clone());
            told.spawn(async move {
                let _place = places.acquire_owned().await;
                report_lrp(&bbs, lrp, &misfit).await;
            });
        }
        for (task, misfit) in placements.failed_tasks {
            let (bbs, places) = (self.bbs.tracing(waiting.trace_of_task(&task)), places.clone());
            told.spawn(async move {
                let _place = places.acquire_owned().await;
                report_task(&bbs, task, &misfit).await;
            });
        }
        while told.join_next().await.is_some() {}
    }
}

async fn ask_state(fleet: &Fleet, cell: &CellPresence) -> Option<CellState> {
    let CellPresence { cell_id, rep_url, rep_address, .. } = cell;
    let answer = match fleet.rep(cell_id, rep_url, rep_address) {
        Ok(rep) => rep.state(&TraceId::default()).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(state) if state.evacuating => None,
        Ok(state) if state.cell_id == *cell_id => Some(state),
        Ok(state) => {
            tracing::error!(cell_id, is = state.cell_id, "a cell's address is another cell's");
            None
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(cell_id, error, "a cell does not tell its state");
            None
        }
    }
}

/// What the cell has not taken.
async fn give(fleet: &Fleet, cell: &CellPresence, work: &Work, trace: &TraceId) -> Work {
    let CellPresence { cell_id, rep_url, rep_address, .. } = cell;
    let answer = match fleet.rep(cell_id, rep_url, rep_address) {
        Ok(rep) => rep.perform(trace, work).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(cell_id, error, "a cell does not say whether it takes its work");
        Work::default()
    })
}

async fn report_lrp(bbs: &Bbs, lrp: Lrp, misfit: &Misfit) {
    let guid = lrp.process_guid.clone();
    tracing::warn!(guid, index = lrp.index, %misfit, "an instance finds no cell");
    let key = ActualLRPKey::new(lrp.process_guid, lrp.index, lrp.domain);
    if let Err(error) = bbs.fail_actual_lrp(key, &misfit.to_string()).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(guid, index = lrp.index, error, "a failure is not reported");
    }
}

async fn report_task(bbs: &Bbs, task: Task, misfit: &Misfit) {
    tracing::warn!(guid = task.task_guid, %misfit, "a task finds no cell");
    if let Err(error) = bbs.reject_task(&task.task_guid, &misfit.to_string()).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(guid = task.task_guid, error, "a failure is not reported");
    }
}

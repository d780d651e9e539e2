//! Carrying out operations: what the BBS is told and asked, and what follows for the container.
//!
//! The calls and their order are the original's (its recordings are in `tests/recordings`). An answer
//! decides, whatever it is; without one the container stays, and the next comparison tries again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bbs_client::Client as Bbs;
use bbs_models::error::Type;
use bbs_models::{
    ActualLRPInstanceKey, ActualLRPInternalRoute, ActualLRPKey, ActualLRPNetInfo,
    CompleteTaskRequest, EvacuateRunningActualLRPRequest, PortMapping, StartActualLRPRequest,
    actual_lrp_net_info::PreferredAddress,
};
use executor::{Container, Executor, Guid, RunInfo, State};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::TraceId;

use crate::cell::{Cell, Load};
use crate::evacuation::Evacuation;
use crate::label::{Instance, Label, Owner};
use crate::queue::Queue;
use crate::recipe::Recipes;
use crate::sync::{LrpStep, Operation, TaskStep};

/// Bytes of a task's result.
const RESULT: usize = 50 * 1024;

/// How long a restarted cell does not say that an instance wants no requests.
const UNSURE: Duration = Duration::from_secs(10);

/// Containers that an earlier rep has left. Whether they are ready is not known until they have been
/// asked again, and must not be denied meanwhile: their routes would be withdrawn.
#[derive(Debug)]
pub struct Found {
    guids: BTreeSet<Guid>,
    since: Instant,
}

impl Found {
    /// Those that the executor has at its start.
    pub fn by(executor: &Executor) -> Self {
        let guids = executor.containers().into_iter().map(|container| container.guid);
        Self { guids: guids.collect(), since: Instant::now() }
    }

    fn is_unsure(&self, guid: &str) -> bool {
        self.guids.contains(guid) && self.since.elapsed() < UNSURE
    }
}

/// One cell's rep.
#[derive(Debug)]
pub struct Rep {
    /// What the cell is.
    pub cell: Cell,
    /// What it makes of definitions.
    pub recipes: Recipes,
    /// Which of an instance's addresses others should prefer.
    pub preferred_address: PreferredAddress,
    /// Its containers.
    pub executor: Executor,
    /// Those that were there before it.
    pub found: Found,
    /// The BBS.
    pub bbs: Bbs,
    /// Whether it is being drained.
    pub evacuation: Evacuation,
    /// Operations, one at a time for each guid.
    pub queue: Queue,
    /// Operations that are under way.
    pub under_way: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Rep {
    /// What the cell does at this moment.
    pub fn load(&self) -> Load {
        Load {
            containers: self.executor.containers(),
            total: self.executor.total(),
            remaining: self.executor.remaining(),
            evacuating: self.evacuation.has_begun(),
        }
    }

    /// Carries an operation out, after the one of this guid that is under way. `trace` goes with
    /// the calls; none: that of the request that brought the container.
    pub fn enqueue(self: &Arc<Self>, guid: &str, operation: Operation, trace: Option<TraceId>) {
        let Some(mut operation) = self.queue.push(guid, operation) else { return };
        let (rep, guid) = (Arc::clone(self), guid.to_owned());
        self.under_way.spawn(async move {
            let work = async {
                let mut trace = trace;
                loop {
                    rep.carry_out(&guid, operation, trace.take().as_ref()).await;
                    match rep.queue.next(&guid) {
                        Some(next) => operation = next,
                        None => break,
                    }
                }
            };
            // What is cut off here is found by the next rep's comparison.
            let _ = rep.stop.run_until_cancelled(work).await;
        });
    }

    async fn carry_out(&self, guid: &str, operation: Operation, trace: Option<&TraceId>) {
        let container = self.executor.container(guid);
        match (operation, container) {
            (Operation::Container, Ok(container)) => self.see_to(container, trace).await,
            (Operation::Container, Err(_)) => {}
            (Operation::Cancel, found) => {
                // The BBS has ended it by itself, unless someone else has cancelled it here.
                if found.is_ok_and(|container| container.state != State::Reserved) {
                    self.complete_task(guid, Err("cancelled".into())).await;
                }
                self.delete(guid).await;
            }
            // It has got a container since.
            (_, Ok(_)) => {}
            (Operation::ResidualInstance(instance), Err(_)) => self.give_back(instance).await,
            (Operation::ResidualEvacuating(instance), Err(_)) => {
                self.remove_evacuating(instance).await;
            }
            (Operation::ResidualJoint(instance), Err(_)) => {
                self.remove_evacuating(instance.clone()).await;
                self.give_back(instance).await;
            }
            (Operation::ResidualTask, Err(_)) => {
                self.complete_task(guid, Err("task container does not exist".into())).await;
            }
        }
    }

    async fn see_to(&self, container: Container, trace: Option<&TraceId>) {
        let Some(label) = Label::of(&container) else {
            tracing::warn!(guid = container.guid, "a container has no label of ours");
            return;
        };
        let bbs = self.bbs.tracing(trace.unwrap_or(&label.trace).clone());
        match &label.owner {
            Owner::Lrp { process_guid, index } => {
                let instance = Instance {
                    key: ActualLRPKey::new(process_guid, *index, &label.domain),
                    instance: ActualLRPInstanceKey::new(&container.guid, &self.cell.id),
                };
                let step = LrpStep::of(&container, self.evacuation.has_begun());
                self.lrp_step(&bbs, step, &container, instance).await;
            }
            Owner::Task => self.task_step(&bbs, TaskStep::of(&container), &container).await,
        }
    }

    async fn lrp_step(&self, bbs: &Bbs, step: LrpStep, container: &Container, lrp: Instance) {
        let guid = container.guid.as_str();
        let Instance { key, instance } = lrp;
        match step {
            LrpStep::ClaimAndRun => self.claim_and_run(bbs, guid, key, instance).await,
            LrpStep::Claim => {
                let _ = self.claim(bbs, guid, &key, instance).await;
            }
            // The BBS knows better for now.
            LrpStep::Start if !container.routable && self.found.is_unsure(guid) => {}
            LrpStep::Start => {
                let started = bbs.start_actual_lrp(self.started(container, key, instance)).await;
                if told("start", guid, &started) == Some(Type::ActualLRPCannotBeStarted) {
                    let _ = self.executor.stop(guid);
                }
            }
            LrpStep::Remove => {
                let removed =
                    bbs.remove_actual_lrp(&key.process_guid, key.index, Some(instance)).await;
                self.settle("remove", guid, removed).await;
            }
            LrpStep::Crash(reason) => {
                let crashed = bbs.crash_actual_lrp(key, instance, &reason).await;
                self.settle("crash", guid, crashed).await;
            }
            LrpStep::EvacuateClaimed => {
                let keep = bbs.evacuate_claimed_actual_lrp(key, instance).await;
                self.evacuate("evacuate_claimed", guid, keep).await;
            }
            LrpStep::EvacuateRunning => {
                let request = self.evacuated(container, key, instance);
                let keep = bbs.evacuate_running_actual_lrp(request).await;
                self.evacuate("evacuate_running", guid, keep).await;
            }
            LrpStep::EvacuateStopped => {
                let told = bbs.evacuate_stopped_actual_lrp(key, instance).await;
                self.settle("evacuate_stopped", guid, told).await;
            }
            LrpStep::EvacuateCrashed(reason) => {
                let told = bbs.evacuate_crashed_actual_lrp(key, instance, &reason).await;
                self.settle("evacuate_crashed", guid, told).await;
            }
        }
    }

    async fn claim_and_run(
        &self,
        bbs: &Bbs,
        guid: &str,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) {
        if !self.claim(bbs, guid, &key, instance.clone()).await {
            return;
        }
        let desired = bbs.desired_lrp(&key.process_guid).await;
        let desired = match desired {
            Ok(desired) => desired,
            Err(error) => {
                if told::<()>("desired_lrp", guid, &Err(error)) == Some(Type::ResourceNotFound) {
                    // Nobody wants it any more.
                    self.remove(Instance { key, instance }).await;
                    self.delete(guid).await;
                }
                return;
            }
        };
        match self.recipes.lrp(&desired, guid, key.index) {
            Ok(run) => {
                if !self.run(guid, run) {
                    self.remove(Instance { key, instance }).await;
                }
            }
            Err(unfit) => {
                let crashed = bbs.crash_actual_lrp(key, instance, &unfit.to_string()).await;
                self.settle("crash", guid, crashed).await;
            }
        }
    }

    /// Tells whether it is ours.
    async fn claim(
        &self,
        bbs: &Bbs,
        guid: &str,
        key: &ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> bool {
        let claimed = bbs.claim_actual_lrp(&key.process_guid, key.index, instance).await;
        match told("claim", guid, &claimed) {
            Some(Type::ActualLRPCannotBeClaimed | Type::ResourceNotFound) => {
                self.delete(guid).await;
                false
            }
            _ => claimed.is_ok(),
        }
    }

    async fn task_step(&self, bbs: &Bbs, step: TaskStep, container: &Container) {
        let guid = container.guid.as_str();
        match step {
            TaskStep::Start => self.start_task(bbs, container).await,
            TaskStep::Reject(reason) => {
                let rejected = bbs.reject_task(guid, &reason).await;
                self.settle("reject task", guid, rejected).await;
            }
            TaskStep::Fail(reason) => {
                if self.complete_task(guid, Err(reason)).await {
                    self.delete(guid).await;
                }
            }
            TaskStep::Succeed => {
                let result = self.result(container).await;
                if self.complete_task(guid, result).await {
                    self.delete(guid).await;
                }
            }
        }
    }

    async fn start_task(&self, bbs: &Bbs, container: &Container) {
        let guid = container.guid.as_str();
        let started = bbs.start_task(guid, &self.cell.id).await;
        if let Err(error) = &started {
            let refused = [
                Type::InvalidStateTransition,
                Type::ResourceNotFound,
                Type::RunningOnDifferentCell,
            ];
            tracing::info!(guid, %error, "a task is not started");
            if refused.iter().any(|kind| error.is(*kind)) {
                self.delete(guid).await;
            }
            return;
        }
        // Also where the BBS has been told before: an answer may have been lost.
        if container.state != State::Reserved {
            return;
        }
        let task = match bbs.task(guid).await {
            Ok(task) => task,
            Err(error) => {
                tracing::warn!(guid, %error, "a task's definition is not known");
                return;
            }
        };
        let begun = match self.recipes.task(&task) {
            Ok(run) => self.run(guid, run),
            Err(unfit) => {
                tracing::warn!(guid, error = %unfit, "a task cannot be run");
                false
            }
        };
        if !begun && self.complete_task(guid, Err("failed to run container".into())).await {
            self.delete(guid).await;
        }
    }

    fn run(&self, guid: &str, run: RunInfo) -> bool {
        self.executor
            .run(guid, run)
            .inspect_err(|error| tracing::warn!(guid, %error, "a container is not run"))
            .is_ok()
    }

    async fn result(&self, container: &Container) -> Result<String, String> {
        let file = container.run.as_ref().map_or("", |run| run.result_file.as_str());
        if file.is_empty() {
            return Ok(String::new());
        }
        match self.executor.file(&container.guid, file, RESULT).await {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                tracing::info!(guid = container.guid, %error, "a task's result is not had");
                Err("failed to fetch result".into())
            }
        }
    }

    /// Tells a task's end: its result, or why it has failed. Returns whether that was answered.
    async fn complete_task(&self, guid: &str, result: Result<String, String>) -> bool {
        let failed = result.is_err();
        let (result, failure_reason) = match result {
            Ok(result) => (result, String::new()),
            Err(reason) => (String::new(), reason),
        };
        let request = CompleteTaskRequest {
            task_guid: guid.to_owned(),
            cell_id: self.cell.id.clone(),
            failed,
            failure_reason,
            result,
            ..CompleteTaskRequest::default()
        };
        let completed = self.bbs.complete_task(request).await;
        told("complete task", guid, &completed);
        is_answered(&completed)
    }

    async fn remove(&self, Instance { key, instance }: Instance) {
        let guid = instance.instance_guid.clone();
        let removed =
            self.bbs.remove_actual_lrp(&key.process_guid, key.index, Some(instance)).await;
        told("remove", &guid, &removed);
    }

    /// An instance that has been lost with its container, as by a restart of the machine, is not a
    /// crash. The BBS has it auctioned at once; one that is removed there is missed only by the next
    /// convergence.
    async fn give_back(&self, Instance { key, instance }: Instance) {
        let guid = instance.instance_guid.clone();
        let given_back = self.bbs.evacuate_claimed_actual_lrp(key, instance).await;
        told("evacuate_claimed", &guid, &given_back);
    }

    async fn remove_evacuating(&self, Instance { key, instance }: Instance) {
        let guid = instance.instance_guid.clone();
        let removed = self.bbs.remove_evacuating_actual_lrp(key, instance).await;
        told("remove_evacuating", &guid, &removed);
    }

    /// The end of a container, once the BBS has answered.
    async fn settle<T>(&self, call: &str, guid: &str, answer: Result<T, bbs_client::Error>) {
        told(call, guid, &answer);
        if is_answered(&answer) {
            self.delete(guid).await;
        }
    }

    /// A container of a cell that is being drained is kept for as long as the BBS says.
    async fn evacuate(&self, call: &str, guid: &str, keep: Result<bool, bbs_client::Error>) {
        told(call, guid, &keep);
        let keep = match keep {
            Ok(keep) => keep,
            // The BBS's own trouble is no reason to end an instance.
            Err(error) => !is_answered::<()>(&Err(error)),
        };
        if !keep {
            self.delete(guid).await;
        }
    }

    async fn delete(&self, guid: &str) {
        match self.executor.delete(guid).await {
            Ok(()) | Err(executor::Error::NotFound(_)) => {}
            // It stays in the executor's table, and is deleted by the next comparison.
            Err(error) => tracing::warn!(guid, %error, "a container is not deleted"),
        }
    }

    fn started(
        &self,
        container: &Container,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> StartActualLRPRequest {
        let run = container.run.as_deref();
        StartActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            actual_lrp_net_info: self.net_info(container).into(),
            actual_lrp_internal_routes: run.map(internal_routes).unwrap_or_default(),
            metric_tags: run.map(|run| run.metric_tags.clone()).unwrap_or_default(),
            routable: Some(container.routable),
            availability_zone: self.cell.zone.clone(),
            ..StartActualLRPRequest::default()
        }
    }

    fn evacuated(
        &self,
        container: &Container,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> EvacuateRunningActualLRPRequest {
        let started = self.started(container, key, instance);
        EvacuateRunningActualLRPRequest {
            actual_lrp_key: started.actual_lrp_key,
            actual_lrp_instance_key: started.actual_lrp_instance_key,
            actual_lrp_net_info: started.actual_lrp_net_info,
            actual_lrp_internal_routes: started.actual_lrp_internal_routes,
            metric_tags: started.metric_tags,
            routable: started.routable,
            availability_zone: started.availability_zone,
            ..EvacuateRunningActualLRPRequest::default()
        }
    }

    fn net_info(&self, container: &Container) -> ActualLRPNetInfo {
        let network = container.network.clone().unwrap_or_default();
        let ports = network.ports.iter().map(|port| PortMapping {
            container_port: port.container_port,
            host_port: port.host_port,
            container_tls_proxy_port: port.container_tls_proxy_port,
            host_tls_proxy_port: port.host_tls_proxy_port,
            ..PortMapping::default()
        });
        ActualLRPNetInfo {
            ports: ports.collect(),
            address: network.external_ip,
            instance_address: network.internal_ip,
            instance_ipv6_address: network.internal_ipv6,
            preferred_address: self.preferred_address.into(),
            ..ActualLRPNetInfo::default()
        }
    }
}

fn internal_routes(run: &RunInfo) -> Vec<ActualLRPInternalRoute> {
    let route = |hostname: &String| ActualLRPInternalRoute {
        hostname: hostname.clone(),
        ..ActualLRPInternalRoute::default()
    };
    run.internal_routes.iter().map(route).collect()
}

/// Whether the BBS has decided, for or against it.
fn is_answered<T>(answer: &Result<T, bbs_client::Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error @ bbs_client::Error::Refused { .. }) => {
            !matches!(error.kind(), Type::UnknownError | Type::Deadlock)
        }
        Err(_) => false,
    }
}

/// Logs a call that was not done, and says what the BBS refused it with.
fn told<T>(call: &str, guid: &str, answer: &Result<T, bbs_client::Error>) -> Option<Type> {
    let error = answer.as_ref().err()?;
    tracing::info!(call, guid, error = error as &dyn std::error::Error, "the BBS did not do it");
    matches!(error, bbs_client::Error::Refused { .. }).then(|| error.kind())
}

//! What brings the BBS and the cell into agreement: decisions only, from what is known.
//!
//! [`plan`] compares the BBS's records of this cell with the cell's containers. What there is to do
//! about one container follows from its state: [`LrpStep::of`] and [`TaskStep::of`].

use std::collections::BTreeMap;

use bbs_models::{ActualLRP, Task, actual_lrp, state};
use executor::{Completion, Container, Guid, State};

use crate::label::Instance;

/// Something to be done about one guid. It is looked at again when its turn comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// There is a container: whatever its state asks for.
    Container,
    /// A task is not wanted any more.
    Cancel,
    /// The BBS has an instance that has no container: it is given back, for another to be started.
    ResidualInstance(Instance),
    /// The BBS has an evacuating instance that has no container: it is removed there.
    ResidualEvacuating(Instance),
    /// An instance that is both.
    ResidualJoint(Instance),
    /// The BBS has a task that has no container: it has failed.
    ResidualTask,
}

/// All that is to be done when everything is compared: one operation for each guid.
pub fn plan(
    containers: &[Container],
    rows: &[ActualLRP],
    tasks: &[Task],
) -> BTreeMap<Guid, Operation> {
    let mut operations: BTreeMap<Guid, Operation> = BTreeMap::new();
    for row in rows {
        let instance = Instance {
            key: (*row.actual_lrp_key).clone(),
            instance: (*row.actual_lrp_instance_key).clone(),
        };
        let guid = instance.instance.instance_guid.clone();
        let evacuating = row.presence == actual_lrp::Presence::EVACUATING;
        let other = operations.remove(&guid);
        let operation = match (evacuating, other) {
            (true, Some(Operation::ResidualInstance(ordinary))) => {
                Operation::ResidualJoint(ordinary)
            }
            (false, Some(Operation::ResidualEvacuating(_))) => Operation::ResidualJoint(instance),
            (_, Some(joint @ Operation::ResidualJoint(_))) => joint,
            (true, _) => Operation::ResidualEvacuating(instance),
            (false, _) => Operation::ResidualInstance(instance),
        };
        operations.insert(guid, operation);
    }
    for task in tasks {
        operations.insert(task.task_guid.clone(), Operation::ResidualTask);
    }
    for container in containers {
        let guid = &container.guid;
        // A cell that has restarted looks for the processes of its containers. To claim one
        // meanwhile would take from the BBS that it runs.
        let is_found_again = container.state == State::Created
            && rows.iter().any(|row| {
                row.actual_lrp_instance_key.instance_guid == *guid && row.state == state::RUNNING
            });
        if is_found_again {
            operations.remove(guid);
        } else {
            operations.insert(guid.clone(), Operation::Container);
        }
    }
    operations
}

/// What an instance's container asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LrpStep {
    /// Claim it, and then run it.
    ClaimAndRun,
    /// Claim it.
    Claim,
    /// Say that it runs.
    Start,
    /// It was stopped: say that it is gone, and delete it.
    Remove,
    /// It ended by itself: say why, and delete it.
    Crash(String),
    /// Say that this cell will not run it, and delete it.
    EvacuateClaimed,
    /// Offer it to others, and keep it for as long as they have it not.
    EvacuateRunning,
    /// As [`LrpStep::Remove`], on a cell that is being drained.
    EvacuateStopped,
    /// As [`LrpStep::Crash`], on a cell that is being drained.
    EvacuateCrashed(String),
}

impl LrpStep {
    /// The next step of a container.
    pub fn of(container: &Container, evacuating: bool) -> Self {
        let reason = || container.completion.as_ref().map(|end| end.failure_reason.clone());
        let reason = || reason().unwrap_or_default();
        match (container.state, evacuating) {
            (State::Reserved, false) => Self::ClaimAndRun,
            (State::Initializing | State::Created, false) => Self::Claim,
            (State::Running, false) => Self::Start,
            (State::Completed, false) if container.stopped => Self::Remove,
            (State::Completed, false) => Self::Crash(reason()),
            (State::Reserved | State::Initializing | State::Created, true) => Self::EvacuateClaimed,
            (State::Running, true) => Self::EvacuateRunning,
            (State::Completed, true) if container.stopped => Self::EvacuateStopped,
            (State::Completed, true) => Self::EvacuateCrashed(reason()),
        }
    }
}

/// What a task's container asks for; a cell that is being drained finishes its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStep {
    /// Take the task, and run it if nothing runs yet.
    Start,
    /// Nothing of it has run: another cell may try.
    Reject(String),
    /// It has failed: say why, and delete the container.
    Fail(String),
    /// It has succeeded: hand in its result, and delete the container.
    Succeed,
}

impl TaskStep {
    /// The next step of a container.
    pub fn of(container: &Container) -> Self {
        if container.state != State::Completed {
            return Self::Start;
        }
        match container.completion.clone().unwrap_or_default() {
            Completion { failed: false, .. } => Self::Succeed,
            Completion { retryable: true, failure_reason, .. } => Self::Reject(failure_reason),
            Completion { failure_reason, .. } => Self::Fail(failure_reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bbs_models::{ActualLRPInstanceKey, ActualLRPKey};
    use executor::Resource;
    use proptest::prelude::*;

    use super::*;

    const GUIDS: [&str; 4] = ["a", "b", "c", "d"];

    fn container(guid: &str, state: State) -> Container {
        let mut made = Container::reserved(guid.into(), BTreeMap::new(), Resource::default());
        made.state = state;
        made
    }

    fn row(guid: &str, evacuating: bool, running: bool) -> ActualLRP {
        let presence = if evacuating {
            actual_lrp::Presence::EVACUATING
        } else {
            actual_lrp::Presence::ORDINARY
        };
        ActualLRP {
            actual_lrp_key: ActualLRPKey::new(format!("process-{guid}"), 0, "d").into(),
            actual_lrp_instance_key: ActualLRPInstanceKey::new(guid, "cell").into(),
            state: if running { state::RUNNING } else { state::CLAIMED }.into(),
            presence: presence.into(),
            ..ActualLRP::default()
        }
    }

    fn states() -> impl Strategy<Value = State> {
        use State::{Completed, Created, Initializing, Reserved, Running};
        prop::sample::select(vec![Reserved, Initializing, Created, Running, Completed])
    }

    fn guids() -> impl Strategy<Value = BTreeSet<&'static str>> {
        prop::collection::btree_set(prop::sample::select(GUIDS.to_vec()), 0..4)
    }

    proptest! {
        #[test]
        fn everything_is_seen_to_once(
            contained in prop::collection::btree_map(prop::sample::select(GUIDS.to_vec()), states(), 0..4),
            ordinary in guids(),
            evacuating in guids(),
            tasks in prop::collection::btree_set(prop::sample::select(vec!["t", "u"]), 0..3),
            running in any::<bool>(),
            mixed in any::<bool>(),
        ) {
            let containers: Vec<_> =
                contained.iter().map(|(guid, state)| container(guid, *state)).collect();
            let mut rows: Vec<_> = ordinary.iter().map(|guid| row(guid, false, running)).collect();
            rows.extend(evacuating.iter().map(|guid| row(guid, true, running)));
            if mixed {
                rows.reverse();
            }
            let listed: Vec<_> = tasks
                .iter()
                .map(|guid| Task { task_guid: (*guid).into(), ..Task::default() })
                .collect();
            let planned = plan(&containers, &rows, &listed);

            for guid in GUIDS {
                let instance = || Instance {
                    key: ActualLRPKey::new(format!("process-{guid}"), 0, "d"),
                    instance: ActualLRPInstanceKey::new(guid, "cell"),
                };
                let known = ordinary.contains(guid) || evacuating.contains(guid);
                let expected = match contained.get(guid) {
                    // Never claimed while the BBS says that it runs.
                    Some(State::Created) if known && running => None,
                    Some(_) => Some(Operation::Container),
                    None => match (ordinary.contains(guid), evacuating.contains(guid)) {
                        (true, true) => Some(Operation::ResidualJoint(instance())),
                        (true, false) => Some(Operation::ResidualInstance(instance())),
                        (false, true) => Some(Operation::ResidualEvacuating(instance())),
                        (false, false) => None,
                    },
                };
                prop_assert_eq!(planned.get(guid), expected.as_ref(), "{}", guid);
            }
            for guid in ["t", "u"] {
                let expected = tasks.contains(guid).then_some(Operation::ResidualTask);
                prop_assert_eq!(planned.get(guid), expected.as_ref());
            }
        }

        #[test]
        fn only_what_has_ended_or_is_drained_is_given_up(
            state in states(),
            stopped in any::<bool>(),
            evacuating in any::<bool>(),
        ) {
            let mut container = container("a", state);
            container.stopped = stopped;
            container.completion = (state == State::Completed).then(|| Completion {
                failed: !stopped,
                failure_reason: "why".into(),
                retryable: false,
            });
            let step = LrpStep::of(&container, evacuating);
            let evacuates = matches!(
                step,
                LrpStep::EvacuateClaimed
                    | LrpStep::EvacuateRunning
                    | LrpStep::EvacuateStopped
                    | LrpStep::EvacuateCrashed(_)
            );
            prop_assert_eq!(evacuates, evacuating);
            let ends = matches!(
                step,
                LrpStep::Remove
                    | LrpStep::Crash(_)
                    | LrpStep::EvacuateStopped
                    | LrpStep::EvacuateCrashed(_)
            );
            prop_assert_eq!(ends, state == State::Completed);
            let crashes = matches!(step, LrpStep::Crash(_) | LrpStep::EvacuateCrashed(_));
            prop_assert_eq!(crashes, state == State::Completed && !stopped);
        }
    }

    #[test]
    fn tasks_end_by_what_became_of_them() {
        let ended = |failed, retryable| {
            let failure_reason = if failed { "why".into() } else { String::new() };
            let completion = Some(Completion { failed, failure_reason, retryable });
            TaskStep::of(&Container { completion, ..container("t", State::Completed) })
        };
        assert_eq!(ended(false, false), TaskStep::Succeed);
        assert_eq!(ended(true, true), TaskStep::Reject("why".into()));
        assert_eq!(ended(true, false), TaskStep::Fail("why".into()));
        for state in [State::Reserved, State::Initializing, State::Created, State::Running] {
            assert_eq!(TaskStep::of(&container("t", state)), TaskStep::Start);
        }
    }
}

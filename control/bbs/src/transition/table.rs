//! Every entry of the original's table of transitions, and what holds after any sequence of calls.

use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::error::Type;
use bbs_models::{
    ActualLRP, ActualLRPInstanceKey, ActualLRPKey, ActualLRPNetInfo, Error, Event, state,
};
use proptest::prelude::*;

use super::*;
use crate::changes;
use crate::rows::{Rows, is_same};

const SECOND: i64 = 1_000_000_000;

fn instance(name: &str) -> ActualLRPInstanceKey {
    ActualLRPInstanceKey::new(name, format!("cell-{name}"))
}

fn started(name: &str) -> Started {
    Started {
        key: ActualLRPKey::new("process", 0, "domain"),
        instance: instance(name),
        net_info: ActualLRPNetInfo { address: "10.0.0.1".into(), ..Default::default() },
        routable: true,
        ..Started::default()
    }
}

fn unclaimed() -> Rows {
    let row = create(ActualLRPKey::new("process", 0, "domain"), 1, "first".into());
    Rows { ordinary: Some(row.into()), ..Rows::default() }
}

/// Rows whose ordinary one is in a state, with instance `a` where a state has one.
fn rows_in(state: &str) -> Rows {
    match state {
        state::UNCLAIMED => unclaimed(),
        state::CLAIMED => claim(&unclaimed(), &instance("a"), 2).unwrap(),
        state::RUNNING => start(&unclaimed(), started("a"), 2, String::new()).unwrap(),
        _ => {
            let mut rows = rows_in(state::CLAIMED);
            for now in 3..6 {
                rows = crash(&rows, &instance("a"), "boom", now).unwrap().rows;
                if now < 5 {
                    rows = claim(&rows, &instance("a"), now).unwrap();
                }
            }
            rows
        }
    }
}

fn ordinary(rows: &Rows) -> &ActualLRP {
    rows.ordinary.as_ref().unwrap()
}

/// `Ok` with the state then, or the refusal's type.
fn outcome(before: &Rows, after: Result<Rows, Error>) -> Result<String, Type> {
    match after {
        Ok(rows)
            if Arc::ptr_eq(rows.ordinary.as_ref().unwrap(), before.ordinary.as_ref().unwrap()) =>
        {
            Ok("as it was".into())
        }
        Ok(rows) => Ok(ordinary(&rows).state.clone()),
        Err(error) => Err(error.r#type.as_known().unwrap()),
    }
}

#[test]
fn claims() {
    let by = |state, name| {
        let rows = rows_in(state);
        outcome(&rows, claim(&rows, &instance(name), 9))
    };
    let refused = Err(Type::ActualLRPCannotBeClaimed);
    assert_eq!(by(state::UNCLAIMED, "b"), Ok("CLAIMED".into()));
    assert_eq!(by(state::CLAIMED, "a"), Ok("as it was".into()));
    assert_eq!(by(state::CLAIMED, "b"), refused);
    assert_eq!(by(state::RUNNING, "a"), Ok("CLAIMED".into()));
    assert_eq!(by(state::RUNNING, "b"), refused);
    assert_eq!(by(state::CRASHED, "a"), refused);
}

#[test]
fn starts() {
    let by = |state, name| {
        let rows = rows_in(state);
        outcome(&rows, start(&rows, started(name), 9, String::new()))
    };
    let refused = Err(Type::ActualLRPCannotBeStarted);
    assert_eq!(by(state::UNCLAIMED, "b"), Ok("RUNNING".into()));
    assert_eq!(by(state::CLAIMED, "a"), Ok("RUNNING".into()));
    assert_eq!(by(state::CLAIMED, "b"), Ok("RUNNING".into()));
    assert_eq!(by(state::RUNNING, "a"), Ok("as it was".into()));
    assert_eq!(by(state::RUNNING, "b"), refused);
    assert_eq!(by(state::CRASHED, "a"), refused);
}

#[test]
fn a_start_without_a_row_adds_it() {
    let rows = start(&Rows::default(), started("a"), 9, "fresh".into()).unwrap();
    let row = ordinary(&rows);
    assert_eq!((row.state.as_str(), row.since), (state::RUNNING, 9));
    assert_eq!((row.modification_tag.epoch.as_str(), row.modification_tag.index), ("fresh", 0));
}

#[test]
fn a_start_with_news_is_a_change() {
    let rows = rows_in(state::RUNNING);
    let news = Started { routable: false, ..started("a") };
    let after = start(&rows, news, 9, String::new()).unwrap();
    assert_eq!(ordinary(&after).routable, Some(false));
    assert_eq!(ordinary(&after).modification_tag.index, 2);
}

#[test]
fn unclaims() {
    let from = |state| {
        let rows = rows_in(state);
        outcome(&rows, unclaim(&rows, 9))
    };
    assert_eq!(from(state::UNCLAIMED), Ok("as it was".into()));
    for state in [state::CLAIMED, state::RUNNING, state::CRASHED] {
        assert_eq!(from(state), Ok("UNCLAIMED".into()));
    }
}

#[test]
fn crashes() {
    let by = |state, name| {
        let rows = rows_in(state);
        outcome(&rows, crash(&rows, &instance(name), "boom", 9).map(|crashed| crashed.rows))
    };
    let refused = Err(Type::ActualLRPCannotBeCrashed);
    assert_eq!(by(state::UNCLAIMED, "a"), refused);
    assert_eq!(by(state::CLAIMED, "a"), Ok("UNCLAIMED".into()));
    assert_eq!(by(state::CLAIMED, "b"), refused);
    assert_eq!(by(state::RUNNING, "a"), Ok("UNCLAIMED".into()));
    assert_eq!(by(state::RUNNING, "b"), refused);
    assert_eq!(by(state::CRASHED, "a"), refused);
}

#[test]
fn the_third_crash_waits_and_five_minutes_forgive_it() {
    let crashed = ordinary(&rows_in(state::CRASHED)).clone();
    assert_eq!((crashed.state.as_str(), crashed.crash_count), (state::CRASHED, 3));
    assert_eq!(crashed.crash_reason, "boom");
    let rows = unclaim(&rows_in(state::CRASHED), 10).unwrap();
    let rows = start(&rows, started("b"), 11, String::new()).unwrap();
    assert_eq!(ordinary(&rows).crash_count, 3);
    let soon = crash(&rows, &instance("b"), "again", 11 + 300 * SECOND).unwrap();
    assert_eq!((ordinary(&soon.rows).crash_count, soon.restarts), (4, false));
    let late = crash(&rows, &instance("b"), "again", 12 + 300 * SECOND).unwrap();
    assert_eq!((ordinary(&late.rows).crash_count, late.restarts), (1, true));
}

#[test]
fn failures() {
    let from = |state| {
        let rows = rows_in(state);
        outcome(&rows, fail(&rows, "no room", 9))
    };
    assert_eq!(from(state::UNCLAIMED), Ok("UNCLAIMED".into()));
    for state in [state::CLAIMED, state::RUNNING, state::CRASHED] {
        assert_eq!(from(state), Err(Type::ActualLRPCannotBeFailed));
    }
    let failed = fail(&unclaimed(), "no room", 9).unwrap();
    assert_eq!(ordinary(&failed).placement_error, "no room");
    let claimed = claim(&failed, &instance("a"), 10).unwrap();
    assert_eq!(ordinary(&claimed).placement_error, "");
    assert!(fail(&Rows::default(), "no room", 9).unwrap().is_empty());
}

#[test]
fn removals() {
    let rows = rows_in(state::RUNNING);
    assert!(remove(&rows, Some(&instance("b"))).unwrap_err().is(Type::ResourceNotFound));
    assert!(remove(&rows, Some(&instance("a"))).unwrap().is_empty());
    assert!(remove(&rows, None).unwrap().is_empty());
    assert!(remove(&Rows::default(), None).unwrap_err().is(Type::ResourceNotFound));
}

/// Rows with a suspect instance `a` and an ordinary one that waits.
fn suspected() -> Rows {
    suspend(&rows_in(state::RUNNING), 3, "second".into()).unwrap()
}

#[test]
fn a_suspect_instance_serves_until_its_replacement_runs() {
    let rows = suspected();
    assert_eq!(ordinary(&rows).state, state::UNCLAIMED);
    let suspect = rows.suspect.as_ref().unwrap();
    assert_eq!((suspect.state.as_str(), suspect.since), (state::RUNNING, 2));
    // Its cell is heard and ignored.
    let same = start(&rows, started("a"), 9, String::new()).unwrap();
    assert!(Arc::ptr_eq(same.suspect.as_ref().unwrap(), suspect));
    assert_eq!(ordinary(&claim(&rows, &instance("a"), 9).unwrap()).state, state::UNCLAIMED);
    // The replacement ends it.
    let replaced = start(&rows, started("b"), 9, String::new()).unwrap();
    assert!(replaced.suspect.is_none());
    // So does its crash, which is not counted.
    let crashed = crash(&rows, &instance("a"), "boom", 9).unwrap();
    assert!(crashed.rows.suspect.is_none() && !crashed.restarts);
    assert_eq!(ordinary(&crashed.rows).crash_count, 0);
}

#[test]
fn a_suspect_instance_whose_cell_comes_back_is_the_ordinary_one() {
    let rows = promote(&suspected()).unwrap();
    assert!(rows.suspect.is_none());
    assert!(is_same(&ordinary(&rows).actual_lrp_instance_key, &instance("a")));
    assert_eq!(ordinary(&rows).presence, Presence::ORDINARY);
    assert!(promote(&rows).is_none());
}

#[test]
fn a_second_lost_cell_only_gives_up_the_instance() {
    let rows = claim(&suspected(), &instance("b"), 4).unwrap();
    let after = suspend(&rows, 5, "third".into()).unwrap();
    assert_eq!(ordinary(&after).state, state::UNCLAIMED);
    assert!(is_same(&after.suspect.unwrap().actual_lrp_instance_key, &instance("a")));
    assert!(suspend(&unclaimed(), 5, String::new()).is_none());
}

fn evacuate_rolling(rows: &Rows, name: &str) -> Evacuated {
    evacuate(rows, started(name), Evacuee::Rolling, 9, "evacuation".into())
}

#[test]
fn a_running_instance_evacuates_beside_one_that_waits() {
    let done = evacuate_rolling(&rows_in(state::RUNNING), "a");
    assert!(done.keep_container && done.auction);
    assert_eq!(ordinary(&done.rows).state, state::UNCLAIMED);
    let evacuating = done.rows.evacuating.clone().unwrap();
    assert_eq!(evacuating.state, state::RUNNING);
    assert_eq!(evacuating.modification_tag.epoch, "evacuation");
    // Again: nothing changes. By another: it is not kept.
    let again = evacuate_rolling(&done.rows, "a");
    assert!(again.keep_container && !again.auction);
    assert!(Arc::ptr_eq(again.rows.evacuating.as_ref().unwrap(), &evacuating));
    assert!(!evacuate_rolling(&done.rows, "other").keep_container);
    // The replacement ends it, and it is not kept any more.
    let replaced = start(&done.rows, started("b"), 10, String::new()).unwrap();
    assert!(replaced.evacuating.is_none());
    assert!(!evacuate_rolling(&replaced, "a").keep_container);
}

#[test]
fn an_unknown_instance_evacuates_beside_one_that_waits() {
    let done = evacuate_rolling(&unclaimed(), "lost");
    assert!(done.keep_container && !done.auction);
    assert!(done.rows.evacuating.is_some());
    assert!(!evacuate_rolling(&Rows::default(), "lost").keep_container);
}

#[test]
fn a_suspect_instance_becomes_an_evacuating_one() {
    let done = evacuate_rolling(&suspected(), "a");
    assert!(done.keep_container && done.rows.suspect.is_none());
    assert_eq!(done.rows.evacuating.unwrap().presence, Presence::EVACUATING);
}

#[test]
fn with_recreate_an_instance_goes_once_all_run() {
    let by = |complete| {
        let evacuee = Evacuee::Recreate { complete };
        evacuate(&rows_in(state::RUNNING), started("a"), evacuee, 9, String::new())
    };
    let goes = by(true);
    assert!(!goes.keep_container && goes.auction && goes.rows.evacuating.is_none());
    assert_eq!(ordinary(&goes.rows).state, state::UNCLAIMED);
    let waits = by(false);
    assert!(waits.keep_container && !waits.auction);
    assert_eq!(ordinary(&waits.rows).state, state::RUNNING);
}

#[test]
fn other_evacuations() {
    let claimed = evacuate_claimed(&rows_in(state::CLAIMED), &instance("a"), 9).unwrap();
    assert!(claimed.auction && !claimed.keep_container);
    assert_eq!(ordinary(&claimed.rows).state, state::UNCLAIMED);
    let foreign = evacuate_claimed(&rows_in(state::RUNNING), &instance("b"), 9).unwrap_err();
    assert!(foreign.is(Type::ActualLRPCannotBeUnclaimed));
    let none = evacuate_claimed(&Rows::default(), &instance("a"), 9).unwrap_err();
    assert!(none.is(Type::ResourceNotFound));

    let crashed = evacuate_crashed(&rows_in(state::RUNNING), &instance("a"), "boom", 9).unwrap();
    assert!(!crashed.auction);
    assert_eq!(ordinary(&crashed.rows).crash_count, 1);

    let stopped = evacuate_stopped(&rows_in(state::RUNNING), &instance("a")).unwrap();
    assert!(stopped.rows.is_empty());
    let again = evacuate_stopped(&stopped.rows, &instance("a")).unwrap_err();
    assert!(again.is(Type::ResourceNotFound));

    let evacuating = evacuate_rolling(&rows_in(state::RUNNING), "a").rows;
    assert!(remove_evacuating(&evacuating, &instance("b")).is_err());
    assert!(remove_evacuating(&evacuating, &instance("a")).unwrap().evacuating.is_none());
}

fn kinds(before: &Rows, after: &Rows) -> Vec<&'static str> {
    changes::events(before, after, "").iter().map(|event| event.kind().name()).collect()
}

#[test]
fn events_tell_of_instances() {
    let waits = unclaimed();
    let runs = rows_in(state::RUNNING);
    assert_eq!(kinds(&waits, &runs), ["actual_lrp_instance_changed"]);
    let crashed = crash(&runs, &instance("a"), "boom", 9).unwrap().rows;
    assert_eq!(
        kinds(&runs, &crashed),
        ["actual_lrp_crashed", "actual_lrp_instance_created", "actual_lrp_instance_removed"]
    );
    let claimed = rows_in(state::CLAIMED);
    let third = ActualLRP { crash_count: 2, ..ordinary(&claimed).clone() };
    let third = claimed.with_ordinary(third);
    let waiting = crash(&third, &instance("a"), "boom", 9).unwrap().rows;
    assert_eq!(kinds(&third, &waiting), ["actual_lrp_crashed", "actual_lrp_instance_changed"]);
    let again = unclaim(&waiting, 10).unwrap();
    assert_eq!(
        kinds(&waiting, &again),
        ["actual_lrp_instance_created", "actual_lrp_instance_removed"]
    );
    let evacuates = evacuate_rolling(&runs, "a").rows;
    assert_eq!(
        kinds(&runs, &evacuates),
        ["actual_lrp_instance_changed", "actual_lrp_instance_created"]
    );
    let replaced = start(&evacuates, started("b"), 10, String::new()).unwrap();
    assert_eq!(
        kinds(&evacuates, &replaced),
        ["actual_lrp_instance_changed", "actual_lrp_instance_removed"]
    );
    let suspect = suspend(&runs, 10, "x".into()).unwrap();
    assert_eq!(
        kinds(&runs, &suspect),
        ["actual_lrp_instance_changed", "actual_lrp_instance_created"]
    );
    let promoted = promote(&suspect).unwrap();
    assert_eq!(
        kinds(&suspect, &promoted),
        ["actual_lrp_instance_changed", "actual_lrp_instance_removed"]
    );
    assert_eq!(kinds(&runs, &runs), [""; 0]);
}

/// One call of the many that may come.
#[derive(Clone, Debug)]
enum Call {
    Claim(&'static str),
    Start(&'static str, bool),
    Crash(&'static str),
    Fail,
    Unclaim,
    Remove(Option<&'static str>),
    Suspend,
    Promote,
    EvacuateRunning(&'static str, Evacuee),
    EvacuateClaimed(&'static str),
    EvacuateStopped(&'static str),
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        name().prop_map(Call::Claim),
        (name(), any::<bool>()).prop_map(|(name, routable)| Call::Start(name, routable)),
        name().prop_map(Call::Crash),
        Just(Call::Fail),
        Just(Call::Unclaim),
        prop::option::of(name()).prop_map(Call::Remove),
        Just(Call::Suspend),
        Just(Call::Promote),
        (name(), any::<bool>()).prop_map(|(name, complete)| {
            Call::EvacuateRunning(name, Evacuee::Recreate { complete })
        }),
        name().prop_map(|name| Call::EvacuateRunning(name, Evacuee::Rolling)),
        name().prop_map(Call::EvacuateClaimed),
        name().prop_map(Call::EvacuateStopped),
    ]
}

fn apply(rows: &Rows, call: Call, now: i64) -> Rows {
    let epoch = format!("epoch-{now}");
    let done = match call {
        Call::Claim(name) => claim(rows, &instance(name), now),
        Call::Start(name, routable) => {
            start(rows, Started { routable, ..started(name) }, now, epoch)
        }
        Call::Crash(name) => crash(rows, &instance(name), "boom", now).map(|crashed| crashed.rows),
        Call::Fail => fail(rows, "no room", now),
        Call::Unclaim => unclaim(rows, now),
        Call::Remove(name) => remove(rows, name.map(instance).as_ref()),
        Call::Suspend => Ok(suspend(rows, now, epoch).unwrap_or_else(|| rows.clone())),
        Call::Promote => Ok(promote(rows).unwrap_or_else(|| rows.clone())),
        Call::EvacuateRunning(name, evacuee) => {
            Ok(evacuate(rows, started(name), evacuee, now, epoch).rows)
        }
        Call::EvacuateClaimed(name) => {
            evacuate_claimed(rows, &instance(name), now).map(|done| done.rows)
        }
        Call::EvacuateStopped(name) => {
            evacuate_stopped(rows, &instance(name)).map(|done| done.rows)
        }
    };
    done.unwrap_or_else(|_| rows.clone())
}

/// What a row must look like in its state.
fn check(presence: Presence, row: &ActualLRP) {
    let (instance, net_info) = (&row.actual_lrp_instance_key, &row.actual_lrp_net_info);
    assert_eq!(row.presence, presence);
    assert!(row.since > 0 && row.routable.is_some() && instance.is_set() && net_info.is_set());
    let reachable = !net_info.address.is_empty();
    match row.state.as_str() {
        state::UNCLAIMED => assert!(instance.is_empty() && !reachable),
        state::CLAIMED => {
            assert!(!instance.is_empty() && !reachable && row.placement_error.is_empty())
        }
        state::RUNNING => {
            assert!(!instance.is_empty() && reachable && row.placement_error.is_empty())
        }
        state::CRASHED => assert!(instance.is_empty() && !reachable && row.crash_count >= 3),
        other => panic!("{other}"),
    }
    assert!(presence == Presence::ORDINARY || !instance.is_empty());
}

/// What a subscriber holds who takes every event into account.
fn listen(held: &mut Vec<ActualLRP>, events: Vec<Event>) {
    let same = |one: &ActualLRP, key: &ActualLRPInstanceKey, presence| {
        is_same(&one.actual_lrp_instance_key, key) && one.presence == presence
    };
    for event in events {
        match event {
            Event::ActualLRPInstanceCreated(event) => held.push((*event.actual_lrp).clone()),
            Event::ActualLRPInstanceRemoved(event) => {
                let gone = &event.actual_lrp;
                let at = held.iter().position(|row| {
                    row.modification_tag == gone.modification_tag && row.presence == gone.presence
                });
                held.remove(at.expect("what is removed was there"));
            }
            Event::ActualLRPInstanceChanged(event) => {
                let at = held.iter().position(|row| {
                    row.modification_tag == event.before.modification_tag
                        && row.presence == event.before.presence
                });
                let row = &mut held[at.expect("what changes was there")];
                row.state = event.after.state.clone();
                row.presence = event.after.presence;
                row.modification_tag = event.after.modification_tag.clone();
                let vacant = matches!(row.state.as_str(), state::UNCLAIMED | state::CRASHED);
                row.actual_lrp_instance_key = match vacant {
                    true => ActualLRPInstanceKey::default().into(),
                    false => event.actual_lrp_instance_key.clone(),
                };
                assert!(vacant || same(row, &event.actual_lrp_instance_key, row.presence));
            }
            Event::ActualLRPCrashed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_calls_keeps_rows_valid_and_subscribers_right(
        calls in prop::collection::vec(call(), 1..40),
    ) {
        let mut rows = unclaimed();
        let mut held: Vec<ActualLRP> = rows.iter().map(|row| (**row).clone()).collect();
        for (step, call) in calls.into_iter().enumerate() {
            let now = 10 + i64::try_from(step).unwrap();
            let after = apply(&rows, call, now);
            for row in after.iter() {
                check(row.presence.as_known().unwrap(), row);
            }
            listen(&mut held, changes::events(&rows, &after, ""));
            let view = |row: &ActualLRP| {
                (row.presence.to_i32(), row.state.clone(), row.actual_lrp_instance_key.instance_guid.clone())
            };
            let mut seen: Vec<_> = held.iter().map(view).collect();
            let mut there: Vec<_> = after.iter().map(|row| view(row)).collect();
            seen.sort();
            there.sort();
            prop_assert_eq!(seen, there);
            rows = after;
        }
    }
}

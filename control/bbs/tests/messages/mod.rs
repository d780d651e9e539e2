//! Messages as text, without what differs from run to run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::*;

/// Takes out of a message what differs from run to run.
trait Plain: Message + std::fmt::Debug {
    fn plain(&mut self, _: &Names<'_>) {}
}

/// The receiver of callbacks as it is named in a message, and as it is to be named.
struct Names<'a> {
    from: &'a str,
    to: &'a str,
}

fn time(time: &mut i64) {
    *time = (*time).min(1);
}

fn tag<P: buffa::ProtoBox<ModificationTag>>(tag: &mut MessageField<ModificationTag, P>) {
    if let Some(tag) = tag.as_option_mut() {
        tag.epoch = if tag.epoch.is_empty() { "" } else { "epoch" }.into();
    }
}

fn actual(lrp: &mut ActualLRP) {
    time(&mut lrp.since);
    tag(&mut lrp.modification_tag);
}

fn info(info: &mut ActualLRPInfo) {
    time(&mut info.since);
    tag(&mut info.modification_tag);
}

fn task(task: &mut Task, names: &Names<'_>) {
    for at in [&mut task.created_at, &mut task.updated_at, &mut task.first_completed_at] {
        time(at);
    }
    if let Some(definition) = task.task_definition.as_option_mut() {
        let url = &mut definition.completion_callback_url;
        *url = url.replace(names.from, names.to);
    }
}

fn group(group: &mut ActualLRPGroup) {
    group.instance.as_option_mut().into_iter().for_each(actual);
    group.evacuating.as_option_mut().into_iter().for_each(actual);
}

macro_rules! plain {
    ($($message:ident $(|$it:ident, $names:ident| $make:block)?)*) => {
        $(impl Plain for $message {
            $(fn plain(&mut self, $names: &Names<'_>) {
                let $it = self;
                $make
            })?
        })*

        /// A message of this name as text.
        pub fn plain(name: &str, bytes: &[u8], from: &str, to: &str) -> String {
            let names = Names { from, to };
            match name {
                $(stringify!($message) => text::<$message>(bytes, &names),)*
                other => panic!("no message is called {other}"),
            }
        }
    };
}

fn text<M: Plain>(bytes: &[u8], names: &Names<'_>) -> String {
    match M::decode_from_slice(bytes) {
        Ok(mut message) => {
            message.plain(names);
            // Whether a message is absent or empty only its bytes tell.
            let bytes = STANDARD.encode(message.encode_to_vec());
            format!("{message:?} {bytes}")
        }
        Err(error) => format!("{error}: {bytes:?}"),
    }
}

plain! {
    PingResponse DomainsResponse UpsertDomainResponse DesiredLRPLifecycleResponse
    TaskLifecycleResponse StartTaskResponse ActualLRPLifecycleResponse EvacuationResponse
    RemoveEvacuatingActualLRPResponse
    CellsResponse |it, _names| {
        for cell in &mut it.cells {
            cell.rep_url = cell.cell_id.clone();
        }
        it.cells.sort_by(|one, other| one.cell_id.cmp(&other.cell_id));
    }
    ActualLRPsResponse |it, _names| {
        it.actual_lrps.iter_mut().for_each(actual);
        it.actual_lrps.sort_by_key(place);
    }
    ActualLRPsByProcessGuidsResponse |it, _names| {
        it.actual_lrps.iter_mut().for_each(actual);
        it.actual_lrps.sort_by_key(place);
    }
    ActualLRPGroupsResponse |it, _names| {
        it.actual_lrp_groups.iter_mut().for_each(group);
        it.actual_lrp_groups.sort_by_key(|group| (place(&group.instance), place(&group.evacuating)));
    }
    ActualLRPGroupResponse |it, _names| { it.actual_lrp_group.as_option_mut().into_iter().for_each(group); }
    DesiredLRPResponse |it, _names| {
        it.desired_lrp.as_option_mut().into_iter().for_each(|lrp| tag(&mut lrp.modification_tag));
    }
    DesiredLRPsResponse |it, _names| {
        it.desired_lrps.iter_mut().for_each(|lrp| tag(&mut lrp.modification_tag));
        it.desired_lrps.sort_by(|one, other| one.process_guid.cmp(&other.process_guid));
    }
    DesiredLRPSchedulingInfosResponse |it, _names| {
        it.desired_lrp_scheduling_infos.iter_mut().for_each(|info| tag(&mut info.modification_tag));
        it.desired_lrp_scheduling_infos.sort_by(|one, other| {
            one.desired_lrp_key.process_guid.cmp(&other.desired_lrp_key.process_guid)
        });
    }
    DesiredLRPSchedulingInfoByProcessGuidResponse |it, _names| {
        if let Some(info) = it.desired_lrp_scheduling_info.as_option_mut() {
            tag(&mut info.modification_tag);
        }
    }
    TaskResponse |it, names| {
        if let Some(it) = it.task.as_option_mut() {
            task(it, names);
        }
    }
    TasksResponse |it, names| {
        it.tasks.iter_mut().for_each(|it| task(it, names));
        it.tasks.sort_by(|one, other| one.task_guid.cmp(&other.task_guid));
    }
}

fn place(lrp: &ActualLRP) -> (String, i32, i32) {
    let key = &lrp.actual_lrp_key;
    (key.process_guid.clone(), key.index, lrp.presence.to_i32())
}

/// An event of a stream as text.
pub fn event(text: &str, from: &str, to: &str) -> String {
    let names = Names { from, to };
    let mut lines = text.trim_end().lines();
    let mut next = |start: &str| {
        let line = lines.next().unwrap_or_default();
        line.strip_prefix(start).unwrap_or_else(|| panic!("{line:?} in {text:?}")).to_owned()
    };
    let (_, kind, data) = (next("id: "), next("event: "), next("data: "));
    assert!(lines.next().is_none(), "{text:?}");
    let bytes = STANDARD.decode(data).unwrap();
    let mut event = Event::decode(kind.parse().unwrap(), &bytes).unwrap();
    match &mut event {
        Event::DesiredLRPCreated(it) => desired(&mut it.desired_lrp),
        Event::DesiredLRPRemoved(it) => desired(&mut it.desired_lrp),
        Event::DesiredLRPChanged(it) => {
            desired(&mut it.before);
            desired(&mut it.after);
        }
        Event::ActualLRPInstanceCreated(it) => {
            it.actual_lrp.as_option_mut().into_iter().for_each(actual);
        }
        Event::ActualLRPInstanceRemoved(it) => {
            it.actual_lrp.as_option_mut().into_iter().for_each(actual);
        }
        Event::ActualLRPInstanceChanged(it) => {
            it.before.as_option_mut().into_iter().for_each(info);
            it.after.as_option_mut().into_iter().for_each(info);
        }
        Event::ActualLRPCrashed(it) => time(&mut it.since),
        Event::TaskCreated(it) => {
            it.task.as_option_mut().into_iter().for_each(|it| task(it, &names));
        }
        Event::TaskRemoved(it) => {
            it.task.as_option_mut().into_iter().for_each(|it| task(it, &names));
        }
        Event::TaskChanged(it) => {
            it.before.as_option_mut().into_iter().for_each(|it| task(it, &names));
            it.after.as_option_mut().into_iter().for_each(|it| task(it, &names));
        }
        Event::ActualLRPGroupCreated(it) => {
            it.actual_lrp_group.as_option_mut().into_iter().for_each(group);
        }
        Event::ActualLRPGroupRemoved(it) => {
            it.actual_lrp_group.as_option_mut().into_iter().for_each(group);
        }
        Event::ActualLRPGroupChanged(it) => {
            it.before.as_option_mut().into_iter().for_each(group);
            it.after.as_option_mut().into_iter().for_each(group);
        }
    }
    let bytes = STANDARD.encode(event.encode());
    format!("{event:?} {bytes}")
}

fn desired<P: buffa::ProtoBox<DesiredLRP>>(lrp: &mut MessageField<DesiredLRP, P>) {
    if let Some(lrp) = lrp.as_option_mut() {
        tag(&mut lrp.modification_tag);
    }
}

//! Answers that hold many records, encoded record by record, and the forms of older clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::{
    ActualLRP, ActualLRPGroup, DesiredLRP, EvacuateRunningActualLRPRequest, Message,
    StartActualLRPRequest,
};
use bytes::{BufMut, Bytes, BytesMut};

use crate::desired::Desired;

/// A message whose only field is `number`, repeated for each record's bytes.
pub(crate) fn encoded<'a>(number: u8, records: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut answer = BytesMut::new();
    for record in records {
        put(&mut answer, number, record);
    }
    answer.freeze()
}

/// The same of messages.
pub(crate) fn messages<'a, M: Message + 'a>(
    number: u8,
    records: impl IntoIterator<Item = &'a M>,
) -> Bytes {
    let mut answer = BytesMut::new();
    for record in records {
        put(&mut answer, number, &record.encode_to_bytes());
    }
    answer.freeze()
}

/// Tag (field numbers below 16), length and bytes.
fn put(answer: &mut BytesMut, number: u8, record: &Bytes) {
    answer.put_u8(number << 3 | 2);
    buffa::encoding::encode_varint(record.len() as u64, answer);
    answer.extend_from_slice(record);
}

/// What routing needs to know of each.
pub(crate) fn routing_infos(all: &[Arc<Desired>]) -> Bytes {
    let mut answer = BytesMut::new();
    for desired in all {
        let lrp = desired.lrp();
        let info = DesiredLRP {
            process_guid: lrp.process_guid,
            domain: lrp.domain,
            log_guid: lrp.log_guid,
            instances: lrp.instances,
            routes: lrp.routes,
            modification_tag: lrp.modification_tag,
            metric_tags: lrp.metric_tags,
            ..DesiredLRP::default()
        };
        put(&mut answer, 2, &info.encode_to_bytes());
    }
    answer.freeze()
}

/// Rows of one index as the oldest clients know them: an instance and one that evacuates. Of an
/// ordinary and a suspect row they see the one that serves.
pub(crate) fn groups(rows: &[Arc<ActualLRP>]) -> Vec<ActualLRPGroup> {
    let mut groups: BTreeMap<(&str, i32), ActualLRPGroup> = BTreeMap::new();
    for row in rows {
        let key = &row.actual_lrp_key;
        let group = groups.entry((&key.process_guid, key.index)).or_default();
        if row.presence == Presence::EVACUATING {
            group.evacuating = ActualLRP::clone(row).into();
        } else if row.presence == Presence::ORDINARY
            || group.instance.state != bbs_models::state::RUNNING
        {
            let serves = group.instance.state == bbs_models::state::RUNNING;
            if row.state == bbs_models::state::RUNNING || !serves {
                group.instance = ActualLRP::clone(row).into();
            }
        }
    }
    groups.into_values().collect()
}

/// A cell from before readiness: what runs is routable, and has neither routes inside nor tags.
pub(crate) fn old_start(request: StartActualLRPRequest) -> StartActualLRPRequest {
    StartActualLRPRequest {
        actual_lrp_internal_routes: Vec::new(),
        metric_tags: BTreeMap::new(),
        routable: Some(true),
        ..request
    }
}

/// The same, of an evacuation.
pub(crate) fn old_evacuation(
    request: EvacuateRunningActualLRPRequest,
) -> EvacuateRunningActualLRPRequest {
    EvacuateRunningActualLRPRequest {
        actual_lrp_internal_routes: Vec::new(),
        metric_tags: BTreeMap::new(),
        routable: Some(true),
        ..request
    }
}

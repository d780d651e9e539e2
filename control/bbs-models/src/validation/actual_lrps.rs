//! Actual LRPs' keys and the requests about them.

use buffa::{MessageField, ProtoBox};

use super::{Problems, Validate, is_guid};
use crate::generated::models::{
    ActualLRPGroupByProcessGuidAndIndexRequest, ActualLRPGroupsByProcessGuidRequest,
    ActualLRPGroupsRequest, ActualLRPInstanceKey, ActualLRPKey, ActualLRPNetInfo,
    ActualLRPsByProcessGuidsRequest, ActualLRPsRequest, ClaimActualLRPRequest,
    CrashActualLRPRequest, EvacuateClaimedActualLRPRequest, EvacuateCrashedActualLRPRequest,
    EvacuateRunningActualLRPRequest, EvacuateStoppedActualLRPRequest, EventsByCellId,
    FailActualLRPRequest, RemoveActualLRPRequest, RemoveEvacuatingActualLRPRequest,
    RetireActualLRPRequest, StartActualLRPRequest,
};

impl Validate for ActualLRPKey {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(!is_guid(&self.process_guid), "process_guid");
        problems.invalid_if(self.index < 0, "index");
        problems.invalid_if(self.domain.is_empty(), "domain");
    }
}

impl Validate for ActualLRPInstanceKey {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.cell_id.is_empty(), "cell_id");
        problems.invalid_if(self.instance_guid.is_empty(), "instance_guid");
    }
}

impl Validate for ActualLRPNetInfo {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.address.is_empty(), "address");
    }
}

/// A required part: its own problems are named without the part's name before them.
fn check_part<T: Validate + Default + buffa::DefaultInstance, P: ProtoBox<T>>(
    field: &str,
    part: &MessageField<T, P>,
    problems: &mut Problems,
) {
    match part.as_option() {
        None => problems.invalid(field),
        Some(part) => part.check(problems),
    }
}

macro_rules! check_keys {
    ($request:ident, $problems:ident) => {
        check_part("actual_lrp_key", &$request.actual_lrp_key, $problems);
        check_part("actual_lrp_instance_key", &$request.actual_lrp_instance_key, $problems);
    };
}

impl Validate for ClaimActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
        check_part("actual_lrp_instance_key", &self.actual_lrp_instance_key, problems);
    }
}

impl Validate for StartActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
        check_part("actual_lrp_net_info", &self.actual_lrp_net_info, problems);
    }
}

impl Validate for CrashActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
    }
}

impl Validate for FailActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_part("actual_lrp_key", &self.actual_lrp_key, problems);
        problems.invalid_if(self.error_message.is_empty(), "error_message");
    }
}

impl Validate for RetireActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_part("actual_lrp_key", &self.actual_lrp_key, problems);
    }
}

impl Validate for RemoveActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
    }
}

impl Validate for EvacuateClaimedActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
    }
}

impl Validate for EvacuateRunningActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
        check_part("actual_lrp_net_info", &self.actual_lrp_net_info, problems);
    }
}

impl Validate for EvacuateStoppedActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
    }
}

impl Validate for EvacuateCrashedActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
        problems.invalid_if(self.error_message.is_empty(), "error_message");
    }
}

impl Validate for RemoveEvacuatingActualLRPRequest {
    fn check(&self, problems: &mut Problems) {
        check_keys!(self, problems);
    }
}

impl Validate for ActualLRPsByProcessGuidsRequest {
    fn check(&self, problems: &mut Problems) {
        if self.process_guids.is_empty() {
            problems.say("process_guids must not be empty");
        }
    }
}

impl Validate for ActualLRPGroupsByProcessGuidRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
    }
}

impl Validate for ActualLRPGroupByProcessGuidAndIndexRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
        problems.invalid_if(self.index < 0, "index");
    }
}

impl Validate for ActualLRPGroupsRequest {
    fn check(&self, _: &mut Problems) {}
}

impl Validate for ActualLRPsRequest {
    fn check(&self, _: &mut Problems) {}
}

impl Validate for EventsByCellId {
    fn check(&self, _: &mut Problems) {}
}

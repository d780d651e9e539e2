//! What everybody who handles actual LRPs needs: keys, states and the order of tags.

use crate::generated::models::{
    ActualLRP, ActualLRPInfo, ActualLRPInstanceKey, ActualLRPKey, ModificationTag,
};

/// The states of an actual LRP, as they stand on the wire.
pub mod state {
    /// Waits for a cell.
    pub const UNCLAIMED: &str = "UNCLAIMED";
    /// A cell makes its container.
    pub const CLAIMED: &str = "CLAIMED";
    /// Its container passed the startup check.
    pub const RUNNING: &str = "RUNNING";
    /// Crashed too often to be restarted at once.
    pub const CRASHED: &str = "CRASHED";
}

impl ActualLRPKey {
    /// Names an instance of a process by its index.
    pub fn new(process_guid: impl Into<String>, index: i32, domain: impl Into<String>) -> Self {
        Self { process_guid: process_guid.into(), index, domain: domain.into(), ..Self::default() }
    }
}

impl ActualLRPInstanceKey {
    /// Names one run of an instance, on one cell.
    pub fn new(instance_guid: impl Into<String>, cell_id: impl Into<String>) -> Self {
        Self { instance_guid: instance_guid.into(), cell_id: cell_id.into(), ..Self::default() }
    }

    /// No instance: neither guid nor cell.
    pub fn is_empty(&self) -> bool {
        self.instance_guid.is_empty() && self.cell_id.is_empty()
    }
}

impl ActualLRP {
    /// All but the keys, as the event of a change tells it.
    pub fn info(&self) -> ActualLRPInfo {
        ActualLRPInfo {
            actual_lrp_net_info: self.actual_lrp_net_info.clone(),
            crash_count: self.crash_count,
            crash_reason: self.crash_reason.clone(),
            state: self.state.clone(),
            placement_error: self.placement_error.clone(),
            since: self.since,
            modification_tag: self.modification_tag.clone(),
            presence: self.presence,
            routable: self.routable,
            availability_zone: self.availability_zone.clone(),
            ..ActualLRPInfo::default()
        }
    }
}

impl ModificationTag {
    /// Whether `self`, when it is held, is to be replaced by what carries `other`.
    pub fn succeeded_by(&self, other: &Self) -> bool {
        self.epoch.is_empty()
            || other.epoch.is_empty()
            || self.epoch != other.epoch
            || self.index < other.index
    }

    /// The tag of the next write.
    pub fn increment(&mut self) {
        self.index = self.index.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(epoch: &str, index: u32) -> ModificationTag {
        ModificationTag { epoch: epoch.into(), index, ..Default::default() }
    }

    #[test]
    fn a_tag_is_succeeded_within_its_epoch_by_higher_indices_only() {
        assert!(tag("a", 1).succeeded_by(&tag("a", 2)));
        assert!(!tag("a", 2).succeeded_by(&tag("a", 2)));
        assert!(!tag("a", 3).succeeded_by(&tag("a", 2)));
    }

    #[test]
    fn a_tag_is_succeeded_by_every_other_epoch_and_by_none() {
        assert!(tag("a", 9).succeeded_by(&tag("b", 0)));
        assert!(tag("", 9).succeeded_by(&tag("a", 0)));
        assert!(tag("a", 9).succeeded_by(&tag("", 0)));
    }
}

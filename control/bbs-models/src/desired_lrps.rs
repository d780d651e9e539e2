//! The partial views of a desired LRP, and what follows from its guid.

use crate::generated::models::{
    DesiredLRP, DesiredLRPKey, DesiredLRPResource, DesiredLRPSchedulingInfo, VolumePlacement,
};

/// The first five dash-separated parts of a process guid: the app's guid when the Cloud Controller
/// made the process guid, which is app guid and version joined by a dash.
pub fn app_guid(process_guid: &str) -> &str {
    match process_guid.match_indices('-').nth(4) {
        Some((end, _)) => &process_guid[..end],
        None => process_guid,
    }
}

impl DesiredLRP {
    /// The app guid that the original reads out of the process guid.
    pub fn app_guid(&self) -> &str {
        app_guid(&self.process_guid)
    }

    /// Identity alone.
    pub fn key(&self) -> DesiredLRPKey {
        DesiredLRPKey {
            process_guid: self.process_guid.clone(),
            domain: self.domain.clone(),
            log_guid: self.log_guid.clone(),
            ..DesiredLRPKey::default()
        }
    }

    /// What a placement needs to know, as `desired_lrp_scheduling_infos` lists it.
    pub fn scheduling_info(&self) -> DesiredLRPSchedulingInfo {
        DesiredLRPSchedulingInfo {
            desired_lrp_key: self.key().into(),
            annotation: self.annotation.clone(),
            instances: self.instances,
            desired_lrp_resource: DesiredLRPResource {
                memory_mb: self.memory_mb,
                disk_mb: self.disk_mb,
                root_fs: self.root_fs.clone(),
                max_pids: self.max_pids,
                ..DesiredLRPResource::default()
            }
            .into(),
            routes: self.routes.clone(),
            modification_tag: self.modification_tag.clone(),
            volume_placement: VolumePlacement {
                driver_names: self.volume_drivers(),
                ..VolumePlacement::default()
            }
            .into(),
            placement_tags: self.placement_tags.clone(),
            ..DesiredLRPSchedulingInfo::default()
        }
    }

    /// The drivers that a cell must have, one per mount.
    pub fn volume_drivers(&self) -> Vec<String> {
        self.volume_mounts.iter().map(|mount| mount.driver.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::app_guid;

    #[test]
    fn an_app_guid_is_the_first_five_parts() {
        assert_eq!(app_guid("a-b-c-d-e-v-w"), "a-b-c-d-e");
        assert_eq!(app_guid("a-b-c-d-e"), "a-b-c-d-e");
        assert_eq!(app_guid("short"), "short");
    }
}

//! What the rep writes on its containers, to know them again: their tags, named as the original
//! names them. They outlive the rep, at Garden.

use std::collections::BTreeMap;

use bbs_models::{ActualLRPInstanceKey, ActualLRPKey};
use executor::Container;
use rep_api::{List, PlacementConstraint};
use transport::TraceId;

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An instance of a process.
    Lrp {
        /// The process.
        process_guid: String,
        /// Which of its instances.
        index: i32,
    },
    /// A task.
    Task,
}

/// The tags of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Whose it is.
    pub owner: Owner,
    /// Of the LRP or task.
    pub domain: String,
    /// What was asked for at the auction.
    pub placement: PlacementConstraint,
    /// Of the request that brought the work.
    pub trace: TraceId,
}

const LIFECYCLE: &str = "lifecycle";
const DOMAIN: &str = "domain";
const PROCESS_GUID: &str = "process-guid";
const PROCESS_INDEX: &str = "process-index";
const INSTANCE_GUID: &str = "instance-guid";
const PLACEMENT_TAGS: &str = "placement-tags";
const VOLUME_DRIVERS: &str = "volume-drivers";
const ROOT_FS: &str = "root-fs";
const TRACE: &str = "trace-id";

impl Label {
    /// As the tags of the container `guid`.
    pub fn write(&self, guid: &str) -> BTreeMap<String, String> {
        let list = |list: &List<String>| serde_json::to_string(list).unwrap_or_default();
        let mut tags = BTreeMap::from([
            (DOMAIN.to_owned(), self.domain.clone()),
            (PLACEMENT_TAGS.to_owned(), list(&self.placement.placement_tags)),
            (VOLUME_DRIVERS.to_owned(), list(&self.placement.volume_drivers)),
            (ROOT_FS.to_owned(), self.placement.root_fs.clone()),
            (TRACE.to_owned(), self.trace.to_string()),
        ]);
        let lifecycle = match &self.owner {
            Owner::Lrp { process_guid, index } => {
                tags.insert(PROCESS_GUID.into(), process_guid.clone());
                tags.insert(PROCESS_INDEX.into(), index.to_string());
                tags.insert(INSTANCE_GUID.into(), guid.to_owned());
                "lrp"
            }
            Owner::Task => "task",
        };
        tags.insert(LIFECYCLE.into(), lifecycle.into());
        tags
    }

    /// The label of a container; none if the rep has not made it.
    pub fn of(container: &Container) -> Option<Self> {
        let tag = |name: &str| container.tags.get(name).cloned();
        let list = |name: &str| {
            tag(name).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or(List::NULL)
        };
        let owner = match tag(LIFECYCLE)?.as_str() {
            "lrp" => Owner::Lrp {
                process_guid: tag(PROCESS_GUID)?,
                index: tag(PROCESS_INDEX)?.parse().ok()?,
            },
            "task" => Owner::Task,
            _ => return None,
        };
        Some(Self {
            owner,
            domain: tag(DOMAIN)?,
            placement: PlacementConstraint {
                placement_tags: list(PLACEMENT_TAGS),
                volume_drivers: list(VOLUME_DRIVERS),
                root_fs: tag(ROOT_FS).unwrap_or_default(),
            },
            trace: TraceId::from(tag(TRACE).unwrap_or_default().as_str()),
        })
    }
}

/// An instance of a process, as the BBS knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Which place in its process it has.
    pub key: ActualLRPKey,
    /// Which run of it, and where.
    pub instance: ActualLRPInstanceKey,
}

#[cfg(test)]
mod tests {
    use executor::Resource;

    use super::*;

    #[test]
    fn labels_are_read_as_they_were_written() {
        let placement = PlacementConstraint {
            placement_tags: List::NULL,
            volume_drivers: List::EMPTY,
            root_fs: "preloaded:cflinuxfs4".into(),
        };
        for owner in [Owner::Lrp { process_guid: "web".into(), index: 3 }, Owner::Task] {
            let label = Label {
                owner,
                domain: "cf-apps".into(),
                placement: placement.clone(),
                trace: TraceId::from("b3f1"),
            };
            let tags = label.write("guid");
            let container = Container::reserved("guid".into(), tags, Resource::default());
            let read = Label::of(&container).unwrap();
            assert_eq!(read, label);
            // In answers they are told apart.
            let json = serde_json::to_string(&read.placement).unwrap();
            assert!(json.contains(r#""PlacementTags":null,"VolumeDrivers":[]"#), "{json}");
        }
        let strange = Container::reserved("x".into(), BTreeMap::new(), Resource::default());
        assert_eq!(Label::of(&strange), None);
    }
}

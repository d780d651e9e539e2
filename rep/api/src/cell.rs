//! A cell's answer to `GET /state`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::placement::root_fs_parts;
use crate::{List, Lrp, RootFsProvider, Task};

/// What a cell has, and what runs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CellState {
    /// The cell's address on the network.
    #[serde(rename = "rep_url")]
    pub rep_url: String,
    /// The cell.
    #[serde(rename = "cell_id")]
    pub cell_id: String,
    /// Its number, by which bin packing orders cells.
    #[serde(rename = "cell_index")]
    pub cell_index: i32,
    /// Its root file systems by URL scheme.
    #[serde(rename = "RootFSProviders")]
    pub root_fs_providers: BTreeMap<String, RootFsProvider>,
    /// What is left.
    pub available_resources: Resources,
    /// What it has in all.
    pub total_resources: Resources,
    /// Its instances, ended ones included.
    #[serde(rename = "LRPs")]
    pub lrps: List<Lrp>,
    /// Its tasks.
    pub tasks: List<Task>,
    /// Containers that do not run yet.
    pub starting_container_count: i32,
    /// Its availability zone.
    pub zone: String,
    /// Whether it takes no more work.
    pub evacuating: bool,
    /// Its volume drivers.
    pub volume_drivers: List<String>,
    /// Tags that work must name to come here, all of them.
    pub placement_tags: List<String>,
    /// Tags that work may name.
    pub optional_placement_tags: List<String>,
    /// What each instance takes for its proxy, in MiB.
    #[serde(rename = "ProxyMemoryAllocationMB")]
    pub proxy_memory_allocation_mb: i32,
}

/// Memory, disk and containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory in MiB.
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i32,
    /// Disk in MiB.
    #[serde(rename = "DiskMB")]
    pub disk_mb: i32,
    /// A number of containers.
    #[serde(rename = "Containers")]
    pub containers: i32,
}

impl CellState {
    /// Whether it has the root file system of this URL.
    pub fn has_root_fs(&self, url: &str) -> bool {
        root_fs_parts(url).is_some_and(|(scheme, name)| {
            self.root_fs_providers.get(scheme).is_some_and(|provider| provider.has(name))
        })
    }

    /// Whether it has all these volume drivers.
    pub fn has_volume_drivers(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|driver| self.volume_drivers.contains(driver))
    }

    /// Whether work that names these tags may come here: all of the cell's own, and none that it
    /// does not know.
    pub fn admits(&self, wanted: &[String]) -> bool {
        self.placement_tags.iter().all(|tag| wanted.contains(tag))
            && wanted.iter().all(|tag| {
                self.placement_tags.contains(tag) || self.optional_placement_tags.contains(tag)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn tags_admit_who_names_all_required_and_no_unknown_ones() {
        for (required, optional, wanted, admitted) in [
            ("", "", "", true),
            ("", "", "a", false),
            ("a", "", "", false),
            ("a", "", "a", true),
            ("a b", "", "a", false),
            ("a", "b", "a", true),
            ("a", "b", "a b", true),
            ("a", "b", "b", false),
            ("", "a b", "", true),
            ("", "a b", "b", true),
            ("", "a", "a c", false),
        ] {
            let cell = CellState {
                placement_tags: tags(required).into(),
                optional_placement_tags: tags(optional).into(),
                ..CellState::default()
            };
            let case = format!("{required}/{optional}/{wanted}");
            assert_eq!(cell.admits(&tags(wanted)), admitted, "{case}");
        }
    }

    #[test]
    fn root_file_systems_are_matched_by_scheme_and_name() {
        let cell = CellState {
            root_fs_providers: BTreeMap::from([
                ("docker".into(), RootFsProvider::Arbitrary),
                ("preloaded".into(), RootFsProvider::FixedSet(["cflinuxfs4".into()].into())),
            ]),
            ..CellState::default()
        };
        assert!(cell.has_root_fs("docker:///busybox"));
        assert!(cell.has_root_fs("preloaded:cflinuxfs4"));
        for other in ["preloaded:windows", "preloaded+layer:cflinuxfs4", "oci:///x", "cflinuxfs4"] {
            assert!(!cell.has_root_fs(other), "{other}");
        }
    }
}

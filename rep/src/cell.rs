//! The cell as others see it: its state for the auctioneer, its presence for the BBS.

use std::collections::BTreeMap;

use executor::{Container, Resources, State};
use rep_api::{CellState, List, Lrp, LrpState, Resource, Task, TaskState};
use serde::Serialize;

use crate::label::{Label, Owner};
use crate::root_fs::RootFses;

/// What a cell is, apart from what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Its name.
    pub id: String,
    /// Its number.
    pub index: i32,
    /// Its availability zone.
    pub zone: String,
    /// Where its rep answers others.
    pub rep_url: String,
    /// The older form of that.
    pub rep_address: String,
    /// Tags that work must name to come here.
    pub placement_tags: Vec<String>,
    /// Tags that work may name.
    pub optional_placement_tags: Vec<String>,
    /// Its root file systems.
    pub root_fses: RootFses,
}

/// What a cell does at this moment.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// All its containers.
    pub containers: Vec<Container>,
    /// What it has.
    pub total: Resources,
    /// What is left.
    pub remaining: Resources,
    /// It is being drained.
    pub evacuating: bool,
}

impl Cell {
    /// The answer to `GET /state`.
    pub fn state(&self, load: &Load) -> CellState {
        let (mut lrps, mut tasks) = (List::EMPTY, List::EMPTY);
        for container in &load.containers {
            let Some(label) = Label::of(container) else { continue };
            let resource = Resource {
                memory_mb: container.resource.memory_mb,
                disk_mb: container.resource.disk_mb,
                max_pids: container.resource.max_pids,
            };
            match label.owner {
                Owner::Lrp { process_guid, index } => lrps.push(Lrp {
                    instance_guid: container.guid.clone(),
                    process_guid,
                    index,
                    domain: label.domain,
                    placement: label.placement,
                    resource,
                    state: lrp_state(container),
                }),
                Owner::Task => tasks.push(Task {
                    task_guid: container.guid.clone(),
                    domain: label.domain,
                    placement: label.placement,
                    resource,
                    state: match container.state {
                        State::Completed => TaskState::Completed,
                        _ => TaskState::Running,
                    },
                    failed: has_failed(container),
                }),
            }
        }
        let starting = load.containers.iter().filter(|one| one.state.is_starting()).count();
        CellState {
            rep_url: self.rep_url.clone(),
            cell_id: self.id.clone(),
            cell_index: self.index,
            root_fs_providers: self.root_fses.providers(),
            available_resources: resources(load.remaining),
            total_resources: resources(load.total),
            lrps,
            tasks,
            starting_container_count: i32::try_from(starting).unwrap_or(i32::MAX),
            zone: self.zone.clone(),
            evacuating: load.evacuating,
            volume_drivers: List::EMPTY,
            placement_tags: self.placement_tags.clone().into(),
            optional_placement_tags: self.optional_placement_tags.clone().into(),
            proxy_memory_allocation_mb: 0,
        }
    }

    /// The value of the cell's presence at Locket: JSON, in the original's order of keys.
    pub fn presence(&self, total: Resources) -> String {
        let rep_api::Resources { memory_mb, disk_mb, containers } = resources(total);
        let providers = self.root_fses.announced();
        let presence = Presence {
            cell_id: &self.id,
            rep_address: &self.rep_address,
            zone: &self.zone,
            capacity: Capacity { memory_mb, disk_mb, containers },
            rootfs_provider_list: providers
                .iter()
                .map(|provider| Provider { name: &provider.name, properties: &provider.properties })
                .collect(),
            placement_tags: &self.placement_tags,
            optional_placement_tags: &self.optional_placement_tags,
            rep_url: &self.rep_url,
            annotations: BTreeMap::new(),
        };
        // Texts and numbers are always JSON.
        serde_json::to_string(&presence).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Presence<'a> {
    cell_id: &'a str,
    rep_address: &'a str,
    zone: &'a str,
    capacity: Capacity,
    rootfs_provider_list: Vec<Provider<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    placement_tags: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    optional_placement_tags: &'a [String],
    rep_url: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Capacity {
    memory_mb: i32,
    disk_mb: i32,
    containers: i32,
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    properties: &'a [String],
}

fn resources(resources: Resources) -> rep_api::Resources {
    let number =
        |number: i64| i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
    rep_api::Resources {
        memory_mb: number(resources.memory_mb),
        disk_mb: number(resources.disk_mb),
        containers: number(resources.containers),
    }
}

fn lrp_state(container: &Container) -> LrpState {
    match container.state {
        State::Reserved | State::Initializing | State::Created => LrpState::Claimed,
        State::Running => LrpState::Running,
        State::Completed if has_failed(container) => LrpState::Crashed,
        State::Completed => LrpState::Shutdown,
    }
}

fn has_failed(container: &Container) -> bool {
    container.completion.as_ref().is_some_and(|completion| completion.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presence_is_written_as_the_original_writes_it() {
        // Recorded of the original: what its reps tell Locket when they start.
        let z1 = r#"{"cell_id":"cell-z1-0","rep_address":"http://10.0.16.5:1800","zone":"z1","capacity":{"memory_mb":4096,"disk_mb":19526,"containers":249},"rootfs_provider_list":[{"name":"preloaded","properties":["cflinuxfs4"]},{"name":"preloaded+layer","properties":["cflinuxfs4"]},{"name":"docker"}],"rep_url":"https://cell-z1-0.cell.service.cf.internal:1801"}"#;
        let total = Resources { memory_mb: 4096, disk_mb: 19526, containers: 249 };
        let cell = Cell {
            id: "cell-z1-0".into(),
            zone: "z1".into(),
            rep_url: "https://cell-z1-0.cell.service.cf.internal:1801".into(),
            rep_address: "http://10.0.16.5:1800".into(),
            root_fses: RootFses {
                preloaded: [("cflinuxfs4".to_owned(), "/x".to_owned())].into(),
                schemes: vec!["docker".into()],
            },
            ..Cell::default()
        };
        assert_eq!(cell.presence(total), z1);
        let tagged = Cell { optional_placement_tags: vec!["seg-1".into()], ..cell };
        let tags = r#","optional_placement_tags":["seg-1"],"rep_url""#;
        assert!(tagged.presence(total).contains(tags));
    }
}

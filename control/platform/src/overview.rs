//! What runs, for people.

use std::collections::HashMap;
use std::path::Path;

use bbs_models::{ActualLRPsRequest, DesiredLRPsRequest};

use crate::config;
use crate::error::Error;

/// Cells and instances, as the BBS knows them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Cells that are present.
    pub cells: usize,
    /// MiB that these offer.
    pub memory_mb: i64,
    /// MiB of that which instances have.
    pub reserved_mb: i64,
    /// MiB of disk that these offer.
    pub disk_mb: i64,
    /// Instances that run.
    pub running: usize,
    /// Instances that have a cell and do not run yet, and those that have none.
    pub starting: usize,
    /// Instances that crashed and wait for another try.
    pub crashed: usize,
}

/// Asks the BBS of the platform that has its sockets in this directory.
pub async fn overview(run: &Path) -> Result<Overview, Error> {
    let bbs = bbs_client::Client::new(config::socket(run, "bbs"), None)
        .map_err(Error::start("the question"))?;
    let asked = Error::start("the answer of the BBS");
    let (cells, instances, desired) = tokio::try_join!(
        bbs.cells(),
        bbs.actual_lrps(ActualLRPsRequest::default()),
        bbs.scheduling_infos(DesiredLRPsRequest::default()),
    )
    .map_err(asked)?;
    let memory: HashMap<&str, i64> = desired
        .iter()
        .map(|info| {
            let resource = &info.desired_lrp_resource;
            (info.desired_lrp_key.process_guid.as_str(), i64::from(resource.memory_mb))
        })
        .collect();
    let mut seen = Overview {
        cells: cells.len(),
        memory_mb: cells.iter().map(|cell| i64::from(cell.capacity.memory_mb)).sum(),
        disk_mb: cells.iter().map(|cell| i64::from(cell.capacity.disk_mb)).sum(),
        ..Overview::default()
    };
    for instance in &instances {
        let held = || memory.get(instance.actual_lrp_key.process_guid.as_str()).copied();
        match instance.state.as_str() {
            "RUNNING" => {
                seen.running += 1;
                seen.reserved_mb += held().unwrap_or_default();
            }
            "CLAIMED" => {
                seen.starting += 1;
                seen.reserved_mb += held().unwrap_or_default();
            }
            "UNCLAIMED" => seen.starting += 1,
            _ => seen.crashed += 1,
        }
    }
    Ok(seen)
}

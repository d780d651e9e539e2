//! What a cell has, and what is left of it.

use std::collections::BTreeMap;

use crate::container::{Guid, Resource};

/// Memory and disk in MiB, and a number of containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// MiB.
    pub memory_mb: i64,
    /// MiB.
    pub disk_mb: i64,
    /// Number.
    pub containers: i64,
}

/// A container that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("container {guid} needs more {} than is left", .missing.join(" and "))]
pub struct Insufficient {
    /// Whose.
    pub guid: Guid,
    /// Of memory, disk, containers.
    pub missing: Vec<&'static str>,
}

/// The account: totals, and who holds what. A container holds its resources until Garden has
/// destroyed it, whatever its state.
#[derive(Debug)]
pub struct Capacity {
    total: Resources,
    held: BTreeMap<Guid, Resource>,
    remaining: Resources,
}

impl Capacity {
    /// All of `total` free.
    pub fn new(total: Resources) -> Self {
        Self { total, held: BTreeMap::new(), remaining: total }
    }

    /// What there is.
    pub fn total(&self) -> Resources {
        self.total
    }

    /// What is left. Below zero where containers were adopted that do not fit any more.
    pub fn remaining(&self) -> Resources {
        self.remaining
    }

    /// Takes what a new container needs, or nothing.
    pub fn reserve(&mut self, guid: &str, resource: &Resource) -> Result<(), Insufficient> {
        let left = self.remaining;
        let needs = [
            ("memory", left.memory_mb, i64::from(resource.memory_mb)),
            ("disk", left.disk_mb, i64::from(resource.disk_mb)),
            ("containers", left.containers, 1),
        ];
        // What needs nothing fits, also where an adopted container has overdrawn the account.
        let missing: Vec<_> = needs
            .into_iter()
            .filter(|(_, left, needed)| *needed > 0 && needed > left)
            .map(|(what, ..)| what)
            .collect();
        if missing.is_empty() {
            self.hold(guid, resource);
            Ok(())
        } else {
            Err(Insufficient { guid: guid.to_owned(), missing })
        }
    }

    /// Counts a container that exists already, whether it fits or not; one that holds something
    /// already holds that.
    pub fn hold(&mut self, guid: &str, resource: &Resource) {
        if !self.held.contains_key(guid) {
            self.held.insert(guid.to_owned(), resource.clone());
            self.shift(resource, -1);
        }
    }

    /// Gives back what a container held. Nothing happens if it holds nothing.
    pub fn release(&mut self, guid: &str) {
        if let Some(resource) = self.held.remove(guid) {
            self.shift(&resource, 1);
        }
    }

    fn shift(&mut self, resource: &Resource, sign: i64) {
        self.remaining.memory_mb += sign * i64::from(resource.memory_mb);
        self.remaining.disk_mb += sign * i64::from(resource.disk_mb);
        self.remaining.containers += sign;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Capacity, Resources};
    use crate::container::Resource;

    fn resource(memory_mb: i32, disk_mb: i32) -> Resource {
        Resource { memory_mb, disk_mb, max_pids: 0 }
    }

    #[test]
    fn names_all_that_is_missing() {
        let mut capacity = Capacity::new(Resources { memory_mb: 100, disk_mb: 100, containers: 1 });
        capacity.reserve("a", &resource(60, 100)).unwrap();
        let error = capacity.reserve("b", &resource(41, 1)).unwrap_err();
        assert_eq!(error.missing, ["memory", "disk", "containers"]);
        assert_eq!(
            error.to_string(),
            "container b needs more memory and disk and containers than is left"
        );
    }

    proptest! {
        /// Whatever is reserved, adopted and released, in whatever order and how often: the
        /// remainder is the total less what is held.
        #[test]
        fn the_account_balances(
            steps in proptest::collection::vec((0..6_u8, 0..3_u8, 0..50_i32, 0..50_i32), 0..60),
        ) {
            let total = Resources { memory_mb: 100, disk_mb: 120, containers: 4 };
            let mut capacity = Capacity::new(total);
            for (who, what, memory, disk) in steps {
                let guid = who.to_string();
                match what {
                    0 if !capacity.held.contains_key(&guid) => {
                        let before = capacity.remaining();
                        if capacity.reserve(&guid, &resource(memory, disk)).is_err() {
                            prop_assert_eq!(before, capacity.remaining());
                        }
                    }
                    1 => capacity.hold(&guid, &resource(memory, disk)),
                    _ => capacity.release(&guid),
                }
                let held = capacity.held.values();
                let memory: i64 = held.clone().map(|held| i64::from(held.memory_mb)).sum();
                let disk: i64 = held.map(|held| i64::from(held.disk_mb)).sum();
                let left = capacity.remaining();
                prop_assert_eq!(left.memory_mb, total.memory_mb - memory);
                prop_assert_eq!(left.disk_mb, total.disk_mb - disk);
                prop_assert_eq!(
                    left.containers,
                    total.containers - i64::try_from(capacity.held.len()).unwrap()
                );
            }
        }
    }
}

//! What a daemon leaves to the next one: containers whose network goes on, links of nobody.

use std::collections::HashSet;

use serde::Deserialize;

use super::Networker;
use super::state::Attached;
use crate::error::Error;
use crate::link;

impl Networker {
    /// What must be remembered of a container; `None` if it has no network.
    pub fn state(&self, handle: &str) -> Option<serde_json::Value> {
        let state = self.shared.state();
        let attached = state.attached.get(handle)?;
        serde_json::to_value(attached)
            .inspect_err(|error| tracing::error!(handle, %error, "network state has no JSON form"))
            .ok()
    }

    /// Takes a container's network up again, as [`Networker::state`] gave it to an earlier life.
    pub fn restore(&self, handle: &str, remembered: &serde_json::Value) -> Result<(), Error> {
        let attached = Attached::deserialize(remembered)
            .map_err(|source| Error::State { handle: handle.to_owned(), source })?;
        let mut state = self.shared.state();
        state.subnets.reclaim(attached.lease)?;
        for (place, mapping) in attached.ports.iter().enumerate() {
            let taken = if mapping.pooled { state.ports.remove(mapping.host) } else { Ok(()) };
            if let Err(error) = taken {
                let before = attached.ports[..place].iter().filter(|mapping| mapping.pooled);
                before.for_each(|mapping| state.ports.release(mapping.host));
                state.subnets.release(attached.lease);
                return Err(error.into());
            }
        }
        for mapping in &attached.ports {
            state.claim(mapping.host, attached.number, attached.target(*mapping));
        }
        state.attached.insert(handle.to_owned(), attached);
        Ok(())
    }

    /// Once all containers of an earlier life are restored: makes the kernel's rules theirs, in one
    /// step that no packet of theirs notices. Links and rules of all others go.
    pub fn settle(&self, handles: &HashSet<&str>) -> Result<(), Error> {
        let strays: Vec<_> = {
            let state = self.shared.state();
            let handles = state.attached.keys().filter(|handle| !handles.contains(handle.as_str()));
            handles.cloned().collect()
        };
        strays.iter().try_for_each(|handle| self.destroy(handle))?;
        let mut state = self.shared.state();
        let numbers: HashSet<String> = state
            .attached
            .values()
            .map(|attached| attached.number)
            .chain(state.parked.keys().copied())
            .map(|number| self.link_name(number))
            .collect();
        self.rebuild(&state, &mut self.shared.filter())
            .map_err(Error::io(format!("make the rules of {}", self.policy.table)))?;
        state.settled = true;
        drop(state);
        self.delete_links(&numbers)
    }

    pub(super) fn delete_links(&self, wanted: &HashSet<String>) -> Result<(), Error> {
        let mut route = self.shared.route();
        let links =
            link::list(&mut route, &self.policy.links).map_err(Error::io("list the links"))?;
        for link in links.iter().filter(|link| !wanted.contains(&link.name)) {
            tracing::info!(link = link.name, "deleting a link that belongs to no container");
            link::delete(&mut route, &link.name)
                .map_err(Error::io(format!("delete the link {}", link.name)))?;
        }
        Ok(())
    }
}

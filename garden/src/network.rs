//! Containers' network, as the gardener sees it.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use garden_api::{NetOutRule, Properties};

use crate::config::Config;
use crate::error::Error;
use crate::pool::Unit;

/// A link that waits for its container.
#[derive(Debug)]
pub struct Plumbed;

/// The networker.
#[derive(Debug, Default)]
pub struct Network;

impl Network {
    /// Starts the networker.
    pub fn start(_config: &Config) -> Result<Self, Error> {
        Ok(Self)
    }

    /// Subnets in the pool.
    pub fn capacity(&self) -> u64 {
        256
    }

    /// Gives a network namespace its link.
    pub fn plumb(
        &self,
        _namespace: BorrowedFd<'_>,
        _number: u32,
    ) -> Result<Option<Plumbed>, Error> {
        Ok(None)
    }

    /// Takes an unused link away.
    pub fn unplumb(&self, _link: Plumbed) {}

    /// Gives a unit's link to a container.
    pub fn attach(&self, _handle: &str, _unit: &Unit, _request: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Maps a port.
    pub fn net_in(&self, _handle: &str, host: u32, container: u32) -> Result<(u32, u32), Error> {
        Ok((host, container))
    }

    /// Allows traffic.
    pub fn net_out(&self, _handle: &str, _rules: &[NetOutRule]) -> Result<(), Error> {
        Ok(())
    }

    /// What must be remembered.
    pub fn state(&self, _handle: &str) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes a container's network up again.
    pub fn restore(&self, _handle: &str, _state: &serde_json::Value) -> Result<(), Error> {
        Ok(())
    }

    /// Properties that tell a container's addresses.
    pub fn properties(&self, _handle: &str) -> Properties {
        Properties::new()
    }

    /// Content of `/etc/hosts`.
    pub fn hosts(&self, _handle: &str) -> String {
        String::new()
    }

    /// Content of `/etc/resolv.conf`.
    pub fn resolv_conf(&self, _handle: &str) -> String {
        String::new()
    }

    /// Takes a container's network down.
    pub fn destroy(&self, _handle: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Removes what is not any container's.
    pub fn raze(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Removes what belongs to none of these containers.
    pub fn remove_strays(&self, _handles: &HashSet<&str>) -> Result<(), Error> {
        Ok(())
    }
}

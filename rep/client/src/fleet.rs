//! The reps of all cells.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use transport::{Address, Identity, Timeouts};

use crate::client::RepClient;
use crate::error::Error;

/// Clients of many reps, each made once and kept with its connections.
#[derive(Debug)]
pub struct Fleet {
    identity: Option<Identity>,
    timeouts: Timeouts,
    clients: Mutex<HashMap<Address, RepClient>>,
}

impl Fleet {
    /// None is asked yet.
    pub fn new(identity: Option<Identity>, timeouts: Timeouts) -> Self {
        Self { identity, timeouts, clients: Mutex::default() }
    }

    /// The rep of a cell by its presence: `rep_url`, or `rep_address` where an old cell has no URL.
    pub fn rep(&self, cell_id: &str, rep_url: &str, rep_address: &str) -> Result<RepClient, Error> {
        let text = if rep_url.is_empty() { rep_address } else { rep_url };
        let address: Address = text
            .parse()
            .map_err(|source| Error::Address { cell_id: cell_id.to_owned(), source })?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        let client = RepClient::new(address.clone(), self.identity.clone(), self.timeouts)?;
        clients.insert(address, client.clone());
        Ok(client)
    }

    /// Forgets all reps but these, since cells come and go.
    pub fn keep_only(&self, present: impl Fn(&Address) -> bool) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|address, _| present(address));
    }
}

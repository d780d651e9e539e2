//! Ports of the host that lead to containers.

use std::sync::MutexGuard;

use super::state::{Mapping, State};
use super::{Networker, PATIENCE};
use crate::error::Error;

impl Networker {
    /// Maps a port of the host to one of the container: 0 for a port of the pool, and for the same
    /// port. Returns the ports in effect.
    pub fn net_in(&self, handle: &str, host: u32, container: u32) -> Result<(u16, u16), Error> {
        let narrow = |port: u32| u16::try_from(port).map_err(|_| Error::PortOutOfRange(port));
        let (host, container) = (narrow(host)?, narrow(container)?);
        let mut state = self.shared.state();
        state.attached(handle)?;
        let pooled = host == 0;
        let host = if pooled {
            let (unlocked, port) = self.pool_port(state)?;
            state = unlocked;
            port
        } else {
            host
        };
        let mapping =
            Mapping { host, container: if container == 0 { host } else { container }, pooled };
        let mapped = self.map(&mut state, handle, mapping);
        if let Err(error) = mapped {
            if pooled {
                state.ports.release(host);
            }
            return Err(error);
        }
        Ok((mapping.host, mapping.container))
    }

    /// Takes a mapping back that [`Self::net_in`] has made, since nobody was told of it.
    pub fn take_net_in_back(&self, handle: &str, host: u16, container: u16) -> Result<(), Error> {
        let mut state = self.shared.state();
        let Some(attached) = state.attached.get_mut(handle) else { return Ok(()) };
        let made = |mapping: &Mapping| (mapping.host, mapping.container) == (host, container);
        let Some(at) = attached.ports.iter().rposition(made) else { return Ok(()) };
        let mapping = attached.ports.remove(at);
        let (number, target) = (attached.number, attached.target(mapping));
        if mapping.pooled {
            state.ports.release(host);
        }
        state.withdraw(host, number, target);
        self.make_anew(&state)
    }

    fn pool_port<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<(MutexGuard<'a, State>, u16), Error> {
        let mut outcome = state.ports.acquire();
        if outcome.is_err() && !state.leaving.is_empty() {
            (state, _) = self.shared.wait(state, PATIENCE, |state| {
                outcome = state.ports.acquire();
                outcome.is_ok() || state.leaving.is_empty()
            });
        }
        let port = outcome?;
        let head = state.ports.offset();
        if let Err(source) = state.offset.save(head) {
            state.ports.release(port);
            return Err(Error::Io {
                attempt: "remember the head of the port queue".into(),
                source,
            });
        }
        Ok((state, port))
    }

    fn map(&self, state: &mut State, handle: &str, mapping: Mapping) -> Result<(), Error> {
        let attached =
            state.attached.get_mut(handle).ok_or_else(|| Error::Unattached(handle.to_owned()))?;
        attached.ports.push(mapping);
        let (number, target) = (attached.number, attached.target(mapping));
        if !state.claim(mapping.host, number, target) {
            return Ok(());
        }
        let mapped =
            self.committed(state, |policy, socket| policy.map_port(socket, mapping.host, target));
        if mapped.is_err() {
            state.disclaim(number, &[mapping]);
            if let Some(attached) = state.attached.get_mut(handle) {
                attached.ports.pop();
            }
        }
        mapped
    }
}

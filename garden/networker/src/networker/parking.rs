//! Links: made ahead with an address, given to containers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::MutexGuard;

use super::state::{Attached, Parked, State};
use super::{Networker, PATIENCE};
use crate::error::Error;
use crate::firewall::Member;
use crate::link::{self, Inside};
use crate::reaper::Leaving;
use crate::subnets::{Lease, Request, SubnetError};

impl Networker {
    /// Gives a network namespace its link, with the next address of the pool if there is one.
    /// `number` names the link and is never used twice while links of this daemon exist. After an
    /// error the link, if it was made, goes with the namespace.
    pub fn plumb(&self, namespace: BorrowedFd<'_>, number: u32) -> Result<(), Error> {
        let name = self.link_name(number);
        let attempt = || format!("make the link {name}");
        let index = link::create(&mut self.shared.route(), &name, number, namespace, self.mtu())
            .map_err(Error::io(attempt()))?;
        let lease = self.shared.state().subnets.acquire(Request::Dynamic).ok();
        let parked = Parked { index, address: lease, held: lease.is_some() };
        self.shared.state().parked.insert(number, parked);
        let made = link::address_container(namespace, Inside { number, old: None, new: lease })
            .map_err(Error::io(attempt()))
            .and_then(|()| lease.map_or(Ok(()), |lease| self.welcome(number, index, lease)));
        if made.is_err() {
            self.unplumb(number);
        }
        made
    }

    /// The host's side of a fresh link.
    fn welcome(&self, number: u32, index: u32, lease: Lease) -> Result<(), Error> {
        let name = self.link_name(number);
        link::address_host(&mut self.shared.route(), index, number, lease)
            .map_err(Error::io(format!("give {name} an address")))?;
        let state = self.shared.state();
        let shared = !state.subnets.is_dynamic(lease.subnet);
        let member = Member { link: &name, lease, shared, handle: "", egress: &[] };
        self.committed(&state, |policy, socket| policy.enter(socket, &member))
    }

    /// Takes an unused link away. Its namespace must be about to go; a link that has become a
    /// container's is left to its destroy.
    pub fn unplumb(&self, number: u32) {
        let mut state = self.shared.state();
        let Some(parked) = state.parked.remove(&number) else { return };
        let link = self.link_name(number);
        let lease = parked.address.filter(|_| parked.held);
        if let Some(lease) = lease {
            let member = Member { link: &link, lease, shared: false, handle: "", egress: &[] };
            if let Err(error) = self.dismiss(&state, &member, &[]) {
                tracing::warn!(link, %error, "an unused link's rules are left behind");
            }
        }
        state.leaving.push(Leaving::new(link, lease, Vec::new()));
        self.shared.changed.notify_all();
    }

    /// Makes a parked link a container's. `request` is the field `network` of its specification,
    /// `namespace` opens its network namespace if that has to be entered.
    pub fn attach(
        &self,
        handle: &str,
        number: u32,
        request: &str,
        namespace: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let request = Request::parse(request)?;
        self.check_host(request)?;
        let mut state = self.shared.state();
        let parked =
            *state.parked.get(&number).ok_or_else(|| Error::Unattached(self.link_name(number)))?;
        let ahead = parked.address.filter(|_| parked.held && request == Request::Dynamic);
        let lease = match ahead {
            Some(lease) => lease,
            None => {
                let (unlocked, lease) = self.lease(state, request)?;
                drop(unlocked);
                if let Err(error) = self.readdress(number, parked, lease, namespace) {
                    self.shared.state().subnets.release(lease);
                    self.shared.changed.notify_all();
                    return Err(error);
                }
                state = self.shared.state();
                lease
            }
        };
        state.parked.remove(&number);
        let attached = Attached { number, lease, ports: Vec::new(), egress: Vec::new() };
        state.attached.insert(handle.to_owned(), attached);
        Ok(())
    }

    /// The host's neighbours are not to become containers.
    fn check_host(&self, request: Request) -> Result<(), Error> {
        let (Request::Subnet(subnet) | Request::Address(Lease { subnet, .. })) = request else {
            return Ok(());
        };
        let connected = link::connected(&mut self.shared.route(), &self.policy.links)
            .map_err(Error::io("list the host's addresses"))?;
        match connected.into_iter().find(|host| host.overlaps(subnet)) {
            Some(host) => Err(Error::OverlapsHost { subnet, host }),
            None => Ok(()),
        }
    }

    /// Takes an address, from a parked link if need be, or as soon as a leaving link is gone.
    fn lease<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        request: Request,
    ) -> Result<(MutexGuard<'a, State>, Lease), Error> {
        let mut outcome = state.subnets.acquire(request);
        if outcome == Err(SubnetError::PoolExhausted) && self.revoke(&mut state)? {
            outcome = state.subnets.acquire(request);
        }
        if outcome.is_err() && !state.leaving.is_empty() {
            (state, _) = self.shared.wait(state, PATIENCE, |state| {
                outcome = state.subnets.acquire(request);
                outcome.is_ok() || state.leaving.is_empty()
            });
        }
        Ok((state, outcome?))
    }

    /// Takes the lease of some parked link back; whether there was one.
    fn revoke(&self, state: &mut State) -> Result<bool, Error> {
        let found = state.parked.iter().find_map(|(number, parked)| {
            let lease = parked.address.filter(|_| parked.held)?;
            Some((*number, parked.index, lease))
        });
        let Some((number, index, lease)) = found else { return Ok(false) };
        let link = self.link_name(number);
        if let Some(parked) = state.parked.get_mut(&number) {
            parked.held = false;
        }
        let member = Member { link: &link, lease, shared: false, handle: "", egress: &[] };
        self.dismiss(state, &member, &[])?;
        link::unaddress_host(&mut self.shared.route(), index, lease)
            .map_err(Error::io(format!("take the address of {link} back")))?;
        state.subnets.release(lease);
        Ok(true)
    }

    /// Exchanges the address of a parked link, which afterwards holds `lease` alone.
    fn readdress(
        &self,
        number: u32,
        parked: Parked,
        lease: Lease,
        namespace: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let link = self.link_name(number);
        let attempt = || format!("give {link} the address {}", lease.address);
        let namespace = namespace().map_err(Error::io(attempt()))?;
        let inside = Inside { number, old: parked.address, new: Some(lease) };
        link::address_container(namespace.as_fd(), inside).map_err(Error::io(attempt()))?;
        let old = {
            let mut state = self.shared.state();
            let parked = state.parked.get_mut(&number);
            let old = parked.and_then(|parked| {
                let old = parked.address.filter(|_| parked.held);
                (parked.address, parked.held) = (Some(lease), false);
                old
            });
            if let Some(old) = old {
                let member =
                    Member { link: &link, lease: old, shared: false, handle: "", egress: &[] };
                self.dismiss(&state, &member, &[])?;
            }
            old
        };
        if let Some(old) = old {
            link::unaddress_host(&mut self.shared.route(), parked.index, old)
                .map_err(Error::io(attempt()))?;
            self.shared.state().subnets.release(old);
            self.shared.changed.notify_all();
        }
        self.welcome(number, parked.index, lease)
    }
}

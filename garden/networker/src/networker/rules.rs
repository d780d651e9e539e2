//! The kernel's table, kept to what the state says.

use std::io;

use garden_api::NetOutRule;
use rustix::io::Errno;

use super::Networker;
use super::state::State;
use crate::egress::Egress;
use crate::error::Error;
use crate::firewall::{Member, Policy, Target};
use crate::socket::Socket;
use crate::subnets::Lease;

impl Networker {
    /// Allows traffic out of the container. Either all rules take effect or none.
    pub fn net_out(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        let rules: Vec<_> = rules.iter().map(Egress::try_from).collect::<Result<_, _>>()?;
        let mut state = self.shared.state();
        let Some(attached) = state.attached.get_mut(handle) else {
            return Err(Error::Unattached(handle.to_owned()));
        };
        if rules.is_empty() {
            return Ok(());
        }
        let before = attached.egress.len();
        attached.egress.extend(rules.iter().cloned());
        let link = self.link_name(attached.number);
        let allowed =
            self.committed(&state, |policy, socket| policy.allow(socket, &link, handle, &rules));
        if let Some(attached) = state.attached.get_mut(handle).filter(|_| allowed.is_err()) {
            attached.egress.truncate(before);
        }
        allowed
    }

    /// Takes rules back that [`Self::net_out`] has made, since nobody was told of them.
    pub fn take_net_out_back(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        let rules: Vec<_> = rules.iter().map(Egress::try_from).collect::<Result<_, _>>()?;
        let mut state = self.shared.state();
        let Some(attached) = state.attached.get_mut(handle) else { return Ok(()) };
        for rule in &rules {
            if let Some(at) = attached.egress.iter().rposition(|made| made == rule) {
                attached.egress.remove(at);
            }
        }
        self.make_anew(&state)
    }

    /// Has the kernel's table be what the state says, where it is ours already.
    pub(super) fn make_anew(&self, state: &State) -> Result<(), Error> {
        self.committed(state, |_, socket| self.rebuild(state, socket))
    }

    /// Has the kernel change the table. If somebody has taken our table away it is made anew from
    /// the state, which `state` must have the change in already.
    pub(super) fn committed(
        &self,
        state: &State,
        change: impl FnOnce(&Policy, &mut Socket) -> io::Result<()>,
    ) -> Result<(), Error> {
        if !state.settled {
            return Ok(());
        }
        let mut socket = self.shared.filter();
        match change(&self.policy, &mut socket) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
                tracing::warn!(table = self.policy.table, "rules are missing; making all of them");
                self.rebuild(state, &mut socket)
            }
            outcome => outcome,
        }
        .map_err(Error::io(format!("change the rules of {}", self.policy.table)))
    }

    pub(super) fn dismiss(
        &self,
        state: &State,
        member: &Member<'_>,
        ports: &[(u16, Target, Option<Target>)],
    ) -> Result<(), Error> {
        self.committed(state, |policy, socket| policy.leave(socket, member, ports))
    }

    pub(super) fn rebuild(&self, state: &State, socket: &mut Socket) -> io::Result<()> {
        struct Row<'a> {
            link: String,
            lease: Lease,
            handle: &'a str,
            egress: &'a [Egress],
        }
        let parked = state.parked.iter().filter_map(|(number, parked)| {
            let lease = parked.address.filter(|_| parked.held)?;
            Some(Row { link: self.link_name(*number), lease, handle: "", egress: &[] })
        });
        let attached = state.attached.iter().map(|(handle, attached)| Row {
            link: self.link_name(attached.number),
            lease: attached.lease,
            handle,
            egress: &attached.egress,
        });
        let rows: Vec<_> = parked.chain(attached).collect();
        let members = rows.iter().map(|row| Member {
            link: &row.link,
            lease: row.lease,
            shared: !state.subnets.is_dynamic(row.lease.subnet),
            handle: row.handle,
            egress: row.egress,
        });
        self.policy.rebuild(socket, members, &state.targets())
    }
}

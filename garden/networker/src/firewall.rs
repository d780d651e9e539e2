//! The rules: one table of the daemon's own, in which a container is a chain and a few elements.
//!
//! ```text
//! guard     what comes by a container's link: IPv4, from the container's address, not to 127/8
//! input     to the host: answers, name service, nothing else unless the operator allows it
//! forward   answers; the container's chain (its NetOut rules, its shared subnet); denied networks
//! incoming  NetIn from outside and from containers; name service for containers
//! own       NetIn from the host itself, by its external address and by 127.0.0.1
//! outgoing  masquerade of what leaves for elsewhere, and of what must find its way back
//! ```
//!
//! Chains are found by maps, so a packet passes the same number of rules however many containers
//! there are. Every change is one transaction.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::cidr::Ipv4Network;
use crate::egress::{Egress, Traffic};
use crate::nftables::{
    Element, Hook, Shape, Table, Transaction, Value, datatype, link_key, tables,
};
use crate::ranges::{Within, merge, range_elements};
use crate::rule::{End, ICMP, Rule, TCP, UDP};
use crate::socket::Socket;
use crate::subnets::Lease;

/// Before the tag, in the names of tables.
pub(crate) const TABLE_PREFIX: &str = "bloomery-";

/// Link name . address: which link which source may come by.
const SOURCES: &str = "sources";
/// Link name: the container's chain.
const CHAINS: &str = "chains";
/// Host port: container's address and port.
const PORTS: &str = "ports";
/// Networks that containers may not reach.
const DENIED: &str = "denied";

const PORT_UNREACHABLE: u8 = 3;
const HOST_PROHIBITED: u8 = 10;
const DNS: u16 = 53;

const LOG_PREFIX: usize = 28;

/// What holds for all containers.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) table: String,
    /// The table's, for people and for daemons of other tags.
    pub(crate) comment: String,
    /// What the names of all containers' links begin with.
    pub(crate) links: String,
    pub(crate) external: Ipv4Addr,
    pub(crate) denied: Vec<Ipv4Network>,
    pub(crate) host_access: bool,
    /// A name server that listens on the host's loopback only; containers reach it at port 53 of
    /// their gateway.
    pub(crate) name_server: Option<Ipv4Addr>,
}

/// One container's part.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) link: &'a str,
    pub(crate) lease: Lease,
    /// Others may have leases in its subnet.
    pub(crate) shared: bool,
    /// Empty for a parked one.
    pub(crate) handle: &'a str,
    /// In the order they were asked for.
    pub(crate) egress: &'a [Egress],
}

/// Where a host port leads.
pub(crate) type Target = (Ipv4Addr, u16);

impl Policy {
    /// The whole table, replacing what was there.
    pub(crate) fn rebuild<'a>(
        &self,
        socket: &mut Socket,
        members: impl Iterator<Item = Member<'a>>,
        ports: &BTreeMap<u16, Target>,
    ) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.replace_table(&self.comment);
        self.add_sets(&mut transaction);
        self.add_base(&mut transaction);
        for member in members {
            enter(&mut transaction, &member);
        }
        let ports: Vec<_> =
            ports.iter().map(|(port, target)| port_element(*port, *target)).collect();
        transaction.add_elements(PORTS, &ports);
        transaction.commit(socket)
    }

    /// Deletes the table; one that does not exist is no error.
    pub(crate) fn delete(&self, socket: &mut Socket) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table("");
        transaction.delete_table();
        transaction.commit(socket)
    }

    /// Makes the table if it is missing, so that other daemons see that this one is there.
    pub(crate) fn announce(&self, socket: &mut Socket) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table(&self.comment);
        transaction.commit(socket)
    }

    /// Tables of other daemons on this host.
    pub(crate) fn neighbours(&self, socket: &mut Socket) -> io::Result<Vec<Table>> {
        let mut tables = tables(socket, TABLE_PREFIX)?;
        tables.retain(|table| table.name != self.table);
        Ok(tables)
    }

    /// Lets a member in.
    pub(crate) fn enter(&self, socket: &mut Socket, member: &Member<'_>) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        enter(&mut transaction, member);
        transaction.commit(socket)
    }

    /// Takes a member out; `ports` are the host ports that change by it, with who gets them now.
    pub(crate) fn leave(
        &self,
        socket: &mut Socket,
        member: &Member<'_>,
        ports: &[(u16, Target, Option<Target>)],
    ) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.delete_elements(SOURCES, &[source(member)]);
        transaction.delete_elements(CHAINS, &[dispatch(member)]);
        transaction.delete_chain(member.link);
        let old: Vec<_> = ports.iter().map(|(port, old, _)| port_element(*port, *old)).collect();
        transaction.delete_elements(PORTS, &old);
        let new: Vec<_> = ports
            .iter()
            .filter_map(|(port, _, new)| new.map(|target| port_element(*port, target)))
            .collect();
        transaction.add_elements(PORTS, &new);
        transaction.commit(socket)
    }

    /// Maps a host port that is free.
    pub(crate) fn map_port(
        &self,
        socket: &mut Socket,
        port: u16,
        target: Target,
    ) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.add_elements(PORTS, &[port_element(port, target)]);
        transaction.commit(socket)
    }

    /// Puts further NetOut rules before those that a member has.
    pub(crate) fn allow(
        &self,
        socket: &mut Socket,
        link: &str,
        handle: &str,
        egress: &[Egress],
    ) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        for rule in egress {
            allow(&mut transaction, link, handle, rule);
        }
        transaction.commit(socket)
    }

    fn add_sets(&self, transaction: &mut Transaction<'_>) {
        let set = |key| Shape { key, value: None, ranges: false };
        let by_link = (datatype::LINK_NAME, 16);
        transaction
            .add_set(SOURCES, set((datatype::pair(datatype::LINK_NAME, datatype::IPV4), 20)));
        transaction.add_set(CHAINS, Shape { value: Some((datatype::VERDICT, 0)), ..set(by_link) });
        let target = (datatype::pair(datatype::IPV4, datatype::PORT), 8);
        transaction.add_set(PORTS, Shape { value: Some(target), ..set((datatype::PORT, 2)) });
        transaction.add_set(DENIED, Shape { ranges: true, ..set((datatype::IPV4, 4)) });
        let denied: Vec<RangeInclusive<_>> =
            self.denied.iter().map(|network| network.base()..=network.last()).collect();
        transaction.add_elements(DENIED, &range_elements(&merge(&denied)));
    }

    fn add_base(&self, transaction: &mut Transaction<'_>) {
        use End::{Destination, Source};
        let links = self.links.as_str();

        let mut chain = transaction.chain("guard", Hook::Guard);
        chain.rule(|r| r.link_unlike(Source, links).accept());
        chain.rule(|r| r.not_ipv4().drop());
        chain.rule(|r| r.ipv4().loopback(Destination).drop());
        chain.rule(|r| r.ipv4().link_and_source_not_in(Source, SOURCES).drop());

        let mut chain = transaction.chain("input", Hook::Input);
        chain.rule(|r| r.link_unlike(Source, links).accept());
        chain.rule(|r| r.established().accept());
        if let Some(server) = self.name_server {
            for protocol in [UDP, TCP] {
                chain.rule(|r| {
                    r.ipv4().address(Destination, server).protocol(protocol).port_is(DNS).accept();
                });
            }
        }
        if !self.host_access {
            chain.rule(|r| r.ipv4().reject(HOST_PROHIBITED));
        }

        let mut chain = transaction.chain("forward", Hook::Forward);
        chain.rule(|r| r.link_unlike(Source, links).accept());
        chain.rule(|r| r.established().accept());
        chain.rule(|r| r.dispatch_by_link(CHAINS));
        chain.rule(|r| r.ipv4().address_in_set(Destination, DENIED).reject(PORT_UNREACHABLE));

        let by_port = |r: &mut Rule<'_, '_>, address| {
            r.ipv4().address(Destination, address).protocol(TCP).translate_by_port(PORTS);
        };
        let mut chain = transaction.chain("incoming", Hook::TranslateIncoming);
        chain.rule(|r| by_port(r, self.external));
        if let Some(server) = self.name_server {
            for protocol in [UDP, TCP] {
                chain.rule(|r| {
                    r.link_like(Source, links).ipv4().is_for_host().protocol(protocol);
                    r.port_is(DNS).translate_to(server);
                });
            }
        }

        let mut chain = transaction.chain("own", Hook::TranslateOwn);
        chain.rule(|r| by_port(r, self.external));
        chain.rule(|r| by_port(r, Ipv4Addr::LOCALHOST));

        let mut chain = transaction.chain("outgoing", Hook::TranslateOutgoing);
        // From the host by 127.0.0.1: no container could answer that.
        chain.rule(|r| r.link_like(Destination, links).ipv4().loopback(Source).masquerade());
        // From a container to itself by way of the host.
        chain.rule(|r| r.ipv4().link_and_source_in(Destination, SOURCES).masquerade());
        chain.rule(|r| r.link_like(Destination, links).accept());
        chain.rule(|r| r.link_like(Source, links).ipv4().masquerade());
    }
}

fn enter(transaction: &mut Transaction<'_>, member: &Member<'_>) {
    transaction.add_chain(member.link);
    for rule in member.egress {
        allow(transaction, member.link, member.handle, rule);
    }
    if member.shared {
        let subnet = member.lease.subnet;
        let within = Within::Range(subnet.base()..=subnet.last());
        transaction.append_rule(member.link, |rule| {
            rule.ipv4().address_within(End::Destination, &within).accept();
        });
    }
    transaction.add_elements(CHAINS, &[dispatch(member)]);
    transaction.add_elements(SOURCES, &[source(member)]);
}

fn allow(transaction: &mut Transaction<'_>, chain: &str, handle: &str, egress: &Egress) {
    let networks = Within::new(transaction, datatype::IPV4, &egress.networks);
    if networks.is_none() && !egress.networks.is_empty() {
        return;
    }
    let (protocol, ports) = match &egress.traffic {
        Traffic::All => (None, [].as_slice()),
        Traffic::Tcp(ports) => (Some(TCP), ports.as_slice()),
        Traffic::Udp(ports) => (Some(UDP), ports.as_slice()),
        Traffic::Icmp(_) => (Some(ICMP), [].as_slice()),
    };
    let ports = Within::new(transaction, datatype::PORT, ports);
    transaction.prepend_rule(chain, |rule| {
        rule.ipv4();
        if let Some(networks) = &networks {
            rule.address_within(End::Destination, networks);
        }
        if let Some(protocol) = protocol {
            rule.protocol(protocol);
        }
        if let Some(ports) = &ports {
            rule.port_within(ports);
        }
        if let Traffic::Icmp(Some(icmp)) = egress.traffic {
            rule.icmp(icmp.kind, icmp.code);
        }
        if egress.log {
            rule.log(&log_prefix(handle));
        }
        rule.accept();
    });
}

/// The first 28 characters of the handle, and a space (garden.md 6.7).
fn log_prefix(handle: &str) -> String {
    let mut prefix: String = handle.chars().take(LOG_PREFIX).collect();
    prefix.push(' ');
    prefix
}

fn source(member: &Member<'_>) -> Element {
    let mut key = link_key(member.link);
    key.extend_from_slice(&member.lease.address.octets());
    Element::key(key)
}

fn dispatch(member: &Member<'_>) -> Element {
    Element::mapping(link_key(member.link), Value::Jump(member.link.to_owned()))
}

fn port_element(port: u16, (address, container_port): Target) -> Element {
    let mut target = address.octets().to_vec();
    target.extend_from_slice(&container_port.to_be_bytes());
    target.extend_from_slice(&[0; 2]);
    Element::mapping(port.to_be_bytes().to_vec(), Value::Data(target))
}

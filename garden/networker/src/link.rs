//! Links, addresses, neighbours and routes, by rtnetlink(7).
//!
//! ```text
//!   host                                            container
//!   w<tag>-<number>  aa:aa:<number>   <── veth ──>  eth0  ee:ee:<number>
//!   <gateway> peer <address>/32                     <address>/<prefix>
//!                                                   default via <gateway>, on link
//! ```
//!
//! Neighbours are permanent on both sides: nobody waits for ARP, and they do not count against the
//! kernel's one table of neighbours for all namespaces (`net.ipv4.neigh.default.gc_thresh3`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::cidr::Ipv4Network;
use crate::message::{Attributes, Message, Messages, flag, u32_at};
use crate::namespace;
use crate::socket::{Protocol, Socket};
use crate::subnets::Lease;

/// The container's end.
pub(crate) const INNER: &str = "eth0";
pub(crate) const LOOPBACK_INDEX: u32 = 1;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const GETADDR: u16 = 22;

const AF_INET: u8 = 2;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

/// `include/uapi/linux/if_link.h`, `if_addr.h`, `rtnetlink.h`, `neighbour.h`, `veth.h`.
mod kind {
    pub(super) const LINK_ADDRESS: u16 = 1;
    pub(super) const LINK_NAME: u16 = 3;
    pub(super) const LINK_MTU: u16 = 4;
    pub(super) const LINK_INFO: u16 = 18;
    pub(super) const LINK_AF_SPEC: u16 = 26;
    pub(super) const LINK_NET_NS_FD: u16 = 28;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const VETH_PEER: u16 = 1;
    pub(super) const INET_CONF: u16 = 1;
    /// `IPV4_DEVCONF_ROUTE_LOCALNET`, `include/uapi/linux/ip.h`.
    pub(super) const ROUTE_LOCALNET: u16 = 26;
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const IFA_FLAGS: u16 = 8;
    pub(super) const RTA_DESTINATION: u16 = 1;
    pub(super) const RTA_OUT: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
    pub(super) const RTA_SOURCE: u16 = 7;
    pub(super) const NEIGHBOUR_DESTINATION: u16 = 1;
    pub(super) const NEIGHBOUR_ADDRESS: u16 = 2;
}

const UP: u32 = 1;
/// The connected route is left out: everything goes by the gateway, siblings in a shared subnet
/// too.
const NO_PREFIX_ROUTE: u32 = 0x200;
const ON_LINK: u32 = 4;
const PERMANENT: u16 = 0x80;
const MAIN_TABLE: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const UNICAST: u8 = 1;

/// The host's interface towards everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// The host's own address there.
    pub(crate) address: Ipv4Addr,
    /// In bytes.
    pub(crate) mtu: u32,
}

/// A link of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

fn host_mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0xaa, 0xaa, a, b, c, d]
}

fn container_mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0xee, 0xee, a, b, c, d]
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn address_header(prefix: u8, index: u32) -> [u8; ADDRESS_HEADER] {
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// Makes a veth pair whose peer is born in `namespace`; the host's end is up, the container's end
/// is not. Returns the index of the host's end.
pub(crate) fn create(
    socket: &mut Socket,
    name: &str,
    number: u32,
    namespace: BorrowedFd<'_>,
    mtu: u32,
) -> io::Result<u32> {
    let mut request = Messages::new();
    push_pair(
        &mut request,
        |host| {
            host.put_text(kind::LINK_NAME, name)
                .put(kind::LINK_ADDRESS, &host_mac(number))
                .put_u32(kind::LINK_MTU, mtu);
        },
        |peer| {
            peer.put_text(kind::LINK_NAME, INNER)
                .put(kind::LINK_ADDRESS, &container_mac(number))
                .put_u32(kind::LINK_MTU, mtu);
        },
        namespace,
    );
    // Answers to NetIn by way of 127.0.0.1 come back through this link; what containers send there
    // of their own accord is dropped by the firewall's guard.
    request.push(SETLINK, flag::ACK, &link_header(0, UP, UP), |link| {
        link.put_text(kind::LINK_NAME, name).nest(kind::LINK_AF_SPEC, |families| {
            families.nest(u16::from(AF_INET), |inet| {
                inet.nest(kind::INET_CONF, |settings| {
                    settings.put_u32(kind::ROUTE_LOCALNET, 1);
                });
            });
        });
    });
    settle(socket, &request)?;
    find(socket, name)?.map(|link| link.index).ok_or_else(|| Errno::NODEV.into())
}

/// Asks for a veth pair, each end with these attributes, whose peer is born in `namespace`.
pub(crate) fn push_pair(
    request: &mut Messages,
    host: impl FnOnce(&mut Attributes<'_>),
    peer: impl FnOnce(&mut Attributes<'_>),
    namespace: BorrowedFd<'_>,
) {
    let descriptor = namespace.as_raw_fd().cast_unsigned();
    request.push(NEWLINK, flag::ACK | flag::CREATE | flag::EXCL, &link_header(0, 0, 0), |link| {
        host(link);
        link.nest(kind::LINK_INFO, |info| {
            info.put_text(kind::INFO_KIND, "veth").nest(kind::INFO_DATA, |data| {
                data.nest(kind::VETH_PEER, |attributes| {
                    attributes.raw(&link_header(0, 0, 0));
                    peer(attributes);
                    attributes.put_u32(kind::LINK_NET_NS_FD, descriptor);
                });
            });
        });
    });
}

/// Asks for a veth pair with these names.
pub(crate) fn push_named_pair(
    request: &mut Messages,
    [host, peer]: [&str; 2],
    namespace: BorrowedFd<'_>,
) {
    push_pair(
        request,
        |end| {
            end.put_text(kind::LINK_NAME, host);
        },
        |end| {
            end.put_text(kind::LINK_NAME, peer);
        },
        namespace,
    );
}

/// Asks for a link to be up.
pub(crate) fn push_up(request: &mut Messages, index: u32) {
    request.push(NEWLINK, flag::ACK, &link_header(index, UP, UP), |_| {});
}

/// Asks for an address on a link, with the route to its network.
pub(crate) fn push_address(request: &mut Messages, index: u32, address: Ipv4Addr, prefix: u8) {
    let header = address_header(prefix, index);
    request.push(NEWADDR, flag::ACK | flag::CREATE | flag::EXCL, &header, |attributes| {
        attributes
            .put(kind::IFA_LOCAL, &address.octets())
            .put(kind::IFA_ADDRESS, &address.octets());
    });
}

/// Gives the host's end the gateway's address, with the route to the container.
pub(crate) fn address_host(
    socket: &mut Socket,
    index: u32,
    number: u32,
    lease: Lease,
) -> io::Result<()> {
    let mut request = Messages::new();
    request.push(NEWADDR, flag::ACK | flag::CREATE | flag::EXCL, &address_header(32, index), |a| {
        peer(a, lease);
    });
    neighbour(&mut request, index, lease.address, container_mac(number));
    settle(socket, &request)
}

/// Takes the gateway's address and the route away again; what is gone already is no error.
pub(crate) fn unaddress_host(socket: &mut Socket, index: u32, lease: Lease) -> io::Result<()> {
    let mut request = Messages::new();
    request.push(DELADDR, flag::ACK, &address_header(32, index), |a| {
        peer(a, lease);
    });
    match settle(socket, &request) {
        Err(error) if gone(&error) => Ok(()),
        outcome => outcome,
    }
}

fn peer(attributes: &mut Attributes<'_>, lease: Lease) {
    attributes
        .put(kind::IFA_LOCAL, &lease.gateway().octets())
        .put(kind::IFA_ADDRESS, &lease.address.octets());
}

fn neighbour(request: &mut Messages, index: u32, address: Ipv4Addr, mac: [u8; 6]) {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    request.push(NEWNEIGH, flag::ACK | flag::CREATE | flag::REPLACE, &header, |attributes| {
        attributes
            .put(kind::NEIGHBOUR_DESTINATION, &address.octets())
            .put(kind::NEIGHBOUR_ADDRESS, &mac);
    });
}

/// What the container's end is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    pub(crate) number: u32,
    /// The address it has had.
    pub(crate) old: Option<Lease>,
    /// The address it gets; without one the link only comes up.
    pub(crate) new: Option<Lease>,
}

/// Sets up the container's end and its loopback, in the container's network namespace.
pub(crate) fn address_container(namespace: BorrowedFd<'_>, wanted: Inside) -> io::Result<()> {
    namespace::inside(namespace, move || {
        let mut socket = Socket::open(Protocol::Route)?;
        let index = find(&mut socket, INNER)?.ok_or(Errno::NODEV)?.index;
        let mut request = Messages::new();
        push_up(&mut request, LOOPBACK_INDEX);
        push_up(&mut request, index);
        if let Some(lease) = wanted.old {
            request.push(
                DELADDR,
                flag::ACK,
                &address_header(lease.subnet.prefix(), index),
                |attributes| {
                    attributes
                        .put(kind::IFA_LOCAL, &lease.address.octets())
                        .put(kind::IFA_ADDRESS, &lease.address.octets());
                },
            );
        }
        if let Some(lease) = wanted.new {
            let header = address_header(lease.subnet.prefix(), index);
            request.push(NEWADDR, flag::ACK | flag::CREATE | flag::EXCL, &header, |attributes| {
                attributes
                    .put(kind::IFA_LOCAL, &lease.address.octets())
                    .put(kind::IFA_ADDRESS, &lease.address.octets())
                    .put_u32(kind::IFA_FLAGS, NO_PREFIX_ROUTE);
            });
            neighbour(&mut request, index, lease.gateway(), host_mac(wanted.number));
            let mut header =
                [AF_INET, 0, 0, 0, MAIN_TABLE, PROTOCOL_STATIC, 0, UNICAST, 0, 0, 0, 0];
            header[8..].copy_from_slice(&ON_LINK.to_ne_bytes());
            request.push(NEWROUTE, flag::ACK | flag::CREATE | flag::REPLACE, &header, |route| {
                route
                    .put(kind::RTA_GATEWAY, &lease.gateway().octets())
                    .put_u32(kind::RTA_OUT, index);
            });
        }
        settle(&mut socket, &request)
    })
}

/// Deletes a link; one that is gone already is no error. It takes the kernel tens of milliseconds.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let mut request = Messages::new();
    request.push(DELLINK, flag::ACK, &link_header(0, 0, 0), |link| {
        link.put_text(kind::LINK_NAME, name);
    });
    match settle(socket, &request) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The link of this name.
pub(crate) fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut request = Messages::new();
    request.push(GETLINK, 0, &link_header(0, 0, 0), |link| {
        link.put_text(kind::LINK_NAME, name);
    });
    one_link(socket, &request)
}

/// All links whose names begin with `prefix`.
pub(crate) fn list(socket: &mut Socket, prefix: &str) -> io::Result<Vec<Link>> {
    let mut request = Messages::new();
    request.push(GETLINK, flag::DUMP, &link_header(0, 0, 0), |_| {});
    let mut links = Vec::new();
    socket.ask(&request, |message| links.extend(read_link(message)))?;
    links.retain(|link| link.name.starts_with(prefix));
    Ok(links)
}

/// The interface of the default route; `None` when there is no such route.
pub(crate) fn default_uplink(socket: &mut Socket) -> io::Result<Option<Uplink>> {
    // Any address that is nobody's neighbour will do; nothing is sent to it (RFC 5737).
    let anywhere = Ipv4Addr::new(203, 0, 113, 1);
    let mut request = Messages::new();
    let header = [AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    request.push(GETROUTE, 0, &header, |route| {
        route.put(kind::RTA_DESTINATION, &anywhere.octets());
    });
    let mut found = None;
    let asked = socket.ask(&request, |message| {
        let attributes = message.attributes(ROUTE_HEADER);
        let out = attributes.clone().get(kind::RTA_OUT).and_then(|a| a.as_u32());
        let source = attributes.get(kind::RTA_SOURCE).and_then(|a| ipv4(a.value));
        found = out.zip(source);
    });
    match asked {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NETUNREACH) => return Ok(None),
        asked => asked?,
    }
    let Some((index, address)) = found else { return Ok(None) };
    Ok(by_index(socket, index)?.map(|link| Uplink { address, mtu: link.mtu }))
}

/// The interface that has this address.
pub(crate) fn uplink_of(socket: &mut Socket, address: Ipv4Addr) -> io::Result<Option<Uplink>> {
    let mut request = Messages::new();
    request.push(GETADDR, flag::DUMP, &address_header(0, 0), |_| {});
    let mut found = None;
    socket.ask(&request, |message| {
        let local = message.attributes(ADDRESS_HEADER).get(kind::IFA_LOCAL);
        if local.and_then(|a| ipv4(a.value)) == Some(address) {
            found = u32_at(message.body, 4);
        }
    })?;
    let Some(index) = found else { return Ok(None) };
    Ok(by_index(socket, index)?.map(|link| Uplink { address, mtu: link.mtu }))
}

/// Networks that the host is in, apart from those of links whose names begin with `own`.
pub(crate) fn connected(socket: &mut Socket, own: &str) -> io::Result<Vec<Ipv4Network>> {
    let own: Vec<u32> = list(socket, own)?.into_iter().map(|link| link.index).collect();
    let mut request = Messages::new();
    request.push(GETADDR, flag::DUMP, &address_header(0, 0), |_| {});
    let mut found = Vec::new();
    socket.ask(&request, |message| {
        if u32_at(message.body, 4).is_some_and(|index| own.contains(&index)) {
            return;
        }
        let attributes = message.attributes(ADDRESS_HEADER);
        let address = |kind| attributes.clone().get(kind).and_then(|a| ipv4(a.value));
        let prefix = message.body.get(1).copied();
        // On a point-to-point link the network is the peer's.
        let network = address(kind::IFA_ADDRESS).zip(prefix);
        let local = address(kind::IFA_LOCAL).map(|local| (local, 32));
        let networks = [network, local].into_iter().flatten();
        found.extend(networks.filter_map(|(base, prefix)| Ipv4Network::containing(base, prefix)));
    })?;
    Ok(found)
}

fn by_index(socket: &mut Socket, index: u32) -> io::Result<Option<Link>> {
    let mut request = Messages::new();
    request.push(GETLINK, 0, &link_header(index, 0, 0), |_| {});
    one_link(socket, &request)
}

fn one_link(socket: &mut Socket, request: &Messages) -> io::Result<Option<Link>> {
    let mut found = None;
    match socket.ask(request, |message| found = read_link(message)) {
        Err(error) if gone(&error) => Ok(None),
        asked => asked.map(|()| found),
    }
}

fn read_link(message: Message<'_>) -> Option<Link> {
    if message.kind != NEWLINK {
        return None;
    }
    let attributes = message.attributes(LINK_HEADER);
    Some(Link {
        index: u32_at(message.body, 4)?,
        name: attributes.clone().get(kind::LINK_NAME)?.as_text()?.to_owned(),
        mtu: attributes.get(kind::LINK_MTU)?.as_u32()?,
    })
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NODEV | Errno::ADDRNOTAVAIL))
}

/// Sends a request all of whose messages must succeed.
pub(crate) fn settle(socket: &mut Socket, request: &Messages) -> io::Result<()> {
    match socket.execute(request)?.refusals.first() {
        None => Ok(()),
        Some(refusal) => Err(refusal.errno.into()),
    }
}

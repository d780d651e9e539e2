//! Whether a host's network is fit for containers, found without changing it.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use garden_api::{NetOutRule, Protocol as OutProtocol};

use crate::cidr::Ipv4Network;
use crate::error::Error;
use crate::link;
use crate::namespace;
use crate::networker::{Networker, Settings};
use crate::obstacle::{self, Obstacle};
use crate::socket::{Protocol, Socket};

/// Does all that a container needs of the network, in `host` and `container`, two new network
/// namespaces that end with it: settings, links, addresses, routes and rules of every kind. Files
/// are written in the settings' `memory`.
pub fn rehearse(host: OwnedFd, container: OwnedFd, settings: Settings) -> Result<(), Error> {
    const HANDLE: &str = "rehearsal";
    const NUMBER: u32 = 1;
    let play = || {
        let networker = Networker::start(settings)?;
        networker.settle(&HashSet::new())?;
        networker.plumb(container.as_fd(), NUMBER)?;
        networker.attach(HANDLE, NUMBER, "", || container.try_clone())?;
        networker.net_in(HANDLE, 0, 8080)?;
        let logged = NetOutRule { protocol: OutProtocol::Tcp, log: true, ..NetOutRule::default() };
        networker.net_out(HANDLE, &[logged])?;
        networker.destroy(HANDLE)?;
        // The link goes with it.
        drop(container);
        Ok(())
    };
    namespace::inside(host.as_fd(), move || Ok(play()))
        .map_err(Error::io("enter a network namespace"))?
}

/// What [`Networker::obstacles`] finds for a tag, without a networker.
pub fn obstacles(tag: &str) -> Result<Vec<Obstacle>, Error> {
    Socket::open(Protocol::Netfilter)
        .and_then(|mut socket| obstacle::obstacles(&mut socket, &format!("w{tag}-")))
        .map_err(Error::io("look for rules that drop what is forwarded"))
}

/// Networks that the host is in and that overlap a pool, apart from those of links of any Garden
/// whose tag is `tag`.
pub fn overlaps(pool: Ipv4Network, tag: &str) -> Result<Vec<Ipv4Network>, Error> {
    let connected = Socket::open(Protocol::Route)
        .and_then(|mut socket| link::connected(&mut socket, &format!("w{tag}-")))
        .map_err(Error::io("list the host's addresses"))?;
    Ok(connected.into_iter().filter(|network| network.overlaps(pool)).collect())
}

/// Whether the host has a default route.
pub fn has_uplink() -> Result<bool, Error> {
    let found = |mut socket: Socket| -> io::Result<bool> {
        Ok(link::default_uplink(&mut socket)?.is_some())
    };
    Socket::open(Protocol::Route)
        .and_then(found)
        .map_err(Error::io("find the host's external interface"))
}

//! A link of two ends between this network and another: neither containers' nor a networker's.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::Error;
use crate::link;
use crate::message::Messages;
use crate::namespace;
use crate::socket::{Protocol, Socket};

/// One end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The link's name, of at most 15 characters.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the prefix of the network that both are in.
    pub prefix: u8,
}

impl End {
    /// Brings it and the loopback up in the calling thread's network namespace.
    fn set_up(self) -> std::io::Result<()> {
        let mut socket = Socket::open(Protocol::Route)?;
        let index = link::find(&mut socket, self.name)?.ok_or(Errno::NODEV)?.index;
        let mut request = Messages::new();
        link::push_up(&mut request, link::LOOPBACK_INDEX);
        link::push_address(&mut request, index, self.address, self.prefix);
        link::push_up(&mut request, index);
        link::settle(&mut socket, &request)
    }
}

/// A veth pair (veth(4)) between the network namespace of the thread that makes it and another one.
/// It goes with either of the two.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The end in the maker's namespace.
    pub host: End,
    /// The end in the other one.
    pub peer: End,
}

impl Pair {
    /// Makes it; both ends are up and have their addresses then.
    pub fn make(&self, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let making = || Error::io(format!("make the link {}", self.host.name));
        let mut socket = Socket::open(Protocol::Route).map_err(making())?;
        let mut request = Messages::new();
        link::push_named_pair(&mut request, [self.host.name, self.peer.name], namespace);
        link::settle(&mut socket, &request).map_err(making())?;
        let peer = self.peer;
        self.host
            .set_up()
            .and_then(|()| namespace::inside(namespace, move || peer.set_up()))
            .map_err(Error::io(format!("set the link {} up", self.host.name)))
    }

    /// Removes it, whoever made it; one that is not there is no error.
    pub fn remove(&self) -> Result<(), Error> {
        Socket::open(Protocol::Route)
            .and_then(|mut socket| link::delete(&mut socket, self.host.name))
            .map_err(Error::io(format!("remove the link {}", self.host.name)))
    }
}

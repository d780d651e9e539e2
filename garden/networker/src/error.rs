//! Why the network could not do something.

use std::io;

use crate::cidr::{InvalidCidr, Ipv4Network};
use crate::egress::EgressError;
use crate::networker::MTUS;
use crate::ports::PortError;
use crate::subnets::SubnetError;

/// What callers of the networker see. Texts that Garden's clients know are Garden's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Not a network.
    #[error(transparent)]
    Cidr(#[from] InvalidCidr),
    /// Not a rule.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// What the host reaches by itself would be a container's.
    #[error("the requested subnet ({subnet}) overlaps a network of the host ({host})")]
    OverlapsHost {
        /// What was asked for.
        subnet: Ipv4Network,
        /// What the host is in.
        host: Ipv4Network,
    },
    /// Beyond 65535.
    #[error("port {0} is out of range")]
    PortOutOfRange(u32),
    /// Nothing is known by this name.
    #[error("{0} has no network")]
    Unattached(String),
    /// Not one subnet for a container fits into it.
    #[error("the network pool {0} is smaller than the /30 that a container needs")]
    PoolTooSmall(Ipv4Network),
    /// IPv4 does not work over such links (RFC 791), or no link is so.
    #[error("an MTU of {0} is not one of {least} to {most} bytes", least = MTUS.start(), most = MTUS.end())]
    Mtu(u32),
    /// A tag that does not fit into the names of links.
    #[error("tag {0:?} is not one to four letters or digits")]
    Tag(String),
    /// What an earlier daemon wrote down cannot be read.
    #[error("the network state of {handle} cannot be read")]
    State {
        /// Whose.
        handle: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Links of destroyed containers stay.
    #[error("{0} links of destroyed containers are still there")]
    Backlog(usize),
    /// The kernel, or a file.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted, on what.
        attempt: String,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was attempted when the operating system refused.
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}

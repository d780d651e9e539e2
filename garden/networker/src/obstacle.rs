//! Rules of others that keep containers' packets on the host.
//!
//! The kernel asks the chains of all tables about a packet that it forwards, and one that drops it is
//! enough. Docker and ufw make such a chain (a policy of drop), some distributions' images as well (a
//! last rule that rejects). Nothing of ours can allow what they refuse, so it is for people to mend.

use std::fmt;
use std::io;

use crate::firewall::TABLE_PREFIX;
use crate::nftables::{ForwardChain, forward_chains, refuse_everything, rules};
use crate::socket::Socket;

/// A chain of somebody's that refuses what no rule of its table allows, and has none for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    chain: ForwardChain,
    /// What the names of containers' links begin with.
    links: String,
}

impl Obstacle {
    /// A shell's line that lets containers through, to and fro; what containers may is decided by
    /// their own rules as ever. It lasts until that firewall is made anew.
    #[must_use]
    pub fn mend(&self) -> String {
        let Self { chain: ForwardChain { family, table, name, .. }, links } = self;
        // The table of iptables is called so, and its users have that program.
        let line = |way: &str| match (*family, table.as_str(), name.as_str()) {
            ("ip", "filter", "FORWARD") => format!("iptables -I FORWARD -{way} {links}+ -j ACCEPT"),
            _ => {
                format!("nft 'insert rule {family} {table} {name} {way}ifname \"{links}*\" accept'")
            }
        };
        format!("{} && {}", line("i"), line("o"))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ForwardChain { family, table, name, .. } = &self.chain;
        write!(f, "the chain {name} of the table {family} {table}")
    }
}

/// All that there are for links whose names begin with `links`.
pub(crate) fn obstacles(socket: &mut Socket, links: &str) -> io::Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    for chain in forward_chains(socket)? {
        if chain.table.starts_with(TABLE_PREFIX) {
            continue;
        }
        let (mut refuses, mut allows) = (chain.drops, false);
        rules(socket, &chain, |name, expressions| {
            // A rule about our links is there by somebody's decision, whatever it says.
            allows |= expressions.value.windows(links.len()).any(|part| part == links.as_bytes());
            if name == chain.name {
                refuses = chain.drops || refuse_everything(expressions);
            }
        })?;
        if refuses && !allows {
            found.push(Obstacle { chain, links: links.to_owned() });
        }
    }
    Ok(found)
}

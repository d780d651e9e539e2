//! Rules: lists of expressions that pass values through registers. The first that does not match
//! ends the rule; `nft --debug=netlink list ruleset` prints them so.
//!
//! Numbers are those of `include/uapi/linux/netfilter/nf_tables.h`.

use std::net::Ipv4Addr;

use crate::message::Attributes;
use crate::nftables::SetOfRule;
use crate::ranges::{Ranged, Within};

/// `NFPROTO_IPV4`.
const IPV4: u32 = 2;
/// Register that verdicts go to.
const VERDICT: u32 = 0;
/// The first 16 bytes of registers; the next four are [`BEHIND`].
const FIRST: u32 = 1;
const BEHIND: u32 = 2;
/// The second four bytes of [`FIRST`].
const SECOND_WORD: u32 = 9;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
pub(crate) const JUMP: i32 = -3;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Transport protocols by number.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Expressions of a rule under construction.
#[derive(Debug)]
pub(crate) struct Rule<'a, 'b> {
    list: &'a mut Attributes<'b>,
}

impl<'a, 'b> Rule<'a, 'b> {
    pub(crate) fn new(list: &'a mut Attributes<'b>) -> Self {
        Self { list }
    }
}

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.list.nest(1, |element| {
            element.put_text(1, name).nest(2, data);
        });
        self
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.expression("meta", |a| {
            a.put_be32(1, FIRST).put_be32(2, key);
        })
    }

    fn compare(&mut self, operation: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |a| {
            a.put_be32(1, FIRST).put_be32(2, operation).nest(3, |data| {
                data.put(1, value);
            });
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |a| {
            a.put_be32(1, register).put_be32(2, base).put_be32(3, offset).put_be32(4, length);
        })
    }

    fn network(&mut self, end: End, register: u32) -> &mut Self {
        let offset = if end == End::Source { 12 } else { 16 };
        self.payload(1, offset, 4, register)
    }

    fn port(&mut self) -> &mut Self {
        self.payload(2, 2, 2, FIRST)
    }

    fn link_name(&mut self, end: End) -> &mut Self {
        self.meta(if end == End::Source { 6 } else { 7 })
    }

    /// Came in by (source) or goes out by (destination) a link whose name begins so.
    pub(crate) fn link_like(&mut self, end: End, prefix: &str) -> &mut Self {
        self.link_name(end).compare(EQUAL, prefix.as_bytes())
    }

    /// The opposite of [`Rule::link_like`].
    pub(crate) fn link_unlike(&mut self, end: End, prefix: &str) -> &mut Self {
        self.link_name(end).compare(NOT_EQUAL, prefix.as_bytes())
    }

    /// Is IPv4; whatever looks at addresses behind it may rely on that.
    pub(crate) fn ipv4(&mut self) -> &mut Self {
        self.meta(15).compare(EQUAL, &[2])
    }

    /// Is anything but IPv4.
    pub(crate) fn not_ipv4(&mut self) -> &mut Self {
        self.meta(15).compare(NOT_EQUAL, &[2])
    }

    pub(crate) fn protocol(&mut self, protocol: u8) -> &mut Self {
        self.meta(16).compare(EQUAL, &[protocol])
    }

    pub(crate) fn address(&mut self, end: End, address: Ipv4Addr) -> &mut Self {
        self.network(end, FIRST).compare(EQUAL, &address.octets())
    }

    /// Lies in 127.0.0.0/8.
    pub(crate) fn loopback(&mut self, end: End) -> &mut Self {
        let offset = if end == End::Source { 12 } else { 16 };
        self.payload(1, offset, 1, FIRST).compare(EQUAL, &[127])
    }

    /// The destination is an address of the host's own.
    pub(crate) fn is_for_host(&mut self) -> &mut Self {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.expression("fib", |a| {
            a.put_be32(1, FIRST).put_be32(2, ADDRESS_TYPE).put_be32(3, OF_DESTINATION);
        })
        .compare(EQUAL, &LOCAL.to_ne_bytes())
    }

    pub(crate) fn address_within(&mut self, end: End, within: &Within<Ipv4Addr>) -> &mut Self {
        self.network(end, FIRST).within(within)
    }

    pub(crate) fn address_in_set(&mut self, end: End, set: &str) -> &mut Self {
        self.network(end, FIRST).lookup(set, None, None, false)
    }

    pub(crate) fn port_is(&mut self, port: u16) -> &mut Self {
        self.port().compare(EQUAL, &port.to_be_bytes())
    }

    pub(crate) fn port_within(&mut self, within: &Within<u16>) -> &mut Self {
        self.port().within(within)
    }

    pub(crate) fn icmp(&mut self, kind: u8, code: Option<u8>) -> &mut Self {
        self.payload(2, 0, 1, FIRST).compare(EQUAL, &[kind]);
        if let Some(code) = code {
            self.payload(2, 1, 1, FIRST).compare(EQUAL, &[code]);
        }
        self
    }

    fn within<N: Ranged>(&mut self, within: &Within<N>) -> &mut Self {
        match within {
            Within::Range(range) if range.start() == range.end() => {
                self.compare(EQUAL, &range.start().bytes())
            }
            Within::Range(range) => self.expression("range", |a| {
                a.put_be32(1, FIRST)
                    .put_be32(2, EQUAL)
                    .nest(3, |from| {
                        from.put(1, &range.start().bytes());
                    })
                    .nest(4, |to| {
                        to.put(1, &range.end().bytes());
                    });
            }),
            Within::Set(set) => self.lookup(SetOfRule::NAME, Some(*set), None, false),
        }
    }

    fn lookup(
        &mut self,
        set: &str,
        anonymous: Option<SetOfRule>,
        result: Option<u32>,
        inverted: bool,
    ) -> &mut Self {
        self.expression("lookup", |a| {
            a.put_text(1, set).put_be32(2, FIRST);
            if let Some(register) = result {
                a.put_be32(3, register);
            }
            if let Some(SetOfRule(id)) = anonymous {
                a.put_be32(4, id);
            }
            if inverted {
                a.put_be32(5, 1);
            }
        })
    }

    /// The pair of link name and source address is in the set.
    pub(crate) fn link_and_source_in(&mut self, link: End, set: &str) -> &mut Self {
        self.link_name(link).network(End::Source, BEHIND).lookup(set, None, None, false)
    }

    /// The pair of link name and source address is not in the set.
    pub(crate) fn link_and_source_not_in(&mut self, link: End, set: &str) -> &mut Self {
        self.link_name(link).network(End::Source, BEHIND).lookup(set, None, None, true)
    }

    /// Goes where the map sends the link's name; on if it is not there.
    pub(crate) fn dispatch_by_link(&mut self, map: &str) {
        self.link_name(End::Source).lookup(map, None, Some(VERDICT), false);
    }

    /// Belongs to a connection that was let through before, or is about one.
    pub(crate) fn established(&mut self) -> &mut Self {
        const STATE: u32 = 0;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.expression("ct", |a| {
            a.put_be32(1, FIRST).put_be32(2, STATE);
        })
        .expression("bitwise", |a| {
            a.put_be32(1, FIRST)
                .put_be32(2, FIRST)
                .put_be32(3, 4)
                .nest(4, |mask| {
                    mask.put(1, &ESTABLISHED_OR_RELATED.to_ne_bytes());
                })
                .nest(5, |flip| {
                    flip.put(1, &[0; 4]);
                });
        })
        .compare(NOT_EQUAL, &[0; 4])
    }

    /// Writes to the kernel's log.
    pub(crate) fn log(&mut self, prefix: &str) -> &mut Self {
        self.expression("log", |a| {
            a.put_text(2, prefix);
        })
    }

    fn verdict(&mut self, code: i32) {
        self.expression("immediate", |a| {
            a.put_be32(1, VERDICT).nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.put_be32(1, code.cast_unsigned());
                });
            });
        });
    }

    pub(crate) fn accept(&mut self) {
        self.verdict(ACCEPT);
    }

    pub(crate) fn drop(&mut self) {
        self.verdict(DROP);
    }

    /// Refuses with an ICMP destination-unreachable of this code.
    pub(crate) fn reject(&mut self, code: u8) {
        self.expression("reject", |a| {
            a.put_be32(1, 0).put_u8(2, code);
        });
    }

    /// Sends the connection to where the map sends its destination port.
    pub(crate) fn translate_by_port(&mut self, map: &str) {
        self.port().lookup(map, None, Some(FIRST), false).translate(SECOND_WORD);
    }

    /// Sends the connection to this address, its port unchanged.
    pub(crate) fn translate_to(&mut self, address: Ipv4Addr) {
        self.expression("immediate", |a| {
            a.put_be32(1, FIRST).nest(2, |data| {
                data.put(1, &address.octets());
            });
        })
        .expression("nat", |a| {
            a.put_be32(1, 1).put_be32(2, IPV4).put_be32(3, FIRST);
        });
    }

    fn translate(&mut self, port: u32) {
        self.expression("nat", |a| {
            a.put_be32(1, 1).put_be32(2, IPV4).put_be32(3, FIRST).put_be32(5, port);
        });
    }

    /// Replaces the source by the address of the link it leaves by, and its port by a random one:
    /// two connections that start at once do not race for one port.
    pub(crate) fn masquerade(&mut self) {
        const FULLY_RANDOM: u32 = 1 << 4;
        self.expression("masq", |a| {
            a.put_be32(1, FULLY_RANDOM);
        });
    }
}

//! nftables by nfnetlink: transactions of tables, chains, sets and rules.
//!
//! Numbers are those of `include/uapi/linux/netfilter/nf_tables.h`.

use std::io;

use crate::error::Error;
use crate::message::{Attribute, Attributes, Message, Messages, flag};
use crate::rule::{JUMP, Rule};
use crate::socket::{Protocol, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;

const INET: u8 = 1;
const IPV4: u8 = 2;
/// In requests to list.
const EVERY_FAMILY: u8 = 0;
const HEADER: usize = 4;
/// Keeps a message's list of elements far below an attribute's 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Types of keys and values, as the nft program reads them.
pub(crate) mod datatype {
    pub(crate) const IPV4: u32 = 7;
    pub(crate) const PORT: u32 = 13;
    pub(crate) const LINK_NAME: u32 = 41;
    pub(crate) const VERDICT: u32 = 0xffff_ff00;

    /// One after the other, each padded to four bytes.
    pub(crate) const fn pair(first: u32, second: u32) -> u32 {
        first << 6 | second
    }
}

/// Where the kernel asks a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Guard,
    Input,
    Forward,
    TranslateIncoming,
    TranslateOwn,
    TranslateOutgoing,
}

impl Hook {
    /// Type, number and priority.
    fn place(self) -> (&'static str, u32, i32) {
        match self {
            Self::Guard => ("filter", 0, -300),
            Self::Input => ("filter", 1, 0),
            Self::Forward => ("filter", 2, 0),
            Self::TranslateIncoming => ("nat", 0, -100),
            Self::TranslateOwn => ("nat", 3, -100),
            Self::TranslateOutgoing => ("nat", 4, 100),
        }
    }
}

/// A set's or map's shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Type and bytes of a key.
    pub(crate) key: (u32, u32),
    /// Type and bytes of a map's values.
    pub(crate) value: Option<(u32, u32)>,
    /// Elements are bounds of ranges.
    pub(crate) ranges: bool,
}

/// What an element of a map means.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Jump to this chain.
    Jump(String),
    Data(Vec<u8>),
}

/// Changes of one table that the kernel makes all at once or not at all.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    table: &'a str,
    messages: Messages,
    sets: u32,
}

fn family_header(family: u8, resource: u16) -> [u8; HEADER] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(table: &'a str) -> Self {
        let mut messages = Messages::new();
        messages.push(BATCH_BEGIN, 0, &family_header(0, SUBSYSTEM >> 8), |_| {});
        Self { table, messages, sets: 0 }
    }

    /// Makes all changes. The first refusal is the error; then nothing has changed.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> io::Result<()> {
        self.messages.push(BATCH_END, 0, &family_header(0, SUBSYSTEM >> 8), |_| {});
        match socket.execute(&self.messages)?.refusals.first() {
            None => Ok(()),
            Some(refusal) => Err(refusal.errno.into()),
        }
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.messages.push(kind, flags, &family_header(INET, 0), attributes);
    }

    /// The table as if it were new; what was in it is gone.
    pub(crate) fn replace_table(&mut self, comment: &str) {
        self.add_table("");
        self.delete_table();
        self.add_table(comment);
    }

    /// Makes the table, unless it exists; then it keeps the comment that it has.
    pub(crate) fn add_table(&mut self, comment: &str) {
        let table = self.table;
        self.push(NEW_TABLE, flag::CREATE, |a| {
            a.put_text(1, table);
            if !comment.is_empty() {
                a.put(6, &user_data(comment));
            }
        });
    }

    /// Deletes the table, which must exist, with all that is in it.
    pub(crate) fn delete_table(&mut self) {
        let table = self.table;
        self.push(DELETE_TABLE, 0, |a| {
            a.put_text(1, table);
        });
    }

    /// Makes a chain to jump to.
    pub(crate) fn add_chain(&mut self, name: &str) {
        self.push_chain(name, None);
    }

    /// Makes a chain that the kernel asks.
    pub(crate) fn chain(&mut self, name: &'static str, hook: Hook) -> BaseChain<'_, 'a> {
        self.push_chain(name, Some(hook));
        BaseChain { transaction: self, name }
    }

    fn push_chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table;
        self.push(NEW_CHAIN, flag::CREATE | flag::EXCL, |a| {
            a.put_text(1, table).put_text(3, name);
            if let Some(hook) = hook {
                let (kind, number, priority) = hook.place();
                a.nest(4, |h| {
                    h.put_be32(1, number).put_be32(2, priority.cast_unsigned());
                })
                .put_text(7, kind);
            }
        });
    }

    /// Deletes a chain to which nothing jumps any more, with its rules.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        let table = self.table;
        self.push(DELETE_RULE, 0, |a| {
            a.put_text(1, table).put_text(2, name);
        });
        self.push(DELETE_CHAIN, 0, |a| {
            a.put_text(1, table).put_text(3, name);
        });
    }

    /// Makes a named set or map.
    pub(crate) fn add_set(&mut self, name: &str, shape: Shape) {
        self.sets += 1;
        self.push_set(name, shape, 0, self.sets);
    }

    /// Makes a set that belongs to the one rule which looks it up.
    pub(crate) fn add_anonymous_set(&mut self, shape: Shape, elements: &[Element]) -> SetOfRule {
        const ANONYMOUS: u32 = 1;
        const CONSTANT: u32 = 2;
        self.sets += 1;
        let id = self.sets;
        self.push_set(SetOfRule::NAME, shape, ANONYMOUS | CONSTANT, id);
        self.push_elements(NEW_ELEMENTS, SetOfRule::NAME, Some(id), elements);
        SetOfRule(id)
    }

    fn push_set(&mut self, name: &str, shape: Shape, flags: u32, id: u32) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let table = self.table;
        let flags = flags
            | if shape.ranges { INTERVAL } else { 0 }
            | if shape.value.is_some() { MAP } else { 0 };
        self.push(NEW_SET, flag::CREATE | flag::EXCL, |a| {
            a.put_text(1, table)
                .put_text(2, name)
                .put_be32(3, flags)
                .put_be32(4, shape.key.0)
                .put_be32(5, shape.key.1);
            if let Some((kind, length)) = shape.value {
                a.put_be32(6, kind).put_be32(7, length);
            }
            a.put_be32(10, id);
        });
    }

    /// Adds elements to a named set or map. One that is there already is an error only if it means
    /// something else.
    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.push_elements(NEW_ELEMENTS, set, None, elements);
    }

    /// Takes elements, which must be there, out of a named set or map.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.push_elements(DELETE_ELEMENTS, set, None, elements);
    }

    fn push_elements(&mut self, kind: u16, set: &str, id: Option<u32>, elements: &[Element]) {
        let table = self.table;
        let flags = if kind == NEW_ELEMENTS { flag::CREATE } else { 0 };
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(kind, flags, |a| {
                a.put_text(1, table).put_text(2, set);
                if let Some(id) = id {
                    a.put_be32(4, id);
                }
                a.nest(3, |list| part.iter().for_each(|element| element.write(list)));
            });
        }
    }

    /// Appends a rule to a chain.
    pub(crate) fn append_rule(&mut self, chain: &str, rule: impl FnOnce(&mut Rule<'_, '_>)) {
        self.push_rule(flag::CREATE | flag::APPEND, chain, rule);
    }

    /// Makes a rule the first of a chain.
    pub(crate) fn prepend_rule(&mut self, chain: &str, rule: impl FnOnce(&mut Rule<'_, '_>)) {
        self.push_rule(flag::CREATE, chain, rule);
    }

    fn push_rule(&mut self, flags: u16, chain: &str, rule: impl FnOnce(&mut Rule<'_, '_>)) {
        let table = self.table;
        self.push(NEW_RULE, flags, |a| {
            a.put_text(1, table).put_text(2, chain).nest(4, |list| rule(&mut Rule::new(list)));
        });
    }
}

/// A chain that the kernel asks, under construction.
#[derive(Debug)]
pub(crate) struct BaseChain<'t, 'a> {
    transaction: &'t mut Transaction<'a>,
    name: &'static str,
}

impl BaseChain<'_, '_> {
    /// Appends a rule.
    pub(crate) fn rule(&mut self, rule: impl FnOnce(&mut Rule<'_, '_>)) {
        self.transaction.append_rule(self.name, rule);
    }
}

/// A table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Empty if there is none.
    pub(crate) comment: String,
}

/// All tables of the family that this networker uses whose names begin with `prefix`.
pub(crate) fn tables(socket: &mut Socket, prefix: &str) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    each_table(socket, INET, |message| {
        let attribute = |kind| message.attributes(HEADER).get(kind);
        let comment = attribute(6).and_then(|data| comment_of(data.value));
        tables.extend(table_name(message).filter(|name| name.starts_with(prefix)).map(|name| {
            Table { name: name.to_owned(), comment: comment.unwrap_or_default().to_owned() }
        }));
    })?;
    Ok(tables)
}

/// A chain of anybody's that the kernel asks about IPv4 packets on their way through the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardChain {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) name: String,
    /// What no rule decides about is dropped.
    pub(crate) drops: bool,
}

/// All of them, of every table.
pub(crate) fn forward_chains(socket: &mut Socket) -> io::Result<Vec<ForwardChain>> {
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    let mut request = Messages::new();
    request.push(GET_CHAIN, flag::DUMP, &family_header(EVERY_FAMILY, 0), |_| {});
    let mut chains = Vec::new();
    socket.ask(&request, |message| {
        let attribute = |kind| message.attributes(HEADER).get(kind);
        let family = message.body.first().and_then(|family| match *family {
            INET => Some("inet"),
            IPV4 => Some("ip"),
            _ => None,
        });
        let hook = attribute(4).and_then(|hook| hook.nested().get(1)?.as_be32());
        let text = |kind| Some(attribute(kind)?.as_text()?.to_owned());
        let found = family.zip(text(1)).zip(text(3));
        chains.extend(found.filter(|_| hook == Some(FORWARD)).map(|((family, table), name)| {
            let policy = attribute(5).and_then(|policy| policy.as_be32());
            ForwardChain { family, table, name, drops: policy == Some(DROP) }
        }));
    })?;
    Ok(chains)
}

/// Hands every rule of a chain's table to `each`, in order: its chain's name and its expressions.
pub(crate) fn rules(
    socket: &mut Socket,
    chain: &ForwardChain,
    mut each: impl FnMut(&str, Attribute<'_>),
) -> io::Result<()> {
    let family = if chain.family == "inet" { INET } else { IPV4 };
    let mut request = Messages::new();
    request.push(GET_RULE, flag::DUMP, &family_header(family, 0), |a| {
        a.put_text(1, &chain.table);
    });
    socket.ask(&request, |message| {
        let attribute = |kind| message.attributes(HEADER).get(kind);
        let text = |kind| attribute(kind).and_then(|text| text.as_text());
        if text(1) == Some(&chain.table)
            && let Some((name, expressions)) = text(2).zip(attribute(4))
        {
            each(name, expressions);
        }
    })
}

/// Whether expressions decide that every packet is dropped or refused.
pub(crate) fn refuse_everything(expressions: Attribute<'_>) -> bool {
    const DROP: u32 = 0;
    let mut refused = false;
    for expression in expressions.nested() {
        let attribute = |kind| expression.nested().get(kind);
        let data = |kind| attribute(2).and_then(|data| data.nested().get(kind));
        let verdict = || data(2)?.nested().get(2)?.nested().get(1)?.as_be32();
        match attribute(1).and_then(|name| name.as_text()) {
            Some("counter" | "log") => {}
            Some("reject") => refused = true,
            Some("immediate") if verdict() == Some(DROP) => refused = true,
            // Of iptables, which calls its targets so.
            Some("target") if data(1).and_then(|name| name.as_text()) == Some("REJECT") => {
                refused = true;
            }
            _ => return false,
        }
    }
    refused
}

/// All tables in the calling thread's network namespace, whoever made them, each as the nft program
/// names it: its family and its name.
pub fn table_names() -> Result<Vec<String>, Error> {
    let listing = || Error::io("list the nftables tables");
    let mut socket = Socket::open(Protocol::Netfilter).map_err(listing())?;
    let mut names = Vec::new();
    each_table(&mut socket, EVERY_FAMILY, |message| {
        let family = message.body.first().map_or("", |family| family_name(*family));
        names.extend(table_name(message).map(|name| format!("{family} {name}")));
    })
    .map_err(listing())?;
    Ok(names)
}

fn each_table(socket: &mut Socket, family: u8, each: impl FnMut(Message<'_>)) -> io::Result<()> {
    let mut request = Messages::new();
    request.push(GET_TABLE, flag::DUMP, &family_header(family, 0), |_| {});
    socket.ask(&request, each)
}

fn table_name(message: Message<'_>) -> Option<&str> {
    message.attributes(HEADER).get(1)?.as_text()
}

/// A family as the nft program calls it (`NFPROTO_*`, `include/uapi/linux/netfilter.h`).
fn family_name(family: u8) -> &'static str {
    match family {
        INET => "inet",
        IPV4 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

/// Of the user data that the nft program attaches to a table: a text with its zero, after a kind
/// and a length of one byte each (libnftnl, `NFTNL_UDATA_TABLE_COMMENT`).
const COMMENT: u8 = 0;

fn user_data(comment: &str) -> Vec<u8> {
    // The kernel takes 256 bytes, the nft program reads comments of 128.
    let comment = &comment.as_bytes()[..comment.len().min(127)];
    let mut data = vec![COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(comment);
    data.push(0);
    data
}

fn comment_of(mut data: &[u8]) -> Option<&str> {
    loop {
        let (head, rest) = data.split_at_checked(2)?;
        let (value, next) = rest.split_at_checked(head[1].into())?;
        if head[0] == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok();
        }
        data = next;
    }
}

/// An element of a set or map.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    key: Vec<u8>,
    value: Option<Value>,
    ends_range: bool,
}

impl Element {
    pub(crate) fn key(key: Vec<u8>) -> Self {
        Self { key, value: None, ends_range: false }
    }

    pub(crate) fn mapping(key: Vec<u8>, value: Value) -> Self {
        Self { key, value: Some(value), ends_range: false }
    }

    /// The first key beyond a range.
    pub(crate) fn end(key: Vec<u8>) -> Self {
        Self { key, value: None, ends_range: true }
    }

    fn write(&self, list: &mut Attributes<'_>) {
        const INTERVAL_END: u32 = 1;
        list.nest(1, |element| {
            if self.ends_range {
                element.put_be32(3, INTERVAL_END);
            }
            element.nest(1, |key| {
                key.put(1, &self.key);
            });
            match &self.value {
                None => {}
                Some(Value::Data(data)) => {
                    element.nest(2, |value| {
                        value.put(1, data);
                    });
                }
                Some(Value::Jump(chain)) => {
                    element.nest(2, |value| {
                        value.nest(2, |verdict| {
                            verdict.put_be32(1, JUMP.cast_unsigned()).put_text(2, chain);
                        });
                    });
                }
            }
        });
    }
}

/// A set made with [`Transaction::add_anonymous_set`], for a rule of the same transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetOfRule(pub(crate) u32);

impl SetOfRule {
    /// The kernel replaces `%d`.
    pub(crate) const NAME: &'static str = "__set%d";
}

/// A link's name as a key: 16 bytes, zeros at the end.
pub(crate) fn link_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read_as_they_are_written() {
        assert_eq!(user_data("a=b"), b"\0\x04a=b\0");
        assert_eq!(comment_of(&user_data("net.ipv4.ip_forward=0")), Some("net.ipv4.ip_forward=0"));
        // Something else before it, and what is no user data of the nft program.
        assert_eq!(comment_of(b"\x07\x01x\0\x02y\0"), Some("y"));
        for rubbish in [b"".as_slice(), b"\0", b"\0\x09a\0", b"\0\x02ab", b"\0\x02\xff\0"] {
            assert_eq!(comment_of(rubbish), None);
        }
    }
}

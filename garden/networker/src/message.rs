//! Netlink messages as bytes: headers, and attributes that nest.
//!
//! Layout from `include/uapi/linux/netlink.h`: numbers in host order, everything padded to four
//! bytes. Whatever cannot be read is skipped; a length that lies ends the iteration.

pub(crate) const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Header flags.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// One or more messages under construction, to be sent as one datagram.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    count: u32,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends a message; its sequence number is its place, from 0.
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family_header: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(family_header);
        pad(&mut self.bytes);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.count += 1;
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Attributes being appended to a message.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    pub(crate) fn put_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// As nfnetlink wants its numbers.
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// With the terminating NUL.
    pub(crate) fn put_text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inner(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes as they are, for a header inside a nest; the caller keeps them a multiple of four.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a family header of `header` bytes.
    pub(crate) fn attributes(self, header: usize) -> AttributeIter<'a> {
        AttributeIter { rest: self.body.get(header.next_multiple_of(4)..).unwrap_or(&[]) }
    }
}

/// The messages of a datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let body = rest.get(HEADER..length)?;
        let message = Message { kind: u16_at(rest, 4)?, sequence: u32_at(rest, 8)?, body };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// A received attribute; `kind` without the nesting and byte-order marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn nested(self) -> AttributeIter<'a> {
        AttributeIter { rest: self.value }
    }

    pub(crate) fn as_u32(self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    /// As nfnetlink sends its numbers.
    pub(crate) fn as_be32(self) -> Option<u32> {
        self.as_u32().map(u32::from_be)
    }

    pub(crate) fn as_text(self) -> Option<&'a str> {
        let end = self.value.iter().position(|b| *b == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).ok()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct AttributeIter<'a> {
    rest: &'a [u8],
}

impl<'a> AttributeIter<'a> {
    /// The first attribute of `kind`.
    pub(crate) fn get(mut self, kind: u16) -> Option<Attribute<'a>> {
        self.find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Leaf(u16, Vec<u8>),
        Nest(u16, Vec<Tree>),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = (1u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, value)| Tree::Leaf(kind, value));
        leaf.prop_recursive(4, 40, 6, |inner| {
            (1u16..0x3fff, prop::collection::vec(inner, 0..6))
                .prop_map(|(kind, children)| Tree::Nest(kind, children))
        })
    }

    fn write(tree: &Tree, attributes: &mut Attributes<'_>) {
        match tree {
            Tree::Leaf(kind, value) => {
                attributes.put(*kind, value);
            }
            Tree::Nest(kind, children) => {
                attributes.nest(*kind, |inner| children.iter().for_each(|c| write(c, inner)));
            }
        }
    }

    fn agrees(tree: &Tree, attribute: Attribute<'_>) -> bool {
        match tree {
            Tree::Leaf(kind, value) => attribute.kind == *kind && attribute.value == value,
            Tree::Nest(kind, children) => {
                attribute.kind == *kind
                    && attribute.nested().count() == children.len()
                    && children.iter().zip(attribute.nested()).all(|(c, a)| agrees(c, a))
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            sent in prop::collection::vec(
                (16u16.., prop::collection::vec(tree(), 0..6), prop::collection::vec(any::<u8>(), 0..20)),
                0..5,
            )
        ) {
            let mut buffer = Messages::new();
            for (kind, trees, header) in &sent {
                buffer.push(*kind, 0, header, |a| trees.iter().for_each(|t| write(t, a)));
            }
            let read: Vec<_> = messages(buffer.bytes()).collect();
            prop_assert_eq!(read.len(), sent.len());
            for (place, (message, (kind, trees, header))) in read.iter().zip(&sent).enumerate() {
                prop_assert_eq!(message.kind, *kind);
                prop_assert_eq!(message.sequence as usize, place);
                prop_assert_eq!(&message.body[..header.len()], &header[..]);
                let attributes = message.attributes(header.len());
                prop_assert_eq!(attributes.clone().count(), trees.len());
                prop_assert!(trees.iter().zip(attributes).all(|(t, a)| agrees(t, a)));
            }
        }

        #[test]
        fn reading_rubbish_ends(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes) {
                for attribute in message.attributes(4) {
                    attribute.nested().for_each(drop);
                }
            }
        }
    }
}

//! Header fields, of requests and responses alike.

use bytes::Bytes;

/// The fields of a head, in the order in which they came. Names are in the canonical case of the
/// original (`X-Cf-Applicationid`), so a name is equal to another only if its bytes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<Field>);

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
}

/// What belongs to one connection and is not passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "Connection",
    "Proxy-Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Te",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

impl Fields {
    /// The name must be in canonical case already.
    pub(crate) fn push(&mut self, name: Bytes, value: Bytes) {
        self.0.push(Field { name, value });
    }

    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.push(Bytes::from_static(name.as_bytes()), value.into());
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.remove(name);
        self.add(name, value);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|field| field.name != name);
    }

    /// The first of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|field| field.name == name).map(|field| &field.value)
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        self.0.iter().filter(move |field| field.name == name).map(|field| &field.value)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The parts of a list, of all fields of that name.
    pub(crate) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|part| !part.is_empty())
    }

    pub(crate) fn lists(&self, name: &str, part: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(part.as_bytes()))
    }

    /// Takes away what is not to be passed on, and what `Connection` names but for `kept`.
    pub(crate) fn strip_hop_by_hop(&mut self, kept: &[String]) {
        if self.get("Connection").is_some() {
            let named: Vec<Vec<u8>> = self.list("Connection").map(<[u8]>::to_vec).collect();
            let is = |name: &[u8], other: &[u8]| name.eq_ignore_ascii_case(other);
            self.0.retain(|field| {
                !named.iter().any(|name| is(name, &field.name))
                    || kept.iter().any(|name| is(name.as_bytes(), &field.name))
            });
        }
        self.0.retain(|field| !HOP_BY_HOP.iter().any(|name| field.name == *name));
    }

    /// Writes them sorted by name, those of one name in their order.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        self.0.sort_by(|one, other| one.name.cmp(&other.name));
        for Field { name, value } in &self.0 {
            write_field(out, name, value);
        }
    }
}

pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Upper case after the start and each hyphen, lower case elsewhere. Nothing for what is no token
/// (RFC 9110, 5.6.2).
pub(crate) fn canonicalize(name: &mut [u8]) -> Option<()> {
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return None;
    }
    let mut starts = true;
    for byte in name {
        if starts {
            byte.make_ascii_uppercase();
        } else {
            byte.make_ascii_lowercase();
        }
        starts = *byte == b'-';
    }
    Some(())
}

pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.add(name, *value);
        }
        fields
    }

    #[test]
    fn names_have_one_spelling() {
        for (name, canonical) in
            [("x-cf-applicationID", "X-Cf-Applicationid"), ("ETAG", "Etag"), ("x_a.B", "X_a.b")]
        {
            let mut name = name.as_bytes().to_vec();
            canonicalize(&mut name).unwrap();
            assert_eq!(name, canonical.as_bytes());
        }
        for bad in ["", "a b", "a:", "ä", "a\0"] {
            assert!(canonicalize(&mut bad.as_bytes().to_vec()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn connection_takes_away_what_it_names() {
        let mut all = fields(&[
            ("Connection", "x-gone, keep-alive"),
            ("Connection", "X-Forwarded-For"),
            ("X-Gone", "1"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Keep-Alive", "timeout=1"),
            ("B", "2"),
            ("B", "1"),
            ("A", "3"),
        ]);
        all.strip_hop_by_hop(&["x-forwarded-for".to_owned()]);
        let mut out = Vec::new();
        all.write(&mut out);
        assert_eq!(out, b"A: 3\r\nB: 2\r\nB: 1\r\nX-Forwarded-For: 1.2.3.4\r\n");
    }
}

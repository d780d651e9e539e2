//! A world beyond this host, so that egress can be shown where there is none: a network namespace
//! behind a link, with a web server and a name server in it.
//!
//! The namespace has no name: it is held by descriptors of this process, so whatever becomes of
//! that, the kernel takes namespace and link away.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use garden_networker::{End, Pair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::say::say;

/// The link; addresses are of TEST-NET-2 (RFC 5737).
const LINK: Pair = Pair {
    host: End { name: "bloomery-demo", address: HOST_ADDRESS, prefix: 30 },
    peer: End { name: "bloomery-out", address: ADDRESS, prefix: 30 },
};
/// The outside's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The host's address towards the outside.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The only name that its name server knows.
pub const HOST: &str = "outside.example";
/// What its web server says.
pub const GREETING: &str = "hello from outside";

/// The outside, which is there until this is dropped.
#[derive(Debug)]
pub struct Outside;

impl Outside {
    /// Makes the namespace, the link and the servers.
    pub fn make() -> anyhow::Result<Self> {
        // What a demonstration that was killed left may be on its way out.
        Self::remove()?;
        let namespace = garden_sys::namespaces::network().context("cannot make a namespace")?;
        let outside = Self;
        LINK.make(namespace.as_fd())?;
        let (web, names) = sockets_inside(namespace)?;
        std::thread::spawn(move || greet(&web));
        std::thread::spawn(move || resolve(&names));
        Ok(outside)
    }

    /// Removes an outside's link, whoever made it.
    pub fn remove() -> anyhow::Result<()> {
        Ok(LINK.remove()?)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Err(error) = Self::remove() {
            say!("the demonstration's outside is not removed: {error:#}");
        }
    }
}

/// Sockets belong to the namespace of the thread that opens them; that thread then ends. They hold
/// the namespace.
fn sockets_inside(namespace: OwnedFd) -> anyhow::Result<(TcpListener, UdpSocket)> {
    let opened = std::thread::spawn(move || -> io::Result<_> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok((TcpListener::bind((ADDRESS, 80))?, UdpSocket::bind((ADDRESS, 53))?))
    });
    opened
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that opens the outside's sockets died"))?
        .context("cannot listen outside")
}

/// Answers every request with a greeting that tells whom it came from.
fn greet(web: &TcpListener) {
    for connection in web.incoming().flatten() {
        let mut connection = connection;
        let peer = connection.peer_addr().map_or_else(|_| "?".into(), |peer| peer.ip().to_string());
        let mut request = [0; 1024];
        let _ = connection.read(&mut request);
        let body = format!("{GREETING}, {peer}\n");
        let _ = write!(
            connection,
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}

/// Answers questions for addresses (RFC 1035): [`HOST`] has one, no other name exists.
fn resolve(names: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, client)) = names.recv_from(&mut question) {
        if let Some(answer) = answer(&question[..length]) {
            let _: Result<usize, io::Error> = names.send_to(&answer, client);
        }
    }
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const NAME_ERROR: u8 = 3;
    const A: [u8; 2] = [0, 1];
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = question.get(at..at + 2)?;
    let known = labels.join(".") == HOST;
    let answers = u8::from(known && kind == A);
    let mut reply = question.get(..2)?.to_vec();
    // A response, with recursion, and one question; then the counts of the other sections.
    reply.extend([0x81, 0x80 | if known { 0 } else { NAME_ERROR }, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(question.get(HEADER..at + 4)?);
    if answers > 0 {
        // The name is the question's; an address in the Internet class, for a minute.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(ADDRESS.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::answer;

    fn question(name: &str) -> Vec<u8> {
        let mut bytes = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn one_name_is_known() {
        let known = answer(&question("Outside.example")).unwrap();
        assert_eq!((&known[..2], known[3] & 15, known[7]), (&[7, 8][..], 0, 1));
        assert!(known.ends_with(&[198, 51, 100, 2]));
        let unknown = answer(&question("inside.example")).unwrap();
        assert_eq!((unknown[3] & 15, unknown[7]), (3, 0));
    }

    #[test]
    fn rubbish_is_not_answered() {
        for bytes in [&b""[..], &[0; 12], &[255; 40]] {
            assert_eq!(answer(bytes), None);
        }
    }
}

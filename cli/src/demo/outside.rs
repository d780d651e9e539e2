//! A world beyond this host, so that egress can be shown where there is none: a network namespace
//! behind a link, with a web server and a name server in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Name of the namespace and of both ends of the link, whose names have at most 15 characters.
const NAME: &str = "bloomery-demo";
const LINK: &str = "bloomery-demo";
const PEER: &str = "bloomery-out";
/// The outside's address (TEST-NET-2, RFC 5737).
pub const ADDRESS: &str = "198.51.100.2";
/// The host's address towards the outside.
pub const HOST_ADDRESS: &str = "198.51.100.1";
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
        let outside = Self;
        ip(&["netns", "add", NAME])?;
        ip(&["link", "add", LINK, "type", "veth", "peer", "name", PEER, "netns", NAME])?;
        ip(&["address", "add", &format!("{HOST_ADDRESS}/30"), "dev", LINK])?;
        ip(&["link", "set", LINK, "up"])?;
        ip(&["-n", NAME, "address", "add", &format!("{ADDRESS}/30"), "dev", PEER])?;
        ip(&["-n", NAME, "link", "set", PEER, "up"])?;
        ip(&["-n", NAME, "link", "set", "lo", "up"])?;
        let (web, names) = sockets_inside()?;
        std::thread::spawn(move || greet(&web));
        std::thread::spawn(move || resolve(&names));
        Ok(outside)
    }

    /// Removes an outside, whoever made it.
    pub fn remove() -> anyhow::Result<()> {
        if std::path::Path::new("/run/netns").join(NAME).exists() {
            ip(&["netns", "delete", NAME])?;
        }
        if std::path::Path::new("/sys/class/net").join(LINK).exists() {
            // It goes with the namespace, unless somebody still holds that.
            let _ = ip(&["link", "delete", LINK]);
        }
        Ok(())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Err(error) = Self::remove() {
            println!("the demonstration's outside is not removed: {error:#}");
        }
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("cannot start ip: install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Sockets belong to the namespace of the thread that opens them; that thread then ends.
fn sockets_inside() -> anyhow::Result<(TcpListener, UdpSocket)> {
    let namespace = File::open(format!("/run/netns/{NAME}"))?;
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
        reply.extend(ADDRESS.parse::<Ipv4Addr>().ok()?.octets());
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

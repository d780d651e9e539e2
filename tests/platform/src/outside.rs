//! What is beyond a world: a network behind a link, with servers that apps may reach and such that they
//! may not.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::World;

/// The world's own address on the link.
pub const OWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A public address.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// A private one.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);
/// A name of [`PUBLIC`], at the name server there.
pub const NAME: &str = "outside.example";

/// The network. It and its servers end with the test.
#[derive(Debug)]
pub struct Outside {
    /// It is there for as long as this has an input.
    holder: Child,
}

impl Outside {
    /// Joins a world to one. On either address a server at port 80 says `hello ADDRESS` to whoever
    /// connects.
    pub fn of(world: &World) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo up; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests need unshare(1) of util-linux");
        let mut word = [0; 3];
        io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut word).unwrap();
        let place = format!("/proc/{}/ns/net", holder.id());
        let network = File::open(&place).unwrap();

        world.inside(|| {
            ip(&format!("link add uplink type veth peer name world netns {}", holder.id()));
            ip(&format!("address add {OWN}/24 dev uplink"));
            ip("link set uplink up");
            ip(&format!("route add default via {PUBLIC}"));
        });
        let (listeners, names) = inside(&network, || {
            for address in [PUBLIC, PRIVATE] {
                ip(&format!("address add {address}/24 dev world"));
            }
            ip("link set world up");
            let listen = |address| TcpListener::bind((address, 80)).unwrap();
            ([PUBLIC, PRIVATE].map(listen), UdpSocket::bind((PUBLIC, 53)).unwrap())
        });
        for listener in listeners {
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    // Whoever has gone does not hear it.
                    // At once: the app reads once.
                    let said = stream.peer_addr().map(|peer| format!("hello {}", peer.ip()));
                    let _ = said.and_then(|said| stream.write_all(said.as_bytes()));
                }
            });
        }
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = names.recv_from(&mut query) {
                answer(&names, &query[..length], client);
            }
        });
        Self { holder }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn inside<T: Send>(network: &File, work: impl FnOnce() -> T + Send) -> T {
    let worker = || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(worker).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// ip(8), where this thread's network is.
fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {words}: {done:?}");
}

/// Answers a query (RFC 1035, 4.1) of one question.
fn answer(socket: &UdpSocket, query: &[u8], client: SocketAddr) {
    const HEAD: usize = 12;
    const A: [u8; 2] = [0, 1];
    let Some(end) = query.get(HEAD..).and_then(|rest| rest.iter().position(|byte| *byte == 0))
    else {
        return;
    };
    let (name, rest) = (&query[HEAD..HEAD + end], &query[HEAD + end + 1..]);
    let Some(question) = query.get(HEAD..HEAD + end + 5) else { return };
    let labels = NAME.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap();
        std::iter::once(length).chain(label.bytes())
    });
    let is_known = name.to_ascii_lowercase() == labels.collect::<Vec<u8>>();
    let found = is_known && rest[..2] == A;
    // A response, recursion as desired and available; the name is known or it is not.
    let mut said = [&query[..2], &[0x81, if is_known { 0x80 } else { 0x83 }], &[0, 1]].concat();
    said.extend([0, u8::from(found), 0, 0, 0, 0]);
    said.extend(question);
    if found {
        // The question's name, A, IN, for a minute, four bytes.
        said.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        said.extend(PUBLIC.octets());
    }
    // Whoever has gone does not hear it.
    let _ = socket.send_to(&said, client);
}

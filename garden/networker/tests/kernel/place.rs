//! Network namespaces as places where sockets listen and connect.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A network namespace.
pub struct Place(OwnedFd);

impl Place {
    pub fn new() -> Self {
        Self(garden_sys::namespaces::network().unwrap())
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Does something in here.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let worker = || {
            move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(worker).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command in here, which must succeed; what it prints.
    pub fn run(&self, command: &str) -> String {
        let words: Vec<_> = command.split_whitespace().collect();
        let done = self.inside(|| Command::new(words[0]).args(&words[1..]).output().unwrap());
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}: {error}");
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn pings(&self, address: Ipv4Addr) -> bool {
        let address = address.to_string();
        self.inside(|| {
            let mut ping = Command::new("/bin/busybox");
            ping.args(["ping", "-c", "1", "-W", "3", &address]);
            ping.output().expect("the tests need /bin/busybox").status.success()
        })
    }

    pub fn listen(&self, address: impl Into<IpAddr>, port: u16) -> Listener {
        let address = SocketAddr::new(address.into(), port);
        let socket = self.inside(|| TcpListener::bind(address)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Listener { socket }
    }

    pub fn connect(&self, address: impl Into<IpAddr>, port: u16) -> io::Result<TcpStream> {
        self.connect_within(address, port, PATIENCE)
    }

    pub fn connect_within(
        &self,
        address: impl Into<IpAddr>,
        port: u16,
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let address = SocketAddr::new(address.into(), port);
        let stream = self.inside(|| TcpStream::connect_timeout(&address, patience))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A listening socket.
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// The next connection and who made it.
    pub fn accept(&self) -> (TcpStream, Ipv4Addr) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.accept() {
                Ok((stream, SocketAddr::V4(peer))) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return (stream, *peer.ip());
                }
                Ok((_, peer)) => panic!("a connection from {peer}"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nobody connects");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Connects to a listener and says something each way; whom the listener sees.
pub fn talk(from: &Place, to: impl Into<IpAddr>, port: u16, listener: &Listener) -> Ipv4Addr {
    let mut client = from.connect(to, port).unwrap();
    let (mut server, peer) = listener.accept();
    exchange(&mut client, &mut server);
    peer
}

/// Says something each way on a connection.
pub fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    let mut heard = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");
}

/// Joins a host to an outside that knows no way to it but this one address.
pub fn uplink(host: &Place, address: Ipv4Addr, outside: &Place, peer: Ipv4Addr) {
    let far_end = format!("/proc/{}/fd/{}", std::process::id(), outside.fd().as_raw_fd());
    host.run(&format!("ip link add uplink type veth peer name world netns {far_end}"));
    for (place, link, own) in [(host, "uplink", address), (outside, "world", peer)] {
        place.run("ip link set lo up");
        place.run(&format!("ip address add {own}/24 dev {link}"));
        place.run(&format!("ip link set {link} up"));
    }
    host.run(&format!("ip route add default via {peer}"));
}

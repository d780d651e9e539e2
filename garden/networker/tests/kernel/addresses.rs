//! What containers have and whom they reach.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::world::{HOST, OUTSIDE, SILENCE, World, talk};

#[test]
fn a_container_reaches_out_and_is_seen_as_the_host() {
    let world = World::new();
    let container = world.container("a");
    assert_eq!(container.address(), Ipv4Addr::new(10, 254, 0, 2));
    assert_eq!(container.addresses.host, Ipv4Addr::new(10, 254, 0, 1));
    assert_eq!(container.addresses.external, HOST);
    let listener = world.outside.listen(OUTSIDE, 80);
    assert_eq!(talk(&container.place, OUTSIDE, 80, &listener), HOST);
    assert!(container.place.pings(OUTSIDE));
    let inside = container.place.run("ip -o address show");
    assert!(inside.contains("inet 127.0.0.1/8"), "{inside}");
    assert!(inside.contains("inet 10.254.0.2/30"), "{inside}");
    assert_eq!(world.networker().hosts("a"), "127.0.0.1 localhost\n10.254.0.2 a\n");
    assert_eq!(world.networker().resolv_conf("a"), "nameserver 192.0.2.53\n");
}

#[test]
fn links_have_the_uplinks_mtu_or_the_operators() {
    for (uplink, configured, expected) in
        [(1400, None, 1400), (9000, None, 1500), (1500, Some(1280), 1280)]
    {
        let mut world = World::with(|settings| settings.mtu = configured);
        world.host.run(&format!("ip link set uplink mtu {uplink}"));
        world.kill();
        world.start();
        world.networker().settle(&Default::default()).unwrap();
        let container = world.container("a");
        for (place, link) in [(&world.host, "wt-1"), (&container.place, "eth0")] {
            let shown = place.run(&format!("ip -o link show {link}"));
            assert!(shown.contains(&format!("mtu {expected} ")), "{shown}");
        }
    }
}

#[test]
fn the_host_is_out_of_reach_and_reaches_in() {
    let world = World::new();
    let container = world.container("a");
    let on_host = world.host.listen(Ipv4Addr::UNSPECIFIED, 80);
    for address in [HOST, container.addresses.host] {
        let refused = container.place.connect(address, 80).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::HostUnreachable, "{address}");
        assert!(!container.place.pings(address));
    }
    let inside = container.place.listen(container.address(), 80);
    assert_eq!(talk(&world.host, container.address(), 80, &inside), container.addresses.host);
    drop(on_host);
}

#[test]
fn the_host_is_reached_if_the_operator_says_so() {
    let world = World::with(|settings| settings.allow_host_access = true);
    let container = world.container("a");
    let on_host = world.host.listen(Ipv4Addr::UNSPECIFIED, 80);
    for address in [HOST, container.addresses.host] {
        assert_eq!(talk(&container.place, address, 80, &on_host), container.address());
    }
}

#[test]
fn containers_reach_each_other_under_their_own_addresses() {
    let world = World::new();
    let (a, b) = (world.container("a"), world.container("b"));
    let listener = b.place.listen(b.address(), 80);
    assert_eq!(talk(&a.place, b.address(), 80, &listener), a.address());
}

#[test]
fn a_shared_subnet_talks_freely_even_where_it_is_denied() {
    let world = World::with(|settings| settings.deny = vec!["0.0.0.0/0".parse().unwrap()]);
    let a = world.container_in("a", "10.20.0.0/24").unwrap();
    let b = world.container_in("b", "10.20.0.0/24").unwrap();
    let c = world.container_in("c", "10.20.0.77/24").unwrap();
    let stranger = world.container("stranger");
    let known = [a.address(), b.address(), c.address()];
    assert_eq!(known.map(|address| address.octets()[3]), [2, 3, 77]);
    let shown = c.place.run("ip -o -4 address show eth0");
    assert!(shown.contains("inet 10.20.0.77/24"), "{shown}");
    assert!(!shown.contains("10.254."), "{shown}");
    let listener = c.place.listen(c.address(), 80);
    for friend in [&a, &b] {
        assert_eq!(talk(&friend.place, c.address(), 80, &listener), friend.address());
        assert!(friend.place.pings(c.address()));
    }
    let refused = stranger.place.connect(c.address(), 80).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(
        world.container_in("d", "10.20.0.77/24").err().unwrap(),
        "the requested IP is already allocated"
    );
    // The address that a held ahead for "d" and others is free again.
    let next = world.container("e");
    assert!(next.address().octets()[..3] == [10, 254, 0]);
}

#[test]
fn nobody_sends_in_anothers_name() {
    let world = World::new();
    let (a, b) = (world.container("a"), world.container("b"));
    let listener = world.outside.listen(OUTSIDE, 80);
    a.place.run(&format!("ip address add {}/32 dev eth0", b.address()));
    a.place.run(&format!(
        "ip route replace default via {} dev eth0 onlink src {}",
        a.addresses.host,
        b.address()
    ));
    let silence = a.place.connect_within(OUTSIDE, 80, SILENCE).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut);
    assert_eq!(talk(&b.place, OUTSIDE, 80, &listener), HOST);
}

#[test]
fn the_hosts_loopback_and_ipv6_are_closed_to_containers() {
    let world = World::with(|settings| settings.allow_host_access = true);
    let container = world.container("a");
    let loopback = world.host.listen(Ipv4Addr::LOCALHOST, 80);
    container.place.run("ip link set lo down");
    container.place.run(&format!(
        "ip route add 127.0.0.1/32 via {} dev eth0 onlink src {}",
        container.addresses.host,
        container.address()
    ));
    container.place.run("sysctl -qw net.ipv4.conf.eth0.route_localnet=1");
    let silence = container.place.connect_within(Ipv4Addr::LOCALHOST, 80, SILENCE).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut);
    drop(loopback);

    let six = world.host.listen(Ipv6Addr::UNSPECIFIED, 81);
    world.host.run("ip address add fd00::1/128 dev lo");
    container.place.run("ip address add fd00::2/64 dev eth0 nodad");
    container.place.run("ip neighbour replace fd00::1 lladdr aa:aa:00:00:00:01 dev eth0");
    world.host.run("ip route add fd00::2/128 dev wt-1");
    world.host.run("ip neighbour replace fd00::2 lladdr ee:ee:00:00:00:01 dev wt-1");
    let target = IpAddr::V6("fd00::1".parse().unwrap());
    let silence = container.place.connect_within(target, 81, SILENCE).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut);
    drop(six);
}

#[test]
fn a_name_server_on_the_hosts_loopback_answers_at_the_gateway() {
    let world = World::with(|settings| {
        std::fs::write(&settings.host_resolvers[0], "nameserver 127.0.0.53\n").unwrap();
    });
    let container = world.container("a");
    let gateway = container.addresses.host;
    assert_eq!(world.networker().resolv_conf("a"), format!("nameserver {gateway}\n"));
    let listener = world.host.listen(Ipv4Addr::new(127, 0, 0, 53), 53);
    assert_eq!(talk(&container.place, gateway, 53, &listener), container.address());

    use std::net::UdpSocket;
    let server = world.host.inside(|| UdpSocket::bind("127.0.0.53:53")).unwrap();
    server.set_read_timeout(Some(super::world::PATIENCE)).unwrap();
    let client = container.place.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.set_read_timeout(Some(super::world::PATIENCE)).unwrap();
    client.send_to(b"name?", (gateway, 53)).unwrap();
    let mut heard = [0; 16];
    let (length, peer) = server.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"name?");
    server.send_to(b"address", peer).unwrap();
    let (length, from) = client.recv_from(&mut heard).unwrap();
    assert_eq!((&heard[..length], from.ip()), (b"address".as_slice(), IpAddr::V4(gateway)));

    // Elsewhere is still elsewhere, and other ports of the host stay closed.
    let elsewhere = world.outside.listen(OUTSIDE, 53);
    assert_eq!(talk(&container.place, OUTSIDE, 53, &elsewhere), HOST);
    let closed = world.host.listen(Ipv4Addr::UNSPECIFIED, 54);
    assert!(container.place.connect(gateway, 54).is_err());
    drop(closed);
}

#[test]
fn networks_of_the_host_are_not_given_to_containers() {
    let world = World::new();
    for asked in ["192.0.2.0/24", "192.0.2.1", "192.0.0.0/16", "192.0.2.64/26", "127.0.0.0/24"] {
        let refused = world.container_in("a", asked).err().unwrap();
        assert!(refused.contains("overlaps a network of the host"), "{asked}: {refused}");
    }
    assert!(world.outside.pings(HOST), "the host is where it was");
    // Links of containers are no networks of the host's own.
    let first = world.container_in("a", "10.20.0.0/24").unwrap();
    let second = world.container_in("b", "10.20.0.0/24").unwrap();
    assert_ne!(first.address(), second.address());
}

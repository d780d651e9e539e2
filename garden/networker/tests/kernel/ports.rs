//! NetIn: ports of the host that lead into containers.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use super::world::{HOST, OUTSIDE, World, eventually, talk};

#[test]
fn a_mapped_port_is_reached_from_everywhere() {
    let world = World::new();
    let (a, b) = (world.container("a"), world.container("b"));
    let (host, inside) = world.networker().net_in("a", 0, 8080).unwrap();
    assert_eq!((host, inside), (61001, 8080));
    let listener = a.place.listen(Ipv4Addr::UNSPECIFIED, 8080);
    assert_eq!(talk(&world.outside, HOST, host, &listener), OUTSIDE);
    assert_eq!(talk(&world.host, HOST, host, &listener), HOST);
    assert_eq!(talk(&world.host, Ipv4Addr::LOCALHOST, host, &listener), a.addresses.host);
    assert_eq!(talk(&b.place, HOST, host, &listener), b.address());
    assert_eq!(talk(&a.place, HOST, host, &listener), a.addresses.host);
    // Only that port, and only on the host's address.
    let refused = world.outside.connect(HOST, host + 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_mapped_port_hides_the_hosts_own_and_gives_it_back() {
    let world = World::new();
    let on_host = world.host.listen(Ipv4Addr::UNSPECIFIED, 8000);
    let a = world.container("a");
    assert_eq!(talk(&world.outside, HOST, 8000, &on_host), OUTSIDE);
    assert_eq!(world.networker().net_in("a", 8000, 0).unwrap(), (8000, 8000));
    let listener = a.place.listen(a.address(), 8000);
    assert_eq!(talk(&world.outside, HOST, 8000, &listener), OUTSIDE);
    drop(listener);
    world.destroy(a);
    assert_eq!(talk(&world.outside, HOST, 8000, &on_host), OUTSIDE);
}

#[test]
fn a_port_mapped_twice_is_the_firsts_until_that_goes() {
    let world = World::new();
    let (a, b) = (world.container("a"), world.container("b"));
    for (handle, inside) in [("a", 1u16), ("a", 2), ("b", 3)] {
        let mapped = world.networker().net_in(handle, 7000, inside.into()).unwrap();
        assert_eq!(mapped, (7000, inside));
    }
    let at_a = a.place.listen(a.address(), 1);
    let at_b = b.place.listen(b.address(), 3);
    talk(&world.outside, HOST, 7000, &at_a);
    drop(at_a);
    world.destroy(a);
    talk(&world.outside, HOST, 7000, &at_b);
    world.destroy(b);
    let refused = world.outside.connect(HOST, 7000).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn ports_beyond_the_last_are_refused() {
    let world = World::new();
    let _a = world.container("a");
    for (host, inside) in [(65536, 1), (1, 65536)] {
        let error = world.networker().net_in("a", host, inside).unwrap_err();
        assert_eq!(error.to_string(), "port 65536 is out of range");
    }
    assert_eq!(
        world.networker().net_in("nobody", 0, 0).unwrap_err().to_string(),
        "nobody has no network"
    );
    assert_eq!(world.networker().net_in("a", 0, 0).unwrap(), (61001, 61001));
}

#[test]
fn ports_run_out_and_come_back_with_the_link_that_goes() {
    let world = World::with(|settings| settings.port_pool_size = 2);
    let (a, b) = (world.container("a"), world.container("b"));
    let network = world.networker();
    assert_eq!(network.net_in("a", 0, 80).unwrap().0, 61001);
    assert_eq!(network.net_in("a", 0, 80).unwrap().0, 61002);
    let error = network.net_in("b", 0, 80).unwrap_err();
    assert_eq!(error.to_string(), "port pool is exhausted");
    world.destroy(a);
    eventually("a port is free again", || network.net_in("b", 0, 80).is_ok());
    assert_eq!(network.net_in("b", 0, 80).unwrap().0, 61002);
    assert!(network.state("b").unwrap()["ports"].as_array().unwrap().len() == 2);
    drop(b);
}

//! What outlives a daemon, what goes with a container, and what runs out.

use std::collections::HashSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Instant;

use garden_networker::{Networker, Settings};

use super::world::{HOST, OUTSIDE, World, eventually, exchange, talk};

const FORWARDING: &str = "sysctl -n net.ipv4.ip_forward";

#[test]
fn another_daemon_goes_on_where_the_last_was_killed() {
    let mut world = World::with(|settings| settings.deny = vec!["192.0.2.0/24".parse().unwrap()]);
    let (a, stray) = (world.container("a"), world.container("stray"));
    let (parked, _) = world.park();
    let shared = world.container_in("shared", "10.20.0.0/24").unwrap();
    let network = world.networker();
    let allow = r#"{"protocol":1,"ports":[{"start":80,"end":81},{"start":443,"end":443}]}"#;
    network.net_out("a", &[serde_json::from_str(allow).unwrap()]).unwrap();
    let (host, _) = network.net_in("a", 0, 8080).unwrap();
    network.net_in("stray", 0, 80).unwrap();
    let outside = world.outside.listen(OUTSIDE, 80);
    let inside = a.place.listen(a.address(), 8080);
    let mut out = a.place.connect(OUTSIDE, 80).unwrap();
    let (mut out_peer, _) = outside.accept();
    let mut into = world.outside.connect(HOST, host).unwrap();
    let (mut into_peer, _) = inside.accept();
    let states = ["a", "shared"].map(|handle| (handle, network.state(handle).unwrap()));
    let rules = world.rules();

    world.kill();
    assert_eq!(world.rules(), rules);
    exchange(&mut out, &mut out_peer);
    world.start();
    assert_eq!(world.rules(), rules);
    for (handle, state) in &states {
        world.networker().restore(handle, state).unwrap();
        assert_eq!(world.networker().state(handle).as_ref(), Some(state));
    }
    world.networker().settle(&HashSet::from(["a", "shared"])).unwrap();

    exchange(&mut out, &mut out_peer);
    exchange(&mut into, &mut into_peer);
    assert_eq!(talk(&a.place, OUTSIDE, 80, &outside), HOST);
    assert_eq!(talk(&world.outside, HOST, host, &inside), OUTSIDE);
    a.place.connect(OUTSIDE, 82).unwrap_err();
    assert_eq!(world.links(), ["wt-1", "wt-4"]);
    assert!(!world.rules().contains("wt-2"));
    // Neither the addresses nor the ports are given out again, not even the stray's port at once.
    let next = world.container_in("next", "").unwrap();
    assert_ne!(next.address(), a.address());
    assert_eq!(world.networker().net_in("next", 0, 80).unwrap().0, 61003);
    let sibling = world.container_in("sibling", "10.20.0.0/24").unwrap();
    assert_ne!(sibling.address(), shared.address());
    world.destroy(a);
    drop((stray, parked));
}

#[test]
fn a_destroy_takes_everything_and_can_be_repeated() {
    let world = World::new();
    let keep = world.container("keep");
    let before = world.rules();
    let container = world.container("a");
    world.networker().net_in("a", 0, 80).unwrap();
    world.networker().net_in("a", 9000, 80).unwrap();
    world.networker().net_out("a", &[Default::default()]).unwrap();
    assert_ne!(world.rules(), before);
    drop(container.place);
    world.networker().destroy("a").unwrap();
    assert_eq!(world.rules(), before);
    world.networker().destroy("a").unwrap();
    world.networker().destroy("never was").unwrap();
    assert_eq!(world.networker().state("a"), None);
    eventually("its link is gone", || world.links() == ["wt-1"]);
    drop(keep);
}

#[test]
fn a_link_whose_namespace_stays_is_deleted() {
    let world = World::new();
    let container = world.container("a");
    world.networker().destroy("a").unwrap();
    eventually("its link is gone", || world.links().is_empty());
    drop(container);
}

#[test]
fn subnets_run_out_and_come_back() {
    let world = World::with(|settings| settings.pool = "10.254.0.0/29".parse().unwrap());
    assert_eq!(world.networker().capacity(), 2);
    let (a, b) = (world.container("a"), world.container("b"));
    let begun = Instant::now();
    let exhausted = "insufficient subnets remaining in the pool";
    assert_eq!(world.container_in("c", "").err().unwrap(), exhausted);
    assert!(begun.elapsed().as_millis() < 900, "nothing is leaving, so nothing is waited for");
    let address = a.address();
    world.destroy(a);
    let c = world.container_in("c", "").unwrap();
    assert_eq!(c.address(), address);
    assert_eq!(
        world.container_in("d", "10.254.0.0/30").err().unwrap(),
        "the requested subnet (10.254.0.0/30) overlaps the dynamic allocation range (10.254.0.0/29)"
    );
    let small = world.container_in("d", "10.30.0.0/30").unwrap();
    assert_eq!(
        world.container_in("e", "10.30.0.0/30").err().unwrap(),
        "insufficient IPs remaining in the subnet"
    );
    assert_eq!(
        world.container_in("e", "nonsense").err().unwrap(),
        "invalid CIDR address: nonsense/30"
    );
    let on_host = world.outside.listen(OUTSIDE, 80);
    for container in [&b, &c, &small] {
        assert_eq!(talk(&container.place, OUTSIDE, 80, &on_host), HOST);
    }
    eventually("links of refused ones are gone", || world.links().len() == 3);
}

#[test]
fn parked_links_give_their_subnet_up_to_who_needs_it() {
    let world = World::with(|settings| settings.pool = "10.254.0.0/30".parse().unwrap());
    let (first, number) = world.park();
    let late = world.container("late");
    let listener = world.outside.listen(OUTSIDE, 80);
    assert_eq!(talk(&late.place, OUTSIDE, 80, &listener), HOST);
    let namespace = || first.fd().try_clone_to_owned();
    let attach = || world.networker().attach("first", number, "", namespace);
    assert_eq!(attach().unwrap_err().to_string(), "insufficient subnets remaining in the pool");
    world.destroy(late);
    attach().unwrap();
    assert_eq!(talk(&first, OUTSIDE, 80, &listener), HOST);
}

#[test]
fn rules_that_somebody_deleted_are_made_anew() {
    let world = World::new();
    let a = world.container("a");
    let (host, _) = world.networker().net_in("a", 0, 80).unwrap();
    world.host.run("nft flush ruleset");
    world.networker().net_in("a", 9000, 80).unwrap();
    let rules = world.rules();
    let inside = a.place.listen(a.address(), 80);
    for port in [host, 9000] {
        assert_eq!(talk(&world.outside, HOST, port, &inside), OUTSIDE);
    }
    world.host.run("nft flush ruleset");
    let b = world.container("b");
    assert_eq!(talk(&b.place, HOST, host, &inside), b.address());
    world.host.run("nft flush ruleset");
    world.destroy(b);
    assert_eq!(world.rules(), rules);
}

#[test]
fn a_raze_puts_the_host_back() {
    let world = World::new();
    assert_eq!(world.host.run(FORWARDING), "1\n");
    let container = world.container("a");
    let (parked, number) = world.park();
    world.destroy(container);
    drop(parked);
    world.networker().unplumb(number);
    world.networker().raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "0\n");
    assert_eq!(world.rules(), "");
    assert!(world.links().is_empty());
    assert!(!world.settings.memory.exists());
}

#[test]
fn a_killed_daemons_sysctls_are_put_back_by_the_next() {
    let mut world = World::new();
    world.kill();
    world.start();
    world.networker().settle(&HashSet::new()).unwrap();
    assert_eq!(world.host.run(FORWARDING), "1\n");
    world.networker().raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "0\n");
}

/// What another daemon on the world's host is told.
fn beside(world: &World, tag: &str) -> Settings {
    let memory = world.settings.memory.with_file_name(format!("network-{tag}"));
    let pool = "10.253.0.0/22".parse().unwrap();
    Settings { tag: tag.into(), pool, memory, ..world.settings.clone() }
}

fn start(world: &World, settings: &Settings) -> Networker {
    let networker = world.host.inside(|| Networker::start(settings.clone())).unwrap();
    networker.settle(&HashSet::new()).unwrap();
    networker
}

#[test]
fn the_last_of_several_daemons_puts_the_sysctls_back() {
    let world = World::new();
    let (second, third) = (beside(&world, "u"), beside(&world, "v"));
    // The first one has found the value; the second has it from the first, the third from these.
    let middle = start(&world, &second);
    let last = start(&world, &third);
    let rules = world.rules();
    assert_eq!(rules.matches("comment \"net.ipv4.ip_forward=0\"").count(), 3, "{rules}");
    world.networker().raze().unwrap();
    middle.raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "1\n");
    last.raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "0\n");

    // A daemon that is killed still counts, and remembers when it comes back.
    let middle = start(&world, &second);
    drop(start(&world, &third));
    middle.raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "1\n");
    start(&world, &third).raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "0\n");
    assert_eq!(world.rules(), "");
    // What was set before the first one came stays set.
    world.host.run("sysctl -q -w net.ipv4.ip_forward=1");
    let (middle, last) = (start(&world, &second), start(&world, &third));
    middle.raze().unwrap();
    last.raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "1\n");
}

#[test]
fn daemons_that_come_and_go_at_once_leave_the_sysctls_as_they_were() {
    let world = World::new();
    world.networker().raze().unwrap();
    let world = &world;
    std::thread::scope(|scope| {
        for tag in ["u", "v", "w"] {
            let settings = beside(world, tag);
            scope.spawn(move || {
                for round in 0..12 {
                    let networker = start(world, &settings);
                    assert_eq!(world.host.run(FORWARDING), "1\n", "{tag} in round {round}");
                    networker.raze().unwrap();
                }
            });
        }
    });
    assert_eq!(world.host.run(FORWARDING), "0\n");
    assert_eq!(world.rules(), "");
}

#[test]
fn a_stranger_who_holds_the_daemons_turn_delays_and_does_not_stop_them() {
    let world = World::new();
    let name = SocketAddr::from_abstract_name("bloomery-sysctls").unwrap();
    let stranger = world.host.inside(|| UnixDatagram::bind_addr(&name)).unwrap();
    let networker = start(&world, &beside(&world, "u"));
    networker.raze().unwrap();
    world.networker().raze().unwrap();
    assert_eq!(world.host.run(FORWARDING), "0\n");
    drop(stranger);
}

#[test]
fn a_state_that_is_not_ones_own_is_refused() {
    let mut world = World::new();
    let a = world.container("a");
    world.networker().net_in("a", 0, 80).unwrap();
    let state = world.networker().state("a").unwrap();
    world.kill();
    fs::write(world.settings.memory.join("ports.json"), "rubbish").unwrap();
    world.start();
    let network = world.networker();
    network.restore("a", &state).unwrap();
    let twice = network.restore("b", &state).unwrap_err();
    assert_eq!(twice.to_string(), "the requested IP is already allocated");
    let rubbish = network.restore("c", &serde_json::json!({"number": "x"})).unwrap_err();
    assert_eq!(rubbish.to_string(), "the network state of c cannot be read");
    network.settle(&HashSet::from(["a"])).unwrap();
    assert_eq!(world.links(), ["wt-1"]);
    drop(a);
}

#[test]
fn what_changes_with_forwarding_is_put_back_with_it() {
    let mut world = World::new();
    world.networker().raze().unwrap();
    world.kill();
    let shown = "sysctl -n net.ipv4.ip_forward net.ipv4.conf.all.accept_redirects \
                 net.ipv4.conf.uplink.forwarding net.ipv4.conf.lo.forwarding";
    world
        .host
        .run("sysctl -q -w net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.uplink.forwarding=1");
    let before = world.host.run(shown);
    assert_eq!(before, "0\n0\n1\n0\n");
    world.start();
    world.networker().settle(&HashSet::new()).unwrap();
    assert_eq!(world.host.run(FORWARDING), "1\n");
    // A daemon that is killed has written down what it found.
    world.kill();
    world.start();
    world.networker().raze().unwrap();
    assert_eq!(world.host.run(shown), before);
}

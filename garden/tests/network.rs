//! Containers on the network, through the gardener's own calls.

mod plot;

use std::io::Read;
use std::net::Ipv4Addr;

use bloomery_garden::config::Config;
use garden_api::{ContainerSpec, NetIn, NetOutRule};
use garden_sys::supervisor::Exit;
use plot::place::{Place, uplink};
use plot::running::shell;
use plot::{Plot, wait_until};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

const SERVER: &str = "exec nc -ll -p 8080 -e echo hello";

fn plot(adjust: impl FnOnce(&mut Config)) -> (Plot, Place) {
    let (host, outside) = (Place::new(), Place::new());
    uplink(&host, HOST, &outside, OUTSIDE);
    (Plot::on(host, adjust), outside)
}

fn spec(handle: &str, network: &str) -> ContainerSpec {
    ContainerSpec {
        handle: handle.into(),
        network: network.into(),
        net_in: vec![NetIn { host_port: 0, container_port: 8080 }],
        ..ContainerSpec::default()
    }
}

/// What a server says at a port of the host, as soon as it listens.
fn answer(from: &Place, address: Ipv4Addr, port: u16) -> String {
    let mut stream = None;
    wait_until("a server listens", || {
        stream = from.connect(address, port).ok();
        stream.is_some()
    });
    let mut heard = String::new();
    stream.unwrap().read_to_string(&mut heard).unwrap();
    heard
}

#[test]
fn containers_reach_out_and_are_reached_across_a_restart() {
    let (mut plot, outside) = plot(|_| {});
    plot.create_as(spec("a", ""));
    plot.create_as(spec("b", "10.20.0.5/24"));
    let info = plot.garden().info("a").unwrap();
    let own: Ipv4Addr = info.container_ip.parse().unwrap();
    assert_eq!((&own.octets()[..3], own.octets()[3] % 4), ([10, 254, 0].as_slice(), 2));
    assert_eq!(info.host_ip, Ipv4Addr::from_bits(own.to_bits() - 1).to_string());
    assert_eq!(info.external_ip, "192.0.2.1");
    assert_eq!(
        info.properties["garden.network.mapped-ports"],
        r#"[{"HostPort":61001,"ContainerPort":8080}]"#
    );
    assert_eq!(plot.garden().info("b").unwrap().container_ip, "10.20.0.5");
    for handle in ["a", "b"] {
        plot.garden().run(handle, &shell(SERVER)).unwrap();
    }
    let listener = outside.listen(OUTSIDE, 80);
    for life in 0..2 {
        for (port, handle) in [(61001, "a"), (61002, "b")] {
            assert_eq!(answer(&outside, HOST, port), "hello\n", "{handle} in life {life}");
            assert_eq!(answer(&plot.host, HOST, port), "hello\n", "{handle} in life {life}");
            assert_eq!(answer(&plot.host, Ipv4Addr::LOCALHOST, port), "hello\n");
            let out = plot.start_sh(handle, &format!("echo out | nc {OUTSIDE} 80"));
            let (mut stream, peer) = listener.accept();
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!((&heard, peer), (b"out\n", HOST));
            drop(stream);
            assert_eq!(out.end().0, Exit::Status(0));
        }
        assert_eq!(plot.sh("a", "nc 10.20.0.5 8080 < /dev/null").output, "hello\n");
        plot.restart();
    }
    assert_eq!(plot.garden().net_in("a", 0, 0).unwrap(), (61003, 61003));
    for handle in ["a", "b"] {
        plot.garden().destroy(handle).unwrap();
    }
    assert!(outside.connect(HOST, 61001).is_err());
}

#[test]
fn denied_networks_need_a_rule_and_the_host_stays_out_of_reach() {
    let (plot, outside) = plot(|config| config.network.deny = vec!["0.0.0.0/0".into()]);
    let allow: NetOutRule = serde_json::from_str(
        r#"{"protocol":1,"networks":[{"start":"192.0.2.9"}],"ports":[{"start":80,"end":80}]}"#,
    )
    .unwrap();
    plot.create_as(ContainerSpec { net_out: vec![allow.clone()], ..spec("a", "") });
    plot.create_as(spec("b", ""));
    let listener = outside.listen(OUTSIDE, 80);
    let _on_host = plot.host.listen(Ipv4Addr::UNSPECIFIED, 80);
    let reaches = |handle: &str, address: &str| {
        plot.sh(handle, &format!("nc -w 5 {address} 80 < /dev/null")).exit == Exit::Status(0)
    };
    assert!(!reaches("b", "192.0.2.9"));
    assert!(!reaches("a", "192.0.2.1") && !reaches("a", "10.254.0.1"));
    plot.garden().net_out("b", &allow).unwrap();
    for handle in ["a", "b"] {
        let out = plot.start_sh(handle, "nc 192.0.2.9 80 < /dev/null");
        drop(listener.accept());
        assert_eq!(out.end().0, Exit::Status(0));
    }
}

#[test]
fn a_create_without_a_subnet_left_fails_and_leaves_nothing() {
    let (plot, _outside) = plot(|config| {
        config.network.pool = "10.254.0.0/30".into();
        config.network.port_pool_size = 1;
    });
    assert_eq!(plot.garden().capacity().unwrap().max_containers, 1);
    plot.create_as(spec("a", ""));
    let refused = |spec| plot.garden().create(spec).unwrap_err().to_string();
    assert_eq!(refused(spec("b", "")), "insufficient subnets remaining in the pool");
    assert_eq!(refused(spec("b", "10.20.0.1/24")), "a container IP must not equal the gateway IP");
    assert_eq!(refused(spec("b", "10.20.0.0/24")), "port pool is exhausted");
    assert_eq!(plot.garden().list(&Default::default()), ["a"]);
    assert!(!plot.config.depot.join("b").exists());
    plot.garden().destroy("a").unwrap();
    plot.create_as(spec("b", ""));
    assert_eq!(plot.garden().info("b").unwrap().container_ip, "10.254.0.2");
}

#[test]
fn traffic_is_counted_where_an_interface_is_named() {
    let (plot, outside) = plot(|config| config.network_metrics = true);
    plot.create_as(spec("a", ""));
    let traffic = || plot.garden().metrics("a").unwrap().network;
    let property = |key: &str, value: &str| plot.garden().set_property("a", key, value).unwrap();
    assert_eq!(traffic(), None);
    property("garden.network.interface", "eth1");
    assert_eq!(traffic(), None);
    property("garden.network.interface", "eth0");
    let before = traffic().unwrap();
    let listener = outside.listen(OUTSIDE, 80);
    let sent = 100_000;
    let out = plot.start_sh("a", &format!("head -c {sent} /dev/zero | nc {OUTSIDE} 80"));
    let (mut stream, _) = listener.accept();
    let mut heard = vec![0; sent];
    stream.read_exact(&mut heard).unwrap();
    drop(stream);
    assert_eq!(out.end().0, Exit::Status(0));
    let after = traffic().unwrap();
    assert!(after.tx_bytes >= before.tx_bytes + sent as u64, "{before:?} {after:?}");
    assert!((1..10_000).contains(&(after.rx_bytes - before.rx_bytes)), "{before:?} {after:?}");
    property("network.healthcheck", "true");
    assert_eq!(traffic(), None);
}

//! Denied networks, and NetOut rules that allow some of them.

use std::io::ErrorKind;
use std::process::Command;

use garden_api::NetOutRule;

use super::place::Place;
use super::world::{Container, HOST, OUTSIDE, SILENCE, World, talk};

fn denying() -> World {
    World::with(|settings| {
        settings.deny = vec!["192.0.2.0/25".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    })
}

fn rule(json: &str) -> NetOutRule {
    serde_json::from_str(json).unwrap()
}

fn refused(container: &Container, port: u16) -> bool {
    match container.place.connect(OUTSIDE, port) {
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(_) => false,
    }
}

#[test]
fn denied_networks_are_refused_until_a_rule_allows() {
    let world = denying();
    let (a, b) = (world.container("a"), world.container("b"));
    let listeners = [80, 81, 443].map(|port| world.outside.listen(OUTSIDE, port));
    for port in [80, 81, 443] {
        assert!(refused(&a, port));
    }
    assert!(!a.place.pings(OUTSIDE));
    let allow = rule(
        r#"{"protocol":1,"networks":[{"start":"192.0.2.9"}],"ports":[{"start":80,"end":80}]}"#,
    );
    world.networker().net_out("a", &[allow]).unwrap();
    assert_eq!(talk(&a.place, OUTSIDE, 80, &listeners[0]), HOST);
    assert!(refused(&a, 81) && refused(&b, 80) && !a.place.pings(OUTSIDE));
}

#[test]
fn rules_hold_many_networks_and_ports() {
    let world = denying();
    let container = world.container("a");
    let listeners = [80, 90, 443].map(|port| world.outside.listen(OUTSIDE, port));
    let allow = rule(
        r#"{"protocol":1,
            "networks":[{"start":"192.0.2.200","end":"192.0.2.100"},{"start":"198.51.100.1"},
                        {"start":"192.0.2.8","end":"192.0.2.10"},{"start":"192.0.2.9"}],
            "ports":[{"start":85,"end":90},{"start":80,"end":84},{"start":443,"end":443}]}"#,
    );
    world.networker().net_out("a", &[allow]).unwrap();
    for listener in &listeners {
        assert_eq!(talk(&container.place, OUTSIDE, listener.port(), listener), HOST);
    }
    let closed = world.outside.listen(OUTSIDE, 91);
    assert!(refused(&container, 91));
    drop(closed);
}

#[test]
fn a_rule_with_empty_networks_allows_nothing_and_all_allows_everything() {
    let world = denying();
    let container = world.container("a");
    let listener = world.outside.listen(OUTSIDE, 80);
    let nothing = rule(r#"{"networks":[{"start":"192.0.2.200","end":"192.0.2.100"}]}"#);
    world.networker().net_out("a", &[nothing]).unwrap();
    assert!(refused(&container, 80));
    world.networker().net_out("a", &[rule("{}")]).unwrap();
    assert_eq!(talk(&container.place, OUTSIDE, 80, &listener), HOST);
    assert!(container.place.pings(OUTSIDE));
}

#[test]
fn icmp_is_allowed_by_type_and_code() {
    let world = denying();
    let container = world.container("a");
    let allow = |json: &str| world.networker().net_out("a", &[rule(json)]).unwrap();
    allow(r#"{"protocol":3,"icmps":{"type":13}}"#);
    allow(r#"{"protocol":3,"icmps":{"type":8,"code":1}}"#);
    assert!(!container.place.pings(OUTSIDE));
    allow(r#"{"protocol":3,"icmps":{"type":8,"code":0}}"#);
    assert!(container.place.pings(OUTSIDE));
    let listener = world.outside.listen(OUTSIDE, 80);
    assert!(refused(&container, 80));
    drop(listener);
}

#[test]
fn a_bad_rule_changes_nothing() {
    let world = denying();
    let container = world.container("a");
    let good = rule(r#"{"protocol":1}"#);
    let bad = rule(r#"{"protocol":9}"#);
    let error = world.networker().net_out("a", &[good, bad]).unwrap_err();
    assert_eq!(error.to_string(), "invalid protocol: 9");
    let listener = world.outside.listen(OUTSIDE, 80);
    assert!(refused(&container, 80));
    drop(listener);
    let error = world.networker().net_out("nobody", &[rule("{}")]).unwrap_err();
    assert_eq!(error.to_string(), "nobody has no network");
}

#[test]
fn logging_rules_name_the_container() {
    let world = denying();
    let handle = "a-handle-of-more-than-twenty-eight-characters";
    let container = world.container(handle);
    let listener = world.outside.listen(OUTSIDE, 80);
    world.networker().net_out(handle, &[rule(r#"{"protocol":1,"log":true}"#)]).unwrap();
    assert_eq!(talk(&container.place, OUTSIDE, 80, &listener), HOST);
    let rules = world.rules();
    let expected =
        "meta nfproto ipv4 meta l4proto tcp log prefix \"a-handle-of-more-than-twenty \" accept";
    assert!(rules.contains(expected), "{rules}");
}

/// What a shell says to a line, which must succeed.
fn shell(place: &Place, line: &str) {
    let done = place.inside(|| Command::new("sh").args(["-c", line]).output().unwrap());
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_found_until_it_lets_containers_through() {
    let mut world = World::new();
    let container = world.container("a");
    let listener = world.outside.listen(OUTSIDE, 80);
    assert_eq!(world.networker().obstacles().unwrap(), []);
    let hooked = "type filter hook forward priority 0;";
    // By policy, as of Docker and ufw; by a last rule, as of some distributions' images.
    for rules in [
        format!("add chain inet wall gate {{ {hooked} policy drop; }}"),
        format!("add chain inet wall gate {{ {hooked} }}; add rule inet wall gate counter reject"),
        format!("add chain inet wall gate {{ {hooked} }}; add rule inet wall gate counter drop"),
    ] {
        let others = "iifname docker0 accept";
        shell(&world.host, &format!("nft 'add table inet wall; {rules}'"));
        shell(&world.host, &format!("nft 'insert rule inet wall gate {others}'"));
        container.place.connect_within(OUTSIDE, 80, SILENCE).unwrap_err();
        // Whether the daemon was there before or comes later.
        world.kill();
        world.start();
        let found = world.networker().obstacles().unwrap();
        let [wall] = found.as_slice() else { panic!("{rules}: {found:?}") };
        assert_eq!(wall.to_string(), "the chain gate of the table inet wall");
        shell(&world.host, &wall.mend());
        assert_eq!(talk(&container.place, OUTSIDE, 80, &listener), HOST, "{rules}");
        assert_eq!(world.networker().obstacles().unwrap(), []);
        shell(&world.host, "nft delete table inet wall");
    }
}

#[test]
fn firewalls_that_let_containers_through_are_no_obstacle() {
    let world = World::new();
    let container = world.container("a");
    let listener = world.outside.listen(OUTSIDE, 80);
    let hooked = "type filter hook forward priority 0;";
    for rules in [
        format!("add chain inet wall gate {{ {hooked} }}"),
        format!(
            "add chain inet wall gate {{ {hooked} }}; add rule inet wall gate tcp dport 81 drop"
        ),
        "add chain inet wall gate { type filter hook input priority 0; policy drop; }".to_owned(),
        "add chain inet wall gate; add rule inet wall gate drop".to_owned(),
    ] {
        shell(&world.host, &format!("nft 'add table inet wall; {rules}'"));
        assert_eq!(talk(&container.place, OUTSIDE, 80, &listener), HOST, "{rules}");
        assert_eq!(world.networker().obstacles().unwrap(), [], "{rules}");
        shell(&world.host, "nft delete table inet wall");
    }
}

#[test]
fn a_chain_of_iptables_is_mended_with_iptables() {
    let world = World::new();
    let chain = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    shell(&world.host, &format!("nft 'add table ip filter; {chain}'"));
    let found = world.networker().obstacles().unwrap();
    let [wall] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        wall.mend(),
        "iptables -I FORWARD -i wt-+ -j ACCEPT && iptables -I FORWARD -o wt-+ -j ACCEPT"
    );
}

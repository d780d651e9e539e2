//! A link of two ends, and the tables that are there.

use std::net::Ipv4Addr;

use garden_networker::{End, Pair, table_names};

use super::place::{Place, talk};
use super::world::eventually;

const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PAIR: Pair = Pair {
    host: End { name: "here", address: HERE, prefix: 30 },
    peer: End { name: "there", address: THERE, prefix: 30 },
};

#[test]
fn a_pair_joins_two_networks_until_it_is_removed() {
    let (here, there) = (Place::new(), Place::new());
    here.inside(|| PAIR.make(there.fd())).unwrap();
    let listener = there.listen(THERE, 80);
    assert_eq!(talk(&here, THERE, 80, &listener), HERE);
    // Its own address is reached by the loopback.
    assert_eq!(talk(&there, THERE, 80, &listener), THERE);
    let again = here.inside(|| PAIR.make(there.fd())).unwrap_err();
    assert_eq!(again.to_string(), "cannot make the link here");

    here.inside(|| PAIR.remove()).unwrap();
    assert!(!here.run("ip -o link show").contains("here"));
    assert!(!there.run("ip -o link show").contains("there"));
    here.inside(|| PAIR.remove()).unwrap();
}

#[test]
fn a_pair_goes_with_the_other_network() {
    let (here, there) = (Place::new(), Place::new());
    here.inside(|| PAIR.make(there.fd())).unwrap();
    drop(there);
    eventually("the link is gone", || !here.run("ip -o link show").contains("here"));
}

#[test]
fn tables_of_every_family_are_listed_as_nft_names_them() {
    let place = Place::new();
    assert_eq!(place.inside(table_names).unwrap(), Vec::<String>::new());
    let families = ["inet", "ip", "ip6", "arp", "bridge", "netdev"];
    for family in families {
        place.run(&format!("nft add table {family} of_{family}"));
    }
    let mut listed = place.inside(table_names).unwrap();
    listed.sort();
    let mut expected = families.map(|family| format!("{family} of_{family}"));
    expected.sort();
    assert_eq!(listed, expected);
    let mut shown: Vec<_> =
        place.run("nft list tables").lines().map(|line| line.replace("table ", "")).collect();
    shown.sort();
    assert_eq!(listed, shown);
}

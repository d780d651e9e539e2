//! Machines on a switch: cuts, losses and delays in one direction or both, and lost machines.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use machine::{Cluster, Fault, Kernel, Machine};

const PATIENCE: Duration = Duration::from_secs(120);
const CUT: Fault = Fault { cut: true, loss: 0.0, delay: Duration::ZERO };

/// How many of some pings are answered, each waited for two seconds.
fn answered(machine: &Machine, place: u8, pings: u32) -> u32 {
    let command = format!("ping -A -c {pings} -W 2 {}", Cluster::address(place));
    let told = machine.sh(&command).unwrap();
    let line = told.output.lines().find(|line| line.contains("packets received"));
    let line = line.unwrap_or_else(|| panic!("{command}: {told}"));
    let received = line.split(", ").nth(1).and_then(|part| part.split(' ').next());
    received.unwrap().parse().unwrap()
}

fn reaches(machine: &Machine, place: u8) -> bool {
    answered(machine, place, 1) > 0
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
    }
}

#[test]
fn a_cut_parts_two_machines_and_not_the_third() {
    let cluster = Cluster::start(Kernel::V6_1, 3).unwrap();
    let [one, two, three] = cluster.machines.as_slice() else { panic!("three machines") };
    for (machine, place) in [(one, 1), (two, 2), (three, 0)] {
        wait_until("they reach each other", || reaches(machine, place));
    }
    cluster.network.set_both(0, 1, CUT);
    assert!(!reaches(one, 1) && !reaches(two, 0));
    assert!(reaches(one, 2) && reaches(two, 2));
    cluster.network.heal();
    wait_until("they reach each other again", || reaches(one, 1));
}

/// How many echo requests a machine has received.
fn requests(machine: &Machine) -> u64 {
    let told = machine.sh("grep ^Icmp: /proc/net/snmp").unwrap().output;
    let (names, values) = told.split_once('\n').unwrap();
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "InEchos").unwrap().1.parse().unwrap()
}

/// Whether a request arrives, be it answered or not.
fn is_heard(cluster: &Cluster, from: u8, to: u8) -> bool {
    let hearer = &cluster.machines[usize::from(to)];
    let before = requests(hearer);
    reaches(&cluster.machines[usize::from(from)], to);
    requests(hearer) > before
}

#[test]
fn a_cut_may_have_one_direction() {
    let cluster = Cluster::start(Kernel::V6_1, 2).unwrap();
    // Both know each other's hardware address for good, or a cut would end both directions.
    for (machine, other) in cluster.machines.iter().zip([1, 0]) {
        let script = format!(
            "/bin/ip neigh replace {} lladdr 52:54:00:00:01:0{} dev eth0 nud permanent",
            Cluster::address(other),
            other + 1
        );
        let told = machine.sh(&script).unwrap();
        assert_eq!(told.status, 0, "{told}");
    }
    cluster.network.set(0, 1, CUT);
    assert!(!is_heard(&cluster, 0, 1));
    wait_until("the other direction is open", || is_heard(&cluster, 1, 0));
    assert!(!reaches(&cluster.machines[1], 0), "answers are cut");
    let cut = cluster.network.counts(0, 1);
    assert!(cut.dropped > 0, "{cut:?}");
    cluster.network.heal();
    wait_until("it is heard again", || is_heard(&cluster, 0, 1));
}

#[test]
fn frames_are_lost_and_late_as_told() {
    let cluster = Cluster::start(Kernel::V6_12, 2).unwrap();
    let [one, _] = cluster.machines.as_slice() else { panic!("two machines") };
    wait_until("they reach each other", || reaches(one, 1));
    cluster.network.set(0, 1, Fault { delay: Duration::from_millis(400), ..Fault::default() });
    let start = Instant::now();
    wait_until("the late answer comes", || reaches(one, 1));
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    let before = cluster.network.counts(1, 0);
    cluster.network.set(0, 1, Fault::default());
    cluster.network.set(1, 0, Fault { loss: 0.5, ..Fault::default() });
    let all = answered(one, 1, 40);
    assert!((5..=35).contains(&all), "half of the answers are lost: {all} of 40 came");
    assert!(cluster.network.counts(1, 0).dropped > before.dropped);
    cluster.network.heal();
    wait_until("none is lost any more", || answered(one, 1, 5) == 5);
}

#[test]
fn a_machine_without_cable_or_power_is_not_reached_and_comes_back() {
    let mut cluster = Cluster::start(Kernel::V6_1, 2).unwrap();
    wait_until("they reach each other", || reaches(&cluster.machines[0], 1));
    let carrier = |cluster: &Cluster| {
        cluster.machines[1].run(&["cat", "/sys/class/net/eth0/carrier"]).unwrap().output
    };
    cluster.machines[1].set_link(false).unwrap();
    wait_until("the cable is out", || carrier(&cluster) == "0\n");
    assert!(!reaches(&cluster.machines[0], 1));
    cluster.machines[1].set_link(true).unwrap();
    wait_until("the cable is in", || reaches(&cluster.machines[0], 1));

    cluster.machines[1].pause().unwrap();
    assert!(!reaches(&cluster.machines[0], 1));
    cluster.machines[1].resume().unwrap();
    wait_until("it goes on", || reaches(&cluster.machines[0], 1));

    cluster.machines[1].kill();
    assert!(!reaches(&cluster.machines[0], 1));
    cluster.restart(1).unwrap();
    wait_until("another one is in its place", || reaches(&cluster.machines[0], 1));
    assert_eq!(cluster.machines[1].run(&["hostname"]).unwrap().output, "cell-2\n");
}

#[test]
fn every_frame_is_in_the_capture() {
    let cluster = Cluster::start(Kernel::V6_1, 2).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    cluster.network.capture(&path).unwrap();
    wait_until("they reach each other", || reaches(&cluster.machines[0], 1));
    let capture = std::fs::read(&path).unwrap();
    assert_eq!(capture[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    // 10.0.16.1 to 10.0.16.2, ICMP: the echo request's addresses stand behind each other.
    let addresses = [10, 0, 16, 1, 10, 0, 16, 2];
    assert!(capture.windows(8).any(|window| window == addresses));
}

//! A network namespace's counters, as `/proc/<pid>/net/dev` tells them (proc_pid_net(5)).

use garden_api::NetworkStat;

/// Bytes behind an interface's name: received first, sent after seven other numbers.
const RECEIVED: usize = 0;
const SENT: usize = 8;

/// What has gone through an interface; `None` if there is no such one.
pub(crate) fn through(interface: &str, devices: &str) -> Option<NetworkStat> {
    let counters = devices.lines().find_map(|line| {
        let (name, counters) = line.split_once(':')?;
        (name.trim_start() == interface).then_some(counters)
    })?;
    let counters: Vec<_> = counters.split_ascii_whitespace().collect();
    let bytes = |at: usize| counters.get(at)?.parse().ok();
    Some(NetworkStat { rx_bytes: bytes(RECEIVED)?, tx_bytes: bytes(SENT)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     150       2    0    0    0     0          0         0      150       2    0    0    0     0       0          0
  eth0:    1218      14    0    0    0     0          0         0     2436      28    0    0    0     0       0          0
";

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let stat = through("eth0", DEVICES).unwrap();
        assert_eq!((stat.rx_bytes, stat.tx_bytes), (1218, 2436));
        for unknown in ["eth", "eth01", "", "face |bytes"] {
            assert_eq!(through(unknown, DEVICES), None, "{unknown}");
        }
    }
}

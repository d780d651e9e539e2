//! Garden's built-in networker: subnets, ports, veth pairs, nftables rules, all by netlink.

#![forbid(unsafe_code)]

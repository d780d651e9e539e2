//! Who has which subnet and address: the dynamic pool of /30s and subnets asked for by clients.
//!
//! ```text
//!               acquire_dynamic                      release
//! free /30 ───────────────────────> leased ───────────────────────> free, last in line
//!               acquire_static                       release (last address)
//! (nothing) ─────────────────────> leased, shared ────────────────> (nothing)
//! ```
//!
//! Pure bookkeeping; the kernel is not asked. Texts of errors are Garden's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::cidr::{InvalidCidr, Ipv4Network};

const DYNAMIC_PREFIX: u8 = 30;
const ADDRESSES_IN_DYNAMIC: u32 = 4;

/// An address in a subnet, held by one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The network the container sees.
    pub subnet: Ipv4Network,
    /// The container's address.
    pub address: Ipv4Addr,
}

impl Lease {
    /// The host's address in the subnet: the one after its base.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        gateway(self.subnet)
    }
}

/// What a container specification's `network` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The next free /30 of the pool.
    Dynamic,
    /// Some free address of this subnet, which several containers may share.
    Subnet(Ipv4Network),
    /// This very address.
    Address(Lease),
}

impl Request {
    /// Reads the field `network` of a container specification: empty, `a.b.c.d` (a /30) or
    /// `a.b.c.d/n`. The address of the network itself stands for any address in it.
    pub fn parse(network: &str) -> Result<Self, InvalidCidr> {
        if network.is_empty() {
            return Ok(Self::Dynamic);
        }
        let (address, subnet) = if network.contains('/') {
            Ipv4Network::parse_with_address(network)?
        } else {
            Ipv4Network::parse_with_address(&format!("{network}/{DYNAMIC_PREFIX}"))?
        };
        Ok(if address == subnet.base() {
            Self::Subnet(subnet)
        } else {
            Self::Address(Lease { subnet, address })
        })
    }
}

/// Why no address was given. Texts are those of Garden's server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Every /30 of the pool is in use.
    #[error("insufficient subnets remaining in the pool")]
    PoolExhausted,
    /// Every address of a requested subnet is in use, or it has none to give.
    #[error("insufficient IPs remaining in the subnet")]
    SubnetExhausted,
    /// Another container has it.
    #[error("the requested IP is already allocated")]
    AddressTaken,
    /// The host keeps this one.
    #[error("a container IP must not equal the gateway IP")]
    IsGateway,
    /// Nobody may have this one.
    #[error("a container IP must not equal the broadcast IP")]
    IsBroadcast,
    /// Only in state restored from outside: the two disagree.
    #[error("the requested IP ({address}) is not within the subnet ({subnet})")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// Its alleged subnet.
        subnet: Ipv4Network,
    },
    /// The pool is not for picking.
    #[error("the requested subnet ({subnet}) overlaps the dynamic allocation range ({pool})")]
    OverlapsPool {
        /// What was asked for.
        subnet: Ipv4Network,
        /// The pool.
        pool: Ipv4Network,
    },
    /// Only equal subnets may be shared.
    #[error("the requested subnet ({subnet}) overlaps an existing subnet ({existing})")]
    OverlapsSubnet {
        /// What was asked for.
        subnet: Ipv4Network,
        /// What is in use.
        existing: Ipv4Network,
    },
}

/// All leases of one daemon.
#[derive(Clone, Debug)]
pub struct Subnets {
    pool: Ipv4Network,
    /// Indices of /30s in use, counted from the pool's base.
    dynamic: BTreeSet<u32>,
    /// Where the next search starts, so that a released /30 is reused as late as possible.
    cursor: u32,
    shared: BTreeMap<Ipv4Network, BTreeSet<Ipv4Addr>>,
}

impl Subnets {
    /// All free. A pool longer than /30 holds nothing.
    #[must_use]
    pub fn new(pool: Ipv4Network) -> Self {
        Self { pool, dynamic: BTreeSet::new(), cursor: 0, shared: BTreeMap::new() }
    }

    /// How many /30s the pool has, used ones included.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        match self.pool.prefix() {
            prefix @ 0..=DYNAMIC_PREFIX => 1 << (DYNAMIC_PREFIX - prefix),
            _ => 0,
        }
    }

    /// Takes what is asked for.
    pub fn acquire(&mut self, request: Request) -> Result<Lease, SubnetError> {
        match request {
            Request::Dynamic => self.acquire_dynamic(),
            Request::Subnet(subnet) => {
                self.check_shared(subnet)?;
                let taken = self.shared.get(&subnet);
                let address = (subnet.base().to_bits()..=subnet.last().to_bits())
                    .map(Ipv4Addr::from_bits)
                    .skip(2)
                    .find(|a| *a != subnet.last() && taken.is_none_or(|taken| !taken.contains(a)))
                    .ok_or(SubnetError::SubnetExhausted)?;
                Ok(self.share(Lease { subnet, address }))
            }
            Request::Address(lease) => {
                self.check_shared(lease.subnet)?;
                check_address(lease)?;
                if self.shared.get(&lease.subnet).is_some_and(|t| t.contains(&lease.address)) {
                    return Err(SubnetError::AddressTaken);
                }
                Ok(self.share(lease))
            }
        }
    }

    /// Takes exactly `lease` again, as recorded by an earlier life of the daemon. The pool's own
    /// /30s may be named here.
    pub fn reclaim(&mut self, lease: Lease) -> Result<(), SubnetError> {
        let Some(index) = self.dynamic_index(lease.subnet) else {
            return self.acquire(Request::Address(lease)).map(drop);
        };
        check_address(lease)?;
        if self.dynamic.insert(index) { Ok(()) } else { Err(SubnetError::AddressTaken) }
    }

    /// Gives `lease` back; nothing happens if it is not held. Returns whether its subnet is now
    /// without leases.
    pub fn release(&mut self, lease: Lease) -> bool {
        if let Some(index) = self.dynamic_index(lease.subnet) {
            self.dynamic.remove(&index);
            return true;
        }
        let Some(addresses) = self.shared.get_mut(&lease.subnet) else { return true };
        addresses.remove(&lease.address);
        let empty = addresses.is_empty();
        if empty {
            self.shared.remove(&lease.subnet);
        }
        empty
    }

    /// Whether `subnet` is one of the pool's /30s.
    #[must_use]
    pub fn is_dynamic(&self, subnet: Ipv4Network) -> bool {
        self.dynamic_index(subnet).is_some()
    }

    fn acquire_dynamic(&mut self) -> Result<Lease, SubnetError> {
        let capacity = self.capacity();
        let index = first_gap(&self.dynamic, self.cursor, capacity)
            .or_else(|| first_gap(&self.dynamic, 0, self.cursor))
            .ok_or(SubnetError::PoolExhausted)?;
        self.dynamic.insert(index);
        self.cursor = (index + 1) % capacity;
        let base = Ipv4Addr::from_bits(self.pool.base().to_bits() + index * ADDRESSES_IN_DYNAMIC);
        let subnet = Ipv4Network::containing(base, DYNAMIC_PREFIX)
            .unwrap_or_else(|| unreachable!("30 is a prefix length"));
        Ok(Lease { subnet, address: Ipv4Addr::from_bits(base.to_bits() + 2) })
    }

    fn dynamic_index(&self, subnet: Ipv4Network) -> Option<u32> {
        (subnet.prefix() == DYNAMIC_PREFIX && self.pool.contains(subnet.base()))
            .then(|| (subnet.base().to_bits() - self.pool.base().to_bits()) / ADDRESSES_IN_DYNAMIC)
            .filter(|index| *index < self.capacity())
    }

    fn check_shared(&self, subnet: Ipv4Network) -> Result<(), SubnetError> {
        if subnet.overlaps(self.pool) {
            return Err(SubnetError::OverlapsPool { subnet, pool: self.pool });
        }
        match self
            .shared
            .keys()
            .find(|existing| **existing != subnet && subnet.overlaps(**existing))
        {
            Some(existing) => Err(SubnetError::OverlapsSubnet { subnet, existing: *existing }),
            None => Ok(()),
        }
    }

    fn share(&mut self, lease: Lease) -> Lease {
        self.shared.entry(lease.subnet).or_default().insert(lease.address);
        lease
    }
}

fn gateway(subnet: Ipv4Network) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.base().to_bits() | 1)
}

fn check_address(Lease { subnet, address }: Lease) -> Result<(), SubnetError> {
    if !subnet.contains(address) || address == subnet.base() {
        return Err(SubnetError::Outside { address, subnet });
    }
    if address == gateway(subnet) {
        return Err(SubnetError::IsGateway);
    }
    if address == subnet.last() {
        return Err(SubnetError::IsBroadcast);
    }
    Ok(())
}

/// The lowest number in `from..to` that is not in `used`.
fn first_gap(used: &BTreeSet<u32>, from: u32, to: u32) -> Option<u32> {
    let mut candidate = from;
    for taken in used.range(from..to.max(from)) {
        if *taken != candidate {
            break;
        }
        candidate += 1;
    }
    (candidate < to).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnets() -> Subnets {
        Subnets::new("10.254.0.0/22".parse().unwrap())
    }

    fn acquire(subnets: &mut Subnets, network: &str) -> Result<Lease, String> {
        let request = Request::parse(network).map_err(|e| e.to_string())?;
        subnets.acquire(request).map_err(|e| e.to_string())
    }

    #[test]
    fn dynamic_leases_come_in_order_and_return_late() {
        let mut subnets = subnets();
        let first = acquire(&mut subnets, "").unwrap();
        assert_eq!(first.subnet.to_string(), "10.254.0.0/30");
        assert_eq!(first.address, Ipv4Addr::new(10, 254, 0, 2));
        assert_eq!(first.gateway(), Ipv4Addr::new(10, 254, 0, 1));
        assert!(subnets.release(first));
        let second = acquire(&mut subnets, "").unwrap();
        assert_eq!(second.address, Ipv4Addr::new(10, 254, 0, 6));
    }

    #[test]
    fn the_pool_ends_and_recovers() {
        let mut subnets = subnets();
        let leases: Vec<_> = (0..256).map(|_| subnets.acquire(Request::Dynamic).unwrap()).collect();
        assert_eq!(subnets.capacity(), 256);
        assert_eq!(
            acquire(&mut subnets, "").unwrap_err(),
            "insufficient subnets remaining in the pool"
        );
        subnets.release(leases[7]);
        assert_eq!(subnets.acquire(Request::Dynamic).unwrap(), leases[7]);
    }

    #[test]
    fn requests_answer_in_gardens_words() {
        let mut subnets = subnets();
        assert_eq!(
            acquire(&mut subnets, "10.253.0.10/24").unwrap().address,
            Ipv4Addr::new(10, 253, 0, 10)
        );
        for (network, text) in [
            ("not-an-ip", "invalid CIDR address: not-an-ip/30"),
            ("10.253.0.999/24", "invalid CIDR address: 10.253.0.999/24"),
            ("10.253.1.10/40", "invalid CIDR address: 10.253.1.10/40"),
            (
                "10.254.0.0/30",
                "the requested subnet (10.254.0.0/30) overlaps the dynamic allocation range (10.254.0.0/22)",
            ),
            (
                "10.254.0.0/16",
                "the requested subnet (10.254.0.0/16) overlaps the dynamic allocation range (10.254.0.0/22)",
            ),
            ("10.253.0.1/24", "a container IP must not equal the gateway IP"),
            ("10.253.0.255/24", "a container IP must not equal the broadcast IP"),
            ("10.253.0.10/24", "the requested IP is already allocated"),
            (
                "10.253.0.0/25",
                "the requested subnet (10.253.0.0/25) overlaps an existing subnet (10.253.0.0/24)",
            ),
            ("10.1.0.0/31", "insufficient IPs remaining in the subnet"),
            ("10.1.0.7/32", "insufficient IPs remaining in the subnet"),
        ] {
            assert_eq!(acquire(&mut subnets, network).unwrap_err(), text, "{network}");
        }
        assert_eq!(
            acquire(&mut subnets, "10.253.0.0/24").unwrap().address,
            Ipv4Addr::new(10, 253, 0, 2)
        );
        assert_eq!(acquire(&mut subnets, "10.1.1.2").unwrap().subnet.to_string(), "10.1.1.0/30");
    }

    #[test]
    fn a_shared_subnet_ends_with_its_last_lease() {
        let mut subnets = subnets();
        let one = acquire(&mut subnets, "10.253.0.0/24").unwrap();
        let two = acquire(&mut subnets, "10.253.0.0/24").unwrap();
        assert!(!subnets.release(one));
        assert!(acquire(&mut subnets, "10.253.0.0/25").is_err());
        assert!(subnets.release(two));
        assert!(acquire(&mut subnets, "10.253.0.0/25").is_ok());
    }

    #[test]
    fn a_pool_without_room_gives_nothing() {
        let mut tiny = Subnets::new("10.254.0.0/31".parse().unwrap());
        assert_eq!(tiny.capacity(), 0);
        assert_eq!(tiny.acquire(Request::Dynamic), Err(SubnetError::PoolExhausted));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Acquire(Request),
        Release(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Acquire(Request::Dynamic)),
            4 => (0u32..64, 26u8..=32).prop_map(|(host, prefix)| {
                let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 253, 0, 0).to_bits() + host);
                Step::Acquire(Request::parse(&format!("{address}/{prefix}")).unwrap())
            }),
            4 => any::<usize>().prop_map(Step::Release),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn leases_never_collide(steps in prop::collection::vec(step(), 1..200)) {
            let pool: Ipv4Network = "10.254.0.0/27".parse().unwrap();
            let mut subnets = Subnets::new(pool);
            let mut held: Vec<Lease> = Vec::new();
            for step in steps {
                match step {
                    Step::Acquire(request) => match subnets.acquire(request) {
                        Ok(lease) => {
                            prop_assert!(lease.subnet.contains(lease.address));
                            prop_assert!(lease.address != lease.gateway());
                            prop_assert!(lease.address != lease.subnet.last());
                            prop_assert!(lease.address != lease.subnet.base());
                            for other in &held {
                                prop_assert!(lease.address != other.address);
                                prop_assert!(
                                    lease.subnet == other.subnet
                                        || !lease.subnet.overlaps(other.subnet)
                                );
                            }
                            held.push(lease);
                        }
                        Err(SubnetError::PoolExhausted) => {
                            prop_assert_eq!(
                                held.iter().filter(|l| pool.contains(l.address)).count(), 8
                            );
                        }
                        Err(_) => {}
                    },
                    Step::Release(n) if !held.is_empty() => {
                        let lease = held.swap_remove(n % held.len());
                        let empty = subnets.release(lease);
                        prop_assert_eq!(empty, held.iter().all(|l| l.subnet != lease.subnet));
                    }
                    Step::Release(_) => {}
                    Step::Restart => {
                        subnets = Subnets::new(pool);
                        for lease in &held {
                            prop_assert_eq!(subnets.reclaim(*lease), Ok(()));
                            prop_assert_eq!(
                                subnets.reclaim(*lease), Err(SubnetError::AddressTaken)
                            );
                        }
                    }
                }
            }
        }
    }
}

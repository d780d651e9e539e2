//! Limits in Garden's units, and how each kind of cgroup spells them.

use std::io;

use crate::directory::Directory;
use crate::error::Error;
use crate::hierarchy::Controller;
use crate::slot::{Home, Slot};

/// What a slot may use. `None` leaves a limit as it is; a new slot has none.
/// Garden's wire says `0` for "no limit", which must not come here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, page cache included.
    pub memory: Option<u64>,
    /// Whether `memory` also bounds memory and swap together. Garden's default
    /// is yes.
    pub swap_counts: bool,
    /// CPU weight in cgroup v1 shares (1024 is one ordinary process group).
    pub cpu_shares: Option<u64>,
    /// A hard ceiling on CPU time.
    pub cpu_quota: Option<CpuQuota>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// CPU time per 100 ms, summed over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuQuota {
    /// No ceiling (any more).
    Unlimited,
    /// Microseconds; the kernel refuses less than 1000.
    Micros(u64),
}

/// Microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

/// The least quota the kernel takes, in microseconds.
const MIN_QUOTA: u64 = 1000;

impl CpuQuota {
    /// Garden's `--cpu-quota-per-share` (microseconds) for a container of some
    /// shares.
    pub fn for_shares(shares: u64, quota_per_share: u64) -> Self {
        Self::Micros(shares.saturating_mul(quota_per_share).max(MIN_QUOTA))
    }
}

/// A limit that this host cannot enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotEnforced {
    /// No memory controller.
    Memory,
    /// The kernel does not account swap.
    Swap,
    /// No cpu controller.
    CpuShares,
    /// No cpu controller, or one without bandwidth control.
    CpuQuota,
    /// No pids controller.
    Pids,
}

/// The `cpu.weight` (1 to 10000) of v1 shares: a curve through 2→1, 1024→100 and
/// 262144→10000, as OCI runtimes agreed in 2025. Garden reports a container's
/// weight on v2 hosts.
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "shares are below 2^18 and the result is between 1 and 10000"
        )]
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // 1024 is to be 100 whatever the last bit of the exponent is.
            (10f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

impl Limits {
    pub(crate) fn write(&self, slot: &Slot) -> Result<Vec<NotEnforced>, Error> {
        let mut missing = Vec::new();
        if let Some(bytes) = self.memory {
            missing.extend(match slot.home(Controller::Memory) {
                Some(Home::V1(directory)) => memory_v1(directory, bytes, self.swap_counts)?,
                Some(Home::V2(directory)) => memory_v2(directory, bytes, self.swap_counts)?,
                None => Some(NotEnforced::Memory),
            });
        }
        if let Some(shares) = self.cpu_shares {
            match slot.home(Controller::Cpu) {
                Some(Home::V1(directory)) => directory.write("cpu.shares", &shares.to_string())?,
                Some(Home::V2(directory)) => {
                    directory.write("cpu.weight", &cpu_weight(shares).to_string())?;
                }
                None => missing.push(NotEnforced::CpuShares),
            }
        }
        if let Some(quota) = self.cpu_quota {
            let enforced = match slot.home(Controller::Cpu) {
                Some(Home::V1(directory)) => quota_v1(directory, quota)?,
                Some(Home::V2(directory)) => quota_v2(directory, quota)?,
                None => false,
            };
            missing.extend((!enforced).then_some(NotEnforced::CpuQuota));
        }
        if let Some(max) = self.pids {
            match slot.home(Controller::Pids) {
                Some(Home::V1(directory) | Home::V2(directory)) => {
                    directory.write("pids.max", &max.to_string())?;
                }
                None => missing.push(NotEnforced::Pids),
            }
        }
        Ok(missing)
    }
}

/// `memory + swap` may never be below `memory`, so raising both needs the other
/// order than lowering both.
fn memory_v1(
    directory: &Directory,
    bytes: u64,
    swap_counts: bool,
) -> Result<Option<NotEnforced>, Error> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let value = bytes.to_string();
    if !swap_counts {
        return directory.write(MEMORY, &value).map(|()| None);
    }
    if !directory.has(BOTH) {
        return directory.write(MEMORY, &value).map(|()| Some(NotEnforced::Swap));
    }
    match directory.write(MEMORY, &value) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            directory.write(BOTH, &value)?;
            directory.write(MEMORY, &value)?;
        }
        Err(err) => return Err(err),
        Ok(()) => directory.write(BOTH, &value)?,
    }
    Ok(None)
}

/// v2 counts swap by itself: none beyond the memory limit is none at all.
fn memory_v2(
    directory: &Directory,
    bytes: u64,
    swap_counts: bool,
) -> Result<Option<NotEnforced>, Error> {
    const SWAP: &str = "memory.swap.max";
    directory.write("memory.max", &bytes.to_string())?;
    if !swap_counts {
        return Ok(None);
    }
    if !directory.has(SWAP) {
        return Ok(Some(NotEnforced::Swap));
    }
    directory.write(SWAP, "0").map(|()| None)
}

fn quota_v1(directory: &Directory, quota: CpuQuota) -> Result<bool, Error> {
    const QUOTA: &str = "cpu.cfs_quota_us";
    if !directory.has(QUOTA) {
        return Ok(false);
    }
    directory.write("cpu.cfs_period_us", &PERIOD.to_string())?;
    match quota {
        CpuQuota::Unlimited => directory.write(QUOTA, "-1")?,
        CpuQuota::Micros(micros) => directory.write(QUOTA, &micros.to_string())?,
    }
    Ok(true)
}

fn quota_v2(directory: &Directory, quota: CpuQuota) -> Result<bool, Error> {
    const MAX: &str = "cpu.max";
    if !directory.has(MAX) {
        return Ok(false);
    }
    match quota {
        CpuQuota::Unlimited => directory.write(MAX, &format!("max {PERIOD}"))?,
        CpuQuota::Micros(micros) => directory.write(MAX, &format!("{micros} {PERIOD}"))?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_shares() {
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 2),
            (1024, 100),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert!((2..262_144).map(cpu_weight).is_sorted(), "more shares, no less weight");
    }

    #[test]
    fn quotas_of_shares() {
        assert_eq!(CpuQuota::for_shares(5, 10), CpuQuota::Micros(1000));
        assert_eq!(CpuQuota::for_shares(1024, 100), CpuQuota::Micros(102_400));
        assert_eq!(CpuQuota::for_shares(u64::MAX, 2), CpuQuota::Micros(u64::MAX));
    }
}

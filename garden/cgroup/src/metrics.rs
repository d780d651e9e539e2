//! What a cgroup used, in Garden's terms.

use std::collections::HashMap;
use std::time::Duration;

use crate::directory::Directory;
use crate::error::Error;
use crate::slot::Home;

/// Usage of a slot or a pea.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Zeros where there is no memory controller.
    pub memory: MemoryStat,
    /// CPU time.
    pub cpu: CpuStat,
    /// Processes and threads; zeros where there is no pids controller.
    pub pids: PidStat,
}

/// Garden's `CPUStat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// All of it, by processes living and dead.
    pub usage: Duration,
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Time in which something was ready to run and the quota forbade it.
    pub throttled: Duration,
}

/// Garden's `PidStat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidStat {
    /// Processes and threads now.
    pub current: u64,
    /// `None` if unlimited, which Garden's wire spells 0.
    pub max: Option<u64>,
}

/// Garden's `MemoryStat`: the fields of v1's `memory.stat`, some of v2's, and
/// the one that counts. Bytes, but for the `pg` fields, which count events.
///
/// v2 numbers include all descendants, so plain and `total_` fields are the same
/// there; `cache` is its `file`, `rss` its `anon`; what v2 does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names; see memory.rst and cgroup-v2.rst")]
pub struct MemoryStat {
    pub active_anon: u64,
    pub active_file: u64,
    pub cache: u64,
    pub hierarchical_memory_limit: u64,
    pub inactive_anon: u64,
    pub inactive_file: u64,
    pub mapped_file: u64,
    pub pgfault: u64,
    pub pgmajfault: u64,
    pub pgpgin: u64,
    pub pgpgout: u64,
    pub rss: u64,
    pub total_active_anon: u64,
    pub total_active_file: u64,
    pub total_cache: u64,
    pub total_inactive_anon: u64,
    pub total_inactive_file: u64,
    pub total_mapped_file: u64,
    pub total_pgfault: u64,
    pub total_pgmajfault: u64,
    pub total_pgpgin: u64,
    pub total_pgpgout: u64,
    pub total_rss: u64,
    pub total_unevictable: u64,
    pub total_swap: u64,
    pub unevictable: u64,
    pub swap: u64,
    pub hierarchical_memsw_limit: u64,
    pub anon: u64,
    pub file: u64,
    pub swapcached: u64,
    /// What counts against the limit and cannot be had back for the asking; the
    /// one number users are shown.
    pub total_usage_toward_limit: u64,
}

impl Metrics {
    pub(crate) fn read(
        unified: &Directory,
        memory: Option<Home<'_>>,
        pids: Option<Home<'_>>,
        cpu: Option<Home<'_>>,
    ) -> Result<Self, Error> {
        let memory = match memory {
            Some(Home::V1(directory)) => {
                MemoryStat::from_v1(&Table::parse(&directory.read("memory.stat")?))
            }
            Some(Home::V2(directory)) => {
                let swap = directory.read_if_present("memory.swap.current")?;
                let swap = swap.and_then(|text| text.trim_end().parse().ok()).unwrap_or(0);
                MemoryStat::from_v2(&Table::parse(&directory.read("memory.stat")?), swap)
            }
            None => MemoryStat::default(),
        };
        // v2 accounts CPU time without a cpu controller.
        let mut cpu_stat = CpuStat::from_v2(&Table::parse(&unified.read("cpu.stat")?));
        if let Some(Home::V1(directory)) = cpu {
            let text = directory.read("cpu.stat")?;
            cpu_stat.throttled = Duration::from_nanos(Table::parse(&text).get("throttled_time"));
        }
        let pids = match pids {
            Some(Home::V1(directory) | Home::V2(directory)) => PidStat {
                current: number(directory, "pids.current")?.unwrap_or_default(),
                max: number(directory, "pids.max")?,
            },
            None => PidStat::default(),
        };
        Ok(Self { memory, cpu: cpu_stat, pids })
    }
}

/// The number in a file, `None` for `max`.
fn number(directory: &Directory, file: &str) -> Result<Option<u64>, Error> {
    let text = directory.read(file)?;
    match text.trim_end() {
        "max" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| directory.malformed(file, &text)),
    }
}

/// A flat-keyed file: a name and a number per line.
pub(crate) struct Table<'a>(HashMap<&'a str, u64>);

impl<'a> Table<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let pair = |line: &'a str| {
            let (key, value) = line.split_once(' ')?;
            Some((key, value.parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// 0 for what the kernel does not tell.
    pub(crate) fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

impl CpuStat {
    fn from_v2(table: &Table<'_>) -> Self {
        let micros = |key| Duration::from_micros(table.get(key));
        Self {
            usage: micros("usage_usec"),
            user: micros("user_usec"),
            system: micros("system_usec"),
            throttled: micros("throttled_usec"),
        }
    }
}

impl MemoryStat {
    fn from_v1(table: &Table<'_>) -> Self {
        let get = |key| table.get(key);
        Self {
            active_anon: get("active_anon"),
            active_file: get("active_file"),
            cache: get("cache"),
            hierarchical_memory_limit: get("hierarchical_memory_limit"),
            inactive_anon: get("inactive_anon"),
            inactive_file: get("inactive_file"),
            mapped_file: get("mapped_file"),
            pgfault: get("pgfault"),
            pgmajfault: get("pgmajfault"),
            pgpgin: get("pgpgin"),
            pgpgout: get("pgpgout"),
            rss: get("rss"),
            total_active_anon: get("total_active_anon"),
            total_active_file: get("total_active_file"),
            total_cache: get("total_cache"),
            total_inactive_anon: get("total_inactive_anon"),
            total_inactive_file: get("total_inactive_file"),
            total_mapped_file: get("total_mapped_file"),
            total_pgfault: get("total_pgfault"),
            total_pgmajfault: get("total_pgmajfault"),
            total_pgpgin: get("total_pgpgin"),
            total_pgpgout: get("total_pgpgout"),
            total_rss: get("total_rss"),
            total_unevictable: get("total_unevictable"),
            total_swap: get("total_swap"),
            unevictable: get("unevictable"),
            swap: get("swap"),
            hierarchical_memsw_limit: get("hierarchical_memsw_limit"),
            anon: 0,
            file: 0,
            swapcached: get("swapcached"),
            total_usage_toward_limit: sum(&["total_rss", "total_cache", "total_swap"], table)
                .saturating_sub(get("total_inactive_file")),
        }
    }

    fn from_v2(table: &Table<'_>, swap: u64) -> Self {
        let get = |key| table.get(key);
        let (anon, file) = (get("anon"), get("file"));
        Self {
            active_anon: get("active_anon"),
            active_file: get("active_file"),
            cache: file,
            hierarchical_memory_limit: 0,
            inactive_anon: get("inactive_anon"),
            inactive_file: get("inactive_file"),
            mapped_file: get("file_mapped"),
            pgfault: get("pgfault"),
            pgmajfault: get("pgmajfault"),
            pgpgin: get("pgpgin"),
            pgpgout: get("pgpgout"),
            rss: anon,
            total_active_anon: get("active_anon"),
            total_active_file: get("active_file"),
            total_cache: file,
            total_inactive_anon: get("inactive_anon"),
            total_inactive_file: get("inactive_file"),
            total_mapped_file: get("file_mapped"),
            total_pgfault: get("pgfault"),
            total_pgmajfault: get("pgmajfault"),
            total_pgpgin: get("pgpgin"),
            total_pgpgout: get("pgpgout"),
            total_rss: anon,
            total_unevictable: get("unevictable"),
            total_swap: swap,
            unevictable: get("unevictable"),
            swap,
            hierarchical_memsw_limit: 0,
            anon,
            file,
            swapcached: get("swapcached"),
            total_usage_toward_limit: sum(&["anon", "file", "swapcached"], table)
                .saturating_sub(get("inactive_file")),
        }
    }
}

fn sum(keys: &[&str], table: &Table<'_>) -> u64 {
    keys.iter().fold(0, |total, key| total.saturating_add(table.get(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_v1() {
        let stat = MemoryStat::from_v1(&Table::parse(
            "cache 4096\nrss 8192\nswap 0\npgfault 7\nhierarchical_memory_limit 67108864\n\
             total_cache 40960\ntotal_rss 81920\ntotal_swap 12288\ntotal_inactive_file 20480\n",
        ));
        assert_eq!(stat.total_usage_toward_limit, 81920 + 40960 + 12288 - 20480);
        assert_eq!(
            (stat.cache, stat.rss, stat.pgfault, stat.hierarchical_memory_limit, stat.anon),
            (4096, 8192, 7, 67_108_864, 0)
        );
    }

    #[test]
    fn memory_of_v2() {
        let stat = MemoryStat::from_v2(
            &Table::parse(
                "anon 1000\nfile 500\nkernel 77\nswapcached 30\nfile_mapped 4\n\
                 inactive_file 200\nactive_file 300\npgfault 9\n",
            ),
            60,
        );
        assert_eq!(stat.total_usage_toward_limit, 1330);
        assert_eq!((stat.anon, stat.rss, stat.total_rss, stat.file), (1000, 1000, 1000, 500));
        assert_eq!((stat.mapped_file, stat.swap, stat.total_pgfault), (4, 60, 9));
    }

    #[test]
    fn usage_is_never_negative() {
        let v1 = MemoryStat::from_v1(&Table::parse("total_inactive_file 5\n"));
        let v2 = MemoryStat::from_v2(&Table::parse("anon 1\ninactive_file 5\n"), 0);
        assert_eq!((v1.total_usage_toward_limit, v2.total_usage_toward_limit), (0, 0));
    }

    #[test]
    fn cpu_of_v2() {
        let stat = CpuStat::from_v2(&Table::parse(
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnice_usec 0\nthrottled_usec 20\n",
        ));
        assert_eq!(stat.usage, Duration::from_micros(1500));
        assert_eq!(stat.user + stat.system, stat.usage);
        assert_eq!(stat.throttled, Duration::from_micros(20));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let table = Table::parse("\nfull\navg10 0.5\nneg -1\nok 3\n");
        assert_eq!((table.get("ok"), table.get("neg"), table.get("avg10")), (3, 0, 0));
    }
}

//! What can be seen of processes from outside (proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};

/// All that there are now.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Fields of `/proc/<pid>/stat` from the state on (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = &text[text.rfind(')')? + 2..];
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

/// A process's parent.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Children of these processes.
pub fn children(parents: &[u32]) -> usize {
    all()
        .into_iter()
        .filter(|pid| parent(*pid).is_some_and(|parent| parents.contains(&parent)))
        .count()
}

/// CPU time in milliseconds, that of ended children included or not.
pub fn cpu(pid: u32, children: bool) -> Option<f64> {
    let fields = stat(pid)?;
    let which = if children { 11..15 } else { 11..13 };
    let ticks: u32 = fields.get(which)?.iter().filter_map(|field| field.parse::<u32>().ok()).sum();
    #[expect(clippy::cast_precision_loss, reason = "100 on every Linux")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(f64::from(ticks) * 1000.0 / per_second)
}

/// A number in KiB of a line `<name>: <number> kB` of a file of proc_pid_smaps(5)'s kind.
pub fn kibibytes(path: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    kibibytes_in(&text, name).ok_or_else(|| anyhow!("{path} has no {name}"))
}

fn kibibytes_in(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The memory that a process has, in KiB, with its share of what others have as well.
pub fn memory(pid: u32) -> anyhow::Result<f64> {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss")
}

/// A Garden's keeper and anchor, which hold the sockets in the keeper's directory.
pub fn helpers(directory: &Path) -> anyhow::Result<impl Iterator<Item = (&'static str, u32)>> {
    let sockets = fs::read_to_string("/proc/net/unix").context("cannot list sockets")?;
    let own = directory.to_string_lossy();
    let inodes: BTreeSet<String> = sockets
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(7).is_some_and(|path| path.starts_with(&*own)))
        .filter_map(|fields| fields.get(6).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let holds = move |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| inodes.contains(&*target.to_string_lossy()))
        })
    };
    let mut found = Vec::new();
    for (name, process) in [("keeper", "bloomery-keeper"), ("anchor", "bloomery-anchor")] {
        let named = |pid: &u32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == process && holds(*pid)
        };
        found.extend(all().into_iter().filter(named).map(|pid| (name, pid)));
    }
    Ok(found.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_a_parent_memory_and_has_used_time() {
        let own = std::process::id();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert!(cpu(own, true).is_some());
        assert!(children(&[std::os::unix::process::parent_id()]) >= 1);
        assert!(memory(own).unwrap() > 100.0);
    }

    #[test]
    fn names_of_numbers_are_whole_names() {
        let text = "SlabX: 1 kB\nSlab:     123 kB\nPss:\t7 kB\nPss_Anon: 5 kB\n";
        assert_eq!(kibibytes_in(text, "Slab"), Some(123.0));
        assert_eq!(kibibytes_in(text, "Pss"), Some(7.0));
        assert_eq!(kibibytes_in(text, "Pss_Dirty"), None);
    }
}

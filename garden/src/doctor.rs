//! What a host lacks for containers, and what follows from it.
//!
//! Facts are tried out rather than read off version numbers: a supervisor and one parked container of
//! the doctor's own, a network in namespaces of its own, an overlay in a directory of its own. All of
//! it is gone when [`examine`] returns, and nothing that belongs to a Garden is touched: what is
//! learnt of those is read from outside.

mod cgroups;
mod files;
mod gardens;
mod kernel;
mod limits;
mod network;
mod trial;

use std::fmt::Display;

use crate::config::Config;
use trial::Trial;

/// How bad a lack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Containers work, but something about them does not.
    Degraded,
    /// No container can be made, or what confines containers is not there.
    Missing,
}

/// What a fact means where it is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// How bad it is.
    pub grade: Grade,
    /// What follows for containers.
    pub follows: String,
    /// What somebody can do about it.
    pub remedy: String,
}

/// Something about this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about; stable.
    pub name: String,
    /// How it is.
    pub found: String,
    /// Absent where all is well.
    pub lack: Option<Lack>,
}

impl Fact {
    fn new(name: impl Into<String>, found: impl Display) -> Self {
        Self { name: name.into(), found: found.to_string(), lack: None }
    }

    fn degraded(self, follows: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.lacking(Grade::Degraded, follows, remedy)
    }

    fn missing(self, follows: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.lacking(Grade::Missing, follows, remedy)
    }

    fn lacking(self, grade: Grade, follows: impl Into<String>, remedy: impl Into<String>) -> Self {
        let lack = Lack { grade, follows: follows.into(), remedy: remedy.into() };
        Self { lack: Some(lack), ..self }
    }
}

/// Without a container nothing else matters.
const NO_CONTAINER: &str = "no container can be made";

/// Looks at the host for a Garden of this configuration. Takes about a second; whoever is not root
/// learns only that.
pub fn examine(config: &Config) -> Vec<Fact> {
    let mut facts = vec![kernel::release()];
    let privileges = kernel::privileges();
    let helpless = privileges.lack.as_ref().is_some_and(|lack| lack.grade == Grade::Missing);
    facts.push(privileges);
    if helpless {
        return facts;
    }
    facts.extend(cgroups::controllers());
    let (trial, found) = Trial::start();
    facts.extend(found);
    facts.extend(files::examine(config, trial.as_ref().and_then(Trial::users)));
    let (ended, left) = trial.map(Trial::end).unwrap_or_default();
    facts.extend(left);
    facts.push(kernel::exit_statuses(ended));
    facts.push(kernel::seccomp());
    facts.push(kernel::apparmor(config));
    facts.extend(network::examine(config));
    facts.extend(limits::examine(config));
    facts.extend(gardens::examine(config));
    facts
}

/// The whole chain of an error in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A number of the kernel's, from a file of `/proc/sys` or the like.
fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    match count {
        ..MIB => format!("{} KiB", count >> 10),
        _ if count < 10 << 30 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

/// How many containers this Garden may have at a time, with those that wait.
fn containers(config: &Config) -> u64 {
    let pool = config.network.pool.parse::<garden_networker::Ipv4Network>();
    let subnets = pool.map_or(0, |pool| u64::from(garden_networker::Subnets::new(pool).capacity()));
    let most = match config.max_containers {
        0 => subnets,
        most => most.min(subnets),
    };
    most + config.pool as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (count, text) in [
            (0, "0 KiB"),
            (1 << 20, "1 MiB"),
            ((10 << 30) - 1, "10239 MiB"),
            (u64::MAX, "17179869183 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn containers_are_as_many_as_subnets_and_who_wait() {
        let mut config = Config { pool: 8, ..Config::default() };
        assert_eq!(containers(&config), 256 + 8);
        config.max_containers = 7;
        assert_eq!(containers(&config), 15);
        config.max_containers = 1000;
        assert_eq!(containers(&config), 264);
    }
}

//! Gardens that run here, and what others have left.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use garden_cgroup::{Root, Survey};
use garden_networker::table_names;
use garden_sys::program::PROGRAM;
use rustix::process::Pid;

use super::{Fact, chain};
use crate::config::{Config, Listen};
use crate::gardener::CGROUPS;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const PREFIX: &str = "bloomery-";
/// Roots of doctors that are looking just now.
const DOCTORS: &str = "bloomery-doctor-";

pub fn examine(config: &Config) -> Vec<Fact> {
    let mut facts = vec![answers(&config.listen)];
    facts.extend(keeper(config));
    match Survey::of(Path::new(CGROUPS)).and_then(|survey| survey.roots(PREFIX)) {
        Ok(mut roots) => {
            roots.retain(|root| !root.name.starts_with(DOCTORS));
            let running =
                roots.iter().any(|root| root.name == own_root(config) && root.user.is_some());
            facts.extend(roots.iter().map(garden));
            facts.extend(rules(&roots));
            if !running {
                facts.extend(volumes(config));
            }
        }
        Err(error) => facts.push(
            Fact::new("gardens", chain(&error))
                .degraded("what others have left is unknown", "let root list cgroups"),
        ),
    }
    facts
}

fn own_root(config: &Config) -> String {
    format!("{PREFIX}{}", config.tag)
}

/// The process that listens on a unix socket.
pub fn server(listen: &Listen) -> Option<Pid> {
    let Listen::Unix { path, .. } = listen else { return None };
    let socket = UnixStream::connect(path).ok()?;
    rustix::net::sockopt::socket_peercred(socket.as_fd()).ok().map(|peer| peer.pid)
}

fn answers(listen: &Listen) -> Fact {
    let fact = |found: String| Fact::new("server", found);
    let Listen::Unix { path, .. } = listen else {
        return fact("listens on TCP, if it runs".into());
    };
    let Some(pid) = server(listen) else {
        return fact(format!("none listens on {}", path.display()));
    };
    let pid = pid.as_raw_nonzero();
    match ping(path) {
        Ok(true) => fact(format!("process {pid} answers on {}", path.display())),
        Ok(false) => fact(format!("process {pid} listens on {} and is no Garden", path.display()))
            .degraded("no Garden can listen there", "name another place by --bind-socket"),
        Err(error) => fact(format!("process {pid} does not answer: {error}")).degraded(
            "clients wait; containers run on",
            "see its log; kill -9 does no damage, and the next start takes everything over",
        ),
    }
}

fn ping(path: &Path) -> std::io::Result<bool> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /ping HTTP/1.0\r\n\r\n")?;
    let mut head = [0; 12];
    socket.read_exact(&mut head)?;
    Ok(&head == b"HTTP/1.0 200")
}

/// The keeper of this configuration, found by its socket. Connecting to it would part it from its
/// daemon.
fn keeper(config: &Config) -> Option<Fact> {
    let socket = config.run.join("keeper.sock");
    let fact = |found: String| Fact::new("keeper", found);
    let Some(inode) = listening(&fs::read_to_string("/proc/net/unix").ok()?, &socket) else {
        let records = directories(&config.depot);
        if records == 0 {
            return Some(fact("none runs, and there are no containers".into()));
        }
        return Some(fact(format!("none runs, and the depot has {records} containers")).degraded(
            "they have ended; the next start of the server removes what is left of them",
            "start the server",
        ));
    };
    let keeper = holder(&format!("socket:[{inode}]"))?;
    let current = fs::read(format!("/proc/{keeper}/exe")).is_ok_and(|program| program == PROGRAM);
    Some(if current {
        fact(format!("process {keeper}, of this build"))
    } else {
        fact(format!("process {keeper}, of another build")).degraded(
            "containers run on; a newer build's are refused by this one",
            "start the server of this build, which replaces an older keeper's program",
        )
    })
}

/// The inode of the socket that listens at a path, from the text of `/proc/net/unix` (proc(5)).
fn listening(sockets: &str, path: &Path) -> Option<u64> {
    /// `__SO_ACCEPTCON` of the kernel's `linux/socket.h`.
    const LISTENS: &str = "00010000";
    sockets.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let flags = fields.nth(3)?;
        let inode = fields.nth(2)?.parse().ok()?;
        (flags == LISTENS && Path::new(fields.next()?) == path).then_some(inode)
    })
}

/// The keeper that has a descriptor; its anchor, and perhaps others, have it too.
fn holder(descriptor: &str) -> Option<i32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        if name.trim() != "bloomery-keeper" {
            return None;
        }
        let mut held = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        held.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == descriptor))
            .then_some(pid)
    })
}

/// One Garden, by the root of its cgroups.
fn garden(root: &Root) -> Fact {
    let tag = root.name.strip_prefix(PREFIX).unwrap_or(&root.name);
    let depot = root.owner.as_ref().map_or_else(
        || "an unknown depot".to_owned(),
        |owner| format!("--depot {}", owner.display()),
    );
    let slots = match root.slots {
        1 => "1 container".to_owned(),
        slots => format!("{slots} containers"),
    };
    let fact = |found: String| Fact::new(format!("garden {tag}"), found);
    match root.user {
        Some(pid) => {
            let pid = pid.as_raw_nonzero();
            fact(format!("process {pid} with {depot}; {slots}, parked ones among them"))
        }
        None if root.slots == 0 => {
            fact(format!("no server runs, and no container is left ({depot})"))
        }
        None => fact(format!("no server runs ({depot}), {slots} are left")).degraded(
            "those that are in the depot run on without a server; the others are nobody's",
            format!(
                "start that server again, or remove all of it: bloomery garden cleanup --tag {tag} \
                 {depot} and its other places"
            ),
        ),
    }
}

/// Tables of Gardens that have no cgroups.
fn rules(roots: &[Root]) -> Vec<Fact> {
    let tables = match table_names() {
        Ok(tables) => tables,
        Err(error) => {
            let fact = Fact::new("rules", chain(&error));
            return vec![fact.degraded("leftovers are unknown", "let root list nftables' tables")];
        }
    };
    let ours = tables.iter().filter_map(|table| table.strip_prefix("inet "));
    let ours = ours.filter(|table| table.starts_with(PREFIX));
    ours.filter(|table| !roots.iter().any(|root| root.name == **table))
        .map(|table| {
            let tag = table.strip_prefix(PREFIX).unwrap_or(table);
            Fact::new(format!("rules of {tag}"), format!("the table inet {table} is left"))
                .degraded(
                    "it is of no Garden; addresses of its pool may still be dropped by it",
                    format!("nft delete table inet {table}"),
                )
        })
        .collect()
}

/// Volumes that are more than there are records.
fn volumes(config: &Config) -> Option<Fact> {
    let (volumes, records) =
        (directories(&config.store.join("volumes")), directories(&config.depot));
    (volumes > records).then(|| {
        Fact::new("volumes", format!("{volumes}, for {records} containers")).degraded(
            "some are of no container and take room",
            "start the server, which deletes them, or bloomery garden cleanup",
        )
    })
}

fn directories(place: &Path) -> usize {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn only_who_listens_is_found() {
        let sockets = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0005 01 4711 /run/k/keeper.sock
0000000000000000: 00000003 00000000 00000000 0005 03 4712 /run/other/keeper.sock
0000000000000000: 00000003 00000000 00000000 0001 03 4713
";
        assert_eq!(listening(sockets, Path::new("/run/k/keeper.sock")), Some(4711));
        assert_eq!(listening(sockets, Path::new("/run/other/keeper.sock")), None);
    }

    #[test]
    fn a_garden_without_a_server_is_degraded_only_if_something_is_left() {
        let root = |slots, user| Root {
            name: "bloomery-x".into(),
            path: "/sys/fs/cgroup/bloomery-x".into(),
            owner: Some("/run/depot".into()),
            user,
            slots,
        };
        assert_eq!(garden(&root(3, Pid::from_raw(7))).lack, None);
        assert_eq!(garden(&root(0, None)).lack, None);
        let left = garden(&root(2, None));
        assert_eq!(left.name, "garden x");
        let lack = left.lack.unwrap();
        assert_eq!(lack.grade, Grade::Degraded);
        assert!(lack.remedy.contains("cleanup --tag x --depot /run/depot"), "{lack:?}");
    }

    #[test]
    fn volumes_of_no_container_are_counted() {
        let place = tempfile::tempdir().unwrap();
        let config = Config {
            store: place.path().join("store"),
            depot: place.path().join("depot"),
            ..Config::default()
        };
        assert_eq!(volumes(&config), None);
        for directory in ["store/volumes/1", "store/volumes/2", "depot/a"] {
            fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        assert_eq!(volumes(&config).unwrap().found, "2, for 1 containers");
    }
}

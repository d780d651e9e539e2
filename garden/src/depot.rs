//! The depot: every container as a directory, whose record is the truth about it.
//!
//! ```text
//! <depot>/<handle>/container.json   the record, replaced as a whole by rename(2)
//!                  image/           what an image plugin was told of the image, if it had to be written
//! ```
//!
//! A record is durable against the death of any process once [`Depot::save`] has returned; a host
//! that restarts has lost its containers anyway, so nothing is synced to the device.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garden_api::{ContainerSpec, PortMapping, ProcessLimits};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being made; removed by whoever finds it after a restart.
    Creating,
    /// Acknowledged.
    Created,
    /// The same, and stopped: its processes were told to end.
    Stopped,
    /// Being removed; whoever finds it after a restart goes on with that.
    Destroying,
}

/// A process that was or will be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its name between daemon and keeper; written before the keeper is asked.
    pub ticket: u64,
    /// Its streams are a terminal.
    pub terminal: bool,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitRecord>,
    /// What it has as a pea, until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pea: Option<PeaRecord>,
}

/// What a process with an image of its own has beside its streams. What no record names any more is
/// taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeaRecord {
    /// Of its volume and its cgroup.
    pub number: u32,
    /// Limits of its own: its cgroup is a slot beside the container's. Without any it is a leaf there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProcessLimits>,
    /// Bytes of its image.
    pub image_size: u64,
    /// Unix time of its start, in nanoseconds.
    pub created: u64,
}

impl PeaRecord {
    /// Its slot, if it has one of its own.
    pub fn slot(&self) -> Option<u32> {
        self.limits.map(|_| self.number)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitRecord {
    /// Exit code, or 128 + signal.
    Status(i32),
    /// Nobody can know.
    Unknown,
}

/// All that must outlive the daemon about one container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this layout.
    pub version: u32,
    /// What the client asked for; the handle in it is never empty.
    pub spec: ContainerSpec,
    /// Where it is in its life.
    pub phase: Phase,
    /// Ticket of its process 1.
    pub init: u64,
    /// Its cgroup slot.
    pub slot: u32,
    /// Its volume.
    #[serde(default)]
    pub volume: u32,
    /// Its root is an image plugin's to delete.
    #[serde(default)]
    pub made_image: bool,
    /// Bytes of its image when it was made.
    #[serde(default)]
    pub image_size: u64,
    /// Unix time of its creation, in nanoseconds.
    pub created: u64,
    /// Variables of its image.
    #[serde(default)]
    pub image_env: Vec<String>,
    /// Network state, as the networker gave it.
    #[serde(default)]
    pub network: Value,
    /// Ports, in the order they were mapped.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// Properties, the user's and the daemon's.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Out of memory and other events.
    #[serde(default)]
    pub events: Vec<String>,
    /// Processes by id.
    #[serde(default)]
    pub processes: BTreeMap<String, ProcessRecord>,
}

impl Record {
    /// All that run or are about to in an image of their own.
    pub fn peas(&self) -> impl Iterator<Item = &PeaRecord> {
        self.processes.values().filter_map(|process| process.pea.as_ref())
    }

    /// Tickets of all its children.
    pub fn tickets(&self) -> impl Iterator<Item = u64> {
        self.processes.values().map(|process| process.ticket).chain([self.init])
    }

    /// Its cgroup slots.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.peas().filter_map(PeaRecord::slot).chain([self.slot])
    }

    /// Its volumes.
    pub fn volumes(&self) -> impl Iterator<Item = u32> {
        self.peas().map(|pea| pea.number).chain([self.volume])
    }
}

/// Version of [`Record`] that this build writes; it reads all before too.
///
/// | version | what is different |
/// |---|---|
/// | 1 | `stopped` beside `phase` |
/// | 2 | `stopped` is a phase |
/// | 3 | a process may be a `pea` |
pub const VERSION: u32 = 3;

const RECORD: &str = "container.json";

/// The directory of all containers.
#[derive(Debug)]
pub struct Depot {
    path: PathBuf,
    /// The directory, locked for as long as this value lives.
    _lock: File,
}

/// How long an earlier daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

fn context(attempt: &str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let attempt = format!("{attempt} {}", path.display());
    move |error| io::Error::new(error.kind(), format!("cannot {attempt}: {error}"))
}

impl Depot {
    /// Opens the depot, making its directory, which is closed to everybody else: records hold apps'
    /// variables and passwords. Only one daemon has it at a time; one that is just ending is waited
    /// for.
    pub fn open(path: &Path) -> io::Result<Self> {
        private::directory(path).map_err(context("make the depot", path))?;
        let lock = File::open(path).map_err(context("open the depot", path))?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if Instant::now() >= deadline {
                let attempt = "have the depot, which another daemon uses,";
                return Err(context(attempt, path)(errno.into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// A container's directory.
    pub fn directory(&self, handle: &str) -> PathBuf {
        self.path.join(handle)
    }

    /// Where a container's image may be described.
    pub fn image(&self, handle: &str) -> PathBuf {
        self.directory(handle).join("image")
    }

    /// Makes a container's directory and writes its record.
    pub fn add(&self, record: &Record) -> io::Result<()> {
        let directory = self.directory(&record.spec.handle);
        fs::create_dir(&directory).map_err(context("make", &directory))?;
        fault::step("create/directory-made");
        self.save(record)
    }

    /// Replaces a container's record.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.directory(&record.spec.handle).join(RECORD);
        let temporary = path.with_extension("new");
        let written = (|| {
            let mut file = private::file(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fault::step("save/written");
            fs::rename(&temporary, &path)
        })();
        written.map_err(context("write", &path))
    }

    /// Removes a container's directory; one that does not exist is no error.
    pub fn remove(&self, handle: &str) -> io::Result<()> {
        let directory = self.directory(handle);
        // The record goes first: a directory without one is a removal that was interrupted.
        for file in [RECORD, "container.new"] {
            match fs::remove_file(directory.join(file)) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    return Err(context("remove", &directory.join(file))(error));
                }
                _ => {}
            }
        }
        fault::step("destroy/record-removed");
        match fs::remove_dir_all(self.image(handle)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(context("remove", &self.image(handle))(error));
            }
            _ => {}
        }
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(context("remove", &directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// Every directory's handle, with its record; `Err` says why a record cannot be read:
    /// `NotFound` where there is none, `Unsupported` where a newer build wrote it.
    pub fn read_all(&self) -> io::Result<Vec<(String, io::Result<Record>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(context("list the depot", &self.path))? {
            let entry = entry?;
            let Ok(handle) = entry.file_name().into_string() else { continue };
            let path = entry.path().join(RECORD);
            let record = fs::read(&path).and_then(|bytes| decode(&bytes));
            found.push((handle, record.map_err(context("read", &path))));
        }
        Ok(found)
    }
}

/// Reads a record of any version up to ours.
fn decode(bytes: &[u8]) -> io::Result<Record> {
    // A record is replaced as a whole, so no daemon's death leaves this, but a loss of power may:
    // the file was renamed, and its content not on the disk yet.
    if bytes.iter().all(|&byte| byte == 0) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is empty since a loss of power"));
    }
    let mut record: Value = serde_json::from_slice(bytes)?;
    match record["version"].as_u64() {
        Some(older @ 1..=2) => {
            if older == 1 {
                let stopped = record.as_object_mut().and_then(|fields| fields.remove("stopped"));
                if stopped == Some(Value::Bool(true)) && record["phase"] == "created" {
                    record["phase"] = "stopped".into();
                }
            }
            record["version"] = VERSION.into();
        }
        Some(newer) if newer > VERSION.into() => {
            let unknown = format!(
                "it has version {newer}, and this build knows none above {VERSION}: a newer build \
                 has been here"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, unknown));
        }
        _ => {}
    }
    Ok(serde_json::from_value(record)?)
}

/// Why a handle is not one.
pub fn check_handle(handle: &str) -> Result<(), String> {
    const LONGEST: usize = 200;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if handle.is_empty()
        || handle.len() > LONGEST
        || !handle.bytes().all(known)
        || matches!(handle, "." | "..")
    {
        return Err(format!("invalid container ID format: {handle:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn pea(number: u32, limits: Option<ProcessLimits>) -> ProcessRecord {
        let pea = Some(PeaRecord { number, limits, image_size: 6, created: 2 });
        ProcessRecord { ticket: number.into(), terminal: true, exit: None, pea }
    }

    fn record(handle: &str) -> Record {
        Record {
            version: VERSION,
            spec: ContainerSpec { handle: handle.into(), ..ContainerSpec::default() },
            phase: Phase::Creating,
            init: 7,
            slot: 3,
            volume: 4,
            made_image: false,
            image_size: 5,
            created: 1,
            image_env: vec!["A=b".into()],
            network: serde_json::Value::Null,
            ports: Vec::new(),
            properties: BTreeMap::from([("k".into(), "v".into())]),
            events: Vec::new(),
            processes: BTreeMap::from([
                (
                    "p".into(),
                    ProcessRecord {
                        ticket: 9,
                        terminal: false,
                        exit: Some(ExitRecord::Status(3)),
                        pea: None,
                    },
                ),
                ("child".into(), pea(8, None)),
                ("sibling".into(), pea(9, Some(ProcessLimits::default()))),
            ]),
        }
    }

    #[test]
    fn a_record_survives_and_is_removed_twice_without_error() {
        let place = tempfile::tempdir().unwrap();
        let depot = Depot::open(place.path()).unwrap();
        depot.add(&record("a")).unwrap();
        assert_eq!(depot.add(&record("a")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let found = depot.read_all().unwrap();
        let (handle, read) = &found[0];
        let read = read.as_ref().unwrap();
        assert_eq!((handle.as_str(), read.init, &read.processes), ("a", 7, &record("a").processes));
        assert_eq!(read.slots().collect::<Vec<_>>(), [9, 3]);
        assert_eq!(read.volumes().collect::<Vec<_>>(), [8, 9, 4]);
        depot.remove("a").unwrap();
        depot.remove("a").unwrap();
        assert!(depot.read_all().unwrap().is_empty());
    }

    /// How often this process has a file open.
    fn opened(inode: u64) -> usize {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors
            .filter(|entry| fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode))
            .count()
    }

    #[test]
    fn a_second_daemon_waits_for_the_first_one_to_end() {
        let place = tempfile::tempdir().unwrap();
        let first = Depot::open(place.path()).unwrap();
        let path = place.path().to_path_buf();
        let inode = fs::metadata(&path).unwrap().ino();
        let second = std::thread::spawn(move || Depot::open(&path).map(drop));
        // It has the directory open, so that it has asked for the lock or is about to.
        let deadline = Instant::now() + PATIENCE;
        while opened(inode) < 2 {
            assert!(Instant::now() < deadline, "the second daemon tries");
            std::thread::yield_now();
        }
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }

    /// As a build of then wrote it.
    const FIRST: &str = r#"{"version":1,"spec":{"handle":"old","grace_time":300000000000,"rootfs":"/image"},
        "phase":"created","stopped":true,"init":4,"slot":2,"created":1764055000000000000,
        "image_env":["LANG=C"],"network":{"subnet":"10.254.0.4/30"},
        "ports":[{"HostPort":61001,"ContainerPort":8080}],
        "properties":{"garden.state":"created"},"events":["Out of memory"],
        "processes":{"p":{"ticket":9,"terminal":true,"exit":{"status":3}},
        "q":{"ticket":10,"terminal":false}}}"#;

    #[test]
    fn records_of_older_builds_are_read_and_those_of_newer_ones_refused() {
        let place = tempfile::tempdir().unwrap();
        let depot = Depot::open(place.path()).unwrap();
        fs::create_dir(depot.directory("old")).unwrap();
        let read = |content: &str| {
            fs::write(depot.directory("old").join(RECORD), content).unwrap();
            depot.read_all().unwrap().remove(0).1
        };
        let old = read(FIRST).unwrap();
        assert_eq!((old.version, old.phase), (VERSION, Phase::Stopped));
        assert_eq!(
            (old.init, old.slot, old.events.as_slice()),
            (4, 2, &["Out of memory".into()][..])
        );
        assert_eq!((old.ports[0].host_port, old.properties.len()), (61001, 1));
        assert_eq!(old.processes["p"].exit, Some(ExitRecord::Status(3)));
        assert_eq!((old.processes["p"].terminal, old.processes["q"].ticket), (true, 10));
        let phase = |text: &str| read(&FIRST.replace("true,\"init", text)).unwrap().phase;
        assert_eq!(phase("false,\"init"), Phase::Created);
        let destroying = FIRST.replace("\"created\",\"stopped\"", "\"destroying\",\"stopped\"");
        assert_eq!(read(&destroying).unwrap().phase, Phase::Destroying);
        // What is read is what would have been written.
        depot.save(&old).unwrap();
        let again = depot.read_all().unwrap().remove(0).1.unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&old).unwrap());

        let second = FIRST.replace("\"version\":1", "\"version\":2");
        let second = second.replace("\"created\",\"stopped\":true", "\"stopped\"");
        assert_eq!(
            serde_json::to_value(read(&second).unwrap()).unwrap(),
            serde_json::to_value(&old).unwrap()
        );

        let newer = FIRST.replace("\"version\":1", "\"version\":4");
        let error = read(&newer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("old/container.json: it has version 4"), "{error}");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_and_can_be_removed() {
        let place = tempfile::tempdir().unwrap();
        let depot = Depot::open(place.path()).unwrap();
        depot.add(&record("a")).unwrap();
        fs::write(depot.directory("a").join(RECORD), b"{").unwrap();
        let found = depot.read_all().unwrap();
        assert!(found[0].1.as_ref().unwrap_err().to_string().contains("a/container.json"));
        depot.remove("a").unwrap();
    }

    #[test]
    fn handles_are_names_and_never_paths() {
        for good in ["a", "A-1_b.c", &"x".repeat(80)] {
            check_handle(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "a%", "ä", "a\0"] {
            check_handle(bad).unwrap_err();
        }
    }
}

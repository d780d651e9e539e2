//! Directory trees to pack, and what can be seen of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat};

/// Everything that an archive keeps of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    pub modified: (i64, i64),
    content: Vec<u8>,
    /// The first path of the same inode.
    same_as: PathBuf,
    attribute: Option<Vec<u8>>,
}

pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    look(root, root, &mut HashMap::new(), &mut seen);
    seen
}

fn look(
    root: &Path,
    path: &Path,
    inodes: &mut HashMap<u64, PathBuf>,
    seen: &mut BTreeMap<PathBuf, Seen>,
) {
    let data = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().to_path_buf();
    let content = if data.is_file() {
        fs::read(path).unwrap()
    } else if data.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let mut value = vec![0; 1024];
    let attribute = rustix::fs::lgetxattr(path, "user.colour", &mut value[..]).ok();
    seen.insert(
        name.clone(),
        Seen {
            mode: data.mode(),
            owner: (data.uid(), data.gid()),
            modified: (data.mtime(), data.mtime_nsec()),
            content,
            same_as: inodes.entry(data.ino()).or_insert(name).clone(),
            attribute: attribute.map(|length| value[..length].to_vec()),
        },
    );
    if data.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            look(root, &name, inodes, seen);
        }
    }
}

pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with something of everything that GNU tar can keep.
pub fn varied(root: &Path) {
    let long = "l".repeat(120);
    fs::create_dir_all(root.join("d/e").join(&long)).unwrap();
    fs::write(root.join("d/e").join(&long).join(&long), "deep").unwrap();
    fs::write(root.join("one"), "1\n").unwrap();
    fs::hard_link(root.join("one"), root.join("d/other")).unwrap();
    symlink(&long, root.join("link")).unwrap();
    symlink("one", root.join("short")).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(root.join("block"), [7; 512]).unwrap();
    fs::write(root.join("tool"), "#!").unwrap();
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o1755)).unwrap();
    std::os::unix::fs::chown(root.join("block"), Some(1234), Some(5678)).unwrap();
    set_time(&root.join("block"), 1_000_000_000, 120_000_000);
}

#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(usize),
    Fifo,
}

/// One file of an arbitrary tree.
#[derive(Clone, Debug)]
pub struct Entry {
    path: Vec<String>,
    thing: Thing,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, u32),
    attribute: Option<Vec<u8>>,
}

pub fn entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![
        4 => "[a-c]".prop_map(String::from),
        1 => "[ -.0-~é\n]{1,12}".prop_filter("a name", |name| name != "." && name != ".."),
        1 => "[xy]{90,250}",
    ];
    let thing = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Thing::File),
        3 => Just(Thing::Directory),
        1 => "[a-z/.é]{1,150}".prop_map(Thing::Symlink),
        1 => any::<usize>().prop_map(Thing::HardLink),
        1 => Just(Thing::Fifo),
    ];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32];
    (
        proptest::collection::vec(name, 1..5),
        thing,
        0..=0o7777_u32,
        (prop_oneof![0..3000_u32, Just(u32::MAX - 1)], 0..5_000_000_u32),
        (-1_000_000_000..10_000_000_000_i64, nanoseconds),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 1..100)),
    )
        .prop_map(|(path, thing, mode, owner, modified, attribute)| Entry {
            path,
            thing,
            mode,
            owner,
            modified,
            attribute,
        })
}

/// Makes what can be made; names that collide are left out.
pub fn build(root: &Path, entries: &[Entry]) {
    let mut files = Vec::new();
    let mut made = Vec::new();
    for entry in entries {
        let path = root.join(entry.path.iter().collect::<PathBuf>());
        let parent = path.parent().unwrap();
        if fs::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        match &entry.thing {
            Thing::File(content) => {
                fs::write(&path, content).unwrap();
                files.push(path.clone());
            }
            Thing::Directory => fs::create_dir(&path).unwrap(),
            Thing::Symlink(target) => symlink(target, &path).unwrap(),
            Thing::HardLink(_) if files.is_empty() => continue,
            Thing::HardLink(of) => fs::hard_link(&files[of % files.len()], &path).unwrap(),
            Thing::Fifo => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        }
        let (uid, gid) = entry.owner;
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
        if !matches!(entry.thing, Thing::Symlink(_)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
        }
        if let (Some(value), Thing::File(_) | Thing::Directory) = (&entry.attribute, &entry.thing) {
            rustix::fs::setxattr(&path, "user.colour", value, XattrFlags::empty()).unwrap();
        }
        made.push((path, entry.modified));
    }
    for (path, (seconds, nanoseconds)) in made.iter().rev() {
        set_time(path, *seconds, i64::from(*nanoseconds));
    }
}

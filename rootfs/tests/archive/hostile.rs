//! Archives of ill will.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rootfs::archive::{Containment, Owners, Policy, unpack};
use tar::{EntryType, Header};

use super::{CALLER, policy};

/// An archive of one's own making.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn member(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn directory(self, name: &str) -> Self {
        self.member(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name, target, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Link, name, target, b"")
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name, "", content)
    }

    /// Records for the next member.
    fn records(self, records: &[(&str, &str)]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|all| *all == rest + all.to_string().len()).unwrap();
            bytes.extend(format!("{length} {key}={value}\n").bytes());
        }
        self.member(EntryType::XHeader, "x", "", &bytes)
    }
}

/// A directory with a neighbour that must stay as it is.
struct Cage {
    place: tempfile::TempDir,
    inside: PathBuf,
    outside: PathBuf,
}

impl Cage {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "untouched").unwrap();
        Self { place, inside, outside }
    }

    fn unpack(
        &self,
        archive: Forged,
        containment: Containment,
        owners: Owners,
    ) -> Result<(), String> {
        let root = fs::File::open(&self.inside).unwrap();
        let policy = Policy { containment, ..policy(owners) };
        let done = unpack(archive.0.as_slice(), root.as_fd(), &policy);
        assert_eq!(fs::read(self.outside.join("file")).unwrap(), b"untouched");
        assert_eq!(fs::metadata(self.outside.join("file")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.place.path()).unwrap().count(), 2);
        done.map(drop).map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    }

    fn as_user(&self, archive: Forged) -> Result<(), String> {
        self.unpack(archive, Containment::Below, CALLER)
    }

    fn as_layer(&self, archive: Forged) -> Result<(), String> {
        self.unpack(archive, Containment::Root, Owners::Archive)
    }
}

#[test]
fn names_with_dots_are_refused_and_absolute_ones_are_no_way_out() {
    for name in ["../outside/new", "a/../../outside/new", "..", "a/.."] {
        let said = Cage::new().as_user(Forged::default().file(name, b"x"));
        assert!(said.unwrap_err().contains("'..'"), "{name}");
    }
    let cage = Cage::new();
    let absolute = cage.outside.join("new").to_str().unwrap().to_owned();
    cage.as_user(Forged::default().file(&absolute, b"x")).unwrap();
    assert_eq!(fs::read(cage.inside.join(&absolute[1..])).unwrap(), b"x");
    let refused = cage.as_layer(Forged::default().file("/x", b"x"));
    assert!(refused.unwrap_err().contains("absolute"));
}

#[test]
fn symbolic_links_are_no_way_out() {
    for target in ["../outside", "ABSOLUTE", "/proc/self/root"] {
        let cage = Cage::new();
        let target = target.replace("ABSOLUTE", cage.outside.to_str().unwrap());
        let archive = || Forged::default().symlink("a", &target).file("a/file", b"x");
        let said = cage.as_user(archive()).unwrap_err();
        assert!(said.contains("leads out of the destination"), "{target}: {said}");
        // In a root of its own the link leads to a place of that root, or nowhere.
        let _ = Cage::new().as_layer(archive());
    }
    // A link where a file should be is replaced, not followed.
    let cage = Cage::new();
    let archive = Forged::default().symlink("file", "../outside/file").file("file", b"mine");
    cage.as_user(archive).unwrap();
    assert_eq!(fs::read(cage.inside.join("file")).unwrap(), b"mine");
    // So is one where a directory should be.
    let cage = Cage::new();
    let archive = Forged::default().symlink("e", "../outside").directory("e/").file("e/file", b"2");
    cage.as_user(archive).unwrap();
    assert_eq!(fs::read(cage.inside.join("e/file")).unwrap(), b"2");
    // A directory that becomes a link is not remembered as a directory.
    let archive = Forged::default().directory("d/").symlink("d", "../outside").file("d/file", b"3");
    assert!(Cage::new().as_user(archive).unwrap_err().contains("leads out"));
}

#[test]
fn links_within_are_followed() {
    let cage = Cage::new();
    let archive = Forged::default()
        .directory("usr/lib/")
        .symlink("lib", "usr/lib")
        .file("lib/x", b"x")
        .symlink("run", "/usr")
        .file("run/y", b"y");
    cage.as_layer(archive).unwrap();
    assert_eq!(fs::read(cage.inside.join("usr/lib/x")).unwrap(), b"x");
    assert_eq!(fs::read(cage.inside.join("usr/y")).unwrap(), b"y");
}

#[test]
fn hard_links_are_no_way_out() {
    let cage = Cage::new();
    let outside = cage.outside.join("file").to_str().unwrap().to_owned();
    for target in ["../outside/file", &outside, "missing", "."] {
        cage.as_user(Forged::default().hard_link("a", target)).unwrap_err();
    }
    let archive = Forged::default().symlink("d", "../outside").hard_link("a", "d/file");
    let said = cage.as_user(archive).unwrap_err();
    assert!(said.contains("leads out"), "{said}");
    // A hard link to a symbolic link is one, not a link to what it names.
    let archive = Forged::default().symlink("s", "../outside/file").hard_link("t", "s");
    cage.as_user(archive).unwrap();
    assert!(cage.inside.join("t").is_symlink());
}

#[test]
fn devices_are_an_error_for_users_and_left_out_of_layers() {
    for kind in [EntryType::Char, EntryType::Block] {
        let cage = Cage::new();
        let archive = || Forged::default().member(kind, "dev/null", "", b"").file("x", b"x");
        let said = cage.as_user(archive()).unwrap_err();
        assert!(said.contains("Cannot mknod"), "{said}");
        cage.as_layer(archive()).unwrap();
        assert!(!cage.inside.join("dev/null").exists());
        assert!(cage.inside.join("x").exists());
    }
}

#[test]
fn layers_bring_no_attributes_that_change_how_overlay_reads_them() {
    let cage = Cage::new();
    let archive = Forged::default()
        .records(&[
            ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", "y"),
            ("SCHILY.xattr.user.overlay.opaque", "y"),
            ("SCHILY.xattr.user.fine", "line one\nline two"),
        ])
        .directory("d/");
    cage.as_layer(archive).unwrap();
    let mut value = [0; 64];
    let mut has = |name: &str| rustix::fs::getxattr(cage.inside.join("d"), name, &mut value[..]);
    has("trusted.overlay.redirect").unwrap_err();
    has("trusted.overlay.opaque").unwrap_err();
    has("user.overlay.opaque").unwrap_err();
    assert_eq!(has("user.fine"), Ok(17));
}

#[test]
fn lies_about_sizes_are_found_out() {
    let cage = Cage::new();
    let whole = Forged::default().file("a", &[1; 2000]).0;
    for length in [600, 1000, 2400] {
        let said = cage.as_user(Forged(whole[..length].to_vec())).unwrap_err();
        assert_eq!(said, "Unexpected EOF in archive", "cut at {length}");
    }
    let said = cage.as_user(Forged(whole[..100].to_vec())).unwrap_err();
    assert_eq!(said, "This does not look like a tar archive");
    for size in ["99999999999999999999", "9223372036854775808", "18446744073709551615", "-1", "x"] {
        let archive = Forged::default().records(&[("size", size)]).file("a", b"1");
        let said = cage.as_user(archive).unwrap_err();
        assert!(said.starts_with("malformed archive"), "{size}: {said}");
    }
    let claimed = Forged::default().records(&[("size", "5000")]).file("a", b"1");
    assert_eq!(cage.as_user(claimed).unwrap_err(), "Unexpected EOF in archive");
}

#[test]
fn sparse_files_that_contradict_themselves_are_refused() {
    let cage = Cage::new();
    for (map, content) in [
        ("0,99", "more than is stored"),
        ("9,1,0,1", "backwards"),
        ("0,2,1,2", "overlapping"),
        ("999999,2", "beyond the end"),
        ("18446744073709551615,1", "beyond numbers"),
        ("0", "half a piece"),
        ("a,b", "no numbers"),
    ] {
        let records = [("GNU.sparse.size", "1000000"), ("GNU.sparse.map", map)];
        let archive = Forged::default().records(&records).file("a", &[1; 5]);
        let said = cage.as_user(archive);
        assert!(said.is_err(), "{content}");
    }
    let version = [("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1000000")];
    for content in ["", "x\n", "99999999\n", "1\n0\n", "2\n0\n1\n0\n1\n"] {
        let archive = Forged::default().records(&version).file("a", content.as_bytes());
        let said = cage.as_user(archive);
        assert!(said.is_err(), "{content:?}");
    }
}

#[test]
fn odd_members_are_refused_with_their_name() {
    let cage = Cage::new();
    for kind in [b'M', b'D', b'N', b'Q', 0xff] {
        let archive = Forged::default().member(EntryType::new(kind), "odd", "", b"");
        assert!(cage.as_user(archive).unwrap_err().starts_with("odd: "), "{kind}");
    }
    fs::write(cage.inside.join("there"), "").unwrap();
    for name in ["", ".", "./", "/"] {
        // A file whose name ends with a slash is a directory of old archives.
        let file = (!name.ends_with('/')).then_some(EntryType::Regular);
        let others = [EntryType::Symlink, EntryType::Link, EntryType::Fifo];
        for kind in file.into_iter().chain(others) {
            let said = cage.as_user(Forged::default().member(kind, name, "there", b""));
            let said = said.unwrap_err();
            let why =
                if name.is_empty() { "a member without a name" } else { "only a directory can be" };
            assert!(said.contains(why), "{kind:?} {name:?}: {said}");
        }
    }
    cage.as_user(Forged::default().directory("")).unwrap_err();
    cage.as_user(Forged::default().directory("./")).unwrap();
    cage.as_user(Forged::default().symlink("x", "")).unwrap_err();
    let full = Forged::default().file("d/x", b"").file("d", b"");
    assert!(cage.as_user(full).unwrap_err().contains("replace it"));
}

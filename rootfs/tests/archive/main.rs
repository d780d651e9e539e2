//! Archives against directories, GNU tar and ill will.

mod hostile;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rootfs::archive::{Containment, Error, Names, Owners, Policy, pack, unpack};
use tar::Header;
use tree::{build, entry, snapshot, varied};

const CALLER: Owners = Owners::Caller { umask: 0o022 };

fn policy(owners: Owners) -> Policy<'static> {
    Policy {
        containment: Containment::Below,
        owners,
        absolute_names: matches!(owners, Owners::Caller { .. }),
        whiteouts: false,
        goes_on: matches!(owners, Owners::Caller { .. }),
        below: Vec::new(),
    }
}

fn unpack_into(archive: impl Read, directory: &Path, owners: Owners) -> Result<(), Error> {
    let root = fs::File::open(directory).unwrap();
    unpack(archive, root.as_fd(), &policy(owners)).map(drop)
}

fn pack_all(directory: &Path) -> Vec<u8> {
    let root = fs::File::open(directory).unwrap();
    let mut archive = Vec::new();
    let root_only = BTreeMap::from([(0, b"root".to_vec())]);
    let names = Names { users: root_only.clone(), groups: root_only };
    pack(root.as_fd(), c".", &names, &mut archive).unwrap();
    assert_eq!(archive.len() % 10240, 0);
    archive
}

fn two_directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    (place, one, two)
}

fn gnu_tar(arguments: &[&str], directory: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(directory).args(arguments).stdin(Stdio::null());
    let done = tar.output().expect("the tests need GNU tar");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_out_again(entries in proptest::collection::vec(entry(), 0..20)) {
        let (_place, one, two) = two_directories();
        build(&one, &entries);
        let archive = pack_all(&one);
        unpack_into(archive.as_slice(), &two, Owners::Archive).unwrap();
        prop_assert_eq!(snapshot(&two), snapshot(&one));
    }

    #[test]
    fn no_damage_makes_it_panic_or_leave(
        entries in proptest::collection::vec(entry(), 0..8),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (place, one, two) = two_directories();
        build(&one, &entries);
        let mut archive = pack_all(&one);
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
            // Most damage would end at the checksum.
            let block = at / 512 * 512;
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&archive[block..block + 512]);
            header.set_cksum();
            archive[block..block + 512].copy_from_slice(header.as_bytes());
        }
        archive.truncate(cut.index(archive.len() + 1));
        let _ = unpack_into(archive.as_slice(), &two, CALLER);
        prop_assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }
}

#[test]
fn archives_of_gnu_tar_are_unpacked() {
    for format in ["posix", "gnu"] {
        let (_place, one, two) = two_directories();
        varied(&one);
        let archive =
            gnu_tar(&["-cf", "-", "--sort=name", &format!("--format={format}"), "."], &one);
        unpack_into(archive.as_slice(), &two, Owners::Archive).unwrap();
        let [mut unpacked, mut expected] = [snapshot(&two), snapshot(&one)];
        if format == "gnu" {
            // This format has whole seconds.
            for seen in unpacked.values_mut().chain(expected.values_mut()) {
                seen.modified.1 = 0;
            }
        }
        assert_eq!(unpacked, expected, "{format}");
    }
}

#[test]
fn the_oldest_formats_are_unpacked() {
    for format in ["v7", "ustar", "oldgnu"] {
        let (_place, one, two) = two_directories();
        fs::create_dir(one.join("d")).unwrap();
        fs::write(one.join("d/file"), "content").unwrap();
        let archive = gnu_tar(&["-cf", "-", &format!("--format={format}"), "."], &one);
        unpack_into(archive.as_slice(), &two, CALLER).unwrap();
        assert_eq!(fs::read(two.join("d/file")).unwrap(), b"content", "{format}");
    }
}

/// Waits until what happens gets a later time than what has happened.
fn pass_a_tick(place: &Path) {
    let stamp = || {
        let path = place.join("stamp");
        fs::write(&path, "").unwrap();
        fs::metadata(path).unwrap().modified().unwrap()
    };
    let now = stamp();
    while stamp() <= now {}
}

#[test]
fn our_archives_are_gnu_tars_byte_for_byte() {
    let (place, one, two) = two_directories();
    varied(&one);
    // Reading must not move the access times between the two. It moves one that is not later than
    // the file's change.
    pass_a_tick(place.path());
    snapshot(&one);
    let theirs = gnu_tar(&["-cf", "-", "--format=posix", "--sort=name", "."], &one);
    let ours = pack_all(&one);
    if let Some(at) = theirs.iter().zip(&ours).position(|(one, other)| one != other) {
        let block = at / 512 * 512;
        let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[block..block + 512]).into_owned();
        panic!("at {at}:\n{:?}\n{:?}", show(&theirs), show(&ours));
    }
    assert_eq!(theirs.len(), ours.len());

    let archive = place.path().join("ours.tar");
    fs::write(&archive, ours).unwrap();
    gnu_tar(&["-xpf", archive.to_str().unwrap()], &two);
    assert_eq!(snapshot(&two), snapshot(&one));
}

#[test]
fn sparse_files_come_out_whole_and_sparse() {
    const SIZE: u64 = 64 << 20;
    for flags in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let (_place, one, two) = two_directories();
        let file = fs::File::create(one.join("sparse")).unwrap();
        // More pieces than a header of the old format holds.
        for piece in 0..40_u8 {
            let at = 4096 + u64::from(piece) * (1 << 20);
            std::os::unix::fs::FileExt::write_all_at(&file, &[piece + 1; 3000], at).unwrap();
        }
        file.set_len(SIZE).unwrap();
        fs::write(one.join("zzz"), "after it").unwrap();
        let mut arguments = vec!["-cSf", "-", "."];
        arguments.extend(flags);
        let archive = gnu_tar(&arguments, &one);
        assert!(archive.len() < 1 << 20, "{flags:?} made no sparse archive");
        unpack_into(archive.as_slice(), &two, CALLER).unwrap();
        assert!(fs::read(one.join("sparse")).unwrap() == fs::read(two.join("sparse")).unwrap());
        assert!(fs::metadata(two.join("sparse")).unwrap().blocks() * 512 < SIZE / 2);
        assert_eq!(fs::read(two.join("zzz")).unwrap(), b"after it");
    }
}

#[test]
fn permissions_pass_the_umask_and_set_id_bits_are_lost() {
    let (_place, one, two) = two_directories();
    varied(&one);
    unpack_into(pack_all(&one).as_slice(), &two, CALLER).unwrap();
    let look = |name: &str| fs::metadata(two.join(name)).unwrap();
    assert_eq!(look("tool").mode() & 0o7777, 0o751);
    assert_eq!(look("d/e").mode() & 0o7777, 0o755);
    assert_eq!((look("block").uid(), look("block").gid()), (0, 0));
    assert!(fs::symlink_metadata(two.join("pipe")).unwrap().file_type().is_fifo());
}

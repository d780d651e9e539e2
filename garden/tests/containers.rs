//! Containers, through the gardener's own calls.

mod plot;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use garden_api::ContainerSpec;
use garden_sys::supervisor::Exit;
use plot::Plot;

#[test]
fn a_container_runs_a_process_and_is_gone_after_its_destroy() {
    let plot = Plot::new();
    assert_eq!(plot.create("a"), "a");
    let outcome = plot.sh("a", "echo out; echo err >&2; exit 3");
    assert_eq!(outcome.exit, Exit::Status(3));
    assert_eq!((outcome.output.as_str(), outcome.error.as_str()), ("out\n", "err\n"));
    plot.garden().destroy("a").unwrap();
    assert!(plot.garden().list(&Default::default()).is_empty());
    assert_eq!(std::fs::read_dir(&plot.config.depot).unwrap().count(), 0);
}

#[test]
fn what_is_inside_is_the_containers_own() {
    let plot = Plot::new();
    plot.create_as(ContainerSpec {
        handle: "inside".into(),
        env: vec!["COLOUR=red".into()],
        ..ContainerSpec::default()
    });
    let told = |script: &str| {
        let outcome = plot.sh("inside", script);
        assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
        outcome.output
    };
    assert_eq!(told("hostname; id -u; pwd; echo $COLOUR $HOME"), "inside\n0\n/root\nred /root\n");
    assert_eq!(told("touch /x && stat -c %u:%g /x"), "0:0\n");
    assert_eq!(
        told("grep -E '^(CapInh|CapEff|CapBnd|CapAmb|Seccomp):' /proc/self/status"),
        "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
         CapAmb:\t0000000000000000\nSeccomp:\t2\n"
    );
    assert_eq!(
        told("ls /dev"),
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    assert_eq!(told("ls -A /sys/firmware; for f in /proc/k[ce]*; do cat $f; done"), "");
    plot.garden().destroy("inside").unwrap();
}

#[test]
fn no_other_user_reads_records_or_what_containers_write() {
    let mut plot = Plot::new();
    plot.leave();
    // As builds before have left them.
    let (depot, store) = (plot.config.depot.clone(), plot.config.store.clone());
    for place in [plot.directory.path(), &depot, &store, &store.join("volumes")] {
        std::fs::set_permissions(place, Permissions::from_mode(0o755)).unwrap();
    }
    plot.come_back();
    plot.create_as(ContainerSpec {
        handle: "a".into(),
        env: vec!["PASSWORD=secret".into()],
        ..ContainerSpec::default()
    });
    assert_eq!(plot.sh("a", "echo secret > /file; cat /file").output, "secret\n");
    let (record, file) = (depot.join("a/container.json"), plot.volume("a").join("upper/file"));
    for secret in [&record, &file] {
        assert!(std::fs::read_to_string(secret).unwrap().contains("secret"));
    }

    let nobody_reads = |path: &Path| {
        let mut cat = Command::new("cat");
        cat.arg(path).uid(65534).gid(65534).output().unwrap().status.success()
    };
    assert!(nobody_reads(&plot.directory.path().join("image/etc/passwd")), "others come so far");
    for secret in [&record, &file, &store.join("owner.json")] {
        assert!(!nobody_reads(secret), "{}", secret.display());
    }
    // Also not by a directory that somebody opens again.
    assert_eq!(std::fs::metadata(&record).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn whatever_is_left_in_a_hierarchy_or_in_a_place_is_counted() {
    let plot = Plot::new();
    let before = plot.settled();
    let name = format!("bloomery-{}", plot.config.tag);
    let hierarchies: Vec<_> =
        before.cgroups.keys().map(|hierarchy| hierarchy.join(&name)).collect();
    let places = ["depot", "run", "store", "store/layers", "store/volumes"];
    let places = places.map(|place| plot.directory.path().join(place));
    for place in hierarchies.iter().chain(&places) {
        let left = place.join("left");
        std::fs::create_dir(&left).unwrap();
        assert_ne!(plot.traces(), before, "{}", left.display());
        std::fs::remove_dir(&left).unwrap();
    }
    plot.expect(&before);
}

//! Containers from tars, OCI layouts and a real distribution.

mod plot;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use garden_api::{ContainerSpec, ImageRef};
use garden_sys::supervisor::Exit;
use plot::{Plot, wait_until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

fn shell(directory: &Path, script: &str) -> String {
    let done = Command::new("bash").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn create(plot: &Plot, handle: &str, uri: &str) -> Result<String, String> {
    let image = ImageRef { uri: uri.into(), ..ImageRef::default() };
    let spec = ContainerSpec { handle: handle.into(), image, ..ContainerSpec::default() };
    plot.garden().create(spec).map_err(|error| error.to_string())
}

fn told(plot: &Plot, handle: &str, script: &str) -> String {
    let outcome = plot.sh(handle, script);
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
    outcome.output
}

/// Layers of the plot's store, and nothing half made.
fn layers(plot: &Plot) -> usize {
    let names: Vec<_> = fs::read_dir(plot.config.store.join("layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    names.len()
}

/// An OCI layout of a busybox and a layer that changes it. `$1` spoils the second layer.
const LAYOUT: &str = r#"
    mkdir -p layout/blobs/sha256 one two
    cp -a image/. one; mkdir -p one/etc/gone one/etc/kept; echo low > one/etc/gone/low
    echo low > one/etc/kept/low; echo removed > one/removed; chmod 1777 one/tmp
    mkdir -p two/etc/gone two/etc/kept two/tmp
    echo high > two/etc/gone/high; touch two/etc/gone/.wh..wh..opq two/.wh.removed
    echo high > two/etc/kept/high; echo in > two/tmp/in
    add() { local d=$(sha256sum < $1 | cut -d' ' -f1); cp $1 layout/blobs/sha256/$d; echo $d; }
    tar -C one -cf one.tar . ; tar -C two -cf two.tar etc/gone etc/kept .wh.removed tmp/in
    diff1=$(sha256sum < one.tar | cut -d' ' -f1); diff2=$(sha256sum < two.tar | cut -d' ' -f1)
    gzip -n one.tar; l1=$(add one.tar.gz); l2=$(add two.tar)
    cat > config <<END
{"architecture":"amd64","os":"linux","config":{"Env":["FROM=layout"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:$diff1","sha256:$diff2"]}}
END
    c=$(add config)
    cat > manifest <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$c","size":1},
 "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$l1","size":1},
           {"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$l2","size":1}]}
END
    m=$(add manifest)
    echo '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
    cat > layout/index.json <<END
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "digest":"sha256:$m","size":1}]}
END
    echo -n $l2
"#;

#[test]
fn a_layouts_layers_delete_what_they_say_and_bring_their_environment() {
    for shift_by_copy in [false, true] {
        let plot = Plot::with(|config| {
            config.shift_by_copy = shift_by_copy;
            let layout = config.store.parent().unwrap().join("layout");
            config.image_aliases.insert("docker:///app#1".into(), layout);
        });
        shell(plot.directory.path(), LAYOUT);
        create(&plot, "box", "docker:///app#1").unwrap();
        assert_eq!(
            told(&plot, "box", "echo $FROM; ls /etc/gone /etc/kept"),
            concat!("layout\n", "/etc/gone:\nhigh\n\n", "/etc/kept:\nhigh\nlow\n")
        );
        assert_eq!(told(&plot, "box", "ls -d /removed 2>/dev/null || echo no"), "no\n");
        // A directory that only the lower layer describes keeps what that says, for root and others.
        let owners = "stat -c '%a %u %g' /tmp /bin/busybox; touch /bin/x; stat -c %u /bin/x";
        assert_eq!(told(&plot, "box", owners), "1777 0 0\n755 0 0\n0\n");
        let disk = plot.garden().metrics("box").unwrap().disk;
        assert!(disk.total_bytes_used > disk.exclusive_bytes_used + (1 << 20), "{disk:?}");
        assert_eq!(layers(&plot), if shift_by_copy { 4 } else { 2 });
        create(&plot, "again", "docker:///app#1").unwrap();
        assert_eq!(layers(&plot), if shift_by_copy { 4 } else { 2 });
    }
}

#[test]
fn a_spoilt_layer_leaves_nothing() {
    let plot = Plot::new();
    let digest = shell(plot.directory.path(), LAYOUT);
    let blob = plot.directory.path().join("layout/blobs/sha256").join(digest);
    let mut bytes = fs::read(&blob).unwrap();
    let end = bytes.len() - 1;
    bytes[end] = 1;
    fs::write(&blob, bytes).unwrap();
    let uri = format!("oci://{}", plot.directory.path().join("layout").display());
    let said = create(&plot, "box", &uri).unwrap_err();
    assert!(said.contains("its digest is sha256:"), "{said}");
    assert_eq!(layers(&plot), 1);
    assert!(plot.garden().list(&Default::default()).is_empty());
}

#[test]
fn the_default_image_is_unpacked_before_anybody_asks_for_it() {
    let plot = Plot::with(|config| {
        let place = config.store.parent().unwrap();
        shell(place, "tar -C image -cf base.tar .");
        config.default_rootfs = Some(place.join("base.tar"));
    });
    let unpacked = || {
        let names = fs::read_dir(plot.config.store.join("layers")).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_str().unwrap().starts_with("tar-")).count()
    };
    wait_until("the image is there", || unpacked() == 1);
    create(&plot, "box", "").unwrap();
    assert_eq!(told(&plot, "box", "echo in"), "in\n");
    assert_eq!(unpacked(), 1);
}

#[test]
fn a_tar_is_unpacked_once_however_many_ask_and_again_when_it_changes() {
    let plot = Plot::new();
    shell(plot.directory.path(), "echo one > image/version; tar -C image -czf base.tgz .");
    let uri = plot.directory.path().join("base.tgz").to_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (plot, uri) = (&plot, &uri);
            scope.spawn(move || create(plot, &format!("c{number}"), uri).unwrap());
        }
    });
    assert_eq!(layers(&plot), 1);
    assert_eq!(told(&plot, "c3", "cat /version"), "one\n");
    shell(plot.directory.path(), "echo two > image/version; tar -C image -czf base.tgz .");
    create(&plot, "new", &uri).unwrap();
    assert_eq!(told(&plot, "new", "cat /version"), "two\n");
    assert_eq!(told(&plot, "c3", "cat /version"), "one\n");
    assert_eq!(layers(&plot), 2);
    shell(plot.directory.path(), "head -c 100000 base.tgz > cut.tgz; echo text > text.tar");
    for (name, words) in [("cut.tgz", "cannot unpack"), ("text.tar", "not look like a tar")] {
        let uri = plot.directory.path().join(name).to_str().unwrap().to_owned();
        let said = create(&plot, "bad", &uri).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(layers(&plot), 2);
    let said = create(&plot, "bad", "docker:///nothing").unwrap_err();
    assert!(said.contains("--image-alias docker:///nothing=PATH"), "{said}");
}

/// A file system of a test's own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, place: PathBuf) -> Self {
        fs::create_dir(&place).unwrap();
        mount(kind, &place, kind, MountFlags::empty(), None).unwrap();
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// tmpfs has idmapped mounts from kernel 6.3 on (mount_setattr(2)).
fn tmpfs_maps_ids() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split('.').filter_map(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(3))
}

#[test]
fn an_image_is_copied_only_where_its_file_system_has_no_idmapped_mounts() {
    let plot = Plot::new();
    let image = plot.config.default_rootfs.clone().unwrap();
    assert_eq!(rustix::fs::statfs(&image).unwrap().f_type, 0xef53, "the tests need TMPDIR on ext4");
    let place = |kind: &str| plot.directory.path().join(kind);
    let mounts = ["ramfs", "tmpfs"].map(|kind| Mounted::new(kind, place(kind)));
    let mut copies = 0;
    for (kind, maps_ids) in [("ramfs", false), ("tmpfs", tmpfs_maps_ids()), ("image", true)] {
        if kind != "image" {
            shell(plot.directory.path(), &format!("cp -a image/. {kind}"));
        }
        create(&plot, kind, place(kind).to_str().unwrap()).unwrap();
        copies += usize::from(!maps_ids);
        assert_eq!(layers(&plot), copies, "{kind}");
        let owners = "stat -c %u:%g /bin/busybox /home/vcap; touch /bin/x; stat -c %u:%g /bin/x";
        assert_eq!(told(&plot, kind, owners), "0:0\n2000:2000\n0:0\n", "{kind}");
        // Root's files are not root's on the host, and the image is as it was.
        let made = fs::metadata(plot.volume(kind).join("upper/bin/x"));
        assert_eq!(made.unwrap().uid(), u32::MAX - 1, "{kind}");
        assert_eq!(fs::metadata(place(kind).join("bin/busybox")).unwrap().uid(), 0, "{kind}");
    }
    for kind in ["ramfs", "tmpfs", "image"] {
        plot.garden().destroy(kind).unwrap();
    }
    drop(mounts);
}

/// Debian's essential packages, made by mmdebstrap once for a target directory.
fn debian() -> PathBuf {
    let cache = machine::directory("images").unwrap();
    let _lock = machine::lock(&cache.join("debian.lock")).unwrap();
    let place = cache.join("debian.tar");
    if !place.exists() {
        let new = place.with_extension("new.tar");
        let done = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=essential", "bookworm"])
            .arg(&new)
            .output()
            .expect("the tests need mmdebstrap");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        machine::keep(&new, &place).unwrap();
    }
    place
}

#[test]
fn a_distributions_programs_run() {
    let plot = Plot::new();
    create(&plot, "debian", debian().to_str().unwrap()).unwrap();
    assert!(told(&plot, "debian", "dpkg --version").contains("Debian 'dpkg'"));
    let usual = "stat -c '%a %U' /tmp /bin/su; dpkg --verify coreutils; perl -e 'print 6*7'";
    assert_eq!(told(&plot, "debian", usual), "1777 root\n4755 root\n42");
}

#[test]
fn a_root_that_was_built_ahead_is_of_the_image_that_is_asked_for_as_it_is_now() {
    let plot = Plot::new();
    let before = plot.settled();
    let image = plot.config.default_rootfs.clone().unwrap();
    let other = plot.directory.path().join("other");
    shell(plot.directory.path(), "cp -a image other; echo other > other/etc/which");
    // Roots are built ahead of the first image, and then of the one that was asked for last.
    for round in 0..3 {
        plot.settled();
        fs::write(image.join("etc/which"), format!("{round}\n")).unwrap();
        fs::remove_file(image.join("etc/hosts")).ok();
        if round > 0 {
            fs::write(image.join("etc/hosts"), "").unwrap();
        }
        create(&plot, "own", "").unwrap();
        assert_eq!(told(&plot, "own", "cat /etc/which"), format!("{round}\n"));
        create(&plot, "other", other.to_str().unwrap()).unwrap();
        assert_eq!(told(&plot, "other", "cat /etc/which; hostname"), "other\nother\n");
        for handle in ["own", "other"] {
            let lines =
                told(&plot, handle, "grep -c . /etc/hosts; grep -c ' / ' /proc/self/mountinfo");
            assert_eq!(lines.lines().next(), Some("2"), "{lines}");
            plot.garden().destroy(handle).unwrap();
        }
        plot.expect(&before);
    }
}

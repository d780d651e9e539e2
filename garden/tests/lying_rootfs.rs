//! Images that lie: where a container's root should have a directory there is a link to the host,
//! a pipe or a file. The answer is a container that works or a clear error, and nothing of the host
//! is touched.

mod plot;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use garden_api::{BindMount, ContainerSpec, ProcessSpec, Properties};
use garden_sys::supervisor::Exit;
use plot::Plot;
use plot::running::shell;
use plot::traces::Traces;

/// What an image may name of the host and must not reach.
struct Witness {
    directory: PathBuf,
    before: Vec<String>,
}

impl Witness {
    fn new(plot: &Plot) -> Self {
        let directory = plot.directory.path().join("witness");
        fs::create_dir(&directory).unwrap();
        for name in ["hosts", "resolv.conf", "null", "kcore", "keys"] {
            fs::write(directory.join(name), "the host's\n").unwrap();
        }
        let users = "root:x:0:0::/:/bin/sh\nmallory:x:1234:1234::/:/bin/sh\n";
        fs::write(directory.join("passwd"), users).unwrap();
        let before = listed(&directory);
        Self { directory, before }
    }

    fn name(&self) -> &str {
        self.directory.to_str().unwrap()
    }

    fn is_untouched(&self, case: &str) {
        assert_eq!(listed(&self.directory), self.before, "{case}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.name()), "{case}: something is mounted there");
    }
}

/// Names, kinds, owners, sizes and times of all that is in a directory, itself included.
fn listed(directory: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(directory).args(["-printf", "%p %y %m %U:%G %s %T@ %C@\\n"]);
    let mut lines: Vec<_> = String::from_utf8(find.output().unwrap().stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert!(!lines.is_empty());
    lines
}

/// An image to be spoilt.
struct Image<'a>(&'a Path);

impl Image<'_> {
    fn clear(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
        path
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        symlink(target, self.clear(name)).unwrap();
    }

    fn pipe(&self, name: &str) {
        let made = Command::new("mkfifo").arg(self.clear(name)).status().unwrap();
        assert!(made.success());
    }

    fn file(&self, name: &str) {
        fs::write(self.clear(name), "a file\n").unwrap();
    }

    fn directory(&self, name: &str) {
        fs::create_dir(self.clear(name)).unwrap();
    }
}

/// A plot whose image has been spoilt, its witness, and what the plot leaves on the host.
fn spoilt(spoil: impl FnOnce(&Image<'_>, &str)) -> (Plot, Witness, Traces) {
    let plot = Plot::new();
    let witness = Witness::new(&plot);
    spoil(&Image(plot.config.default_rootfs.as_deref().unwrap()), witness.name());
    let before = plot.settled();
    (plot, witness, before)
}

fn create(plot: &Plot) -> Result<String, String> {
    let spec = ContainerSpec { handle: "liar".into(), ..ContainerSpec::default() };
    plot.garden().create(spec).map_err(|error| error.to_string())
}

fn everything(plot: &Plot) -> Vec<String> {
    plot.garden().list(&Properties::from([("garden.state".into(), "all".into())]))
}

type Spoil = fn(&Image<'_>, &str);

#[test]
fn a_root_that_cannot_be_built_is_a_clear_error_and_leaves_nothing() {
    let cases: [(&str, Spoil, &str, &str); 21] = [
        ("dev of the host", |i, w| i.link("dev", w), "/dev", "No such file or directory"),
        ("proc of the host", |i, w| i.link("proc", w), "/proc", "No such file or directory"),
        ("sys of the host", |i, w| i.link("sys", w), "/sys", "No such file or directory"),
        ("etc of the host", |i, w| i.link("etc", w), "/etc/hosts", "No such file or directory"),
        (
            "dev above the root",
            |i, w| i.link("dev", format!("../../../../../../..{w}")),
            "/dev",
            "No such file or directory",
        ),
        (
            "dev by a process's root",
            |i, w| i.link("dev", format!("/proc/self/root{w}")),
            "/dev",
            "Too many levels of symbolic links",
        ),
        (
            "dev by a process's directory",
            |i, _| i.link("dev", "/proc/self/cwd"),
            "/dev",
            "Too many levels of symbolic links",
        ),
        (
            "hosts of the host",
            |i, w| i.link("etc/hosts", format!("{w}/hosts")),
            "/etc/hosts",
            "No such",
        ),
        (
            "resolv.conf of the host",
            |i, w| i.link("etc/resolv.conf", format!("{w}/resolv.conf")),
            "/etc/resolv.conf",
            "No such file or directory",
        ),
        (
            "hosts by a descriptor",
            |i, _| i.link("etc/hosts", "/proc/self/fd/3"),
            "/etc/hosts",
            "Too many levels of symbolic links",
        ),
        (
            "links in a circle",
            |i, _| {
                i.link("etc/hosts", "/etc/resolv.conf");
                i.link("etc/resolv.conf", "/etc/hosts");
            },
            "/etc/hosts",
            "Too many levels of symbolic links",
        ),
        ("dev is itself", |i, _| i.link("dev", "dev"), "/dev", "Too many levels of symbolic links"),
        ("dev is a file", |i, _| i.file("dev"), "/dev", "Not a directory"),
        ("proc is a pipe", |i, _| i.pipe("proc"), "/proc", "Not a directory"),
        ("sys is a pipe", |i, _| i.pipe("sys"), "/sys", "Not a directory"),
        ("etc is a file", |i, _| i.file("etc"), "/etc/hosts", "Not a directory"),
        ("etc is a pipe", |i, _| i.pipe("etc"), "/etc/hosts", "Not a directory"),
        ("hosts is a directory", |i, _| i.directory("etc/hosts"), "/etc/hosts", "Is a directory"),
        ("dev is the root", |i, _| i.link("dev", "/"), "/dev", "Too many levels of symbolic links"),
        (
            "proc is the root",
            |i, _| i.link("proc", "."),
            "/proc",
            "Too many levels of symbolic links",
        ),
        (
            "sys is the root",
            |i, _| i.link("sys", ".."),
            "/sys",
            "Too many levels of symbolic links",
        ),
    ];
    for (case, spoil, part, words) in cases {
        let (plot, witness, before) = spoilt(spoil);
        let said = create(&plot).unwrap_err();
        let begin = format!("cannot build the container's root: Mount of {part}: {words}");
        assert!(said.starts_with(&begin), "{case}: {said}");
        assert_eq!(everything(&plot), Vec::<String>::new(), "{case}");
        witness.is_untouched(case);
        plot.expect(&before);
    }
}

/// What must hold inside whatever the image says.
const SAFE: &str = "for f in kcore keys timer_list sched_debug latency_stats; do \
     [ ! -e /proc/$f ] || [ $(head -c 1 /proc/$f | wc -c) = 0 ] || echo $f is readable; done; \
     [ -z \"$(ls -A /sys/firmware 2>/dev/null)\" ] || echo firmware; \
     mkdir /sys/x 2>/dev/null && [ -d /sys/kernel ] && echo sys is writable; true";

#[test]
fn a_root_that_can_be_built_is_closed_all_the_same() {
    let cases: [(&str, Spoil); 10] = [
        ("proc is dev", |i, _| i.link("proc", "/dev")),
        ("dev is proc", |i, _| i.link("dev", "/proc")),
        ("sys is proc", |i, _| i.link("sys", "/proc")),
        ("proc is sys", |i, _| i.link("proc", "sys")),
        ("proc is below tmp", |i, _| {
            i.link("proc", "/tmp/proc");
            i.directory("tmp/proc");
        }),
        ("etc is in dev", |i, _| i.link("etc", "/dev")),
        ("hosts is null", |i, _| i.link("etc/hosts", "/dev/null")),
        ("hosts is a pipe", |i, _| i.pipe("etc/hosts")),
        ("hosts is passwd", |i, _| i.link("etc/hosts", "passwd")),
        ("resolv.conf is new", |i, _| i.link("etc/resolv.conf", "/tmp/made")),
    ];
    for (case, spoil) in cases {
        let (plot, witness, before) = spoilt(spoil);
        create(&plot).unwrap_or_else(|error| panic!("{case}: {error}"));
        let looked = plot.run("liar", &shell(SAFE));
        assert_eq!(
            (looked.exit, looked.output.as_str()),
            (Exit::Status(0), ""),
            "{case}: {looked:?}"
        );
        plot.garden().destroy("liar").unwrap();
        witness.is_untouched(case);
        plot.expect(&before);
    }
}

#[test]
fn users_are_the_containers_own_whatever_passwd_is() {
    let cases: [(&str, Spoil); 6] = [
        ("the host's", |i, w| i.link("etc/passwd", format!("{w}/passwd"))),
        ("the host's, by a process", |i, w| {
            i.link("etc/passwd", format!("/proc/1/root{w}/passwd"))
        }),
        ("a pipe", |i, _| i.pipe("etc/passwd")),
        ("without an end", |i, _| i.link("etc/passwd", "/dev/zero")),
        ("a terminal", |i, _| i.link("etc/passwd", "/dev/pts/ptmx")),
        ("a directory", |i, _| i.directory("etc/passwd")),
    ];
    for (case, spoil) in cases {
        let (plot, witness, before) = spoilt(spoil);
        create(&plot).unwrap_or_else(|error| panic!("{case}: {error}"));
        let as_user =
            |user: &str| ProcessSpec { user: user.into(), ..shell("grep ^Uid: /proc/self/status") };
        let error = plot.garden().run("liar", &as_user("mallory")).unwrap_err().to_string();
        assert_eq!(
            error, "unable to find user mallory: no matching entries in passwd file",
            "{case}"
        );
        for (user, id) in [("", "Uid:\t0\t"), ("1234:77", "Uid:\t1234\t")] {
            let told = plot.run("liar", &as_user(user)).output;
            assert!(told.starts_with(id), "{case}: {user:?}: {told}");
        }
        plot.garden().destroy("liar").unwrap();
        witness.is_untouched(case);
        plot.expect(&before);
    }
}

#[test]
fn programs_and_directories_that_are_none_are_errors() {
    let (plot, witness, before) = spoilt(|image, witness| {
        image.pipe("bin/sh");
        image.link("bin/host", format!("{witness}/passwd"));
        image.link("home/host", witness);
        image.pipe("home/pipe");
        image.link("home/around", "around");
    });
    create(&plot).unwrap();
    let refused = |path: &str, dir: &str| {
        let spec = ProcessSpec { path: path.into(), dir: dir.into(), ..ProcessSpec::default() };
        plot.garden().run("liar", &spec).unwrap_err().to_string()
    };
    for (path, dir, words) in [
        ("/bin/sh", "", "permission denied"),
        ("sh", "", "permission denied"),
        ("/bin/host", "", "no such file or directory"),
        ("/bin/true", "/home/pipe", "not a directory"),
        ("/bin/true", "/home/around", "too many levels of symbolic links"),
    ] {
        let said = refused(path, dir).to_lowercase();
        assert!(said.contains(words), "{path} in {dir:?}: {said}");
    }
    // A link to what is not there inside: the directory is made inside, or refused.
    let spec = ProcessSpec {
        path: "/bin/pwd".into(),
        dir: "/home/host/new".into(),
        ..ProcessSpec::default()
    };
    match plot.garden().run("liar", &spec) {
        Ok(process) => drop(process),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    plot.garden().destroy("liar").unwrap();
    witness.is_untouched("programs");
    plot.expect(&before);
}

#[test]
fn nothing_is_mounted_over_the_root() {
    let (plot, witness, before) = spoilt(|image, _| image.link("around", "bin/.."));
    let given = plot.directory.path().join("given");
    fs::create_dir(&given).unwrap();
    for (target, words) in [
        ("/", "bind mount target \"/\" is the container's root"),
        ("/./", "bind mount target \"/./\" is the container's root"),
        ("/..", "Mount of /..: Too many levels of symbolic links"),
        ("/around", "Mount of /around: Too many levels of symbolic links"),
    ] {
        let bind = BindMount {
            src_path: given.display().to_string(),
            dst_path: target.into(),
            ..BindMount::default()
        };
        let spec = ContainerSpec {
            handle: "over".into(),
            bind_mounts: vec![bind],
            ..ContainerSpec::default()
        };
        let error = plot.garden().create(spec).unwrap_err().to_string();
        assert!(error.contains(words), "{target}: {error}");
        assert_eq!(everything(&plot), Vec::<String>::new(), "{target}");
    }
    witness.is_untouched("binds");
    plot.expect(&before);
}

//! `bloomery doctor` on the host that the tests run on, whose containers work.

mod site;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use bloomery_garden::client::ProcessIo;
use serde_json::Value;

use site::{PATIENCE, Site, named, sh};

/// The doctor for a site's Garden, with a directory for temporary files of its own.
fn doctor(site: &Site) -> Command {
    let temporary = site.place("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bloomery"));
    command.args(["doctor", "--tag", &site.config.tag, "--max-containers", "8"]);
    for (flag, place) in [
        ("--bind-socket", site.place("garden.sock")),
        ("--depot", site.config.depot.clone()),
        ("--keeper-dir", site.config.run.clone()),
        ("--store", site.config.store.clone()),
        ("--default-rootfs", site.place("image")),
    ] {
        command.arg(flag).arg(place);
    }
    command.env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn look(command: &mut Command) -> (u32, Output) {
    let child = command.spawn().unwrap();
    let pid = child.id();
    (pid, child.wait_with_output().unwrap())
}

/// The facts that it tells a program, and its status.
fn facts(site: &Site, more: &[&str]) -> (Vec<Value>, Option<i32>) {
    let (_, told) = look(doctor(site).arg("--json").args(more));
    let error = String::from_utf8_lossy(&told.stderr);
    let facts = serde_json::from_slice(&told.stdout).unwrap_or_else(|e| panic!("{e}: {error}"));
    (facts, told.status.code())
}

fn fact<'a>(facts: &'a [Value], name: &str) -> &'a Value {
    let found = facts.iter().find(|fact| fact["name"] == name);
    found.unwrap_or_else(|| panic!("no fact {name} in {facts:#?}"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether a process has a file open below a directory: a supervisor would have its log there.
fn is_used(directory: &Path) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { return false };
        open.flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(directory)))
    })
}

#[test]
fn a_host_where_containers_work_has_all_they_need_and_nothing_is_left_of_the_look() {
    let site = Site::new(0);
    let before = names(site.place("").as_path());
    let begun = Instant::now();
    let (pid, told) = look(&mut doctor(&site));
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&told.stderr));
    assert!(begun.elapsed() < PATIENCE);
    for line in [
        "seccomp             the filter of containers refuses what it is to refuse",
        "network             links, addresses and rules of a container work",
        "namespaces          a container's process 1 has its own, with ids of its own",
    ] {
        let words: Vec<_> = line.split_whitespace().collect();
        let is = |told: &str| {
            let told: Vec<_> = told.split_whitespace().collect();
            told.split_first().is_some_and(|(state, rest)| *state == "ok" && rest == words)
        };
        assert!(text.lines().any(is), "{line}: {text}");
    }
    assert!(text.lines().last().unwrap().ends_with(" 0 missing"), "{text}");

    let after: Vec<_> =
        names(site.place("").as_path()).into_iter().filter(|name| name != "tmp").collect();
    assert_eq!(after, before, "not even the places that it looked at");
    assert_eq!(names(&site.place("tmp")), [] as [&str; 0]);
    assert!(!is_used(&site.place("tmp")), "its supervisor is gone");
    let root = format!("bloomery-doctor-{pid}");
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &root]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(site.place("").to_str().unwrap()), "{mounts}");
}

#[tokio::test]
async fn a_server_and_what_a_killed_one_leaves_are_told_and_not_touched() {
    let mut site = Site::new(1);
    site.start(None);
    site.wait_up().await;
    let client = site.client();
    client.create(&named("c")).await.unwrap();
    let process = client.run("c", &sh("read line; exit 7"), ProcessIo::default()).await.unwrap();
    let garden = format!("garden {}", site.config.tag);

    let (running, status) = facts(&site, &[]);
    assert_eq!(status, Some(0), "{running:#?}");
    let daemon = format!("process {}", site.daemon());
    for name in ["server", &garden] {
        let found = fact(&running, name)["found"].as_str().unwrap().to_owned();
        assert!(found.starts_with(&daemon), "{name}: {found}");
    }
    let keeper = fact(&running, "keeper");
    assert!(keeper["found"].as_str().unwrap().ends_with("of this build"), "{keeper}");
    let descriptors = fact(&running, "descriptors");
    assert!(descriptors["found"].as_str().unwrap().ends_with("for the server"), "{descriptors}");
    process.end_stdin().await.unwrap();
    assert_eq!(process.wait().await.unwrap(), 7, "the keeper still talks to its daemon");

    site.kill();
    let (killed, status) = facts(&site, &[]);
    assert_eq!(status, Some(0), "{killed:#?}");
    let left = fact(&killed, &garden);
    assert_eq!(left["state"], "degraded");
    let depot = std::fs::canonicalize(&site.config.depot).unwrap();
    let remedy = format!("cleanup --tag {} --depot {}", site.config.tag, depot.display());
    assert!(left["remedy"].as_str().unwrap().contains(&remedy), "{left}");
    assert!(fact(&killed, "server")["found"].as_str().unwrap().starts_with("none listens"));

    site.start(None);
    site.wait_up().await;
    assert_eq!(site.client().list(&Default::default()).await.unwrap(), ["c"]);
}

#[test]
fn what_cannot_work_is_missing_and_the_status_says_so() {
    let site = Site::new(2);
    // Nobody can write there, nor mount.
    let (found, status) = facts(&site, &["--network-pool", "nowhere"]);
    assert_eq!(status, Some(3));
    assert_eq!(fact(&found, "network pool")["state"], "missing");
    let (pid, told) = look(
        Command::new(env!("CARGO_BIN_EXE_bloomery"))
            .args(["doctor", "--json", "--tag", &site.config.tag, "--store", "/proc/none"])
            .stdout(Stdio::piped()),
    );
    assert_eq!(told.status.code(), Some(3), "{pid}");
    let found: Vec<Value> = serde_json::from_slice(&told.stdout).unwrap();
    let overlay = fact(&found, "overlay");
    assert_eq!(overlay["state"], "missing");
    for part in ["follows", "remedy"] {
        assert!(overlay[part].is_string(), "{overlay}");
    }
}

#[test]
fn who_is_not_root_is_told_to_be() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("bloomery");
    std::fs::copy(env!("CARGO_BIN_EXE_bloomery"), &program).unwrap();
    let told = Command::new(&program).arg("doctor").uid(65534).gid(65534).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(3), "{text}");
    assert!(text.contains("missing   privileges  user 65534"), "{text}");
    assert!(text.contains("do: sudo bloomery doctor"), "{text}");
}

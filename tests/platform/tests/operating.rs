//! What an operator types: `up`, `status`, `credentials`, `env`, `logs`, `down`, `destroy`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garden_api::{BindMount, ContainerSpec};
use platform_tests::{Part, Platform, Told, apps, eventually, exposed, stack};

/// For an app to answer after `down` and `up`; half a second was seen. Convergence alone takes 28 s.
const BACK: Duration = Duration::from_secs(10);
/// For `down`; a supervisor of containers that was not told to end would stay for 5 s.
const DOWN: Duration = Duration::from_secs(4);

#[test]
fn an_installation_is_started_looked_at_ended_started_again_and_removed() -> Told<()> {
    let platform = Platform::new(0);
    platform.put_stack();
    expect_nothing_runs(&platform);
    let told = platform.up_nameless(&[]);
    let password = platform.password();
    assert!(password.len() >= 20);
    for words in ["platform  ready", "API       http://api.bloomery.localhost\n", "Ready in "] {
        assert!(told.contains(words), "{words:?}: {told}");
    }
    assert!(!told.contains(&password), "a password is not for scrollback: {told}");
    let names =
        ["api", "uaa", "login", "log-cache"].map(|host| format!("{host}.bloomery.localhost"));
    let line = format!("127.0.0.1 {}\n", names.join(" "));
    assert!(told.contains(&line) && told.contains("`bloomery up --hosts`"), "{told}");
    assert_eq!(hosts(&platform), "127.0.0.1 localhost\n", "nobody has asked for them");

    // Once more: it says what runs, and writes the names, once.
    let parts = Part::ALL.map(|part| platform.part(part));
    assert!(parts.iter().all(Option::is_some), "{parts:?}");
    for _ in 0..2 {
        let again = platform.up(&[]);
        assert!(again.contains("already running (process "), "{again}");
        assert!(again.contains("http://api.bloomery.localhost\n"), "{again}");
        let written = format!("127.0.0.1 localhost\n# bloomery: begin\n{line}# bloomery: end\n");
        assert_eq!(hosts(&platform), written);
    }
    // What can have no effect is not dropped without a word.
    let error =
        refused(&platform, &["up", "--port", "8090", "--memory", "512", "--domain", "x.test"]);
    for words in ["--port 8090 (it is 80)", "--memory 512 (it is 4096)", "--domain x.test (it is "]
    {
        assert!(error.contains(words), "{words:?}: {error}");
    }
    assert!(refused(&platform, &["up", "--foreground"]).contains("--foreground"));
    assert_eq!(parts, Part::ALL.map(|part| platform.part(part)));

    let status = platform.told(&["status"]);
    assert!(status.contains("ready   http://api.bloomery.localhost\n"), "{status}");
    assert!(status.contains("0 of 4096 MiB have apps, "), "{status}");
    let logs = platform.told(&["logs"]);
    for process in ["garden", "platform"] {
        assert!(logs.lines().any(|line| line.starts_with(process)), "{process}: {logs}");
    }
    assert!(!logs.contains(&password), "a password is not logged");
    expect_own_home(&platform);
    expect_no_way_to_root(&platform);
    expect_few_rights(&platform);
    expect_loopback_alone(&platform);

    let app = platform.log_in()?.push(&apps::server("stays", "one"))?;
    let life = platform.app_answers("stays")["life"].clone();
    expect_no_secret_is_exposed(&platform);
    assert!(!platform.cgroups().is_empty(), "this is where its cgroups are");

    let asked = Instant::now();
    let down = platform.told(&["down"]);
    let took = asked.elapsed();
    println!("down took {took:?}");
    assert!(took < DOWN, "down took {took:?}");
    assert!(down.contains("has ended, and the apps with it"), "{down}");
    expect_nothing_runs(&platform);
    assert_eq!(platform.told(&["down"]), "nothing runs\n");

    // Earlier versions made these directories for everybody.
    for open in [platform.run().join("depot"), platform.data().join("garden/volumes")] {
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let store = platform.data().join("garden");
    fs::set_permissions(store, fs::Permissions::from_mode(0o755)).unwrap();

    platform.up(&[]);
    let started = Instant::now();
    assert_eq!(platform.password(), password, "what was made is kept");
    let now = platform.app_answers("stays");
    let waited = started.elapsed();
    println!("an app is back after {waited:?}");
    assert!(waited < BACK, "an app is back after {waited:?}");
    assert_ne!(now["life"], life, "it was ended");
    assert_eq!(now["version"], "one");
    let instances = platform.running(1);
    platform.containers_are(&instances);
    expect_no_secret_is_exposed(&platform);
    assert_eq!(platform.log_in()?.get(&format!("/v3/apps/{app}"))?["state"], "STARTED");

    // What is not meant is not done.
    let error = refused(&platform, &["destroy"]);
    assert!(error.contains("`bloomery destroy --yes`"), "{error}");
    assert_eq!(platform.app_answers("stays")["life"], now["life"]);

    platform.told(&["destroy", "--yes"]);
    expect_nothing_runs(&platform);
    assert!(!platform.data().exists() && !platform.run().exists());
    assert_eq!(hosts(&platform), "127.0.0.1 localhost\n");
    Ok(())
}

#[test]
fn another_port_is_taken_and_what_was_settled_is_kept() {
    let platform = Platform::new(1);
    let bind = |port| platform.world().inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let taken = bind(80).unwrap();
    let error = refused(&platform, &["up", "--port", "80"]);
    assert!(error.contains("cannot listen on port 80"), "{error}");
    assert!(platform.world().processes().is_empty(), "nothing was started");

    let stack = stack().join("base.tar");
    let told = platform.up(&["--stack", stack.to_str().unwrap()]);
    assert!(told.contains("80 cannot be had"), "{told}");
    assert!(told.contains("http://api.bloomery.localhost:8080"), "{told}");
    assert_eq!(platform.port(), 8080);
    // Clients are led to that port.
    platform.log_in().unwrap();

    // Port and root file system are this installation's, also when the first choice is free again.
    platform.told(&["down"]);
    drop(taken);
    let told = platform.up(&[]);
    assert!(told.contains("http://api.bloomery.localhost:8080"), "{told}");
    platform.log_in().unwrap();

    platform.told(&["down"]);
    let _taken = bind(8080).unwrap();
    let error = refused(&platform, &["up"]);
    assert!(error.contains("port 8080 is this installation's"), "{error}");

    let error = refused(&platform, &["up", "--domain", "other.localhost"]);
    assert!(error.contains("domain is bloomery.localhost"), "{error}");
}

/// What `bloomery` says when it fails with these words.
fn refused(platform: &Platform, words: &[&str]) -> String {
    let output = platform.bloomery(words);
    assert!(!output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn ctrl_c_leaves_nothing_behind_however_often_it_is_pressed() {
    let platform = Platform::new(2);
    platform.put_stack();
    let mut up = platform.start(&platform.up_words(&["--foreground"]));
    up.wait_for("API ");
    assert!(!platform.cgroups().is_empty(), "this is where its cgroups are");
    let status = up.interrupt_until_end();
    assert!(status.success(), "{status}");
    expect_nothing_runs(&platform);

    // Now there is no supervisor that would put things back behind the command.
    platform.up(&[]);
    for part in [Part::StandBy, Part::Supervisor] {
        platform.kill(part);
    }
    let down = platform.start(&["down".to_owned()]);
    down.wait_until_it_catches_interrupts();
    let status = down.interrupt_until_end();
    assert!(status.success(), "{status}");
    expect_nothing_runs(&platform);
}

/// Nothing of a platform is on its host, but what it has written into directories and `/etc/hosts`.
fn expect_nothing_runs(platform: &Platform) {
    let status = platform.bloomery(&["status"]);
    assert_eq!(status.status.code(), Some(4));
    assert_eq!(String::from_utf8_lossy(&status.stdout), "not running\n");
    // Their parent, the world, waits for them.
    eventually("no process is left", || match platform.world().processes()[..] {
        [] => Ok(()),
        [ref left, ..] => Err(format!("{left:?}")),
    });
    assert_eq!(platform.world().links(), [""; 0]);
    assert_eq!(platform.world().mounts(), [""; 0]);
    assert_eq!(platform.world().rules(), "");
    assert!(platform.cgroups().is_empty(), "{:?}", platform.cgroups());
    let refused = platform.world().connect(platform.port()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// Other users of the machine see that there is a platform, and nothing of its apps.
fn expect_no_secret_is_exposed(platform: &Platform) {
    let record =
        platform.run().join("depot").join(&platform.containers()[0]).join("container.json");
    assert!(fs::read_to_string(record).unwrap().contains("executor:record"), "it says all");
    let marks = ["garden.mark", "platform.mark", "stand-by.mark", "supervisor.lock"];
    assert_eq!(exposed(&platform.run()), marks.map(PathBuf::from));
    assert_eq!(exposed(&platform.data()), [PathBuf::from("installation.json")]);
}

/// Whoever takes over the platform's process does not become root by it.
fn expect_no_way_to_root(platform: &Platform) {
    let privileged = ContainerSpec {
        privileged: true,
        bind_mounts: vec![BindMount {
            src_path: "/".into(),
            dst_path: "/host".into(),
            ..BindMount::default()
        }],
        ..ContainerSpec::default()
    };
    let refused = platform.wait(platform.garden().create(&privileged)).unwrap_err();
    assert!(refused.to_string().contains("privileged container creation is disabled"), "{refused}");
    let pid = platform.part(Part::Platform).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
}

/// `env` gives a shell a directory for cf of its own.
fn expect_own_home(platform: &Platform) {
    let home = platform.world().directory().join("home");
    fs::create_dir(&home).unwrap();
    let script = platform.told(&["env"]) + "\nprintf %s \"$CF_HOME\"";
    let mut shell = platform.world().command(Path::new("sh"));
    let output = shell.args(["-c", &script]).env("HOME", &home).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let own = home.join(".bloomery");
    assert_eq!(String::from_utf8_lossy(&output.stdout), own.to_string_lossy());
    assert!(own.is_dir());
    let names: Vec<_> = fs::read_dir(home).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(names, [own], "an existing set-up of cf is not touched");
}

/// Whatever strangers send is read by a process that may do nothing to the machine.
fn expect_few_rights(platform: &Platform) {
    let pid = platform.part(Part::Platform).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
        line.unwrap_or_else(|| panic!("{key}: {status}")).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!((value("Uid"), value("Gid")), (vec!["61000"; 4], vec!["61000"; 4]));
    assert_eq!(value("Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(value(set), ["0000000000000000"], "{set}");
    }
}

/// Nobody outside of the machine reaches anything of it.
fn expect_loopback_alone(platform: &Platform) {
    const LISTENS: &str = "0A";
    const LOOPBACK: &str = "0100007F";
    let pid = platform.part(Part::Platform).unwrap();
    let mut ports = Vec::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap();
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            if words[3] == LISTENS {
                let (address, port) = words[1].split_once(':').unwrap();
                assert_eq!(address, LOOPBACK, "{line}");
                ports.push(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    // The router, the internal server, and three APIs behind the router.
    assert!(ports.len() == 5 && ports.contains(&platform.port()), "{ports:?}");
}

fn hosts(platform: &Platform) -> String {
    fs::read_to_string(platform.world().directory().join("hosts")).unwrap()
}

//! Every daemon alone, as a process with a file of its own, in mutual TLS with its peers over a NATS server
//! and a Garden: an app is pushed and answers, and goes on when any of them is killed.

mod certificates;
mod documented;
mod rig;
mod user;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use platform_tests::{CLIENTS, Extent, Seen, exposed};
use rig::{DAEMONS, Rig, eventually};

/// Where daemons keep what they know.
const KEPT: [&str; 12] = [
    "bbs.db",
    "bbs.db-shm",
    "bbs.db-wal",
    "cell",
    "cloud-controller",
    "depot",
    "keeper",
    "locket.db",
    "locket.db-shm",
    "locket.db-wal",
    "store",
    "uaa",
];

/// Clients ask an app while something happens, and for a while after that.
fn meanwhile(rig: &Rig, app: &str, happens: impl FnOnce()) -> Seen {
    let extent = Extent { before: 10, after: 20, patience: rig::PATIENCE };
    platform_tests::meanwhile(|| rig.user.life(app), extent, happens)
}

/// For a request while something is started again, on a host that does other things as well.
const WAIT: Duration = Duration::from_secs(2);

#[test]
fn an_app_goes_on_when_any_daemon_is_killed() {
    Rig::with(0, |rig| {
        rig.start_all();
        rig.user.lay_foundation();
        rig.user.push("steady").unwrap();
        let exposed = exposed(rig.directory());
        let is_kept = |path: &&PathBuf| KEPT.iter().any(|kept| path.starts_with(kept));
        let secrets: Vec<_> = exposed.iter().filter(is_kept).collect();
        assert_eq!(secrets, [""; 0].map(Path::new), "what daemons keep is for their user alone");
        let life = rig.user.answers("steady");
        let (instances, containers) = (rig.instances(), rig.containers());
        assert_eq!(instances.len(), 1, "{instances:?}");

        for daemon in DAEMONS {
            let seen = meanwhile(rig, "steady", || {
                rig.kill(daemon);
                rig.start(daemon);
            });
            let (lost, slowest) = (seen.lost(), seen.slowest());
            println!("{daemon}: lost {lost:?}, slowest {slowest:?}");
            // A router answers nobody before its table is full, by its settings.
            let wait = if daemon == "router" { rig::ROUTER_DELAY } else { Duration::ZERO };
            assert!(slowest < wait + WAIT, "{daemon}: a client has waited for {slowest:?}");
            // Its socket is ours: what is not in flight waits for the next one.
            let most = if daemon == "router" { CLIENTS } else { 0 };
            assert!(lost.len() <= most, "{daemon}: {lost:?}");
            assert_eq!(seen.lives(), BTreeSet::from([life.clone()]), "{daemon}");
        }
        assert_eq!(rig.instances(), instances, "the same instance on the same cell");
        assert_eq!(rig.containers(), containers, "nothing was made or destroyed");
        // What it uses comes from its cell by Log Cache.
        eventually("the app is shown with what it uses", || {
            let told = rig.user.cf(&["app", "steady"])?;
            assert!(told.contains("1/1"), "{told}");
            let is_shown = told.contains(" of 64M") && !told.contains(" 0B of 64M");
            if is_shown { Ok(()) } else { Err(told) }
        });

        // All of them work, and end when they are told to.
        rig.user.push("second").unwrap();
        rig.user.answers("second");
        rig.stop_all();
        assert_eq!(rig.life_without_router(&instances), life, "apps need none of them");
    });
}

#[test]
fn a_push_during_which_a_daemon_is_killed_succeeds_or_can_be_repeated() {
    Rig::with(1, |rig| {
        rig.start_all();
        rig.user.lay_foundation();
        let steps = ["Uploading files", "Staging app", "Waiting for app"];
        let kills = steps.iter().flat_map(|word| DAEMONS.map(|daemon| (*word, daemon)));
        for (number, (word, daemon)) in kills.enumerate() {
            let app = format!("app-{number}");
            let pushing = rig.user.begin_push(&app);
            let told = pushing.until(word);
            rig.kill(daemon);
            rig.start(daemon);
            let ended = pushing.end();
            println!(
                "{daemon} killed at {word:?}: {}",
                if ended.is_ok() { "done" } else { "failed" }
            );
            if let Err(failed) = ended {
                // It has said so, in words of the cf CLI.
                assert!(failed.contains("FAILED"), "{daemon}: {told}{failed}");
                // A router forgets an endpoint that refuses connections until that is registered again.
                eventually("the API is back", || rig.user.cf(&["apps"]));
                rig.user.push(&app).unwrap_or_else(|again| {
                    panic!("{daemon} at {word:?}: first {failed}\nthen {again}")
                });
            }
            rig.user.answers(&app);
            assert_eq!(rig.instances().len(), 1, "{daemon} at {word:?}");
            rig.user.cf(&["delete", "-f", &app]).unwrap();
        }
        eventually("nothing is left", || {
            let left = rig.containers();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        rig.stop_all();
    });
}

#[test]
fn the_example_of_the_documentation_starts_as_it_is_written() {
    let place = rig::place::Place::new();
    place.run("ip link set lo up");
    place.inside(|| {
        let example = documented::Example::start(2);
        let user = &example.user;
        user.lay_foundation();
        // The BBS looks for its lock every few seconds, which may have been before there was Locket.
        eventually("an app is pushed", || user.push("hello"));
        let page = eventually("the app answers", || user.app("hello", "/"));
        assert_eq!(page, documented::PAGE);
    });
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("settings.json");
    let run = |daemon: &str, flag: &str, text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bloomery"));
        let output = command.arg(daemon).arg(flag).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{daemon} {text}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (daemon, flag, text, said) in [
        ("bbs", "--config", "{", "settings.json: "),
        ("bbs", "-config", "{}", "locket_address: it is missing"),
        ("rep", "-c", r#"{"polling_interval": "30"}"#, "settings.json: polling_interval: "),
        ("router", "-c", "port: many", "settings.json: port: "),
        ("locket", "--config", r#"{"database_driver": "postgres"}"#, "only sqlite3"),
        ("uaa", "--config", r#"{"log_level": "loud"}"#, "settings.json: log_level: "),
        ("file-server", "-config", r#"{"static_directory": "/nowhere"}"#, "/nowhere"),
        ("route-registrar", "-configPath", "host: a", "message_bus_servers: it is missing"),
    ] {
        let error = run(daemon, flag, text);
        let last = error.lines().last().unwrap_or_default();
        assert!(last.contains(said) && last.contains("settings.json"), "{daemon} {text}: {error}");
    }
}

#[test]
fn help_names_the_keys() {
    for (daemon, key) in [("bbs", "converge_repeat_interval"), ("router", "tls_pem")] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bloomery"));
        let output = command.args([daemon, "--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(key), "{text}");
    }
}

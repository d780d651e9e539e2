//! Containers outlive the daemon, whatever becomes of it.

mod plot;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use garden_api::{
    BindMount, BindMountMode, ContainerSpec, ProcessSpec, Properties, TtySpec, WindowSize,
};
use garden_sys::supervisor::Exit;
use plot::running::shell;
use plot::waiting::kernel_keeps_statuses;
use plot::{Plot, wait_until};

fn named(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec { id: id.into(), ..shell(script) }
}

fn kill_if_there(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    wait_until("it is dead", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

fn children(plot: &Plot) -> Vec<i32> {
    let (keeper, anchor) = plot.supervisor();
    plot::traces::children(keeper, anchor)
}

/// A directory by which test and container give each other signs while no daemon is there.
struct Signs(PathBuf);

fn shared(plot: &Plot) -> Signs {
    let path = plot.directory.path().join("signs");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    Signs(path)
}

impl Signs {
    fn mount(&self) -> BindMount {
        BindMount {
            src_path: self.0.display().to_string(),
            dst_path: "/signs".into(),
            mode: BindMountMode::ReadWrite,
            ..BindMount::default()
        }
    }

    fn wait_for(&self, sign: &str) -> String {
        format!("while [ ! -e /signs/{sign} ]; do sleep 0.02; done")
    }

    fn give(&self, sign: &str) {
        fs::write(self.0.join(sign), "").unwrap();
    }

    fn hear(&self, sign: &str) {
        wait_until(sign, || self.0.join(sign).exists());
    }
}

#[test]
fn containers_processes_and_properties_are_taken_up_by_the_next_daemon() {
    let mut plot = Plot::new();
    let signs = shared(&plot);
    plot.create_as(ContainerSpec {
        handle: "kept".into(),
        properties: [("colour".to_owned(), "red".to_owned())].into(),
        bind_mounts: vec![signs.mount()],
        ..ContainerSpec::default()
    });
    plot.garden().set_property("kept", "shape", "round").unwrap();
    plot.garden().set_grace_time("kept", Duration::from_secs(3600)).unwrap();
    // One that has ended and been told, one that ends while no daemon is there, three that go on.
    assert_eq!(plot.run("kept", &named("told", "exit 3")).exit, Exit::Status(3));
    let script = "echo first; read line; echo $line; read line; exit 7";
    let mut talker = plot.start("kept", &named("talker", script));
    talker.hear("first\n");
    let tty = ProcessSpec {
        tty: Some(TtySpec { window_size: Some(WindowSize { columns: 100, rows: 30 }) }),
        ..named("tty", "echo up; read line; stty size; exit 4")
    };
    let mut on_terminal = plot.start("kept", &tty);
    on_terminal.hear("up");
    let script = format!("{}; echo late; touch /signs/ended; exit 5", signs.wait_for("end"));
    plot.garden().run("kept", &named("ends", &script)).unwrap();
    plot.garden().run("kept", &named("quiet", "exec sleep 1000")).unwrap();
    let before = plot.garden().info("kept").unwrap();

    plot.leave();
    // Clients that go because the daemon goes do not end anybody's input.
    drop((talker, on_terminal));
    signs.give("end");
    signs.hear("ended");
    plot.come_back();

    assert_eq!(plot.garden().list(&Properties::new()), ["kept"]);
    assert_eq!(plot.garden().info("kept").unwrap(), before);
    assert_eq!(plot.garden().property("kept", "shape").unwrap(), "round");
    let taken = |id: &str| plot.garden().process("kept", id).unwrap();
    assert_eq!(plot.attach(taken("told")).end().0, Exit::Status(3));
    let (exit, output, _) = plot.attach(taken("ends")).end();
    assert_eq!((exit, output.as_str()), (Exit::Status(5), "late\n"));
    let talker = plot.attach(taken("talker"));
    talker.say("second\nthird\n");
    let (exit, output, _) = talker.end_open();
    assert_eq!((exit, output.as_str()), (Exit::Status(7), "second\n"));
    let terminal = plot.attach(taken("tty"));
    terminal.process.resize(WindowSize { columns: 90, rows: 20 }).unwrap();
    terminal.say("\n");
    let (exit, output, _) = terminal.end_open();
    assert_eq!(exit, Exit::Status(4));
    assert!(output.ends_with("20 90\r\n"), "{output:?}");
    taken("quiet").signal(garden_api::Signal::Kill).unwrap();
    assert_eq!(plot.attach(taken("quiet")).end().0, Exit::Status(137));
    // And the container is as usable as before.
    assert_eq!(plot.sh("kept", "exit 8").exit, Exit::Status(8));
}

#[test]
fn a_container_that_cannot_be_taken_over_stays_as_it_is() {
    let mut plot = Plot::new();
    plot.create("kept");
    let mut running = plot.start_sh("kept", "echo up; read line; exit 7");
    running.hear("up\n");
    let id = running.process.id().to_owned();
    let record = plot.config.depot.join("kept/container.json");
    let whole = fs::read_to_string(&record).unwrap();
    plot.leave();
    drop(running);
    let mut broken: serde_json::Value = serde_json::from_str(&whole).unwrap();
    broken["network"] = serde_json::json!({});
    fs::write(&record, broken.to_string()).unwrap();
    let (config, runtime) = (plot.config.clone(), plot.runtime.handle().clone());
    let refused = plot.host.inside(|| bloomery_garden::Gardener::start(config, runtime));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("cannot take over container kept, which is as it was"), "{error}");
    fs::write(&record, whole).unwrap();
    plot.come_back();
    let running = plot.attach(plot.garden().process("kept", &id).unwrap());
    running.say("\n");
    assert_eq!(running.end_open().0, Exit::Status(7));
}

#[test]
fn what_was_written_meanwhile_is_given_to_the_first_attach_alone() {
    let mut plot = Plot::new();
    let signs = shared(&plot);
    plot.create_as(ContainerSpec {
        handle: "ring".into(),
        bind_mounts: vec![signs.mount()],
        ..ContainerSpec::default()
    });
    let script = format!(
        "{}; echo while away; echo and errors >&2; touch /signs/written; read go; echo now; read go",
        signs.wait_for("write")
    );
    drop(plot.garden().run("ring", &named("p", &script)).unwrap());
    plot.leave();
    signs.give("write");
    signs.hear("written");
    plot.come_back();
    let process = plot.garden().process("ring", "p").unwrap();
    let mut first = plot.attach(process.clone());
    first.hear("while away\n");
    let second = plot.attach(process.clone());
    first.say("go\n");
    first.hear("now\n");
    first.say("go\n");
    let (_, all, errors) = first.end();
    assert_eq!((all.as_str(), errors.as_str()), ("while away\nnow\n", "and errors\n"));
    let (_, later, errors) = second.end();
    assert_eq!((later.as_str(), errors.as_str()), ("now\n", ""));
}

#[test]
fn what_nobody_has_heard_outlives_several_restarts() {
    let mut plot = Plot::new();
    let signs = shared(&plot);
    plot.create_as(ContainerSpec {
        handle: "unheard".into(),
        bind_mounts: vec![signs.mount()],
        ..ContainerSpec::default()
    });
    let script = "echo one; touch /signs/one; read go; echo two; exit 4";
    drop(plot.garden().run("unheard", &named("p", script)).unwrap());
    signs.hear("one");
    plot.restart();
    plot.restart();
    let process = plot.attach(plot.garden().process("unheard", "p").unwrap());
    process.say("go\n");
    let (exit, output, _) = process.end_open();
    assert_eq!((exit, output.as_str()), (Exit::Status(4), "one\ntwo\n"));
}

#[test]
fn a_container_whose_process_1_died_with_the_daemon_is_removed() {
    let mut plot = Plot::new();
    let before = plot.settled();
    plot.create("dead");
    let children = children(&plot);
    plot.leave();
    // The parked one has left with the daemon.
    children.into_iter().for_each(kill_if_there);
    plot.come_back();
    assert!(plot.garden().list(&[("garden.state".to_owned(), "all".to_owned())].into()).is_empty());
    plot.expect(&before);
}

#[test]
fn keeper_and_anchor_may_die_under_a_garden() {
    let plot = Plot::new();
    let before = plot.settled();
    plot.create("under");
    let mut running = plot.start_sh("under", "echo up; read line; echo $line; exit 6");
    running.hear("up\n");
    let (keeper, anchor) = plot.supervisor();
    kill_if_there(keeper);
    assert_eq!(plot.sh("under", "exit 2").exit, Exit::Status(2));
    kill_if_there(anchor);
    assert_eq!(plot.sh("under", "exit 3").exit, Exit::Status(3));
    wait_until("others keep", || {
        let now = plot.supervisor();
        now.0 != keeper && now.1 != anchor
    });
    plot.create("after");
    running.say("line\n");
    let (exit, output, _) = running.end();
    assert_eq!(output, "up\nline\n");
    assert!(
        exit == Exit::Status(6) || (!kernel_keeps_statuses() && exit == Exit::Unknown),
        "{exit:?}"
    );
    plot.garden().destroy("under").unwrap();
    plot.garden().destroy("after").unwrap();
    plot.expect(&before);
}

#[test]
fn a_parked_container_that_was_killed_is_not_given_away() {
    let plot = Plot::new();
    let before = plot.settled();
    children(&plot).into_iter().for_each(kill_if_there);
    plot.create("fresh");
    assert_eq!(plot.sh("fresh", "exit 1").exit, Exit::Status(1));
    plot.garden().destroy("fresh").unwrap();
    plot.expect(&before);
}

//! When the host has no more of something: a clear error, nothing left behind, and all is well
//! again once there is more.

mod plot;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bloomery_garden::Error;
use garden_api::{ContainerSpec, NetOutRule, Properties, Protocol};
use garden_sys::supervisor::Exit;
use plot::running::shell;
use plot::traces::Traces;
use plot::{Plot, wait_until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

fn spec(handle: &str) -> ContainerSpec {
    ContainerSpec { handle: handle.into(), ..ContainerSpec::default() }
}

fn everything(plot: &Plot) -> Vec<String> {
    plot.garden().list(&Properties::from([("garden.state".into(), "all".into())]))
}

/// A small file system of a test's own.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        mount("none", path, "tmpfs", MountFlags::empty(), Some(c"size=1m,mode=755")).unwrap();
        Self(path.to_path_buf())
    }

    /// Leaves not one page.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_depot_nothing_is_promised_and_everything_can_be_destroyed() {
    let place = tempfile::tempdir().unwrap();
    let disk = Disk::new(&place.path().join("disk"));
    let plot = Plot::with(|config| config.depot = disk.0.join("depot"));
    let before = plot.settled();
    plot.create("old");
    let with_one = Traces::settled(&plot.config, 1, 0);
    let mut running = plot.start_sh("old", "echo up; read line; exit 5");
    running.hear("up\n");
    plot.garden().set_property("old", "colour", "red").unwrap();
    disk.fill();

    let error = plot.garden().create(spec("new")).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(everything(&plot), ["old"]);
    let error = plot.garden().set_property("old", "colour", "blue").unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(plot.garden().property("old", "colour").unwrap(), "red");
    let error = plot.garden().run("old", &shell("exit 0")).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    // What is not promised does not work either.
    let rules = || {
        // Made anew, chains stand in another order.
        let mut lines: Vec<_> =
            plot.host.run("nft list ruleset").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before_refusals = rules();
    let error = plot.garden().net_in("old", 0, 8080).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    let rule = NetOutRule { protocol: Protocol::Tcp, ..NetOutRule::default() };
    let error = plot.garden().net_out("old", &rule).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(rules(), before_refusals);
    assert_eq!(plot.garden().info("old").unwrap().mapped_ports.unwrap_or_default(), []);
    // What runs goes on and its client hears of its end.
    running.say("go\n");
    assert_eq!(running.end().0, Exit::Status(5));
    plot.garden().destroy("old").unwrap();
    assert_eq!(everything(&plot), Vec::<String>::new());

    disk.empty();
    plot.expect(&before);
    plot.create("new");
    assert_eq!(plot.sh("new", "exit 6").exit, Exit::Status(6));
    plot.expect(&with_one);
    plot.garden().destroy("new").unwrap();
    plot.expect(&before);
    drop(plot);
}

#[test]
fn containers_have_the_disk_of_the_store() {
    let place = tempfile::tempdir().unwrap();
    let disk = Disk::new(&place.path().join("disk"));
    let plot = Plot::with(|config| config.store = disk.0.join("store"));
    let capacity = plot.garden().capacity().unwrap();
    assert_eq!((capacity.disk_in_bytes, capacity.schedulable_disk_in_bytes), (1 << 20, 1 << 20));
}

#[test]
fn on_a_full_store_a_create_fails_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let disk = Disk::new(&place.path().join("disk"));
    let plot = Plot::with(|config| config.store = disk.0.join("store"));
    let before = plot.settled();
    plot.create("old");
    disk.fill();
    // A directory may still find room where a file does not, so what fails is what is written.
    let outcome = plot.sh("old", "dd if=/dev/zero of=/big bs=4k count=25");
    assert!(outcome.error.contains("No space left on device"), "{outcome:?}");
    match plot.garden().create(spec("new")) {
        Ok(_) => plot.garden().destroy("new").unwrap(),
        Err(error) => assert!(error.to_string().contains("No space left"), "{error}"),
    }
    plot.garden().destroy("old").unwrap();
    disk.empty();
    plot.expect(&before);
    drop(plot);
}

#[test]
fn without_room_for_processes_creates_and_runs_are_refused() {
    let plot = Plot::new();
    let before = plot.settled();
    plot.create("old");
    Traces::settled(&plot.config, 1, 0);
    let cage = plot::cage::Cage::around(&plot.config.tag, plot.supervisor());
    cage.leave_room_for(0);
    // The first one was parked, and has its root in a moment.
    wait_until("one is parked", || plot.garden().create(spec("parked")).is_ok());
    let error = plot.garden().create(spec("new")).unwrap_err().to_string();
    assert!(error.contains("cannot make a container's process 1"), "{error}");
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
    let error = plot.garden().run("old", &shell("exit 0")).unwrap_err().to_string();
    assert!(error.contains("cannot start the process"), "{error}");
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
    let mut all = everything(&plot);
    all.sort();
    assert_eq!(all, ["old", "parked"]);
    cage.open();
    assert_eq!(plot.sh("old", "exit 3").exit, Exit::Status(3));
    plot.create("new");
    for handle in ["old", "parked", "new"] {
        plot.garden().destroy(handle).unwrap();
    }
    plot.expect(&before);
}

#[test]
fn beyond_the_most_containers_a_create_is_refused_until_one_is_destroyed() {
    let plot = Plot::with(|config| config.max_containers = 2);
    let before = plot.settled();
    plot.create("a");
    plot.create("b");
    let refused = Err(Error::Plain("max containers reached".into()));
    assert_eq!(plot.garden().create(spec("c")), refused);
    assert_eq!(
        plot.garden().create(spec("b")),
        Err(Error::Plain("Handle 'b' already in use".into()))
    );
    plot.garden().destroy("a").unwrap();
    plot.create("c");
    plot.garden().destroy("b").unwrap();
    plot.garden().destroy("c").unwrap();
    plot.expect(&before);
}

#[test]
fn a_create_that_fails_late_leaves_nothing() {
    let plot = Plot::new();
    let before = plot.settled();
    let image = plot.config.default_rootfs.clone().unwrap();
    // The root can be made up to where /proc is to be mounted.
    fs::remove_dir(image.join("proc")).unwrap();
    fs::write(image.join("proc"), "a file").unwrap();
    let error = plot.garden().create(spec("late")).unwrap_err().to_string();
    assert!(error.contains("/proc: Not a directory"), "{error}");
    plot.expect(&before);
    fs::remove_file(image.join("proc")).unwrap();
    plot.create("late");
    plot.garden().destroy("late").unwrap();
    plot.expect(&before);
}

#[test]
fn a_destroy_during_the_create_waits_for_it() {
    let plot = Plot::new();
    let before = plot.settled();
    for round in 0..8 {
        let handle = format!("race-{round}");
        std::thread::scope(|scope| {
            let creating = scope.spawn(|| plot.garden().create(spec(&handle)));
            let destroying = scope.spawn(|| {
                let mut outcome = Err(Error::ContainerNotFound(handle.clone()));
                wait_until("the handle is known", || {
                    outcome = plot.garden().destroy(&handle);
                    outcome != Err(Error::ContainerNotFound(handle.clone()))
                });
                outcome
            });
            assert_eq!(creating.join().unwrap(), Ok(handle.clone()));
            assert_eq!(destroying.join().unwrap(), Ok(()));
        });
        assert_eq!(everything(&plot), Vec::<String>::new());
    }
    plot.expect(&before);
}

#[test]
fn two_destroys_at_once_are_one_and_the_exact_refusal() {
    let plot = Plot::new();
    let before = plot.settled();
    plot.create("twice");
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| plot.garden().destroy("twice")));
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let second = [
        Error::Plain("container already being destroyed".into()),
        Error::ContainerNotFound("twice".into()),
    ];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let refused = outcomes.into_iter().find_map(Result::err).unwrap();
    assert!(second.contains(&refused), "{refused:?}");
    plot.expect(&before);
}

/// The body of an untyped error.
fn plain(message: &str) -> String {
    format!(
        "{{\"Type\":\"\",\"Message\":\"{message}\",\"Handle\":\"\",\"ProcessID\":\"\",\"Binary\":\"\"}}\n"
    )
}

/// Links of containers on the plot's host, and lines of its rules.
fn network(plot: &Plot) -> (usize, usize) {
    let links = plot.host.run("ip -o link show type veth");
    (links.lines().count(), plot.host.run("nft list ruleset").lines().count())
}

#[test]
fn without_a_subnet_a_create_is_refused_until_one_is_free() {
    let mut plot = Plot::with(|config| config.network.pool = "10.254.0.0/29".into());
    plot.serve();
    let before = plot.settled();
    let create = |handle: &str, more: &str| {
        plot.ask("POST", "/containers", &format!("{{\"handle\":\"{handle}\"{more}}}"))
    };
    let created = |handle: &str| (200, format!("{{\"Handle\":\"{handle}\"}}\n"));
    let refused = (500, plain("insufficient subnets remaining in the pool"));
    assert_eq!(create("a", ""), created("a"));
    assert_eq!(create("b", ""), created("b"));
    let full = Traces::settled(&plot.config, 2, 0);
    let full_network = network(&plot);
    for _ in 0..3 {
        assert_eq!(create("c", ""), refused);
        assert_eq!(everything(&plot), ["a", "b"]);
    }
    plot.expect(&full);
    wait_until("no link and no rule is left", || network(&plot) == full_network);
    // The pool is not all there is, and what exists goes on.
    assert_eq!(create("c", ",\"network\":\"10.20.0.0/24\""), created("c"));
    for handle in ["a", "b", "c"] {
        assert_eq!(
            plot.sh(handle, "ping -c 1 -W 5 $(hostname -i) > /dev/null").exit,
            Exit::Status(0)
        );
    }
    let info = plot.garden().info("a").unwrap();
    assert_eq!(plot.ask("DELETE", "/containers/a", ""), (200, "{}\n".into()));
    // Its subnet is free as soon as its link is gone, which a create waits for.
    assert_eq!(create("d", ""), created("d"));
    assert_eq!(plot.garden().info("d").unwrap().container_ip, info.container_ip);
    assert_eq!(create("e", ""), refused);
    for handle in ["b", "c", "d"] {
        assert_eq!(plot.ask("DELETE", &format!("/containers/{handle}"), ""), (200, "{}\n".into()));
    }
    assert_eq!(create("e", ""), created("e"));
    assert_eq!(create("f", ""), created("f"));
    for handle in ["e", "f"] {
        plot.garden().destroy(handle).unwrap();
    }
    plot.expect(&before);
    wait_until("one parked link is left", || network(&plot).0 == 1);
}

#[test]
fn without_a_port_creates_and_net_in_are_refused_until_one_is_free() {
    let mut plot = Plot::with(|config| config.network.port_pool_size = 2);
    plot.serve();
    let before = plot.settled();
    let before_network = network(&plot);
    let create = |handle: &str, ports: &str| {
        let body = format!("{{\"handle\":\"{handle}\",\"netin\":[{ports}]}}");
        plot.ask("POST", "/containers", &body)
    };
    let any = "{\"host_port\":0,\"container_port\":80}";
    let created = |handle: &str| (200, format!("{{\"Handle\":\"{handle}\"}}\n"));
    let refused = (500, plain("port pool is exhausted"));
    let net_in =
        |handle: &str, body: &str| plot.ask("POST", &format!("/containers/{handle}/net/in"), body);
    assert_eq!(create("a", any), created("a"));
    let one = Traces::settled(&plot.config, 1, 0);
    let one_network = network(&plot);
    // The port that it had got so far is free again.
    assert_eq!(create("b", &format!("{any},{any}")), refused);
    assert_eq!(everything(&plot), ["a"]);
    plot.expect(&one);
    wait_until("no link and no rule is left", || network(&plot) == one_network);
    assert_eq!(create("b", any), created("b"));
    for handle in ["a", "b"] {
        let mapped = plot.garden().info(handle).unwrap().mapped_ports;
        assert_eq!(net_in(handle, "{\"container_port\":81}"), refused);
        assert_eq!(plot.garden().info(handle).unwrap().mapped_ports, mapped);
    }
    // A port that is named needs no pool.
    let named = "{\"host_port\":7000,\"container_port\":81}";
    assert_eq!(net_in("b", named), (200, format!("{named}\n")));
    assert_eq!(create("c", "{\"host_port\":7001,\"container_port\":80}"), created("c"));
    assert_eq!(plot.ask("DELETE", "/containers/a", ""), (200, "{}\n".into()));
    let (status, said) = net_in("c", "{\"container_port\":82}");
    assert_eq!(status, 200, "{said}");
    for handle in ["b", "c"] {
        assert_eq!(plot.ask("DELETE", &format!("/containers/{handle}"), ""), (200, "{}\n".into()));
    }
    assert_eq!(create("d", &format!("{any},{any}")), created("d"));
    plot.garden().destroy("d").unwrap();
    plot.expect(&before);
    wait_until("no link and no rule is left", || network(&plot) == before_network);
}

//! Processes: who they are, what they are given, and how they end.

mod plot;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bloomery_garden::Error;
use garden_api::{ContainerSpec, ProcessSpec, ResourceLimits, Signal, TtySpec, WindowSize};
use garden_sys::supervisor::Exit;
use plot::running::shell;
use plot::{Plot, wait_until};

fn image(plot: &Plot) -> &std::path::Path {
    plot.config.default_rootfs.as_ref().unwrap()
}

fn by(user: &str, script: &str) -> ProcessSpec {
    ProcessSpec { user: user.into(), ..shell(script) }
}

fn told(plot: &Plot, handle: &str, spec: &ProcessSpec) -> String {
    let outcome = plot.run(handle, spec);
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{spec:?}");
    outcome.output
}

fn refusal(plot: &Plot, handle: &str, spec: &ProcessSpec) -> Error {
    plot.garden().run(handle, spec).unwrap_err()
}

#[test]
fn what_a_process_writes_before_its_client_listens_is_not_lost() {
    let plot = Plot::new();
    plot.create("quick");
    let script = "i=0; while [ $i -lt 60 ]; do head -c 16384 /dev/zero; \
                  i=$((i+1)); echo $i >/root/progress; done; exit 3";
    let process = plot.garden().run("quick", &shell(script)).unwrap();
    let progress = plot.volume("quick").join("upper/root/progress");
    let pieces = || fs::read_to_string(&progress).ok()?.trim().parse::<u32>().ok();
    // As much as is kept for somebody who comes later.
    wait_until("the process has written", || pieces().is_some_and(|pieces| pieces >= 16));
    let (exit, output, _) = plot.attach(process).end();
    assert_eq!((exit, output.len()), (Exit::Status(3), 60 * 16384));
}

#[test]
fn users_are_the_images_by_name_or_number_with_or_without_a_group() {
    let plot = Plot::new();
    let image = image(&plot);
    fs::write(
        image.join("etc/group"),
        "root:x:0:\nvcap:x:2000:\naudio:x:29:vcap\nvideo:x:44:vcap,other\n",
    )
    .unwrap();
    plot.create("users");
    let script = "id -u; id -g; id -G; echo $HOME $USER; pwd";
    for (user, expected) in [
        ("", "0\n0\n0\n/root root\n/root\n"),
        ("root", "0\n0\n0\n/root root\n/root\n"),
        ("vcap", "2000\n2000\n2000 29 44\n/home/vcap vcap\n/home/vcap\n"),
        ("2000", "2000\n2000\n2000 29 44\n/home/vcap 2000\n/home/vcap\n"),
        ("vcap:audio", "2000\n29\n29\n/home/vcap vcap:audio\n/home/vcap\n"),
        ("77", "77\n0\n0\n/ 77\n/\n"),
        ("77:88", "77\n88\n88\n/ 77:88\n/\n"),
    ] {
        assert_eq!(told(&plot, "users", &by(user, script)), expected, "{user:?}");
    }
    for (user, text) in [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("bob:audio", "unable to find user bob: no matching entries in passwd file"),
        ("vcap:staff", "unable to find group staff: no matching entries in group file"),
    ] {
        assert_eq!(refusal(&plot, "users", &by(user, "true")), Error::Plain(text.into()));
    }
}

#[test]
fn accounts_are_never_read_from_the_host() {
    let plot = Plot::new();
    let image = image(&plot);
    let outside = plot.directory.path().join("passwd");
    fs::write(&outside, "mallory:x:0:0::/:/bin/sh\n").unwrap();
    fs::remove_file(image.join("etc/passwd")).unwrap();
    symlink(&outside, image.join("etc/passwd")).unwrap();
    plot.create("linked");
    let text = "unable to find user mallory: no matching entries in passwd file";
    assert_eq!(refusal(&plot, "linked", &by("mallory", "true")), Error::Plain(text.into()));
    // Without a passwd file there is root, and there are numbers.
    assert_eq!(told(&plot, "linked", &by("root", "id -u; pwd")), "0\n/\n");
    assert_eq!(told(&plot, "linked", &by("5", "id -u; pwd")), "5\n/\n");
    let text = "unable to find user vcap: no matching entries in passwd file";
    assert_eq!(refusal(&plot, "linked", &by("vcap", "true")), Error::Plain(text.into()));
}

#[test]
fn the_environment_is_the_containers_then_the_processs_then_what_is_missing() {
    let plot = Plot::new();
    plot.create_as(ContainerSpec {
        handle: "env".into(),
        env: vec!["A=container".into(), "B=container".into()],
        ..ContainerSpec::default()
    });
    let env = |user: &str, env: &[&str]| {
        let env = env.iter().map(|variable| (*variable).to_owned()).collect();
        let path = "/bin/env".into();
        told(&plot, "env", &ProcessSpec { path, user: user.into(), env, ..ProcessSpec::default() })
    };
    assert_eq!(
        env("", &["B=process", "C=process"]),
        "A=container\nB=process\nC=process\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nUSER=root\nHOME=/root\n"
    );
    assert_eq!(
        env("vcap", &[]),
        "A=container\nB=container\nPATH=/usr/local/bin:/usr/bin:/bin\nUSER=vcap\nHOME=/home/vcap\n"
    );
    assert_eq!(
        env("vcap", &["PATH=/x", "USER=me", "HOME=/there"]),
        "A=container\nB=container\nPATH=/x\nUSER=me\nHOME=/there\n"
    );
}

#[test]
fn a_missing_working_directory_is_made_for_the_user() {
    let plot = Plot::new();
    plot.create("dirs");
    let within =
        |dir: &str| ProcessSpec { dir: dir.into(), ..by("vcap", "pwd; stat -c '%u:%g %a' . ..") };
    assert_eq!(
        told(&plot, "dirs", &within("/made/below")),
        "/made/below\n2000:2000 755\n2000:2000 755\n"
    );
    plot.sh("dirs", "mkdir -p /real /etc/x; ln -s /real /link; mkdir -m 700 /closed");
    assert_eq!(told(&plot, "dirs", &within("/link/new")), "/real/new\n2000:2000 755\n0:0 755\n");
    let refused = |dir: &str| refusal(&plot, "dirs", &within(dir)).to_string();
    assert_eq!(refused("relative"), "Cwd must be an absolute path");
    assert_eq!(
        refused("/etc/passwd"),
        "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory"
    );
    // One that exists and that the user may not enter is entered all the same.
    let closed = ProcessSpec { dir: "/closed".into(), ..by("vcap", "echo started") };
    assert_eq!(told(&plot, "dirs", &closed), "started\n");
}

#[test]
fn resource_limits_bind_the_process_and_what_cannot_be_raised_is_named() {
    let plot = Plot::new();
    plot.create("rlimits");
    let limited = |rlimits| ProcessSpec { rlimits, ..shell("ulimit -n; ulimit -c; ulimit -Hn") };
    let limits = ResourceLimits { nofile: Some(77), core: Some(0), ..ResourceLimits::default() };
    assert_eq!(told(&plot, "rlimits", &limited(limits)), "77\n0\n77\n");
    let impossible = ResourceLimits { nofile: Some(1 << 40), ..ResourceLimits::default() };
    let text = refusal(&plot, "rlimits", &limited(impossible)).to_string();
    assert!(text.starts_with("cannot set the resource limit nofile: "), "{text}");
    let outcome = plot.run(
        "rlimits",
        &ProcessSpec {
            rlimits: ResourceLimits { fsize: Some(1024), ..ResourceLimits::default() },
            ..shell("head -c 5000 /dev/zero > /tmp/big; stat -c %s /tmp/big")
        },
    );
    assert_eq!(outcome.output, "1024\n");
}

#[test]
fn what_cannot_be_executed_is_told_in_the_references_words() {
    let plot = Plot::new();
    let image = image(&plot);
    fs::write(image.join("plain"), "text").unwrap();
    fs::write(image.join("broken"), "#!/no/such/interpreter\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(image.join("broken"), executable).unwrap();
    plot.create("exec");
    let run = |path: &str| {
        refusal(&plot, "exec", &ProcessSpec { path: path.into(), ..ProcessSpec::default() })
    };
    let not_found = |path: &str, why: &str| {
        let start = "exec failed: unable to start container process";
        Error::ExecutableNotFound(format!("{start}: exec: \"{path}\": {why}"))
    };
    assert_eq!(run("nothing"), not_found("nothing", "executable file not found in $PATH"));
    assert_eq!(run("/no/such"), not_found("/no/such", "stat /no/such: no such file or directory"));
    assert_eq!(run("/plain"), Error::Plain("exec: \"/plain\": permission denied".into()));
    assert_eq!(run("/etc"), Error::Plain("exec: \"/etc\": permission denied".into()));
    assert!(matches!(run("/broken"), Error::ExecutableNotFound(_)));
    assert_eq!(run(""), not_found("", "executable file not found in $PATH"));
    // None of them is left in anybody's books, and their ids can be used again.
    let again =
        |path: &str| ProcessSpec { id: "again".into(), path: path.into(), ..shell("exit 3") };
    refusal(&plot, "exec", &again("/no/such"));
    assert_eq!(plot.run("exec", &again("/bin/sh")).exit, Exit::Status(3));
    let text = "process ID 'again' already in use";
    assert_eq!(refusal(&plot, "exec", &again("/bin/sh")), Error::Plain(text.into()));
}

#[test]
fn a_terminal_has_a_size_job_control_and_returns_carriages() {
    let plot = Plot::new();
    plot.create("tty");
    let on_terminal = |script: &str, window_size| ProcessSpec {
        tty: Some(TtySpec { window_size }),
        ..shell(script)
    };
    let script = "trap 'stty size; exit 4' WINCH; tty; stty size; test -c /dev/tty && echo up > \
                  /dev/tty; while :; do sleep 0.05; done";
    let size = WindowSize { columns: 120, rows: 50 };
    let mut running = plot.start("tty", &on_terminal(script, Some(size)));
    running.hear("up\r\n");
    assert_eq!(String::from_utf8_lossy(&running.heard[0]), "/dev/pts/0\r\n50 120\r\nup\r\n");
    running.process.resize(WindowSize { columns: 0, rows: 33 }).unwrap();
    let (exit, output, error) = running.end_open();
    assert_eq!((exit, error.as_str()), (Exit::Status(4), ""));
    assert!(output.ends_with("33 80\r\n"), "{output:?}");

    assert_eq!(
        plot.run("tty", &on_terminal("stty size; echo oops >&2", None)).output,
        "24 80\r\noops\r\n"
    );

    // Control-C reaches the foreground: the terminal is the process's controlling one.
    let mut running = plot.start("tty", &on_terminal("echo up; exec sleep 1000", None));
    running.hear("up");
    running.say("\u{3}");
    assert_eq!(running.end_open().0, Exit::Status(128 + 2));
}

#[test]
fn streams_can_be_opened_again_by_name_whoever_the_user_is() {
    let plot = Plot::new();
    plot.create("plain");
    plot.create_as(ContainerSpec {
        handle: "privileged".into(),
        privileged: true,
        ..ContainerSpec::default()
    });
    for handle in ["plain", "privileged"] {
        for user in ["", "vcap", "77:88"] {
            let outcome =
                plot.run(handle, &by(user, "echo out > /dev/stdout; echo err > /dev/stderr"));
            let told = (outcome.exit, outcome.output.as_str(), outcome.error.as_str());
            assert_eq!(told, (Exit::Status(0), "out\n", "err\n"), "{handle} {user:?}");
            let spec =
                ProcessSpec { tty: Some(TtySpec::default()), ..by(user, "echo hi > $(tty)") };
            assert_eq!(plot.run(handle, &spec).output, "hi\r\n", "{handle} {user:?}");
        }
    }
}

#[test]
fn signals_reach_the_process_alone_also_after_its_input_has_ended() {
    let plot = Plot::new();
    plot.create("signals");
    let mut running =
        plot.start_sh("signals", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done");
    running.hear("up");
    running.attachment.end_input();
    running.process.signal(Signal::Terminate).unwrap();
    assert_eq!(running.end().0, Exit::Status(9));

    let mut running = plot.start_sh("signals", "echo up; exec sleep 1000");
    running.hear("up");
    running.process.signal(Signal::Kill).unwrap();
    assert_eq!(running.end_open().0, Exit::Status(128 + 9));
    // One that is gone is no error.
    let ended = plot.start_sh("signals", "exit 0");
    let process = ended.process.clone();
    assert_eq!(ended.end().0, Exit::Status(0));
    process.signal(Signal::Kill).unwrap();
}

#[test]
fn input_ends_when_its_last_holder_ends_it() {
    let plot = Plot::new();
    plot.create("input");
    let spec = ProcessSpec { path: "/bin/cat".into(), id: "cat".into(), ..ProcessSpec::default() };
    let mut first = plot.start("input", &spec);
    let mut second = plot.attach(plot.garden().process("input", "cat").unwrap());
    first.say("one\n");
    second.say("two\n");
    first.hear("two\n");
    second.hear("two\n");
    first.attachment.end_input();
    // Still open: the second one's bytes come through.
    second.say("three\n");
    first.hear("three\n");
    assert_eq!(first.process.outcome(), None);
    let (exit, heard, _) = second.end();
    assert_eq!((exit, heard.as_str()), (Exit::Status(0), "one\ntwo\nthree\n"));
    assert_eq!(first.end().0, Exit::Status(0));
}

#[test]
fn a_descendant_that_holds_the_output_does_not_hold_the_end() {
    let plot = Plot::new();
    plot.create("holder");
    // The quickest of some: a busy host says nothing about how long the end is held.
    let times: Vec<_> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            let outcome = plot.sh("holder", "echo before; sleep 1000 & exit 3");
            assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Status(3), "before\n"));
            begun.elapsed()
        })
        .collect();
    assert!(times.iter().min().unwrap() < &Duration::from_secs(1), "{times:?}");
    // The descendants go on, children of process 1.
    let listed = plot.sh("holder", "ps -o ppid,args | grep '[s]leep 1000'").output;
    let listed: Vec<_> = listed.lines().map(str::trim).collect();
    assert_eq!(listed, ["1 sleep 1000"; 5]);
}

#[test]
fn a_long_output_arrives_whole_and_the_status_after_it() {
    let plot = Plot::new();
    plot.create("long");
    let outcome = plot.sh("long", "head -c 3000000 /dev/zero | tr '\\0' x; exit 5");
    assert_eq!((outcome.exit, outcome.output.len()), (Exit::Status(5), 3_000_000));
}

#[test]
fn orphans_do_not_stay_as_zombies() {
    let plot = Plot::new();
    plot.create("orphans");
    plot.sh("orphans", "for i in 1 2 3; do (sleep 0.05 &); done");
    wait_until("process 1 has reaped all orphans", || {
        plot.sh("orphans", "ps -o stat | grep -c Z").output == "0\n"
            && plot.sh("orphans", "ps -o args | grep -c '[s]leep'").output == "0\n"
    });
}

#[test]
fn stop_asks_first_and_kills_at_once_only_when_told_to() {
    let plot = Plot::new();
    plot.create("stop");
    let mut polite = plot
        .start_sh("stop", "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done");
    polite.hear("up");
    plot.garden().stop("stop", false).unwrap();
    let (exit, output, _) = polite.end();
    assert_eq!((exit, output.as_str()), (Exit::Status(6), "up\nbye\n"));
    assert_eq!(
        plot.garden().info("stop").unwrap().state,
        Some(garden_api::ContainerState::Stopped)
    );

    let mut deaf = plot.start_sh("stop", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    deaf.hear("up");
    let begun = Instant::now();
    plot.garden().stop("stop", true).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(deaf.end().0, Exit::Status(128 + 9));

    let mut deaf = plot.start_sh("stop", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    deaf.hear("up");
    let begun = Instant::now();
    plot.garden().stop("stop", false).unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert_eq!(deaf.end().0, Exit::Status(128 + 9));
    // It still runs processes.
    assert_eq!(plot.sh("stop", "exit 2").exit, Exit::Status(2));
}

#[test]
fn a_destroy_ends_running_processes_with_137() {
    let plot = Plot::new();
    plot.create("end");
    let mut running = plot.start_sh("end", "echo up; (sleep 1000); exit 1");
    running.hear("up");
    plot.garden().destroy("end").unwrap();
    assert_eq!(running.process.outcome(), Some(Exit::Status(137)));
    assert_eq!(running.end().0, Exit::Status(137));
    assert_eq!(plot.garden().destroy("end"), Err(Error::ContainerNotFound("end".into())));
}

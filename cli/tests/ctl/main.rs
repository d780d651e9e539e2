//! `bloomery ctl` against a daemon, both of them the program itself.

mod operator;
#[path = "../site/mod.rs"]
mod site;
mod terminal;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use operator::{Done, Listened, asked, carry_out, ctl, ended, refused, serve, start, told};
use rustix::process::Signal;
use rustix::termios::LocalModes;
use site::Site;
use site::traces::Traces;
use terminal::{CTRL_C, CTRL_RIGHT_BRACKET, Terminal};

/// What the shells in here are told to ask with.
const PROMPT: &str = "go on> ";

/// A site whose daemon serves.
fn site(number: u32) -> Site {
    let mut site = Site::apart(number, &[]);
    serve(&mut site, &[]);
    site
}

fn said(code: i32, output: &str, error: &str) -> Done {
    Done { code: Some(code), output: output.into(), error: error.into() }
}

/// The value of a row of a table.
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find(|line| line.starts_with(&format!("{name}  ")));
    line.map_or("", |line| line[name.len()..].trim())
}

#[test]
fn a_container_is_created_as_told_listed_shown_and_destroyed() {
    let site = site(0);
    let before = Traces::settled(&site.config, 0, 0);
    let given = site.place("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "from outside\n").unwrap();
    let bind = format!("{}:/given", given.display());
    let handle = told(
        &site,
        &[
            "create",
            "--handle",
            "box",
            "--memory",
            "64M",
            "--cpu",
            "512",
            "--pids",
            "40",
            "--disk",
            "1G",
            "-e",
            "COLOUR=red",
            "--property",
            "owner=me",
            "--property",
            "kind=test",
            "-p",
            "0:8080",
            "-p",
            "7000:7001",
            "--net-out",
            "protocol=tcp,network=10.0.0.0/8,port=80-81",
            "--bind",
            &bind,
            "--network",
            "10.90.1.5/24",
            "--grace-time",
            "1h30m",
        ],
    );
    assert_eq!(handle, "box\n");
    let other = told(&site, &["create", "--privileged", "--property", "kind=test"]);
    let others = told(&site, &["info", other.trim_end()]);
    for name in ["memory limit", "CPU shares", "disk limit"] {
        assert_eq!(row(&others, name), "none", "{others}");
    }
    assert_eq!(other.len(), 37, "a UUID and a newline: {other:?}");

    let both = told(&site, &["list"]);
    let mut sorted = [handle.as_str(), other.as_str()];
    sorted.sort_unstable();
    assert_eq!(both, sorted.concat());
    assert_eq!(told(&site, &["list", "--property", "kind=test"]), both);
    assert_eq!(told(&site, &["list", "--property", "kind=test", "--property", "owner=me"]), handle);
    assert_eq!(told(&site, &["list", "--property", "owner=you"]), "");
    assert_eq!(told(&site, &["list", "--all"]), both);

    let info = told(&site, &["info", "box"]);
    for (name, value) in [
        ("handle", "box"),
        ("state", "active"),
        ("address", "10.90.1.5"),
        ("ports", "61001:8080 7000:7001"),
        ("memory limit", "64.0M"),
        ("disk limit", "1.0G, not enforced"),
    ] {
        assert_eq!(row(&info, name), value, "{name} in {info}");
    }
    // A v2 host is told of by its own weight.
    let weight = garden_cgroup::cpu_weight(512).to_string();
    assert!(["512", &weight].contains(&row(&info, "CPU shares")), "{info}");
    for property in ["  owner=me\n", "  kind=test\n", "  garden.grace-time=5400000000000\n"] {
        assert!(info.contains(property), "{property:?} in {info}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&told(&site, &["inspect", "box", "--json"])).unwrap();
    assert_eq!(json["ContainerIP"], "10.90.1.5");
    assert_eq!(json["MappedPorts"][1]["HostPort"], 7000);

    // What was asked for is in force.
    let inside = |script: &str| told(&site, &["run", "box", "--", "sh", "-c", script]);
    assert_eq!(inside("echo $COLOUR; cat /given/file"), "red\nfrom outside\n");
    let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                  2>/dev/null || true";
    assert_eq!(inside(memory), "67108864\n");
    let pids = "find /sys/fs/cgroup -name pids.max -exec cat {} + | sort -u";
    assert_eq!(inside(pids), "40\n");
    let server = ["run", "--detach", "box", "--", "nc", "-ll", "-p", "8080", "-e", "echo", "hello"];
    told(&site, &server);
    let host = site.host.as_ref().unwrap();
    let mut heard = String::new();
    let deadline = std::time::Instant::now() + site::PATIENCE;
    while heard.is_empty() {
        assert!(std::time::Instant::now() < deadline, "the container's server answers");
        if let Ok(mut stream) = host.connect(Ipv4Addr::LOCALHOST, 61001) {
            // Between two connections the server may refuse one.
            let _ = stream.read_to_string(&mut heard);
        }
    }
    assert_eq!(heard, "hello\n");

    // More ports, rules and properties afterwards.
    assert_eq!(told(&site, &["net-in", "box", "0:0"]), "61002:61002\n");
    assert_eq!(told(&site, &["net-in", "box", "9000:90"]), "9000:90\n");
    assert_eq!(
        row(&told(&site, &["info", "box"]), "ports"),
        "61001:8080 7000:7001 61002:61002 9000:90"
    );
    assert_eq!(told(&site, &["net-out", "box", "network=192.0.2.0/24,log", "protocol=udp"]), "");
    assert_eq!(told(&site, &["property", "set", "box", "owner", "you=me"]), "");
    assert_eq!(told(&site, &["property", "get", "box", "owner"]), "you=me\n");
    assert_eq!(told(&site, &["property", "remove", "box", "owner"]), "");
    let properties = told(&site, &["property", "list", "box"]);
    assert!(properties.contains("kind=test\n") && !properties.contains("owner"), "{properties}");
    assert_eq!(told(&site, &["grace-time", "box", "0"]), "");
    assert_eq!(told(&site, &["property", "get", "box", "garden.grace-time"]), "0\n");

    let metrics = told(&site, &["metrics", "box"]);
    let cells: Vec<_> = metrics.lines().nth(1).unwrap().split("  ").collect();
    assert_eq!(cells[0].trim(), "box", "{metrics}");
    assert!(metrics.contains(" of 40 "), "{metrics}");
    assert_eq!(told(&site, &["metrics"]).lines().count(), 3);
    let json: serde_json::Value =
        serde_json::from_str(&told(&site, &["metrics", "--json", "box"])).unwrap();
    assert_eq!(json["box"]["Metrics"]["PidStat"]["Max"], 40);
    assert_eq!(row(&told(&site, &["capacity"]), "containers"), "256");
    assert_eq!(told(&site, &["ping"]), "");

    assert_eq!(told(&site, &["stop", "--kill", "box"]), "");
    assert_eq!(row(&told(&site, &["info", "box"]), "state"), "stopped");
    assert_eq!(told(&site, &["destroy", "box", other.trim_end()]), "");
    assert_eq!(told(&site, &["list", "--all"]), "");
    before.expect_again(&site.config);
}

#[test]
fn a_process_is_run_in_an_image_of_its_own() {
    let site = site(8);
    let before = Traces::settled(&site.config, 0, 0);
    let image = site.place("tools");
    rootfs::busybox::build(&image, &rootfs::busybox::find().unwrap()).unwrap();
    fs::write(image.join("which"), "tools\n").unwrap();
    let image = image.to_str().unwrap();
    let given = format!("{image}:/given");
    told(&site, &["create", "--handle", "box", "--memory", "64M", "-e", "COLOUR=red"]);
    let memory =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    let script = format!("pwd; cat /which /given/which; echo $COLOUR; {memory} || true");
    let run = |flags: &[&str]| {
        let command = ["box", "--", "sh", "-c", &script];
        told(&site, &[&["run", "--image", image, "--bind", &given][..], flags, &command].concat())
    };
    assert_eq!(run(&[]), "/\ntools\ntools\n\n67108864\n");
    assert_eq!(run(&["--memory", "32M"]), "/\ntools\ntools\n\n33554432\n");
    let unlimited = run(&["--own-limits"]);
    assert!(!unlimited.contains("67108864"), "{unlimited}");
    // None of it means anything without an image.
    for flag in [&["--own-limits"][..], &["--memory", "1M"], &["--bind", &given]] {
        let said = refused(&site, 2, &[&["run"][..], flag, &["box", "--", "true"]].concat());
        assert!(said.contains("--image"), "{said}");
    }
    told(&site, &["destroy", "box"]);
    before.expect_again(&site.config);
}

#[test]
fn a_process_is_as_if_it_ran_here() {
    let site = site(1);
    told(&site, &["create", "--handle", "box", "-e", "A=container", "-e", "B=container"]);
    let run = |flags: &[&str], script: &str| {
        let arguments: Vec<_> = ["run"]
            .iter()
            .chain(flags)
            .chain(&["box", "--", "sh", "-c", script])
            .copied()
            .collect();
        asked(&site, &arguments)
    };
    assert_eq!(run(&[], "echo out; echo err >&2"), said(0, "out\n", "err\n"));
    for code in [1, 3, 255] {
        assert_eq!(run(&[], &format!("exit {code}")), said(code, "", ""));
    }
    assert_eq!(run(&[], "kill -TERM $$"), said(143, "", ""));
    assert_eq!(run(&[], "kill -KILL $$"), said(137, "", ""));
    let environment = run(&["-e", "B=process", "-e", "C=a b"], "echo $A $B $C");
    assert_eq!(environment, said(0, "container process a b\n", ""));
    assert_eq!(run(&["-u", "vcap", "--dir", "/new"], "id -u; pwd"), said(0, "2000\n/new\n", ""));
    assert_eq!(run(&["--rlimit", "nofile=77"], "ulimit -n"), said(0, "77\n", ""));
    assert_eq!(run(&["--no-stdin"], "cat; echo end"), said(0, "end\n", ""));
    // Arguments arrive as they are.
    let arguments = ["run", "box", "--", "printf", "[%s]", "a b", "-t", "", "$A"];
    assert_eq!(asked(&site, &arguments), said(0, "[a b][-t][][$A]", ""));

    let input = "ü\n".repeat(300_000);
    let counted = carry_out(&site, ctl(&site, &["run", "box", "--", "wc", "-c"]), input.as_bytes());
    assert_eq!(counted, said(0, "900000\n", ""));
    let copied = carry_out(&site, ctl(&site, &["run", "box", "--", "cat"]), input.as_bytes());
    assert!(copied == said(0, &input, ""), "{} bytes, {}", copied.output.len(), copied.error);
    // A process that does not read its input is not waited for.
    let deaf = carry_out(&site, ctl(&site, &["run", "box", "--", "true"]), input.as_bytes());
    assert_eq!(deaf, said(0, "", ""));
    let bytes = carry_out(&site, ctl(&site, &["run", "box", "--", "wc", "-c"]), b"a\xffb");
    assert!(bytes.error.contains("Use stream-in for files"), "{}", bytes.error);

    let none = asked(&site, &["run", "box", "--", "no-such-program"]);
    assert_eq!(none.code, Some(127));
    assert!(none.error.contains("\"no-such-program\": executable file not found in $PATH"));
}

#[test]
fn a_process_whose_output_nobody_reads_is_ended() {
    let site = site(2);
    told(&site, &["create", "--handle", "box"]);
    let mut child = start(&site, ctl(&site, &["run", "--id", "yes", "box", "--", "yes"]));
    let mut some = [0; 100];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(child.stdout.take());
    assert_eq!(ended(&mut child).code(), Some(141));
    // SIGTERM has come to it.
    let attached = asked(&site, &["attach", "--no-stdin", "box", "yes"]);
    assert_eq!(attached.code, Some(143), "{}", attached.error);
}

#[test]
fn a_terminal_inside_is_the_one_outside() {
    let site = site(3);
    told(&site, &["create", "--handle", "box"]);
    let command = ctl(&site, &["run", "-t", "--id", "sh", "-e", "PS1=go on> ", "box", "--", "sh"]);
    let mut terminal = Terminal::start(&site, &command, 31, 101);
    terminal.see(PROMPT);
    let raw = terminal.settings();
    assert!(!raw.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    terminal.press("stty size; echo kind $TERM; tty\n");
    for text in ["31 101\r\n", "kind vt100\r\n", "/dev/pts/0\r\n"] {
        terminal.see(text);
    }
    terminal.see(PROMPT);
    // A change of size is a signal to the foreground process and a size that it sees; so is Ctrl-C
    // to it, and not to us: the shell goes on.
    terminal.press("sh -c 'trap \"stty size\" WINCH; echo i\"\"n; while :; do sleep 0.1; done'\n");
    terminal.see("\nin\r\n");
    terminal.resize(40, 120);
    terminal.see("40 120\r\n");
    terminal.press(CTRL_C);
    terminal.see(PROMPT);
    terminal.press("echo status $?\n");
    terminal.see("status 130\r\n");
    terminal.see(PROMPT);
    terminal.press("exit 7\n");
    assert_eq!(terminal.end(), Some(7));
    let settings = terminal.settings();
    assert!(
        settings.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    );
}

#[test]
fn a_terminal_can_be_left_and_taken_up_again() {
    let site = site(4);
    told(&site, &["create", "--handle", "box"]);
    let command = ctl(&site, &["run", "-t", "--id", "sh", "-e", "PS1=go on> ", "box", "--", "sh"]);
    let mut first = Terminal::start(&site, &command, 24, 80);
    first.see(PROMPT);
    first.press("here=still\n");
    first.see(PROMPT);
    first.press(CTRL_RIGHT_BRACKET);
    first.see("left process sh of box running");
    assert_eq!(first.end(), Some(0));
    let attach = ctl(&site, &["attach", "-t", "box", "sh"]);
    let mut second = Terminal::start(&site, &attach, 30, 90);
    second.press("echo $here there; stty size\n");
    second.see("still there\r\n");
    second.see("30 90\r\n");
    // The end of the terminal is the end of the session, not of the process.
    second.see(PROMPT);
    drop(second);
    let mut third = Terminal::start(&site, &attach, 24, 80);
    third.press("exit 9\n");
    assert_eq!(third.end(), Some(9));
}

#[test]
fn ctrl_c_ends_a_process_without_a_terminal() {
    let site = site(5);
    told(&site, &["create", "--handle", "box"]);
    let script = "trap 'echo TERM came' TERM; echo ready; while :; do sleep 0.1; done";
    let command = ctl(&site, &["run", "--id", "stubborn", "box", "--", "sh", "-c", script]);
    let mut terminal = Terminal::start(&site, &command, 24, 80);
    terminal.see("ready");
    terminal.press(CTRL_C);
    terminal.see("sent SIGTERM; once more sends SIGKILL");
    terminal.see("TERM came");
    terminal.press(CTRL_C);
    terminal.see("sent SIGKILL");
    assert_eq!(terminal.end(), Some(137));

    // SIGTERM to the command itself is the same; a process that obeys needs no second one.
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let command = ctl(&site, &["run", "box", "--", "sh", "-c", script]);
        let mut child = Listened::start(&site, command);
        child.hear("ready\n");
        child.signal(signal);
        let (code, rest) = child.end();
        assert_eq!(code, Some(5), "{rest}");
        assert!(rest.contains("bye\n"), "{rest}");
    }
}

#[test]
fn a_guest_sees_a_process_from_now_on_and_leaves_it_running() {
    let site = site(6);
    told(&site, &["create", "--handle", "box"]);
    let script = "while read line; do echo said $line; done; exit 4";
    let owner = ctl(&site, &["run", "--id", "echo", "box", "--", "sh", "-c", script]);
    let mut owner = Listened::start(&site, owner);
    let say = |to: &mut Listened, line: &str| {
        to.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    };
    say(&mut owner, "one\n");
    owner.hear("said one\n");
    let mut guest = Listened::start(&site, ctl(&site, &["attach", "box", "echo"]));
    say(&mut guest, "two\n");
    guest.hear("said two\n");
    owner.hear("said two\n");
    guest.signal(Signal::INT);
    let (code, rest) = guest.end();
    assert_eq!(code, Some(130), "{rest}");
    say(&mut owner, "three\n");
    owner.hear("said three\n");
    // Its name is in use for as long as it is known.
    let again = refused(&site, 125, &["run", "--id", "echo", "box", "--", "true"]);
    assert!(again.contains("process ID 'echo' already in use"), "{again}");
    assert_eq!(owner.end(), (Some(4), String::new()));

    let name = told(&site, &["run", "--detach", "box", "--", "sh", "-c", "exit 6"]);
    let late = asked(&site, &["attach", "--no-stdin", "box", name.trim_end()]);
    assert_eq!(late.code, Some(6), "{}", late.error);
}

#[test]
fn archives_go_in_and_come_out() {
    let site = site(7);
    told(&site, &["create", "--handle", "box"]);
    let source = site.place("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("hello"), "from outside\n").unwrap();
    let tar = |flags: &[&str], input: &[u8]| {
        let mut tar = Command::new("tar");
        tar.args(flags);
        carry_out(&site, tar, input)
    };
    let archive = Command::new("tar").arg("-C").arg(&source).args(["-cf", "-", "."]).output();
    let archive = archive.unwrap().stdout;
    let into = ctl(&site, &["stream-in", "--user", "vcap", "box", "/home/vcap/new"]);
    assert_eq!(carry_out(&site, into, &archive), said(0, "", ""));
    let look = told(
        &site,
        &["run", "box", "--", "sh", "-c", "cd /home/vcap/new; cat hello; stat -c %u hello"],
    );
    assert_eq!(look, "from outside\n2000\n");
    let mut out = start(&site, ctl(&site, &["stream-out", "box", "/home/vcap/new/"]));
    let mut packed = Vec::new();
    out.stdout.take().unwrap().read_to_end(&mut packed).unwrap();
    assert_eq!(ended(&mut out).code(), Some(0));
    assert_eq!(tar(&["-tf", "-"], &packed).output, "./\n./hello\n");
    assert_eq!(tar(&["-xOf", "-", "./hello"], &packed).output, "from outside\n");

    let bad = carry_out(&site, ctl(&site, &["stream-in", "box", "/x"]), b"no archive");
    assert_eq!((bad.code, bad.output.as_str()), (Some(1), ""));
    assert!(bad.error.contains("does not look like a tar archive"), "{}", bad.error);
    let none = refused(&site, 1, &["stream-out", "box", "/no/such/file"]);
    assert!(none.contains("No such file or directory"), "{none}");
    // Archives are not for the eyes.
    for verb in [["stream-in", "box", "/x"], ["stream-out", "box", "/etc"]] {
        let mut terminal = Terminal::start(&site, &ctl(&site, &verb), 24, 80);
        terminal.see("tar");
        assert_eq!(terminal.end(), Some(1));
    }
}

#[test]
fn a_server_is_found_by_its_tcp_address() {
    let mut site = Site::apart(8, &["--bind-ip", "127.0.0.1", "--bind-port", "7788"]);
    serve(&mut site, &["--address", "127.0.0.1:7788"]);
    assert!(!site.place("garden.sock").exists());
    let at = |arguments: &[&str]| {
        let mut command = ctl(&site, arguments);
        command.env("BLOOMERY_GARDEN", "127.0.0.1:7788");
        carry_out(&site, command, b"typed\n")
    };
    assert_eq!(at(&["create", "--handle", "box"]), said(0, "box\n", ""));
    assert_eq!(at(&["run", "box", "--", "cat"]), said(0, "typed\n", ""));
    let command = ctl(
        &site,
        &["--address", "127.0.0.1:7788", "run", "-t", "-e", "PS1=go on> ", "box", "--", "sh"],
    );
    let mut terminal = Terminal::start(&site, &command, 33, 99);
    terminal.see(PROMPT);
    terminal.press("stty size; exit 3\n");
    terminal.see("33 99\r\n");
    assert_eq!(terminal.end(), Some(3));
    let socket = site.place("elsewhere.sock").display().to_string();
    // A flag wins over the environment variable.
    assert!(at(&["--socket", &socket, "ping"]).error.contains("there is no such socket"));
    assert_eq!(at(&["destroy", "box"]), said(0, "", ""));
}

#[test]
fn what_goes_wrong_is_said_in_words_to_act_on() {
    let mut site = Site::apart(9, &["--network-pool", "10.90.0.0/29", "--port-pool-size", "2"]);
    let socket = site.place("garden.sock").display().to_string();
    let absent = refused(&site, 1, &["list"]);
    assert_eq!(
        absent,
        format!(
            "bloomery: no Garden server at {socket}: there is no such socket\n\
             Start one as root with `bloomery garden serve`, or say where it is with --socket, \
             --address or BLOOMERY_GARDEN.\n"
        )
    );
    let run = ["run", "box", "--", "true"];
    assert_eq!(refused(&site, 125, &run), absent);
    let port = site.inside(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let nobody = refused(&site, 1, &["--address", &port.to_string(), "ping"]);
    assert!(
        nobody
            .starts_with(&format!("bloomery: no Garden server at {port}: nobody listens there\n"))
    );
    let mut command = ctl(&site, &["ping"]);
    command.env("BLOOMERY_GARDEN", "localhost");
    let odd = carry_out(&site, command, b"").error;
    assert!(odd.contains("BLOOMERY_GARDEN") && odd.contains("\"localhost\""), "{odd}");

    serve(&mut site, &[]);
    let unknown =
        "bloomery: there is no container \"box\"; `bloomery ctl list` shows those there are\n";
    for (code, arguments) in [
        (1, ["info", "box"].as_slice()),
        (1, &["property", "list", "box"]),
        (1, &["stream-out", "box", "/etc"]),
        (1, &["net-in", "box", "0:80"]),
        (1, &["grace-time", "box", "1s"]),
        (125, &run),
    ] {
        assert_eq!(refused(&site, code, arguments), unknown, "{arguments:?}");
    }
    told(&site, &["create", "--handle", "box"]);
    let failed = asked(&site, &["destroy", "nobody", "box"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.error.starts_with("bloomery: nobody: there is no container \"nobody\""));
    assert_eq!(told(&site, &["list"]), "", "the other one is destroyed");

    // What cannot be meant is refused before anything is asked.
    for (arguments, words) in [
        (["create", "--memory", "64MB"].as_slice(), "not a number of bytes like 65536, 64M or 1G"),
        (&["create", "--memory", "99999999T"], "more bytes than can be counted"),
        (&["create", "--cpu", "many"], "--cpu <SHARES>"),
        (&["create", "-p", "8080"], "not of the form HOST:CONTAINER, each a number up to 65535"),
        (&["create", "-p", "70000:1"], "up to 65535"),
        (&["create", "-e", "novalue"], "not of the form KEY=VALUE"),
        (&["create", "--bind", "here:/there"], "both paths must begin with a slash"),
        (&["create", "--net-out", "port=http"], "\"http\" is no port"),
        (&["create", "--grace-time", "soon"], "--grace-time <TIME>"),
        (&["run", "--rlimit", "files=1", "box", "--", "true"], "\"files\" is none of as, core"),
        (&["run", "box"], "<COMMAND>"),
        (&["--address", "localhost", "ping"], "--address <IP:PORT>"),
        (&["destroy"], "<HANDLES>"),
    ] {
        let error = refused(&site, 2, arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    // What the server refuses.
    told(&site, &["create", "--handle", "box", "-p", "0:1"]);
    for (arguments, words) in [
        (
            ["create", "--handle", "box"].as_slice(),
            "bloomery: Handle 'box' already in use\nChoose another --handle",
        ),
        (&["create", "--handle", "a b"], "letters, digits, `.`, `_` and `-`"),
        (&["create", "--handle", ""], "leave --handle out"),
        (
            &["create", "--image", "/no/such/image"],
            "cannot use the image /no/such/image: No such file",
        ),
        (
            &["create", "--image", "docker:///x"],
            "start the server with --image-alias docker:///x=PATH",
        ),
        (&["create", "--network", "1.2.3"], "invalid CIDR address: 1.2.3/30"),
        (
            &["create", "-p", "0:1", "-p", "0:2"],
            "port pool is exhausted\nDestroy a container that has mapped ports",
        ),
        (&["create", "--bind", "/no/such:/x"], "/no/such"),
        (&["property", "get", "box", "nothing"], "property does not exist: nothing"),
        (&["attach", "box", "nothing"], "there is no process \"nothing\" in this container"),
    ] {
        let done = asked(&site, arguments);
        assert!([Some(1), Some(125)].contains(&done.code), "{arguments:?}: {done:?}");
        assert!(done.error.contains(words), "{arguments:?}: {}", done.error);
    }
    told(&site, &["create", "--handle", "second"]);
    let full = refused(&site, 1, &["create"]);
    assert!(
        full.contains("insufficient subnets remaining in the pool\nDestroy a container"),
        "{full}"
    );
    for (user, words) in [
        ("nobodyhere", "unable to find user nobodyhere"),
        ("root:nogroup", "unable to find group nogroup"),
    ] {
        let error = refused(&site, 125, &["run", "-u", user, "box", "--", "true"]);
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(told(&site, &["list", "--all"]), "box\nsecond\n");
    // A server that goes away in the middle.
    let mut running = Listened::start(
        &site,
        ctl(&site, &["run", "--id", "p", "box", "--", "sh", "-c", "echo up; sleep 1000"]),
    );
    running.hear("up\n");
    site.kill();
    let (code, rest) = running.end();
    assert_eq!(code, Some(125));
    assert!(rest.contains("`bloomery ctl attach box p` takes part in it again"), "{rest}");
    site.start(None);
}

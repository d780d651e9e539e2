//! Processes through the socket: frames, streams and tokens.

mod plot;

use std::time::{Duration, Instant};

use bloomery_garden::server::Settings;
use plot::{Plot, wait_until};

/// A served Garden with a container `h`.
fn served() -> Plot {
    let mut plot = Plot::new();
    plot.serve();
    plot.create("h");
    plot
}

#[test]
fn output_comes_on_its_streams_and_the_status_on_the_control_connection() {
    let plot = served();
    let script = "echo out; echo err >&2; read line; echo got:$line; exit 3";
    let (mut control, token) = plot.run_sh("h", "p", script);
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    let mut stderr = plot.stream("h", "p", &token, "stderr");
    assert_eq!(stdout.line(), "out\n");
    // Cut and joined anywhere, with any id, or none.
    control.send("{\"process_id\":\"other\",\"source\":0,\"da");
    control.send("ta\":\"\"} {\"source\":1,\"data\":\"f\\u00f6ur\\n\"}");
    assert_eq!(stdout.rest(), "got:föur\n");
    assert_eq!(stderr.rest(), "err\n");
    assert_eq!(control.rest(), "{\"process_id\":\"p\",\"exit_status\":3}\n");
    // The id is in use for as long as the status is remembered.
    let said = plot.ask("POST", "/containers/h/processes", "{\"id\":\"p\",\"path\":\"true\"}");
    assert!(said.1.contains("process ID 'p' already in use"), "{said:?}");
    for _ in 0..2 {
        let (mut later, _) = plot.attach_to("h", "p");
        assert_eq!(later.rest(), "{\"process_id\":\"p\",\"exit_status\":3}\n");
    }
}

#[test]
fn streams_that_come_late_get_everything_once() {
    let plot = served();
    let (mut control, token) = plot.run_sh(
        "h",
        "p",
        "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 1",
    );
    assert_eq!(control.exit_status(), 1);
    let all: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(plot.stream("h", "p", &token, "stdout").rest(), all);
    assert_eq!(plot.stream("h", "p", &token, "stderr").rest(), "");
    assert_eq!(plot.stream("h", "p", &token, "stdout").rest(), "");
    assert_eq!(plot.stream("h", "p", "no-such-token", "stdout").rest(), "");
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    const PIECE: usize = 64 * 1024;
    let plot = served();
    let length = 1000 * PIECE;
    let (mut control, token) =
        plot.run_sh("h", "p", &format!("head -c {length} /dev/zero; echo end >&2; exit 7"));
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    for piece in 0..1000 {
        assert_eq!(stdout.exactly(PIECE).len(), PIECE, "piece {piece}");
        // The process writes faster by far.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(stdout.rest(), "");
    assert_eq!(plot.stream("h", "p", &token, "stderr").rest(), "end\n");
    assert_eq!(control.exit_status(), 7);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_for_long() {
    let plot = served();
    let script = "head -c 40000000 /dev/zero; exit 8";
    let (mut control, token) = plot.run_sh("h", "p", script);
    let stuck = plot.stream("h", "p", &token, "stdout");
    let begun = Instant::now();
    assert_eq!(control.exit_status(), 8);
    assert!(begun.elapsed() > Duration::from_secs(5), "it is waited for");
    drop(stuck);
}

#[test]
fn connections_with_one_token_share_the_output_wherever_their_path_leads() {
    let plot = served();
    let script = "while read line; do echo $line; done; exit 2";
    let (mut control, token) = plot.run_sh("h", "p", script);
    let first = plot.stream("nope", "other", &token, "stdout");
    let second = plot.stream("h", "p", &token, "stdout");
    for number in 0..50 {
        control.send(&format!("{{\"source\":0,\"data\":\"{number}\\n\"}}\n"));
    }
    control.send("{\"source\":0}\n");
    assert_eq!(control.exit_status(), 2);
    let mut numbers: Vec<u32> = [first, second]
        .into_iter()
        .flat_map(|mut peer| {
            peer.rest().lines().map(|line| line.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[test]
fn frames_in_the_requests_own_write_are_heard() {
    let plot = served();
    let spec = "{\"id\":\"p\",\"path\":\"sh\",\"args\":[\"-c\",\"cat; echo done\"]}";
    let mut peer = plot.connect();
    let length = spec.len();
    peer.send(&format!(
        "GET /ping HTTP/1.1\r\nHost: api\r\n\r\n\
         POST /containers/h/processes HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{spec}\
         {{\"source\":0,\"data\":\"early\\n\"}}{{\"source\":0}}\n"
    ));
    assert_eq!(peer.response(), (200, "{}\n".into()));
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.0 201 Created\r\n") && !head.contains("chunked"), "{head}");
    let frames = peer.rest();
    assert!(frames.ends_with("}\n{\"process_id\":\"p\",\"exit_status\":0}\n"), "{frames}");
    let token = frames.split('"').nth(7).unwrap();
    assert_eq!(plot.stream("h", "p", token, "stdout").rest(), "early\ndone\n");
}

#[test]
fn a_half_closed_control_connection_is_a_closed_one_and_the_process_goes_on() {
    let plot = served();
    let script = "read line; echo start; read line; echo eof; cat /tmp/go; exit 4";
    plot.sh("h", "mkfifo /tmp/go");
    let (mut control, token) = plot.run_sh("h", "p", script);
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    control.send("{\"source\":0,\"data\":\"x\\n\"}\n");
    assert_eq!(stdout.line(), "start\n");
    control.half_close();
    assert_eq!(control.rest(), "", "no final frame");
    stdout.rest();
    assert_eq!(plot.stream("h", "p", &token, "stdout").rest(), "", "the token is gone too");
    let (mut later, token) = plot.attach_to("h", "p");
    assert_eq!(plot.sh("h", "echo late > /tmp/go").output, "");
    assert_eq!(later.exit_status(), 4);
    assert!(plot.stream("h", "p", &token, "stdout").rest().ends_with("late\n"));
}

#[test]
fn a_stream_that_its_client_closes_affects_nothing_else() {
    let plot = served();
    let (mut control, token) = plot.run_sh("h", "p", "read line; seq 1 20000; exit 5");
    drop(plot.stream("h", "p", &token, "stdout"));
    let mut half = plot.stream("h", "p", &token, "stderr");
    half.half_close();
    control.send("{\"source\":0,\"data\":\"x\\n\"}\n");
    assert_eq!(control.exit_status(), 5);
    assert_eq!(half.rest(), "");
}

#[test]
fn a_signal_is_heard_after_the_end_of_stdin_and_after_unknown_frames() {
    let plot = served();
    let script = "trap 'exit 9' TERM; cat; echo eof; while :; do sleep 0.05; done";
    let (mut control, token) = plot.run_sh("h", "p", script);
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    control.send("{\"signal\":7}\n{\"tty\":{\"window_size\":{\"columns\":9}}}\n");
    control.send("{\"source\":0,\"data\":\"in\\n\"}\n{}\n");
    assert_eq!((stdout.line(), stdout.line()), ("in\n".into(), "eof\n".into()));
    control.send("{\"source\":0,\"data\":\"lost\\n\"}\n{\"signal\":0}\n");
    assert_eq!(control.exit_status(), 9);
    assert_eq!(stdout.rest(), "");
}

#[test]
fn a_signal_is_heard_while_the_process_reads_no_stdin() {
    let plot = served();
    let (mut control, _) = plot.run_sh("h", "p", "exec sleep 1000");
    let text = "x".repeat(32 * 1024);
    for _ in 0..6 {
        control.send(&format!("{{\"source\":0,\"data\":\"{text}\"}}\n"));
    }
    control.send("{\"signal\":1}\n");
    assert_eq!(control.exit_status(), 137);
}

#[test]
fn what_is_no_frame_closes_everything_without_a_final_frame() {
    let plot = served();
    let nonsense = ["this is no JSON\n", "5\n", "[]", "{\"source\":\"x\"}"];
    for (number, nonsense) in nonsense.into_iter().enumerate() {
        let id = format!("p{number}");
        let (mut control, token) = plot.run_sh("h", &id, "exec sleep 1000");
        let mut stdout = plot.stream("h", &id, &token, "stdout");
        control.send(nonsense);
        assert_eq!(control.rest(), "", "{nonsense}");
        assert_eq!(stdout.rest(), "", "{nonsense}");
    }
    let (mut control, _) = plot.run_sh("h", "long", "exec sleep 1000");
    let endless = "{\"process_id\":\"".to_owned() + &"x".repeat(4 << 20);
    control.try_send(endless.as_bytes());
    drop(control);
    let (mut again, _) = plot.attach_to("h", "long");
    again.send("{\"signal\":1}\n");
    assert_eq!(again.exit_status(), 137);
}

#[test]
fn stdin_may_come_in_one_frame_of_any_length() {
    let plot = served();
    // Text of every kind, cut anywhere.
    let unit = "a\\n\u{e9}\u{20ac}\\u00e9\\\\\u{1f600}\\ud83d\\ude00";
    let plain = "a\n\u{e9}\u{20ac}\u{e9}\\\u{1f600}\u{1f600}";
    let times = (128 << 20) / unit.len();
    let script = "sha256sum; read more; exit 3";
    let (mut control, token) = plot.run_sh("h", "p", script);
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    let before = peak_memory();
    let text = unit.repeat(1024);
    control.send("{\"process_id\":\"p\",\"source\":0,\"data\":\"");
    for _ in 0..times / 1024 {
        control.send(&text);
    }
    control.send("\"}\n{\"process_id\":\"p\",\"source\":0}\n");
    let sum = stdout.line();
    let grown = peak_memory() - before;
    assert!(grown < 96 << 20, "{grown} bytes for a frame of 128 MiB");
    let mut hashing = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = hashing.stdin.take().unwrap();
    let text = plain.repeat(1024);
    for _ in 0..times / 1024 {
        std::io::Write::write_all(&mut input, text.as_bytes()).unwrap();
    }
    drop(input);
    let expected = hashing.wait_with_output().unwrap().stdout;
    assert_eq!(sum, String::from_utf8(expected).unwrap());
    assert_eq!(control.exit_status(), 3);
}

/// Bytes of memory that this process had at most; other tests of this program add some to it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn every_attach_gets_the_output_and_stdin_ends_with_the_last() {
    let plot = served();
    let (mut first, one) = plot.run_sh("h", "p", "cat; echo eof; exit 6");
    let (mut second, two) = plot.attach_to("h", "p");
    assert_ne!(one, two);
    let mut streams = [&one, &two].map(|token| plot.stream("h", "p", token, "stdout"));
    first.send("{\"source\":0,\"data\":\"a\\n\"}\n{\"source\":0}\n");
    for stream in &mut streams {
        assert_eq!(stream.line(), "a\n");
    }
    second.send("{\"source\":0,\"data\":\"b\\n\"}\n");
    for stream in &mut streams {
        assert_eq!(stream.line(), "b\n");
    }
    second.send("{\"source\":0}\n");
    for (stream, control) in streams.iter_mut().zip([&mut first, &mut second]) {
        assert_eq!(stream.rest(), "eof\n");
        assert_eq!(control.exit_status(), 6);
    }
}

#[test]
fn a_grandchild_that_holds_stdout_delays_the_status_only_briefly() {
    let plot = served();
    // The quickest of some: a busy host says nothing about the server.
    let times: Vec<_> = (0..5)
        .map(|number| {
            let id = format!("p{number}");
            let begun = Instant::now();
            let (mut control, token) = plot.run_sh("h", &id, "echo out; sleep 1000 & exit 3");
            assert_eq!(control.exit_status(), 3);
            assert_eq!(plot.stream("h", &id, &token, "stdout").rest(), "out\n");
            begun.elapsed()
        })
        .collect();
    assert!(times.iter().min().unwrap() < &Duration::from_secs(1), "{times:?}");
}

#[test]
fn beyond_the_most_clients_of_processes_calls_are_refused_and_all_else_goes_on() {
    let mut plot = Plot::new();
    plot.serve_as(Settings { connections: 2, hijacked: 4, ..Settings::default() });
    plot.create("h");
    let (mut control, token) = plot.run_sh("h", "p", "exec sleep 1000");
    let stdout = plot.stream("h", "p", &token, "stdout");
    let others = [0, 1].map(|_| plot.attach_to("h", "p"));
    for (method, path, body) in [
        ("GET", "/containers/h/processes/p".to_owned(), ""),
        ("POST", "/containers/h/processes".to_owned(), "{\"path\":\"true\"}"),
        ("GET", format!("/containers/h/processes/p/attaches/{token}/stderr"), ""),
    ] {
        let (status, said) = plot.ask(method, &path, body);
        assert_eq!(status, 500, "{said}");
        assert!(said.contains("ServiceUnavailableError") && said.contains("no more"), "{said}");
    }
    // Idle connections give way to those that ask.
    let idle = [0, 1, 2].map(|_| plot.connect());
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(plot.ask("GET", "/ping", ""), (200, "{}\n".into()));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop((idle, stdout, others));
    control.send("{\"signal\":1}\n");
    assert_eq!(control.exit_status(), 137);
    wait_until("there is room again", || {
        plot.ask("GET", "/containers/h/processes/nope", "").0 == 404
    });
}

#[test]
fn a_destroy_ends_the_processes_of_connected_clients() {
    let plot = served();
    let (mut control, token) = plot.run_sh("h", "p", "echo ready; exec sleep 1000");
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    assert_eq!(stdout.line(), "ready\n");
    assert_eq!(plot.ask("DELETE", "/containers/h", ""), (200, "{}\n".into()));
    assert_eq!(control.exit_status(), 137);
    assert_eq!(stdout.rest(), "");
}

#[test]
fn failed_hijacks_are_plain_errors_on_connections_that_live_on() {
    let plot = served();
    let mut peer = plot.connect();
    peer.request("POST", "/containers/h/processes", "{\"path\":\"/no/such\"}");
    let (status, said) = peer.response();
    assert_eq!(status, 500);
    assert!(said.starts_with("{\"Type\":\"ExecutableNotFoundError\",\"Message\":\""), "{said}");
    peer.request("GET", "/containers/h/processes/nope", "");
    let wanted = "{\"Type\":\"ProcessNotFoundError\",\"Message\":\"unknown process: nope\",\
                  \"Handle\":\"\",\"ProcessID\":\"nope\",\"Binary\":\"\"}\n";
    assert_eq!(peer.response(), (404, wanted.into()));
    peer.request("POST", "/containers/h/processes", "{\"id\":\"p\",\"path\":\"true\"}");
    assert!(peer.head().starts_with("HTTP/1.1 201 Created\r\n"));
    assert_eq!(peer.exit_status(), 0);
}

#[test]
fn a_process_is_forgotten_after_the_first_wait_where_that_is_wanted() {
    let mut plot = Plot::with(|config| config.forget_processes_on_wait = true);
    plot.serve();
    plot.create("h");
    for _ in 0..2 {
        let (mut control, token) = plot.run_sh("h", "p", "echo out; exit 11");
        assert_eq!(control.exit_status(), 11);
        assert_eq!(plot.stream("h", "p", &token, "stdout").rest(), "out\n");
        assert_eq!(plot.ask("GET", "/containers/h/processes/p", "").0, 404);
    }
}

#[test]
fn a_connected_client_keeps_its_container_from_being_reaped() {
    let plot = served();
    let (control, _) = plot.run_sh("h", "p", "exec sleep 1000");
    assert_eq!(plot.ask("PUT", "/containers/h/grace_time", "50000000").0, 200);
    // Three reaps would have come, and watching all containers is no use of one.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let seen = plot.ask("GET", "/containers/bulk_info?handles=h", "").1;
        assert!(seen.contains("\"Err\":null"), "{seen}");
    }
    drop(control);
    wait_until("the container is reaped", || {
        plot.ask("GET", "/containers/bulk_info?handles=h", "").1.contains("unknown handle")
    });
}

#[test]
fn a_stop_lets_go_of_clients_and_waits_for_calls() {
    let mut plot = served();
    let (mut control, token) = plot.run_sh("h", "p", "echo one; cat; exit 7");
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    assert_eq!(stdout.line(), "one\n");
    let mut idle = plot.connect();
    idle.request("GET", "/ping", "");
    assert_eq!(idle.response().0, 200);
    let mut busy = plot.connect();
    busy.send(
        "PUT /containers/h/properties/k HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
         Content-Length: 13\r\n\r\n{\"value\"",
    );
    assert_eq!(busy.head(), "HTTP/1.1 100 Continue\r\n\r\n", "the call is under way");

    plot.begin_stop();
    assert_eq!(control.rest(), "", "no final frame");
    assert_eq!(stdout.rest(), "");
    assert_eq!(idle.rest(), "");
    busy.send(":\"v\"}");
    assert_eq!(busy.response(), (200, "{}\n".into()));
    assert_eq!(busy.rest(), "");
    plot.leave();
    assert!(!plot.socket().exists());

    plot.come_back();
    plot.serve();
    let (mut control, token) = plot.attach_to("h", "p");
    let mut stdout = plot.stream("h", "p", &token, "stdout");
    control.send("{\"source\":0,\"data\":\"still open\\n\"}\n{\"source\":0}\n");
    assert_eq!(control.exit_status(), 7);
    assert_eq!(stdout.rest(), "still open\n");
    assert_eq!(plot.ask("GET", "/containers/h/properties/k", "").1, "{\"value\":\"v\"}\n");
}

#[test]
fn after_a_restart_the_first_attach_gets_what_was_written_meanwhile() {
    let mut plot = served();
    let signs = plot.directory.path().join("signs");
    std::fs::create_dir(&signs).unwrap();
    std::fs::set_permissions(&signs, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mount =
        format!("{{\"src_path\":\"{}\",\"dst_path\":\"/signs\",\"mode\":1}}", signs.display());
    let spec = format!("{{\"handle\":\"s\",\"bind_mounts\":[{mount}]}}");
    assert_eq!(plot.ask("POST", "/containers", &spec).0, 200);
    let script = "wait_for() { while [ ! -e /signs/$1 ]; do sleep 0.02; done; }
        echo before; wait_for gone; echo meanwhile; touch /signs/said; read line; echo $line; exit 8";
    let (mut control, token) = plot.run_sh("s", "p", script);
    let mut stdout = plot.stream("s", "p", &token, "stdout");
    assert_eq!(stdout.line(), "before\n");
    plot.leave();
    assert_eq!(control.rest(), "", "no final frame");
    assert_eq!(stdout.rest(), "");
    std::fs::write(signs.join("gone"), "").unwrap();
    wait_until("the process has written", || signs.join("said").exists());
    plot.come_back();
    plot.serve();
    let (mut first, one) = plot.attach_to("s", "p");
    let (mut second, two) = plot.attach_to("s", "p");
    let mut got = plot.stream("s", "p", &one, "stdout");
    assert_eq!(got.line(), "meanwhile\n");
    first.send("{\"source\":0,\"data\":\"after\\n\"}\n");
    assert_eq!(got.rest(), "after\n");
    assert_eq!(plot.stream("s", "p", &two, "stdout").rest(), "after\n");
    assert_eq!((first.exit_status(), second.exit_status()), (8, 8));
}

//! Garden's API through its socket: transport, routes and errors.

mod plot;

use std::time::Duration;

use bloomery_garden::server::Settings;
use plot::Plot;

fn served() -> Plot {
    let mut plot = Plot::new();
    plot.serve();
    plot
}

const PING: &str = "GET /ping HTTP/1.1\r\nHost: api\r\n\r\n";

fn not_found(handle: &str) -> String {
    format!(
        "{{\"Type\":\"ContainerNotFoundError\",\"Message\":\"unknown handle: {handle}\",\
         \"Handle\":\"{handle}\",\"ProcessID\":\"\",\"Binary\":\"\"}}\n"
    )
}

fn plain(message: &str) -> String {
    format!(
        "{{\"Type\":\"\",\"Message\":\"{message}\",\"Handle\":\"\",\"ProcessID\":\"\",\"Binary\":\"\"}}\n"
    )
}

#[test]
fn a_container_is_made_asked_about_and_destroyed() {
    let plot = served();
    let ok = |method: &str, path: &str, body: &str| {
        let (status, said) = plot.ask(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {said}");
        said
    };
    assert_eq!(ok("GET", "/ping", ""), "{}\n");
    assert_eq!(ok("GET", "/ping?server=true", ""), "{\"server\":\"bloomery\"}\n");
    assert_eq!(ok("GET", "/containers", ""), "{\"Handles\":[]}\n");
    let spec = "{\"handle\":\"h\",\"properties\":{\"k\":\"<v>\"},\
                \"limits\":{\"memory_limits\":{\"limit_in_bytes\":67108864},\
                \"disk_limits\":{\"byte_hard\":1048576,\"scope\":1}}}\n";
    assert_eq!(ok("POST", "/containers", spec), "{\"Handle\":\"h\"}\n");
    assert_eq!(plot.ask("POST", "/containers", spec), (500, plain("Handle 'h' already in use")));
    let (status, said) = plot.ask("POST", "/containers", "{\"env\":[\"A=\\u0000\"]}");
    assert_eq!((status, said.contains("environment variable contains a NUL byte")), (500, true));
    let run = "{\"path\":\"/bin/true\",\"args\":[\"a\\u0000b\"]}";
    let (status, said) = plot.ask("POST", "/containers/h/processes", run);
    assert_eq!((status, said.contains("an argument contains a NUL byte")), (500, true), "{said}");
    assert_eq!(ok("GET", "/containers?k=%3Cv%3E&k=other", ""), "{\"Handles\":[\"h\"]}\n");
    assert_eq!(ok("GET", "/containers?k=other", ""), "{\"Handles\":[]}\n");
    let info = ok("GET", "/containers/h/info", "");
    assert!(info.starts_with("{\"State\":\"active\",\"Events\":null,"), "{info}");
    assert!(info.contains("\"k\":\"\\u003cv\\u003e\""), "{info}");
    assert!(ok("GET", "/containers/h/metrics", "").starts_with("{\"MemoryStat\":{"));
    assert_eq!(ok("GET", "/containers/h/limits/memory", ""), "{\"limit_in_bytes\":67108864}\n");
    for limits in ["bandwidth", "cpu", "disk"] {
        assert_eq!(ok("GET", &format!("/containers/h/limits/{limits}"), ""), "{}\n", "{limits}");
    }
    assert_eq!(
        ok("GET", "/containers/h/limits/disk?requested=true", ""),
        "{\"requested\":{\"byte_hard\":1048576,\"scope\":1},\"enforced\":false}\n"
    );
    assert_eq!(ok("PUT", "/containers/h/properties/a%2Fb", "{\"VALUE\":\"x\"}"), "{}\n");
    assert_eq!(ok("GET", "/containers/h/properties/a%2Fb", ""), "{\"value\":\"x\"}\n");
    assert_eq!(ok("DELETE", "/containers/h/properties/a%2Fb", ""), "{}\n");
    assert_eq!(ok("DELETE", "/containers/h/properties/a%2Fb", ""), "{}\n");
    assert_eq!(
        plot.ask("GET", "/containers/h/properties/a%2Fb", ""),
        (500, plain("property does not exist: a/b"))
    );
    assert_eq!(ok("PUT", "/containers/h/grace_time", "3600000000000\n"), "{}\n");
    assert!(
        ok("GET", "/containers/h/properties", "")
            .contains("\"garden.grace-time\":\"3600000000000\"")
    );
    assert_eq!(ok("PUT", "/containers/h/stop", "{\"kill\":true}\n"), "{}\n");
    assert!(ok("GET", "/containers/h/info", "").starts_with("{\"State\":\"stopped\""));
    assert_eq!(ok("DELETE", "/containers/h", ""), "{}\n");
    assert_eq!(plot.ask("DELETE", "/containers/h", ""), (404, not_found("h")));
}

#[test]
fn unknown_handles_are_not_found_by_any_call() {
    let plot = served();
    for (method, path, body) in [
        ("DELETE", "/containers/no", ""),
        ("GET", "/containers/no/info", ""),
        ("GET", "/containers/no/metrics", ""),
        ("PUT", "/containers/no/stop", "{\"kill\":false}"),
        ("PUT", "/containers/no/files?user=root&destination=/", ""),
        ("GET", "/containers/no/files?user=root&source=/", ""),
        ("GET", "/containers/no/limits/bandwidth", ""),
        ("GET", "/containers/no/limits/cpu", ""),
        ("GET", "/containers/no/limits/disk", ""),
        ("GET", "/containers/no/limits/memory", ""),
        ("POST", "/containers/no/net/in", "{\"container_port\":8080}"),
        ("POST", "/containers/no/net/out", "{\"protocol\":1}"),
        ("POST", "/containers/no/net/out/bulk", "[{\"protocol\":1}]"),
        ("POST", "/containers/no/processes", "{\"path\":\"sh\"}"),
        ("GET", "/containers/no/processes/p", ""),
        ("PUT", "/containers/no/grace_time", "1"),
        ("GET", "/containers/no/properties", ""),
        ("GET", "/containers/no/properties/k", ""),
        ("PUT", "/containers/no/properties/k", "{\"value\":\"v\"}"),
        ("DELETE", "/containers/no/properties/k", ""),
    ] {
        assert_eq!(plot.ask(method, path, body), (404, not_found("no")), "{method} {path}");
    }
    for (path, key) in [("bulk_info", "Info"), ("bulk_metrics", "Metrics")] {
        let (status, said) = plot.ask("GET", &format!("/containers/{path}?handles=no,"), "");
        assert_eq!(status, 200);
        assert!(said.starts_with(&format!("{{\"\":{{\"{key}\":{{")), "{said}");
        assert!(
            said.contains("\"Err\":{\"Type\":\"\",\"Message\":\"unknown handle: no\""),
            "{said}"
        );
    }
    assert_eq!(plot.ask("GET", "/containers/bulk_info?handles=", ""), (200, "{}\n".into()));
    assert!(plot.garden().list(&[("garden.state".into(), "all".into())].into()).is_empty());
}

#[test]
fn bodies_that_are_not_the_json_wanted_fail_in_gos_words() {
    let plot = served();
    for (path, body, words) in [
        ("/containers", "", "EOF"),
        ("/containers", "{", "unexpected EOF"),
        (
            "/containers",
            "[]",
            "json: cannot unmarshal array into Go value of type garden.ContainerSpec",
        ),
        (
            "/containers/h/net/out/bulk",
            "{}",
            "json: cannot unmarshal object into Go value of type []garden.NetOutRule",
        ),
    ] {
        assert_eq!(plot.ask("POST", path, body), (500, plain(words)), "{path} {body:?}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(plot.ask("POST", "/containers", &deep), (500, plain("exceeded max depth")));
    let mut peer = plot.connect();
    peer.send("POST /containers HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(peer.response(), (500, plain("invalid byte in chunk length")));
    assert_eq!(peer.rest(), "");
}

#[test]
fn a_body_beyond_all_sense_is_refused_while_it_comes() {
    let plot = served();
    let mut peer = plot.connect();
    peer.send("POST /containers HTTP/1.1\r\nHost: api\r\nContent-Length: 99999999999\r\n\r\n");
    let piece = vec![b' '; 1 << 20];
    for _ in 0..9 {
        if !peer.try_send(&piece) {
            break;
        }
    }
    let (status, said) = peer.response();
    assert_eq!(status, 413);
    assert!(said.contains("larger than 8388608 bytes"), "{said}");
}

#[test]
fn connections_are_kept_and_requests_may_be_joined_and_cut() {
    let plot = served();
    let mut peer = plot.connect();
    let pong = |peer: &mut plot::serving::Peer| {
        let head = peer.head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: "));
        assert!(head.ends_with(" GMT\r\nContent-Length: 3\r\n\r\n"), "{head}");
        assert_eq!(peer.exactly(3), "{}\n");
    };
    peer.send(&PING.repeat(3));
    for _ in 0..3 {
        pong(&mut peer);
    }
    for byte in PING.chars() {
        peer.send(&byte.to_string());
    }
    pong(&mut peer);
    peer.request("GET", "/containers/no/info", "");
    assert_eq!(peer.response(), (404, not_found("no")));
    peer.send(
        "POST /containers/no/net/in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    peer.send("2\r\n{}\r\n0\r\n\r\n");
    assert_eq!(peer.response().0, 404);
    peer.send("PUT /containers/no/stop HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(peer.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    peer.send("{}");
    assert_eq!(peer.response().0, 404);
    peer.send(PING);
    pong(&mut peer);
    peer.half_close();
    assert_eq!(peer.rest(), "");
}

#[test]
fn what_no_route_has_is_answered_in_plain_text() {
    let plot = served();
    let mut peer = plot.connect();
    let mut ask = |method: &str, path: &str| {
        peer.request(method, path, "");
        let head = peer.head();
        let (before, rest) = head.split_once("Date: ").unwrap();
        let (_date, after) = rest.split_once("\r\n").unwrap();
        let length = head.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
        let length: usize = length.parse().unwrap();
        let body = if method == "HEAD" { String::new() } else { peer.exactly(length) };
        format!("{before}{after}{body}")
    };
    let text = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";
    assert_eq!(
        ask("GET", "/ping/"),
        format!("HTTP/1.1 404 Not Found\r\n{text}Content-Length: 19\r\n\r\n404 page not found\n")
    );
    let not_allowed = format!(
        "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n{text}Content-Length: 19\r\n\r\n"
    );
    assert_eq!(ask("POST", "/ping"), format!("{not_allowed}Method Not Allowed\n"));
    assert_eq!(ask("HEAD", "/ping"), not_allowed);
    assert_eq!(ask("OPTIONS", "*"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn old_and_broken_clients_are_answered_and_closed() {
    let plot = served();
    let whole = |sent: &str| {
        let mut peer = plot.connect();
        peer.send(sent);
        peer.rest()
    };
    let old = whole("GET /ping HTTP/1.0\r\n\r\n");
    assert!(
        old.starts_with("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nDate: "),
        "{old}"
    );
    assert!(old.ends_with("Content-Length: 3\r\n\r\n{}\n"), "{old}");
    for (sent, words) in [
        ("nonsense\n\n", "400 Bad Request"),
        ("GET /ping HTTP/1.1\r\n\r\n", "400 Bad Request: missing required Host header"),
        (
            "GET /ping HTTP/3.7\r\nHost: a\r\n\r\n",
            "505 HTTP Version Not Supported: unsupported protocol version",
        ),
    ] {
        let refused = format!(
            "HTTP/1.1 {words}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{words}"
        );
        assert_eq!(whole(sent), refused);
    }
    let preface = whole("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(preface.starts_with("HTTP/1.1 404 Not Found\r\n"), "{preface}");
    let big = "x".repeat((1 << 20) + 5000);
    let refused = whole(&format!("GET /ping HTTP/1.1\r\nHost: a\r\nX-Big: {big}\r\n\r\n"));
    assert!(refused.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{refused}");
}

#[test]
fn long_answers_come_as_one_chunk() {
    let plot = served();
    plot.create("h");
    let value = "v".repeat(3_000_000);
    let body = format!("{{\"value\":\"{value}\"}}");
    assert_eq!(plot.ask("PUT", "/containers/h/properties/k", &body).0, 200);
    let mut peer = plot.connect();
    peer.request("GET", "/containers/h/properties/k", "");
    let head = peer.head();
    assert!(head.ends_with(" GMT\r\nTransfer-Encoding: chunked\r\n\r\n"), "{head}");
    assert_eq!(peer.until("\r\n"), format!("{:x}\r\n", 3_000_000 + 13));
    assert_eq!(peer.exactly(3_000_013), format!("{body}\n"));
    assert_eq!(peer.exactly(7), "\r\n0\r\n\r\n");
    let mut old = plot.connect();
    old.send("GET /containers/h/properties/k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = old.rest();
    let (head, said) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("Length") && !head.contains("chunked"), "{head}");
    assert_eq!(said.len(), body.len() + 1);
}

#[test]
fn slow_and_idle_clients_are_closed() {
    let mut plot = Plot::new();
    plot.serve_as(Settings {
        head_patience: Duration::from_millis(100),
        idle_patience: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut slow = plot.connect();
    slow.send("GET /ping HTTP/1.1\r\nHo");
    assert_eq!(slow.rest(), "");
    let mut idle = plot.connect();
    idle.request("POST", "/containers/no/processes", "{}");
    assert_eq!(idle.response().0, 404);
    assert_eq!(idle.rest(), "");
}

#[test]
fn clients_that_stop_in_a_body_or_in_an_answer_hold_their_places_for_a_time() {
    let mut plot = Plot::new();
    plot.serve_as(Settings {
        body_patience: Duration::from_millis(200),
        connections: 2,
        ..Settings::default()
    });
    plot.create("h");
    plot.garden().set_property("h", "long", &"v".repeat(3_000_000)).unwrap();
    let mut deaf = plot.connect();
    deaf.request("GET", "/containers/h/properties/long", "");
    assert!(deaf.head().starts_with("HTTP/1.1 200 OK\r\n"));
    let mut stopped = plot.connect();
    stopped.send("POST /containers HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{\"handle\"");
    // There is no third place before one of the two is given up.
    assert_eq!(plot.ask("GET", "/ping", ""), (200, "{}\n".into()));
    assert_eq!(stopped.response(), (500, plain("the request's body takes too long")));
    assert_eq!(stopped.rest(), "");
    let answer = deaf.rest();
    assert!(answer.len() < 3_000_000, "{} bytes", answer.len());
    assert_eq!(plot.garden().list(&Default::default()), ["h"]);
}

#[test]
fn a_client_that_goes_during_a_create_leaves_nothing_half_made() {
    let plot = served();
    for number in 0..8 {
        let handle = format!("h{number}");
        plot.connect().request("POST", "/containers", &format!("{{\"handle\":\"{handle}\"}}"));
        // The create goes on without its client, and is seen by who asks.
        plot::wait_until("the container is made", || {
            plot.ask("GET", "/containers", "").1.contains(&handle)
        });
    }
    for number in 0..8 {
        assert_eq!(plot.ask("DELETE", &format!("/containers/h{number}"), "").0, 200);
    }
    assert_eq!(std::fs::read_dir(&plot.config.depot).unwrap().count(), 0);
}

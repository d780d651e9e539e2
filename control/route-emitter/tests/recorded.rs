//! The original's lists and events make the original's messages.

#![allow(missing_docs)]

use std::collections::BTreeSet;

use base64::Engine as _;
use bbs_models::{
    ActualLRPsResponse, DesiredLRPsResponse, DomainsResponse, Event, EventKind, Message,
};
use route_emitter::{Config, Notice, Table};
use serde_json::Value;

fn flow(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn start() -> Value {
    flow(include_str!("recordings/start.yaml"))
}

/// Subject and message of what the original published.
fn published(flow: &Value) -> Vec<(String, Value)> {
    let lines = flow["nats"].as_array().unwrap().iter();
    lines
        .filter(|line| line["dir"] == ">")
        .filter_map(|line| {
            let mut words = line["line"].as_str().unwrap().split(' ');
            let subject = words.next().filter(|verb| *verb == "PUB").and(words.next())?;
            if !subject.ends_with("register") {
                return None;
            }
            Some((subject.to_owned(), serde_json::from_str(line["payload"].as_str()?).unwrap()))
        })
        .collect()
}

fn said(notices: &[Notice]) -> Vec<(String, Value)> {
    notices
        .iter()
        .map(|notice| (notice.subject().to_owned(), serde_json::to_value(&notice.message).unwrap()))
        .collect()
}

fn set(messages: &[(String, Value)]) -> BTreeSet<String> {
    messages.iter().map(|(subject, message)| format!("{subject} {message}")).collect()
}

fn body<T: Message>(flow: &Value, n: u64) -> T {
    let exchanges = flow["exchanges"].as_array().unwrap();
    let exchange = exchanges.iter().find(|exchange| exchange["n"] == n).unwrap();
    let body = exchange["response"]["body_base64"].as_str().unwrap();
    let body = base64::engine::general_purpose::STANDARD.decode(body.replace('\n', "")).unwrap();
    T::decode_from_slice(&body).unwrap()
}

fn synced() -> (Table, Vec<Notice>) {
    let start = start();
    let actual: ActualLRPsResponse = body(&start, 4);
    let fresh: DomainsResponse = body(&start, 5);
    let desired: DesiredLRPsResponse = body(&start, 6);
    let config = Config { cell_id: "cell-z1-0".into(), ..Config::default() };
    let mut table = Table::new(&config);
    let notices = table.sync(&actual.actual_lrps, &desired.desired_lrps, &fresh.domains);
    (table, notices)
}

/// The events of the whole run, with what they followed.
fn events() -> Vec<(String, Event)> {
    let start = start();
    let exchanges = start["exchanges"].as_array().unwrap();
    let stream = exchanges.iter().find_map(|exchange| exchange["response"]["events"].as_array());
    stream
        .unwrap()
        .iter()
        .map(|event| {
            let text = event["text"].as_str().unwrap();
            let line = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            let kind: EventKind = line("event: ").parse().unwrap();
            let data = base64::engine::general_purpose::STANDARD.decode(line("data: ")).unwrap();
            let after = event["after"].as_str().unwrap().to_owned();
            (after, Event::decode(kind, &data).unwrap())
        })
        .collect()
}

#[test]
fn the_first_lists_make_the_first_messages() {
    let (mut table, notices) = synced();
    assert_eq!(set(&said(&notices)), set(&published(&start())));
    // The same lists again say nothing new.
    let start = start();
    let actual: ActualLRPsResponse = body(&start, 4);
    let desired: DesiredLRPsResponse = body(&start, 6);
    let fresh: DomainsResponse = body(&start, 5);
    assert!(table.sync(&actual.actual_lrps, &desired.desired_lrps, &fresh.domains).is_empty());
}

#[test]
fn events_make_the_messages_of_changes() {
    let (mut table, _) = synced();
    let mut ours = Vec::new();
    for (_, event) in events().iter().take(6) {
        ours.extend(table.apply(event));
    }
    // `web`, which no event is about, is in the original's broadcasts.
    let recorded = published(&flow(include_str!("recordings/changes.yaml")));
    let is_told = |message: &Value| message["private_instance_index"] == "1";
    let recorded: Vec<_> = recorded.into_iter().filter(|(_, message)| is_told(message)).collect();
    let mut recorded = set(&recorded);
    // A router knows an endpoint by address and URI, not by protocol: to unregister what has changed its
    // protocol takes away what was just registered.
    recorded.retain(|line| {
        !(line.starts_with("router.unregister")
            && line.contains("\"web.example.com\"")
            && line.contains("http2"))
    });
    assert_eq!(set(&said(&ours)), recorded);
}

#[test]
fn events_make_the_messages_of_readiness() {
    let (mut table, _) = synced();
    let mut steps: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for (after, event) in events() {
        let said = said(&table.apply(&event));
        if !said.is_empty() {
            steps.push((after, said));
        }
    }
    let told = |step: &str, verb: &str| {
        let all = steps.iter().filter(|(after, _)| after == step).flat_map(|(_, said)| said);
        all.filter(|(subject, _)| subject.ends_with(&format!(".{verb}")))
            .cloned()
            .collect::<Vec<_>>()
    };
    let recorded = published(&flow(include_str!("recordings/tls-and-readiness.yaml")));
    let at = |since: i64| {
        let stamped =
            recorded.iter().filter(|(_, message)| message["endpoint_updated_at_ns"] == since);
        stamped.cloned().collect::<Vec<_>>()
    };

    // The instance's start, to the letter.
    let since = 1_795_339_536_007_327_731;
    assert_eq!(at(since).len(), 4);
    assert_eq!(set(&told("start, routable", "register")), set(&at(since)));
    // It goes: the original's unregistrations of that address.
    let gone = told("start, routable", "unregister");
    assert_eq!(gone.len(), 4);
    assert!(set(&gone).is_subset(&set(&recorded)), "{gone:?}");
    // It comes again and is not ready: the original registers it all the same, we do when it is ready.
    assert!(told("start, not routable any more", "register").is_empty());
    let ready = told("start, routable again", "register");
    assert_eq!(ready.len(), 4);
    // Another address, which the original registers without the route's options.
    let mut moved = told("start, instance address preferred", "register");
    for (_, message) in &mut moved {
        message.as_object_mut().unwrap().remove("options");
    }
    assert_eq!(set(&moved), set(&at(1_795_339_538_164_385_951)));
    assert_eq!(told("start, instance address preferred", "unregister").len(), 3);
    // An instance that leaves its cell keeps its routes until it is gone.
    assert!(told("evacuate running", "register").is_empty());
    assert!(told("evacuate running", "unregister").is_empty());
    assert_eq!(told("remove evacuating", "unregister").len(), 4);
    assert_eq!(told("start once more", "register").len(), 4);
    assert_eq!(told("crash", "unregister").len(), 4);
    assert!(told("remove desired", "register").is_empty());
}

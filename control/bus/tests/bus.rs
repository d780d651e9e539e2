//! The same expectations of both kinds of bus, and what only one through a server meets.

#![allow(missing_docs)]

mod nats;

use std::time::Duration;

use bus::{Bus, Error, Message, PAYLOAD, Servers};

const PATIENCE: Duration = Duration::from_secs(30);

async fn both() -> [(Bus, Option<nats::Server>); 2] {
    let server = nats::Server::start().await;
    let bus = Bus::connect(server.servers()).await.unwrap();
    wait_for(&bus, |connection| connection.up).await;
    [(Bus::local(), None), (bus, Some(server))]
}

async fn wait_for(bus: &Bus, wanted: impl Fn(bus::Connection) -> bool) {
    let mut connection = bus.connection();
    tokio::time::timeout(PATIENCE, connection.wait_for(|state| wanted(*state)))
        .await
        .expect("in time")
        .unwrap();
}

async fn next(subscription: &mut bus::Subscription) -> Message {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("in time").unwrap()
}

#[tokio::test]
async fn messages_reach_every_subscription_that_matches() {
    for (bus, _server) in both().await {
        let mut one = bus.subscribe("router.start").await.unwrap();
        let mut any = bus.subscribe("router.*").await.unwrap();
        bus.publish("router.register", "a").await.unwrap();
        bus.publish("service-discovery.register", "b").await.unwrap();
        bus.publish_with_reply("router.start", "_INBOX.1", "c").await.unwrap();

        let first = next(&mut any).await;
        assert_eq!((first.subject.as_str(), &first.payload[..]), ("router.register", &b"a"[..]));
        assert_eq!(first.reply, None);
        let start = Message {
            subject: "router.start".into(),
            reply: Some("_INBOX.1".into()),
            payload: "c".into(),
        };
        assert_eq!(next(&mut any).await, start);
        assert_eq!(next(&mut one).await, start);
    }
}

#[tokio::test]
async fn a_request_has_the_first_answer() {
    for (bus, _server) in both().await {
        let mut greets = bus.subscribe("router.greet").await.unwrap();
        let answering = bus.clone();
        let router = tokio::spawn(async move {
            let reply = next(&mut greets).await.reply.unwrap();
            answering.publish(&reply, "first").await.unwrap();
            answering.publish(&reply, "second").await.unwrap();
        });
        let answer = bus.request("router.greet", "{}", PATIENCE).await.unwrap();
        assert_eq!(answer.payload, "first");
        router.await.unwrap();

        let error = bus.request("nobody", "", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_no_server_would_take_is_refused() {
    for (bus, _server) in both().await {
        for subject in ["", "router.*", "router.>", "a b", "a\r\nPUB b 0\r\n"] {
            let error = bus.publish(subject, "").await.unwrap_err();
            assert!(matches!(error, Error::Subject { .. }), "{error}");
        }
        assert!(matches!(bus.subscribe("a..b").await.unwrap_err(), Error::Subject { .. }));
        let error = bus.publish("a", vec![0; PAYLOAD + 1]).await.unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
    }
}

#[tokio::test]
async fn subscriptions_outlive_a_lost_connection() {
    let server = nats::Server::start().await;
    let bus = Bus::connect(server.servers()).await.unwrap();
    let mut starts = bus.subscribe("router.start").await.unwrap();
    wait_for(&bus, |connection| connection.times == 1).await;

    server.cut();
    wait_for(&bus, |connection| connection.up && connection.times == 2).await;
    bus.publish("router.start", "again").await.unwrap();
    assert_eq!(next(&mut starts).await.payload, "again");
}

#[tokio::test]
async fn a_server_that_is_there_is_used_instead_of_one_that_is_not() {
    let server = nats::Server::start().await;
    let mut servers = server.servers();
    servers.addresses.insert(0, nats::unused().await);
    let bus = Bus::connect(servers).await.unwrap();
    wait_for(&bus, |connection| connection.up).await;
}

#[tokio::test]
async fn a_bus_waits_for_its_server() {
    let address = nats::unused().await;
    let bus = Bus::connect(Servers { addresses: vec![address.clone()], ..Servers::default() })
        .await
        .unwrap();
    assert!(!bus.connection().borrow().up);
    let mut starts = bus.subscribe("router.start").await.unwrap();
    bus.publish("router.start", "early").await.unwrap();
    let _server = nats::Server::start_at(&address).await;
    assert_eq!(next(&mut starts).await.payload, "early");
}

#[tokio::test]
async fn an_address_that_names_no_server_is_an_error() {
    let servers = Servers { addresses: vec!["http://x".into()], ..Servers::default() };
    let error = Bus::connect(servers).await.unwrap_err();
    assert!(error.to_string().contains("http://x"), "{error}");
}

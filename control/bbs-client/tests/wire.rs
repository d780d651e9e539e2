//! The client against answers written byte by byte, as the original writes them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_client::{Client, Error};
use bbs_models::error::Type;
use bbs_models::{
    DesiredLRPLifecycleResponse, DesiredLRPRemovedEvent, Event, Message, PingResponse,
    TaskRemovedEvent,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server on a port of its own, and a client of it.
async fn pair() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = transport::Address::http(listener.local_addr().unwrap());
    (listener, Client::new(address, None).unwrap())
}

/// Takes a connection and reads a request, whose length it declares.
async fn request(listener: &TcpListener) -> (TcpStream, String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request ends in its head");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request ends in its body");
    }
    (stream, head, bytes[end..].to_vec())
}

async fn answer(stream: &mut TcpStream, message: &impl Message) {
    let body = message.encode_to_vec();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
}

#[tokio::test]
async fn a_call_is_a_post_of_a_message() {
    let (listener, client) = pair().await;
    let server = async {
        let (mut stream, head, body) = request(&listener).await;
        answer(&mut stream, &DesiredLRPLifecycleResponse::default()).await;
        (head, body)
    };
    let client = client.tracing("b3f1c0de".into());
    let (called, (head, body)) = tokio::join!(client.remove_lrp("guid"), server);
    called.unwrap();
    assert!(head.starts_with("post /v1/desired_lrp/remove http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    assert!(head.contains("x-vcap-request-id: b3f1c0de\r\n"), "{head}");
    assert_eq!(body, b"\x0a\x04guid");
}

#[tokio::test]
async fn a_refusal_is_told_by_its_type() {
    let (listener, client) = pair().await;
    let server = async {
        let (mut stream, ..) = request(&listener).await;
        let error = bbs_models::Error::from(Type::ResourceNotFound).into();
        answer(&mut stream, &DesiredLRPLifecycleResponse { error, ..Default::default() }).await;
    };
    let (called, ()) = tokio::join!(client.remove_lrp("guid"), server);
    let error = called.unwrap_err();
    assert!(error.is(Type::ResourceNotFound), "{error:?}");
    assert_eq!(
        error.to_string(),
        "/v1/desired_lrp/remove: the requested resource could not be found"
    );
}

#[tokio::test]
async fn a_broken_call_is_made_three_times() {
    let (listener, client) = pair().await;
    let server = async {
        // Twice the connection ends without an answer.
        drop(request(&listener).await);
        drop(request(&listener).await);
        let (mut stream, ..) = request(&listener).await;
        answer(&mut stream, &PingResponse { available: true, ..Default::default() }).await;
    };
    let (called, ()) = tokio::join!(client.ping(), server);
    assert!(called.unwrap());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_given_up() {
    let (listener, client) = pair().await;
    drop(listener);
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_is_a_timeout() {
    let (listener, client) = pair().await;
    let client = client.answering_within(Some(Duration::from_millis(50)));
    let server = async {
        let mut held = Vec::new();
        loop {
            held.push(request(&listener).await);
        }
    };
    let error = tokio::select! {
        called = client.ping() => called.unwrap_err(),
        () = server => unreachable!("the server does not end"),
    };
    assert!(error.is(Type::Timeout), "{error:?}");
}

#[tokio::test]
async fn an_unknown_route_and_a_router_are_told_apart() {
    for (answer, router) in [("", false), ("X-Cf-Routererror: unknown_route\r\n", true)] {
        let (listener, client) = pair().await;
        let server = async {
            let (mut stream, ..) = request(&listener).await;
            let text = format!("HTTP/1.1 404 Not Found\r\n{answer}Content-Length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let (called, ()) = tokio::join!(client.ping(), server);
        let error = called.unwrap_err();
        match router {
            true => assert!(error.is(Type::RouterError), "{error:?}"),
            false => assert!(matches!(error, Error::NotServed { .. }), "{error:?}"),
        }
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, must-revalidate\r\n\
    Connection: keep-alive\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// A chunk with the original's size line, which ends in a bare semicolon.
fn chunk(id: usize, event: &str, message: &impl Message) -> String {
    let data = STANDARD.encode(message.encode_to_vec());
    let text = format!("id: {id}\nevent: {event}\ndata: {data}\n\n");
    format!("{:x};\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn a_stream_of_the_original_is_read_for_as_long_as_it_lasts() {
    const MANY: usize = 20_000;
    let (listener, client) = pair().await;
    let server = async {
        let (mut stream, head, _) = request(&listener).await;
        assert!(head.starts_with("post /v1/events/tasks.r1 "), "{head}");
        stream.write_all(STREAM.as_bytes()).await.unwrap();
        for id in 0..MANY {
            let text = chunk(id, "task_removed", &TaskRemovedEvent::default());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    };
    let reading = async {
        let mut events = client.task_events().await.unwrap();
        let mut read = 0;
        while let Some(event) = events.next().await.unwrap() {
            assert_eq!(event, Event::TaskRemoved(TaskRemovedEvent::default()));
            read += 1;
        }
        read
    };
    let (read, ()) = tokio::join!(reading, server);
    assert_eq!(read, MANY);
}

#[tokio::test]
async fn an_event_of_an_unknown_kind_is_left_out_and_a_broken_stream_is_an_error() {
    let (listener, client) = pair().await;
    let server = async {
        let (mut stream, _, body) = request(&listener).await;
        assert_eq!(body, b"\x0a\x04cell");
        let text = [
            STREAM,
            &chunk(0, "sunrise", &TaskRemovedEvent::default()),
            &chunk(1, "desired_lrp_removed", &DesiredLRPRemovedEvent::default()),
        ];
        stream.write_all(text.concat().as_bytes()).await.unwrap();
    };
    let reading = async {
        let mut events = client.instance_events("cell").await.unwrap();
        let first = events.next().await.unwrap();
        assert_eq!(first, Some(Event::DesiredLRPRemoved(DesiredLRPRemovedEvent::default())));
        events.next().await
    };
    let (next, ()) = tokio::join!(reading, server);
    assert!(matches!(next, Err(Error::Stream { .. })), "{next:?}");
}

//! The original's exchanges, asked of our log-cache.
//!
//! Different on purpose: no header `Grpc-Metadata-Content-Type`, which says how the original's two
//! programs speak to each other; `/meta` is never a second old; an envelope type that is none matches
//! nothing, where the original dies; `Grpc-Timeout` is not read, since there is no gRPC behind the
//! HTTP; a cf CLI's walk is moved, see `live.rs`, so its name is left out here; a token without the word `bearer` is not shown to Cloud Controller first. PromQL is not
//! served.

mod rig;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use log_cache::{Limits, LogCache, Store, v1, v2};
use prost::Message as _;
use rig::{Exchange, grpc, json_of, load, same_json};
use serde_json::Value;
use uaa::Peer;

/// The store as it was when these were recorded.
fn store() -> Store {
    Store::new(Limits { envelopes_per_source: 20, ..Limits::default() })
}

fn line(source_id: &str, payload: &'static str) -> v2::Envelope {
    let log = v2::Log { payload: Bytes::from_static(payload.as_bytes()), r#type: 0 };
    v2::Envelope {
        timestamp: 1_700_000_000_000_000_000,
        source_id: source_id.into(),
        instance_id: "0".into(),
        message: Some(v2::envelope::Message::Log(log)),
        ..v2::Envelope::default()
    }
}

/// What the other flows found there.
fn sent_before(store: &Store) {
    store.add([
        line("", "empty id"),
        line("odd id/with slash+plus", "slash"),
        line("doppler", "plain name"),
        line("ünicode", "u"),
    ]);
    for exchange in load("envelope-types") {
        store.add(exchange.sent());
    }
}

async fn ask(peer: &Peer, exchange: &Exchange) -> Response<Bytes> {
    let (method, target, headers) = exchange.request();
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        if name != "User-Agent" {
            request = request.header(name, value);
        }
    }
    peer.send(request.body(Bytes::new()).unwrap()).await.unwrap()
}

#[track_caller]
fn same(exchange: &Exchange, answer: &Response<Bytes>) {
    let (status, kind, body) = exchange.response();
    let about = exchange.about();
    assert_eq!(answer.status().as_u16(), status, "{about}");
    let own = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    assert_eq!(own, kind, "{about}");
    if exchange.request().0 == Method::HEAD {
        return;
    }
    match serde_json::from_str::<Value>(&body) {
        Ok(expected) => {
            assert!(answer.body().ends_with(b"\n"), "{about}");
            same_json(&json_of(answer.body()), &expected, &about);
        }
        Err(_) => assert_eq!(String::from_utf8_lossy(answer.body()), body, "{about}"),
    }
}

/// Metadata of sources that the original did not tell of yet is left out.
fn as_old_as(answer: Response<Bytes>, exchange: &Exchange) -> Response<Bytes> {
    let expected: Value = serde_json::from_str(&exchange.response().2).unwrap();
    let mut own = json_of(answer.body());
    let sources = own["meta"].as_object_mut().unwrap();
    sources.retain(|id, _| expected["meta"].get(id).is_some());
    answer.map(|_| Bytes::from(format!("{own}\n")))
}

#[tokio::test]
async fn the_gateway_answers_as_recorded() {
    let store = store();
    sent_before(&store);
    let peer = Peer::local(LogCache::new(store.clone()).routes(None));
    let mut asked = 0;
    let flows = ["envelope-types", "read-parameters", "read-errors", "ordering", "truncation"];
    for flow in flows.into_iter().chain(["meta-info"]) {
        for exchange in load(flow) {
            // Those of the first flow are there already.
            if flow != "envelope-types" {
                store.add(exchange.sent());
            }
            if !exchange.goes("client", "gateway") || exchange.step() == "bad Grpc-Timeout" {
                continue;
            }
            let mut answer = ask(&peer, &exchange).await;
            let target = exchange.request().1;
            if target.starts_with("/api/v1/info") && answer.status() == StatusCode::OK {
                if exchange.request().0 == Method::HEAD {
                    continue;
                }
                let info = json_of(answer.body());
                assert_eq!(info["version"], "3.2.12");
                assert!(info["vm_uptime"].as_str().unwrap().parse::<u64>().is_ok());
                continue;
            }
            if target.starts_with("/api/v1/meta") && answer.status() == StatusCode::OK {
                answer = as_old_as(answer, &exchange);
            }
            same(&exchange, &answer);
            asked += 1;
        }
    }
    assert!(asked > 95, "{asked}");
}

#[tokio::test]
async fn grpc_is_answered_as_recorded() {
    let store = store();
    let server = grpc::Server::start(&LogCache::new(store.clone())).await;
    let mut ingress = v1::ingress_client::IngressClient::new(server.channel());
    let mut egress = v1::egress_client::EgressClient::new(server.channel());
    store.add([line("", "empty id")]);
    let mut reads = 0;
    for flow in ["envelope-types", "grpc-client", "crash-unknown-type"] {
        for exchange in load(flow) {
            let Some(call) = exchange.call() else { continue };
            let message = exchange.message("client");
            match call {
                "/logcache.v1.Ingress/Send" => {
                    let message = v1::SendRequest::decode(&message[..]).unwrap();
                    ingress.send(message).await.unwrap();
                }
                "/logcache.v1.Egress/Read" => {
                    let message = v1::ReadRequest::decode(&message[..]).unwrap();
                    let known = message.envelope_types != [99];
                    let answer = egress.read(message).await.map(tonic::Response::into_inner);
                    match exchange.status() {
                        _ if !known => assert!(answer.unwrap().envelopes.unwrap().batch.is_empty()),
                        Some((code, text)) if code != 0 => {
                            let status = answer.unwrap_err();
                            assert_eq!(
                                (i32::from(status.code()), status.message()),
                                (code, &*text)
                            );
                        }
                        _ => {
                            let expected = exchange.message("server");
                            let expected = v1::ReadResponse::decode(&expected[..]).unwrap();
                            // NaN is not itself.
                            let (own, expected) = (format!("{:?}", answer.unwrap()), expected);
                            assert_eq!(own, format!("{expected:?}"), "{}", exchange.about());
                        }
                    }
                    reads += 1;
                }
                "/logcache.v1.Egress/Meta" => {
                    let answer = egress.meta(v1::MetaRequest { local_only: false }).await;
                    let expected = exchange.message("server");
                    let expected = v1::MetaResponse::decode(&expected[..]).unwrap();
                    for (id, meta) in answer.unwrap().into_inner().meta {
                        assert_eq!(expected.meta[&id], meta, "{id}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(reads > 10, "{reads}");
    server.stop().await;
}

#[tokio::test]
async fn the_proxy_lets_readers_see_what_is_theirs() {
    let platform = rig::Platform::start().await;
    let store = store();
    sent_before(&store);
    for exchange in ["ordering", "truncation"].iter().flat_map(|flow| load(flow)) {
        store.add(exchange.sent());
    }
    let peer = Peer::local(LogCache::new(store).routes(Some(platform.access())));
    let mut asked = 0;
    let mut exchanges = load("auth-proxy").into_iter().peekable();
    while let Some(mut exchange) = exchanges.next() {
        // What the original's proxy asked of Cloud Controller for it.
        let mut expected = Vec::new();
        while let Some(inner) = exchanges.next_if(|next| next.from() == "cf-auth-proxy") {
            if inner.goes("cf-auth-proxy", "cloud controller (stand-in)") {
                expected.push(inner.request().1);
            }
        }
        if !exchange.goes("client", "cf-auth-proxy")
            || exchange.request().1.starts_with("/api/v1/query")
        {
            continue;
        }
        exchange.fill_in(&platform.tokens);
        let mut answer = ask(&peer, &exchange).await;
        let found = platform.asked();
        // A yes is remembered by the token here, by the whole header there.
        if !["token without bearer", "BEARER"].contains(&exchange.step()) {
            assert_eq!(found, expected, "{}", exchange.about());
        }
        let target = exchange.request().1;
        if target == "/api/v1/info" {
            assert_eq!(answer.status(), StatusCode::OK);
            continue;
        }
        if target == "/api/v1/meta" && answer.status() == StatusCode::OK {
            let expected: Value = serde_json::from_str(&exchange.response().2).unwrap();
            // Metrics of another flow were there, too.
            let all: usize = expected["meta"].as_object().unwrap().len();
            let known = json_of(answer.body())["meta"].as_object().unwrap().len();
            assert!(known + 2 >= all && known > 0, "{}", exchange.about());
            let own = json_of(answer.body());
            for (id, meta) in own["meta"].as_object().unwrap() {
                if let Some(expected) = expected["meta"].get(id) {
                    same_json(meta, expected, id);
                }
            }
            answer = answer.map(|_| Bytes::from(exchange.response().2));
        }
        same(&exchange, &answer);
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
}

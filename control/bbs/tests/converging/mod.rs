//! What the original repaired by itself, ours repairs in the same passes.

use std::time::Duration;

use bbs_models::{
    Action, ActualLRP, ActualLRPsRequest, ActualLRPsResponse, CellPresence, DesiredLRP, Message,
    MetricTagValue, ProtoRoutes, RunAction, StartActualLRPRequest, actual_lrp, metric_tag_value,
};
use locket::models::Resource;
use serde_json::json;
use tokio::time::Instant;

use super::{Board, PATIENCE, Peers, Play, expect_the_same, listen, recorded, start, told};

/// Passes at 10, 20, 30 and 40 s, of rows that were made in the first seconds.
#[tokio::test]
async fn passes() {
    let passes = Play {
        files: &["convergence.yaml"],
        converging: json!({
            "converge_repeat_interval": "10s",
            "kick_task_duration": "5s",
            "expire_pending_task_duration": "14s",
            "expire_completed_task_duration": "20s",
        }),
        // In the recording a row of 0.3 s was 29.8 s old at the third pass, and is not to be 30.
        pause: Duration::from_secs(2),
        patience: Duration::from_secs(30),
        registers: &[
            ("subscribe to instances", &["cell-z1-0", "cell-z2-0"]),
            ("cell-z3-0 registers", &["cell-z3-0"]),
        ],
        mixed: true,
    };
    expect_the_same(&passes, 115).await;
}

/// The cell of five running instances goes, and the auctioneer finds no other.
#[tokio::test]
async fn a_cell_that_disappears() {
    let flow = recorded("cell-disappears.yaml");
    let exchange = |n: usize| &flow.exchanges[n - 1];
    let converging = json!({ "converge_repeat_interval": "1s" });
    let board = start(Peers::of(flow.exchanges.iter()), &converging).await;
    let cell_id = "cell-z2-0".to_owned();
    board.register(&CellPresence { cell_id, ..Default::default() }).await;
    let rows = ActualLRPsResponse::decode_from_slice(&exchange(9).response.body()).unwrap();
    let of_cell = |row: &ActualLRP| row.presence == actual_lrp::Presence::SUSPECT;
    let mut rows: Vec<_> = rows.actual_lrps.into_iter().filter(of_cell).collect();
    rows.push(web(&rows[0]));
    run(&board, &rows).await;

    let stream = listen(&board, exchange(1), true).await;
    let resource = Resource { key: "cell-z2-0".into(), owner: "a-rep".into(), ..<_>::default() };
    board.locket.release(resource, None).await.unwrap();
    let wanted = told("auctioneer", "POST /v1/lrps", &exchange(2).request.body());
    let deadline = Instant::now() + PATIENCE;
    while board.peers.count(&wanted) == 0 {
        assert!(Instant::now() < deadline, "{:?}", board.peers.heard.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 3..=9 {
        board.compare(exchange(n)).await.unwrap();
    }
    let callback = board.callback.clone();
    assert_eq!(stream.compare(&callback).await.unwrap(), 15);
    board.stop().await;
}

/// The instance that only the events show.
fn web(like: &ActualLRP) -> ActualLRP {
    let mut row = like.clone();
    let (guid, index) = ("1aaaf4c6-8259-434c-7855-ca29", 0);
    let key = row.actual_lrp_key.get_or_insert_default();
    (key.process_guid, key.index) = ("web".into(), index);
    row.actual_lrp_instance_key.get_or_insert_default().instance_guid = guid.into();
    let net_info = row.actual_lrp_net_info.get_or_insert_default();
    net_info.instance_address = "10.255.10.21".into();
    for (port, host_port) in net_info.ports.iter_mut().zip([60210, 60211]) {
        port.host_port = host_port;
    }
    row.metric_tags.insert("process_instance_id".into(), guid.into());
    row.metric_tags.insert("instance_id".into(), index.to_string());
    row.modification_tag.get_or_insert_default().index = 6;
    row
}

/// Makes these rows, changed as often as they say.
async fn run(board: &Board, rows: &[ActualLRP]) {
    let address = bbs_address(board);
    let bbs = bbs_client::Client::new(address, None).unwrap();
    for (process_guid, instances) in [("evac", 4), ("web", 1)] {
        bbs.desire_lrp(desired(process_guid, instances, &rows[0])).await.unwrap();
    }
    for row in rows {
        let changes = row.modification_tag.index;
        for change in 1..=changes {
            let start = StartActualLRPRequest {
                actual_lrp_key: row.actual_lrp_key.clone(),
                actual_lrp_instance_key: row.actual_lrp_instance_key.clone(),
                actual_lrp_net_info: row.actual_lrp_net_info.clone(),
                actual_lrp_internal_routes: row.actual_lrp_internal_routes.clone(),
                metric_tags: row.metric_tags.clone(),
                routable: Some((changes - change) % 2 == 0),
                availability_zone: row.availability_zone.clone(),
                ..Default::default()
            };
            bbs.start_actual_lrp(start).await.unwrap();
        }
    }
    assert_eq!(bbs.actual_lrps(ActualLRPsRequest::default()).await.unwrap().len(), rows.len());
}

fn bbs_address(board: &Board) -> transport::Address {
    transport::Address::Unix(board.place.path().join("bbs"))
}

/// What these rows have been made from.
fn desired(process_guid: &str, instances: i32, row: &ActualLRP) -> DesiredLRP {
    use metric_tag_value::DynamicValue;
    let value = |name: &str, value: &str| match name {
        "process_instance_id" => dynamic(DynamicValue::INSTANCE_GUID),
        "instance_id" => dynamic(DynamicValue::INDEX),
        _ => MetricTagValue { r#static: value.into(), ..Default::default() },
    };
    let tags = row.metric_tags.iter();
    let routes = json!([{ "hostname": row.actual_lrp_internal_routes[0].hostname }]);
    let run = RunAction { path: "/app".into(), user: "vcap".into(), ..Default::default() };
    DesiredLRP {
        process_guid: process_guid.into(),
        domain: "cf-apps".into(),
        root_fs: "preloaded:cflinuxfs4".into(),
        instances,
        memory_mb: 64,
        disk_mb: 128,
        action: Action { run_action: run.into(), ..Default::default() }.into(),
        metric_tags: tags.map(|(name, tag)| (name.clone(), value(name, tag))).collect(),
        routes: ProtoRoutes {
            routes: [("internal-router".to_owned(), routes.to_string().into_bytes())].into(),
            ..Default::default()
        }
        .into(),
        ..Default::default()
    }
}

fn dynamic(value: metric_tag_value::DynamicValue) -> MetricTagValue {
    MetricTagValue { dynamic: value.into(), ..Default::default() }
}

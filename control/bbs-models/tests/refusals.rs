//! What the original refuses is refused with the same words, and nothing else is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::*;

#[derive(serde::Deserialize)]
struct Request {
    from: String,
    message: String,
    body: String,
    problem: String,
}

fn problem<M: Message + Validate>(bytes: &[u8]) -> String {
    match M::decode_from_slice(bytes).unwrap().validate() {
        Ok(()) => String::new(),
        Err(error) => {
            assert!(error.is(error::Type::InvalidRequest));
            error.message
        }
    }
}

macro_rules! problem {
    ($name:expr, $bytes:expr, $($message:ident)*) => {
        match $name {
            $(stringify!($message) => problem::<$message>($bytes),)*
            name => panic!("{name} is not in this test's list"),
        }
    };
}

#[test]
fn recorded_requests_are_judged_as_the_original_did() {
    let (mut accepted, mut refused) = (0, 0);
    for line in include_str!("recordings/requests.jsonl").lines() {
        let request: Request = serde_json::from_str(line).unwrap();
        let bytes = STANDARD.decode(&request.body).unwrap();
        let problem = problem!(
            request.message.as_str(), &bytes,
            ActualLRPGroupByProcessGuidAndIndexRequest ActualLRPGroupsByProcessGuidRequest
            ActualLRPGroupsRequest ActualLRPsByProcessGuidsRequest ActualLRPsRequest
            ClaimActualLRPRequest CompleteTaskRequest CrashActualLRPRequest DesireLRPRequest
            DesireTaskRequest DesiredLRPByProcessGuidRequest DesiredLRPsRequest
            EvacuateClaimedActualLRPRequest EvacuateCrashedActualLRPRequest
            EvacuateRunningActualLRPRequest EvacuateStoppedActualLRPRequest EventsByCellId
            FailActualLRPRequest FailTaskRequest RejectTaskRequest RemoveActualLRPRequest
            RemoveDesiredLRPRequest RemoveEvacuatingActualLRPRequest RetireActualLRPRequest
            StartActualLRPRequest StartTaskRequest TaskByGuidRequest TaskGuidRequest TasksRequest
            UpdateDesiredLRPRequest UpsertDomainRequest
        );
        assert_eq!(problem, request.problem, "{}: {}", request.from, request.message);
        *(if problem.is_empty() { &mut accepted } else { &mut refused }) += 1;
    }
    assert!(accepted > 200 && refused > 70, "{accepted} accepted, {refused} refused");
}

fn desired_lrp() -> DesiredLRP {
    let tag = MetricTagValue { r#static: "app".into(), ..Default::default() };
    let run = RunAction { path: "/bin/app".into(), user: "vcap".into(), ..Default::default() };
    DesiredLRP {
        process_guid: "guid".into(),
        domain: "cf-apps".into(),
        root_fs: "preloaded:cflinuxfs4".into(),
        action: Action { run_action: run.into(), ..Default::default() }.into(),
        metric_tags: [("source_id".into(), tag)].into(),
        ..Default::default()
    }
}

fn refusal(lrp: &DesiredLRP) -> String {
    lrp.validate().map_or_else(|error| error.message, |()| String::new())
}

#[test]
fn texts_may_be_as_long_as_the_limit() {
    let mut lrp = desired_lrp();
    lrp.annotation = "x".repeat(10 * 1024);
    assert_eq!(refusal(&lrp), "");
    lrp.annotation.push('x');
    assert_eq!(refusal(&lrp), "Invalid field: annotation");
}

#[test]
fn routes_may_be_as_large_as_the_limit_together() {
    let mut lrp = desired_lrp();
    let routes = &mut lrp.routes.get_or_insert_default().routes;
    routes.insert("a".into(), vec![b'x'; 64 * 1024]);
    routes.insert("b".into(), vec![b'x'; 64 * 1024]);
    assert_eq!(refusal(&lrp), "");
    lrp.routes.modify(|routes| routes.routes.entry("b".into()).or_default().push(b'x'));
    assert_eq!(refusal(&lrp), "Invalid field: routes");
}

#[test]
fn mounted_files_that_are_too_large_are_named_twice() {
    let file = |size| File { path: "f".into(), content: "x".repeat(size), ..Default::default() };
    let mut lrp = desired_lrp();
    lrp.volume_mounted_files = vec![file(1024 * 1024)];
    assert_eq!(refusal(&lrp), "");
    lrp.volume_mounted_files.push(file(1));
    assert_eq!(
        refusal(&lrp),
        "Invalid field: volumeMountedFiles, Invalid field: volumeMountedFiles"
    );
}

//! Rules that no recording shows: who may do what, what is refused, what survives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_controller::InstanceState;
use http::Request;
use serde_json::{Value, json};
use uaa::Peer;

use crate::platform::{CC, Platform, zip_of};

async fn as_user(platform: &Platform, token: &str, method: &str, path: &str, body: Value) -> Value {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = platform.send_as(token, method, path, "application/json", body).await;
    json!({"status": answer.0.status().as_u16(), "body": answer.json()})
}

#[tokio::test]
async fn people_see_and_do_what_their_roles_allow() {
    let platform = Platform::new().await;
    let app = platform.started("web1").await;
    let dev = platform.token_of("dev").await;
    let get = |path: String| {
        let (platform, dev) = (&platform, &dev);
        async move { as_user(platform, dev, "GET", &path, Value::Null).await }
    };
    let apps = get("/v3/apps".into()).await;
    assert_eq!(apps["body"]["pagination"]["total_results"], 0, "{apps}");
    assert_eq!(get(format!("/v3/apps/{app}")).await["status"], 404);
    assert_eq!(get("/v3/organizations".into()).await["body"]["resources"], json!([]));
    let users = get("/v3/users".into()).await["body"].clone();
    assert_eq!(users["pagination"]["total_results"], 1, "{users}");
    assert_eq!(users["resources"][0]["username"], "dev", "{users}");
    let made = as_user(&platform, &dev, "POST", "/v3/organizations", json!({"name": "x"})).await;
    assert_eq!(made["body"]["errors"][0]["code"], 10003, "{made}");

    let org = platform.guid("/v3/organizations?names=o1").await;
    let space = platform.guid("/v3/spaces?names=s1").await;
    let role = |kind: &str, place: &str, guid: &str| {
        json!({"type": kind, "relationships": {"user": {"data": {"username": "dev"}},
            place: {"data": {"guid": guid}}}})
    };
    let early = platform.post("/v3/roles", role("space_auditor", "space", &space)).await;
    early.expect(422);
    platform.post("/v3/roles", role("organization_user", "organization", &org)).await.expect(201);
    platform.post("/v3/roles", role("space_auditor", "space", &space)).await.expect(201);
    let again =
        platform.post("/v3/roles", role("space_auditor", "space", &space)).await.expect(422);
    assert_eq!(
        again["errors"][0]["detail"],
        "User 'dev' already has 'space_auditor' role in space 's1'."
    );
    assert_eq!(get(format!("/v3/apps/{app}")).await["status"], 200);
    assert_eq!(get(format!("/v3/apps/{app}/env")).await["status"], 403);
    let path = format!("/v3/apps/{app}/actions/stop");
    assert_eq!(as_user(&platform, &dev, "POST", &path, Value::Null).await["status"], 403);
    platform.post("/v3/roles", role("space_developer", "space", &space)).await.expect(201);
    assert_eq!(as_user(&platform, &dev, "POST", &path, Value::Null).await["status"], 200);
    assert_eq!(get(format!("/v3/apps/{app}/env")).await["status"], 200);
    let path = format!("/v3/spaces/{space}");
    assert_eq!(as_user(&platform, &dev, "DELETE", &path, Value::Null).await["status"], 403);

    platform
        .patch(&format!("/v3/organizations/{org}"), json!({"suspended": true}))
        .await
        .expect(200);
    let path = format!("/v3/apps/{app}/actions/start");
    assert_eq!(as_user(&platform, &dev, "POST", &path, Value::Null).await["status"], 403);
    platform.act(&app, "start").await;
    platform.controller.close().await;
}

#[tokio::test]
async fn nobody_gets_the_addresses_of_the_platform_or_of_others() {
    let platform = Platform::new().await;
    let org = platform.guid("/v3/organizations?names=o1").await;
    let space = platform.guid("/v3/spaces?names=s1").await;
    for (kind, place, guid) in [
        ("organization_user", "organization", &org),
        ("organization_manager", "organization", &org),
        ("space_developer", "space", &space),
    ] {
        let role = json!({"type": kind, "relationships": {"user": {"data": {"username": "dev"}},
            place: {"data": {"guid": guid}}}});
        platform.post("/v3/roles", role).await.expect(201);
    }
    let dev = platform.token_of("dev").await;
    let domain_of = |name: &str, org: &str| json!({"name": name, "relationships": {"organization": {"data": {"guid": org}}}});
    let make = async |path: &str, body: Value| {
        let made = as_user(&platform, &dev, "POST", path, body).await;
        let detail = made["body"]["errors"][0]["detail"].as_str().unwrap_or_default().to_owned();
        (made["status"].as_u64().unwrap(), detail)
    };
    let system = platform.post("/v3/domains", json!({"name": "example.test"})).await.expect(201);
    let made = platform.post("/v3/organizations", json!({"name": "o2"})).await.expect(201);
    let other = made["guid"].as_str().unwrap();
    platform.post("/v3/domains", domain_of("taken.apps.example.test", other)).await.expect(201);
    let shared = json!({"name": "shared.far.test"});
    platform.post("/v3/domains", shared).await.expect(201);

    // Domains of an org: not the system's, nor one above what is everybody's.
    for (name, said) in [
        ("login.example.test", "already reserved by the system"),
        ("API.Example.test", "already reserved by the system"),
        ("example.test", "already reserved by the system"),
        ("far.test", "\"shared.far.test\" is already reserved by another domain"),
        ("x.taken.apps.example.test", "already reserved by another domain"),
    ] {
        let (status, detail) = make("/v3/domains", domain_of(name, &org)).await;
        assert!(status == 422 && detail.contains(said), "{name}: {status} {detail}");
    }
    assert_eq!(make("/v3/domains", domain_of("mine.example.test", &org)).await.0, 201);

    // Routes: an administrator may share the system domain, but not the system's hosts in it.
    let apps = platform.guid("/v3/domains?names=apps.example.test").await;
    let system = system["guid"].as_str().unwrap();
    for (host, domain, said) in [
        ("login", system, "Route conflicts with a reserved system route."),
        ("Api", system, "Route conflicts with a reserved system route."),
        ("web1.apps", system, "Host must be either"),
        ("taken", &apps, "Route conflicts with domain 'taken.apps.example.test'."),
    ] {
        let (status, detail) = make("/v3/routes", route_of(host, domain, &space)).await;
        assert!(status == 422 && detail.contains(said), "{host}: {status} {detail}");
    }
    assert_eq!(make("/v3/routes", route_of("web1", system, &space)).await.0, 201);
    platform.controller.close().await;
}

fn route_of(host: &str, domain: &str, space: &str) -> Value {
    json!({"host": host, "relationships": {"space": {"data": {"guid": space}},
        "domain": {"data": {"guid": domain}}}})
}

#[tokio::test]
async fn what_is_not_understood_is_refused_in_the_original_s_words() {
    let platform = Platform::new().await;
    let ask = |method: &'static str, path: &'static str, body: &'static str| {
        let platform = &platform;
        async move {
            let body = body.as_bytes().to_vec();
            let answer = platform.send(method, path, "application/json", body).await;
            let error = answer.json()["errors"][0].clone();
            (answer.0.status().as_u16(), error["code"].as_u64().unwrap(), error["detail"].clone())
        }
    };
    for (method, path) in
        [("GET", "/v3/nothing"), ("PUT", "/v3/apps"), ("GET", "/v3/tasks"), ("GET", "/v2/info")]
    {
        assert_eq!(ask(method, path, "").await, (404, 10000, json!("Unknown request")), "{path}");
    }
    assert_eq!(ask("GET", "/v3/apps/nope", "").await, (404, 10010, json!("App not found")));
    assert_eq!(ask("GET", "/v3/apps?huh=1", "").await.1, 10005);
    assert_eq!(ask("GET", "/v3/apps?per_page=0", "").await.1, 10005);
    assert_eq!(ask("GET", "/v3/apps?order_by=guid", "").await.1, 10005);
    assert_eq!(ask("POST", "/v3/apps", "{").await.1, 1001);
    assert_eq!(ask("POST", "/v3/apps", "{}").await.1, 10008);
    for token in ["", "nonsense", "a.b.c"] {
        let answer = platform.send_as(token, "GET", "/v3/apps", "", Vec::new()).await;
        assert_eq!(answer.expect(401)["errors"][0]["code"], 1000, "{token:?}");
    }
    platform.controller.close().await;
}

#[tokio::test]
async fn lists_have_pages_filters_and_order() {
    let platform = Platform::new().await;
    let space = platform.guid("/v3/spaces?names=s1").await;
    for name in ["a", "b,c", "d", "e"] {
        let body = json!({"name": name, "metadata": {"labels": {"of": if name < "c" {"x"} else {"y"}}},
            "relationships": {"space": {"data": {"guid": space}}}});
        platform.post("/v3/apps", body).await.expect(201);
    }
    let names = |document: &Value| -> Vec<String> {
        let all = document["resources"].as_array().unwrap();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut found = Vec::new();
    let mut next = Some("/v3/apps?order_by=-name&per_page=3".to_owned());
    while let Some(path) = next {
        let page = platform.get(&path).await;
        assert_eq!(page["pagination"]["total_results"], 4);
        found.extend(names(&page));
        next = page["pagination"]["next"]["href"]
            .as_str()
            .map(|href| href.strip_prefix(CC).unwrap().to_owned());
    }
    assert_eq!(found, ["e", "d", "b,c", "a"]);
    assert_eq!(names(&platform.get("/v3/apps?names=b%252Cc,d").await), ["b,c", "d"]);
    assert_eq!(names(&platform.get("/v3/apps/?names=a").await), ["a"]);
    assert_eq!(names(&platform.get("/v3/apps?label_selector=of%20in%20(x)").await), ["a", "b,c"]);
    assert_eq!(names(&platform.get("/v3/apps?label_selector=of!%3Dx").await), ["d", "e"]);
    let future = "/v3/apps?created_ats[gt]=2100-01-01T00:00:00Z";
    assert_eq!(names(&platform.get(future).await), Vec::<String>::new());
    let included = platform.get("/v3/apps?include=space.organization&names=a").await;
    assert_eq!(included["included"]["spaces"][0]["name"], "s1");
    assert_eq!(included["included"]["organizations"][0]["name"], "o1");
    platform.controller.close().await;
}

#[tokio::test]
async fn files_that_were_sent_once_need_not_be_sent_again() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let body = json!({"type": "bits", "relationships": {"app": {"data": {"guid": app}}}});
    let large = 70_000;
    let first = platform.post("/v3/packages", body.clone()).await.expect(201);
    let path = format!("/v3/packages/{}/upload", first["guid"].as_str().unwrap());
    let file = zip_of(&[("large".into(), large), ("small".into(), 5)]);
    platform.upload(&path, &[("bits", Some("package.zip"), file.clone())]).await.expect(200);
    platform.upload(&path, &[("bits", Some("package.zip"), file)]).await.expect(400);
    let resource = json!({"path": "dir/large", "mode": "755", "size_in_bytes": large,
        "checksum": {"value": digest(large)}});
    let unknown = json!({"path": "u", "mode": "644", "size_in_bytes": large,
        "checksum": {"value": "0".repeat(40)}});
    let ask = json!({"resources": [resource, unknown]});
    // The pool is filled after the answer.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let matched = loop {
        let matched = platform.post("/v3/resource_matches", ask.clone()).await.expect(201);
        if matched["resources"].as_array().is_some_and(|list| !list.is_empty()) {
            break matched;
        }
        assert!(std::time::Instant::now() < deadline, "nothing is matched");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(matched["resources"], json!([resource]));
    let second = platform.post("/v3/packages", body).await.expect(201);
    let guid = second["guid"].as_str().unwrap();
    let list = matched["resources"].to_string().into_bytes();
    let answer =
        platform.upload(&format!("/v3/packages/{guid}/upload"), &[("resources", None, list)]).await;
    assert_eq!(answer.expect(200)["state"], "READY");
    let path = format!("/v3/packages/{guid}/download");
    let zip = platform.send("GET", &path, "", Vec::new()).await;
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zip.0.into_body())).unwrap();
    let entry = zip.by_index(0).unwrap();
    assert_eq!(entry.name().unwrap(), "dir/large");
    assert_eq!(entry.unix_mode().unwrap() & 0o777, 0o755);
    platform.controller.close().await;
}

fn digest(size: usize) -> String {
    use sha1::{Digest, Sha1};
    Sha1::digest(vec![b'x'; size]).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_broken_upload_can_be_repeated_and_a_bad_one_fails() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let body = json!({"type": "bits", "relationships": {"app": {"data": {"guid": app}}}});
    let made = platform.post("/v3/packages", body.clone()).await.expect(201);
    let path = format!("/v3/packages/{}", made["guid"].as_str().unwrap());
    let upload = format!("{path}/upload");
    let cut =
        b"--boundary\r\nContent-Disposition: form-data; name=\"bits\"; filename=\"a\"\r\n\r\nPK";
    let kind = "multipart/form-data; boundary=boundary";
    platform.send("POST", &upload, kind, cut.to_vec()).await.expect(400);
    assert_eq!(platform.get(&path).await["state"], "AWAITING_UPLOAD");
    let file = zip_of(&[("a".into(), 1)]);
    platform.upload(&upload, &[("bits", Some("a.zip"), file)]).await.expect(200);

    let made = platform.post("/v3/packages", body).await.expect(201);
    let path = format!("/v3/packages/{}", made["guid"].as_str().unwrap());
    let no_zip = [("bits", Some("a.zip"), b"no zip".to_vec())];
    platform.upload(&format!("{path}/upload"), &no_zip).await.expect(422);
    let failed = platform.get(&path).await;
    assert_eq!(failed["state"], "FAILED");
    assert!(failed["data"]["error"].as_str().unwrap().contains("invalid"), "{failed}");
    platform.controller.close().await;
}

#[tokio::test]
async fn only_one_build_of_an_app_is_staged_at_a_time() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let package = platform.package(&app).await;
    let body = json!({"package": {"guid": package}});
    let held = platform.cell.builds.clone().acquire_owned().await.unwrap();
    let first = platform.post("/v3/builds", body.clone()).await.expect(201);
    let second = platform.post("/v3/builds", body.clone()).await.expect(422);
    assert_eq!(second["errors"][0]["code"], 170017, "{second}");
    drop(held);
    let first = platform.get(&format!("/v3/builds/{}", first["guid"].as_str().unwrap())).await;
    assert_eq!(first["state"], "STAGED", "{first}");
    let next = platform.post("/v3/builds", body).await.expect(201);
    let next = platform.get(&format!("/v3/builds/{}", next["guid"].as_str().unwrap())).await;
    assert_eq!(next["state"], "STAGED", "{next}");
    platform.controller.close().await;
}

#[tokio::test]
async fn what_cells_bring_and_tell_is_taken_with_their_password_only() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let package = platform.package(&app).await;
    let held = platform.cell.builds.clone().acquire_owned().await.unwrap();
    let made = platform.post("/v3/builds", json!({"package": {"guid": package}})).await.expect(201);
    let build = made["guid"].as_str().unwrap();
    let completion = json!({"failed": true, "failure_reason": "a stranger says so"}).to_string();
    let internal = Peer::local(platform.controller.internal_routes());
    for path in [
        format!("/v1/droplet/{build}"),
        format!("/v1/build_artifacts/{app}"),
        format!("/internal/v3/staging/{build}/build_completed?start=false"),
        format!("/internal/v4/apps/{app}-{app}/crashed"),
    ] {
        for shown in ["", "Basic Y2VsbDp3cm9uZw=="] {
            let request = Request::post(&path)
                .header("authorization", shown)
                .header("content-type", "application/json")
                .body(Bytes::from(completion.clone()))
                .unwrap();
            assert_eq!(internal.send(request).await.unwrap().status(), 401, "{path} {shown:?}");
        }
    }
    drop(held);
    let ended = platform.get(&format!("/v3/builds/{build}")).await;
    assert_eq!(ended["state"], "STAGED", "{ended}");
    platform.controller.close().await;
}

#[tokio::test]
async fn the_end_of_a_build_is_told_when_its_log_can_have_been_read() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let package = platform.package(&app).await;
    platform.stage(&app, &package).await;
    let told = std::time::Instant::now();
    let ended = platform.cell.state.lock().unwrap().staged_at.unwrap();
    assert!(told - ended >= std::time::Duration::from_millis(250), "{:?}", told - ended);
    platform.controller.close().await;
}

#[tokio::test]
async fn who_asks_for_a_build_is_told_when_it_has_ended() {
    let platform = Platform::new().await;
    let app = platform.app("web1").await;
    let package = platform.package(&app).await;
    let turn = platform.cell.builds.acquire().await.unwrap();
    let made = platform.post("/v3/builds", json!({"package": {"guid": package}})).await.expect(201);
    assert_eq!(made["state"], "STAGING");
    let asked = async {
        let build = platform.get(&format!("/v3/builds/{}", made["guid"].as_str().unwrap())).await;
        (build["state"].clone(), Instant::now())
    };
    let ends = async {
        until("it is not staged", || !platform.cell.state.lock().unwrap().staging.is_empty()).await;
        drop(turn);
    };
    let ((state, told), ()) = tokio::join!(asked, ends);
    assert_eq!(state, "STAGED");
    // The CLI looks every three seconds.
    let late = told - platform.cell.state.lock().unwrap().staged_at.unwrap();
    assert!(late < Duration::from_secs(2), "told after {late:?}");
    platform.controller.close().await;
}

#[tokio::test]
async fn stats_are_held_only_while_something_starts_and_nothing_runs() {
    const HOLD: Duration = Duration::from_millis(2400);
    let platform = Platform::new().await;
    let app = platform.started("web1").await;
    let path = format!("/v3/apps/{app}/processes/web/stats");
    let stats = async || {
        let begun = Instant::now();
        let stats = platform.get(&path).await;
        (stats["resources"][0]["state"].clone(), begun.elapsed())
    };
    for state in [InstanceState::Running, InstanceState::Crashed, InstanceState::Down] {
        *platform.cell.become_.lock().unwrap() = state;
        let (told, took) = stats().await;
        assert_eq!(told, state.as_str());
        assert!(took < HOLD, "{told} after {took:?}");
    }

    *platform.cell.become_.lock().unwrap() = InstanceState::Starting;
    let (told, took) = stats().await;
    assert_eq!(told, "STARTING");
    assert!(took >= HOLD, "{took:?}");

    // It runs while somebody waits.
    let looks = || platform.cell.state.lock().unwrap().looks;
    let before = looks();
    let comes = async {
        until("nobody looks", || looks() > before).await;
        *platform.cell.become_.lock().unwrap() = InstanceState::Running;
    };
    let ((told, took), ()) = tokio::join!(stats(), comes);
    assert_eq!(told, "RUNNING");
    assert!(took < HOLD, "{took:?}");
    platform.controller.close().await;
}

#[tokio::test]
async fn a_crash_is_an_event_unless_the_process_has_another_version_by_now() {
    let platform = Platform::new().await;
    let app = platform.started("web1").await;
    let desired = || platform.cell.state.lock().unwrap().desired.keys().next().unwrap().clone();
    let data = |description: &str| {
        json!({"instance": "i", "index": 1, "cell_id": "c", "reason": "CRASHED",
            "exit_description": description, "crash_count": 2, "crash_timestamp": 3})
    };
    let crash = async |process: &str, description: &str| {
        // Where cells bring droplets to, with the password.
        let given = platform.cell.state.lock().unwrap().staged[0].droplet_upload.clone();
        let (controller, _) = given.split_once("/v1/").unwrap();
        let url = format!("{controller}/internal/v4/apps/{process}/crashed");
        platform.cell.post(&url, data(description).to_string().into_bytes()).await
    };
    let old = desired();
    assert_eq!(crash(&old, "first").await, 200);
    platform.act(&app, "restart").await;
    assert_ne!(desired(), old);
    assert_eq!(crash(&old, "of the past").await, 404);
    assert_eq!(crash(&desired(), "second").await, 200);
    for nonsense in ["x", &app] {
        assert_eq!(crash(nonsense, "of nobody").await, 404, "{nonsense}");
    }
    let path = format!("/v3/audit_events?types=audit.app.process.crash&target_guids={app}");
    let events = platform.get(&path).await["resources"].clone();
    let told: Vec<Value> =
        events.as_array().unwrap().iter().map(|event| event["data"].clone()).collect();
    assert_eq!(told, [data("first"), data("second")]);
    platform.controller.close().await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_runtime_is_brought_into_agreement() {
    let platform = Platform::new().await;
    platform.started("web1").await;
    let wanted = {
        let mut state = platform.cell.state.lock().unwrap();
        let (guid, mut recipe) = state.desired.drain().next().unwrap();
        // Lost there, and something that nobody wants.
        recipe.process_guid = "stray".into();
        state.desired.insert("stray".into(), recipe);
        guid
    };
    let controller = platform.controller.clone();
    let running = tokio::spawn(async move { controller.run().await });
    let cell = platform.cell.clone();
    until("the runtime is not in agreement", || {
        let state = cell.state.lock().unwrap();
        let names: Vec<&String> = state.desired.keys().collect();
        names == [&wanted] && state.fresh > 0
    })
    .await;
    platform.controller.close().await;
    running.await.unwrap();
}

#[tokio::test]
async fn a_job_that_a_crash_interrupted_is_done_at_the_next_start() {
    let platform = Platform::new().await;
    let app = platform.started("web1").await;
    platform.controller.close().await;
    let file = platform.directory().join("cc/cloud_controller.db");
    let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect(file.to_str().unwrap())
        .await
        .unwrap();
    let work = json!({"work": {"do": "delete_app", "guid": app},
        "actor": {"guid": "g", "kind": "user", "name": "admin"}});
    sqlx::query(
        "INSERT INTO jobs (guid, operation, work, resource_type, resource_guid, state, \
         created_at, updated_at) VALUES ('job', 'app.delete', ?, 'apps', ?, 'PROCESSING', 0, 0)",
    )
    .bind(work.to_string())
    .bind(&app)
    .execute(&mut conn)
    .await
    .unwrap();
    drop(conn);
    let platform = platform.again().await;
    let job = platform.get("/v3/jobs/job").await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    let path = format!("/v3/apps/{app}");
    platform.send("GET", &path, "application/json", Vec::new()).await.expect(404);
    assert!(platform.cell.state.lock().unwrap().desired.is_empty(), "it still runs");
    platform.controller.close().await;
}

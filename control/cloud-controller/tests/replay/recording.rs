//! Reads recordings and plays them.

use std::collections::HashMap;

use cloud_controller::InstanceState;
use serde_json::{Value, json};

use crate::effects;
use crate::platform::{Answer, CC, Platform, multipart, zip_of};

struct Case {
    name: String,
    given: String,
    requests: Vec<Value>,
}

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");

fn cases(file: &str) -> Vec<Case> {
    let path = format!("{RECORDINGS}/{file}.jsonl");
    let mut cases: Vec<Case> = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(name) = line["case"].as_str() {
            let given = line["given"].as_str().unwrap_or_default().to_owned();
            cases.push(Case { name: name.into(), given, requests: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            case.requests.push(line);
        }
    }
    cases
}

/// Why cases are not played, by name.
fn left_out() -> HashMap<String, String> {
    let path = format!("{RECORDINGS}/left-out.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    let entries = lines.map(|line| {
        let (name, why) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
        (name.to_owned(), why.to_owned())
    });
    entries.collect()
}

/// Plays all cases of a file but those that are left out for a reason.
pub async fn replay_all(file: &str) {
    let left_out = left_out();
    let mut failed = Vec::new();
    for case in cases(file) {
        let name = case.name.clone();
        if left_out.contains_key(&name) {
            continue;
        }
        // Each panic is told as it comes.
        if tokio::spawn(async move { play(&case).await }).await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{file}: {failed:?}");
}

/// All recordings are `replayed`, and what is left out of them exists.
pub fn check_completeness(replayed: &[&str]) {
    let files = std::fs::read_dir(RECORDINGS).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names = Vec::new();
    for file in files.filter_map(|file| file.strip_suffix(".jsonl").map(str::to_owned)) {
        assert!(replayed.contains(&&*file), "{file} is not replayed");
        names.extend(cases(&file).into_iter().map(|case| case.name));
    }
    for (name, _) in left_out() {
        assert!(names.contains(&name), "{name} is left out of nothing");
    }
}

/// What the placeholders of a case stand for.
type Names = HashMap<String, String>;

async fn play(case: &Case) {
    let mut platform = Platform::new().await;
    let mut names = Names::new();
    names.insert("org1".into(), platform.guid("/v3/organizations?names=o1").await);
    names.insert("space1".into(), platform.guid("/v3/spaces?names=s1").await);
    names.insert("quota1".into(), platform.guid("/v3/organization_quotas").await);
    names.insert("stack1".into(), platform.guid("/v3/stacks").await);
    let domain = platform.guid("/v3/domains?names=apps.example.test").await;
    names.insert("domain1".into(), domain);
    for (number, name) in ["staticfile_buildpack", "binary_buildpack"].iter().enumerate() {
        let guid = platform.guid(&format!("/v3/buildpacks?names={name}")).await;
        names.insert(format!("buildpack{}", number + 1), guid);
    }
    prepare(case, &platform, &mut names).await;
    names.insert("CC".into(), CC.into());
    names.insert("tmp".into(), "/directory".into());
    let admin = platform.token.clone();
    if case.given.contains("answers 403") {
        platform.token = auditor(&platform).await;
    }
    for request in &case.requests {
        if request["to"] == "CC" {
            ask(case, &platform, &mut names, request).await;
        }
    }
    platform.token = admin;
    effects::check(&case.name, &platform, &names).await;
    platform.controller.close().await;
}

/// Brings the platform into the state that a case is given.
async fn prepare(case: &Case, platform: &Platform, names: &mut Names) {
    let given = &*case.given;
    if given.contains("orgs o1 and o2") {
        let made = platform.post("/v3/organizations", json!({"name": "o2"})).await.expect(201);
        names.insert("org2".into(), made["guid"].as_str().unwrap().into());
    }
    if given.contains("private domain p.example.test") {
        let org = &names["org1"];
        let body = json!({"name": "p.example.test",
            "relationships": {"organization": {"data": {"guid": org}}}});
        let made = platform.post("/v3/domains", body).await.expect(201);
        names.insert("domain3".into(), made["guid"].as_str().unwrap().into());
    }
    if given.contains("60 stopped apps") {
        let space = &names["space1"];
        for number in 0..60 {
            let body = json!({"name": format!("app{number:02}"),
                "relationships": {"space": {"data": {"guid": space}}}});
            platform.post("/v3/apps", body).await.expect(201);
        }
        return;
    }
    if given.contains("instances CRASHED") {
        *platform.cell.become_.lock().unwrap() = InstanceState::Crashed;
    }
    if given.contains("process types web and worker") {
        let types = json!({"web": "./web", "worker": "./worker"});
        *platform.cell.process_types.lock().unwrap() = types;
    }
    if given.contains("instances stay STARTING") {
        *platform.cell.become_.lock().unwrap() = InstanceState::Starting;
    }
    let staging_fails = given.contains("staging fails");
    if !given.contains("web1") {
        if staging_fails {
            *platform.cell.builder.lock().unwrap() = 222;
        }
        return;
    }
    let app = platform.app("web1").await;
    names.insert("app1".into(), app.clone());
    names.insert("process1".into(), app.clone());
    let routes = platform.get(&format!("/v3/apps/{app}/routes")).await;
    names.insert("route1".into(), routes["resources"][0]["guid"].as_str().unwrap().into());
    let destination = &routes["resources"][0]["destinations"][0]["guid"];
    names.insert("destination1".into(), destination.as_str().unwrap().into());
    if given.contains("web2") {
        names.insert("app2".into(), platform.started("web2").await);
    }
    if !given.contains("no droplet") {
        let package = platform.package(&app).await;
        names.insert("droplet1".into(), platform.stage(&app, &package).await);
        names.insert("package1".into(), package);
    }
    if !given.contains("stopped") {
        platform.act(&app, "start").await;
    }
    if given.contains("newer READY package") {
        names.insert("package2".into(), platform.package(&app).await);
    }
    if given.contains("has the key K") {
        let path = format!("/v3/apps/{app}/environment_variables");
        platform.patch(&path, json!({"var": {"K": "V"}})).await.expect(200);
    }
    if staging_fails {
        *platform.cell.builder.lock().unwrap() = 222;
    }
}

/// Somebody who may look at the space, and no more.
async fn auditor(platform: &Platform) -> String {
    for (role, kind, path) in [
        ("organization_user", "organization", "/v3/organizations?names=o1"),
        ("space_auditor", "space", "/v3/spaces?names=s1"),
    ] {
        let guid = platform.guid(path).await;
        let body = json!({"type": role, "relationships": {"user": {"data": {"username": "dev"}},
            kind: {"data": {"guid": guid}}}});
        platform.post("/v3/roles", body).await.expect(201);
    }
    platform.token_of("dev").await
}

fn fill(text: &str, names: &Names) -> String {
    let mut filled = text.to_owned();
    for (name, value) in names {
        filled = filled.replace(&format!("{{{{{name}}}}}"), value);
    }
    filled
}

async fn ask(case: &Case, platform: &Platform, names: &mut Names, line: &Value) {
    let text = line["request"].as_str().unwrap();
    let filled = fill(text, names);
    let (method, path) = filled.split_once(' ').unwrap();
    assert!(!path.contains("{{"), "{}: nothing is known of {text}", case.name);
    let kind = line["content_type"].as_str().unwrap_or("application/json");
    let (kind, body) = match &line["parts"] {
        Value::Array(parts) => ("multipart/form-data; boundary=boundary", upload(parts)),
        _ => {
            let body = match &line["body"] {
                Value::Null => String::new(),
                Value::String(text) => fill(text, names),
                value => fill(&value.to_string(), names),
            };
            (kind, body.into_bytes())
        }
    };
    // Tests that wait for a staging or a start end when it fails, so the last status counts.
    let answer = platform.send(method, path, kind, body).await;
    let status = line["status"].as_u64().unwrap();
    assert_eq!(
        u64::from(answer.0.status().as_u16()),
        status,
        "{}: {method} {path}: {:?}",
        case.name,
        answer.0.body()
    );
    learn_job(&answer, names, line);
    if status < 300 || [403, 404, 422].contains(&status) {
        let at = format!("{}: {method} {path}: answer", case.name);
        covers(&answer.json(), &line["answer"], names, &at);
    }
}

/// The job that an answer names, in the recording and here.
fn learn_job(answer: &Answer, names: &mut Names, line: &Value) {
    if let Some(recorded) = line["answer_headers"]["Location"].as_str() {
        let name = recorded.rsplit("{{").next().unwrap().trim_end_matches("}}");
        let location = answer.location();
        names.insert(name.to_owned(), location.rsplit('/').next().unwrap().to_owned());
    }
}

fn upload(parts: &[Value]) -> Vec<u8> {
    let mut built = Vec::new();
    for part in parts {
        let head = part["headers"].as_array().unwrap()[0].as_str().unwrap();
        let quoted = |name: &str| {
            let (_, rest) = head.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let content = match part["zip"].as_array() {
            Some(entries) => zip_of(
                &entries
                    .iter()
                    .map(|entry| {
                        let size = usize::try_from(entry[2].as_u64().unwrap()).unwrap();
                        (entry[0].as_str().unwrap().to_owned(), size)
                    })
                    .collect::<Vec<_>>(),
            ),
            None => part["content"].as_str().unwrap_or("[]").as_bytes().to_vec(),
        };
        built.push((quoted(" name").unwrap(), quoted("filename"), content));
    }
    let parts: Vec<_> = built
        .iter()
        .map(|(name, file, content)| (&**name, file.as_deref(), content.clone()))
        .collect();
    multipart(&parts)
}

/// Fields whose values are protocol, or what the case is about.
const EXACT: [&str; 15] = [
    "name",
    "state",
    "host",
    "path",
    "type",
    "detail",
    "code",
    "title",
    "matching_route",
    "protocol",
    "reason",
    "enabled",
    "position",
    "internal",
    "command",
];

/// Everything that the recording names is there, of the same kind; guids are the same ones.
fn covers(found: &Value, recorded: &Value, names: &mut Names, at: &str) {
    match recorded {
        Value::Object(fields) => {
            for (name, value) in fields {
                // Nothing is measured here; an empty object is what clients take for that. What an event
                // tells depends on the event, and ours is another one.
                if name == "usage" || (name == "data" && at.starts_with("events:")) {
                    assert!(found[name].is_object(), "{at}.{name} is missing in {found}");
                    continue;
                }
                // Answers are held until a state is final, and revisions are not served yet.
                let passing = ["STAGING", "PROCESSING"].iter().any(|state| value == *state);
                if (name == "state" && passing) || name == "revision" {
                    continue;
                }
                // The stand-in gave these to every resource, the original not to jobs.
                if at.contains("GET /v3/jobs/") && (name == "relationships" || name == "metadata") {
                    continue;
                }
                let inner = found.get(name);
                let inner = inner.unwrap_or_else(|| panic!("{at}.{name} is missing in {found}"));
                let at = format!("{at}.{name}");
                covers(inner, value, names, &at);
                let text = value.as_str().unwrap_or_default();
                if EXACT.contains(&&**name) && !text.contains("{{") && !value.is_object() {
                    let same = inner == value
                        || at.contains("links.")
                        || at.starts_with("events:")
                        // The stand-in staged everything with the same one.
                        || at.contains(".buildpacks[")
                        || (name == "host" && at.contains("/stats"));
                    assert!(same, "{at} is {inner}, not {value}");
                }
            }
        }
        Value::Array(items) => {
            let count = found.as_array().map_or(0, Vec::len);
            assert!(count >= items.len(), "{at} has {count} elements: {found}");
            for (index, value) in items.iter().enumerate() {
                covers(&found[index], value, names, &format!("{at}[{index}]"));
            }
        }
        Value::String(text) if text.starts_with("{{") && text.ends_with("}}") => {
            let name = text.trim_matches(['{', '}']);
            let known = found.as_str().unwrap_or_else(|| panic!("{at} is {found}, not {text}"));
            if name.chars().last().is_some_and(|last| last.is_ascii_digit()) {
                let bound = names.entry(name.to_owned()).or_insert_with(|| known.to_owned());
                assert_eq!(bound, known, "{at} is not the {name} that was seen before");
            }
        }
        Value::Null => {}
        _ => assert_eq!(
            std::mem::discriminant(found),
            std::mem::discriminant(recorded),
            "{at} is {found}, not like {recorded}"
        ),
    }
}

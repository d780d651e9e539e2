//! A push, call by call as the cf CLI makes it, and what becomes of the app then. After each call its
//! effect is looked for in the BBS, at Garden and behind the router.

use std::net::TcpStream;

use bbs_client::Events;
use bbs_models::{Event, Task};
use platform_tests::apps::{self, App};
use platform_tests::outside::{self, Outside};
use platform_tests::{Api, Part, Platform, Sent, Told, eventually, guid};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use x509_parser::pem::Pem;

#[test]
fn a_push_and_all_that_follows_reaches_cell_and_router() -> Told<()> {
    let platform = Platform::started(0);
    let api = platform.log_in()?;
    let app = pushed(&platform, &api)?;
    scaled(&platform, &api, &app)?;
    crashed(&platform, &api, &app)?;
    stopped_and_started(&platform, &api, &app)?;
    pushed_again(&platform, &api, &app)?;

    let route = guid(&api.one(&format!("/v3/apps/{app}/routes"))?);
    api.delete_by_job(&format!("/v3/apps/{app}"))?;
    api.get_status(&format!("/v3/apps/{app}"), 404)?;
    is_nowhere(&platform);
    api.delete_by_job(&format!("/v3/routes/{route}"))?;
    api.get_status(&format!("/v3/routes/{route}"), 404)
}

fn pushed(platform: &Platform, api: &Api<'_>) -> Told<String> {
    let files = apps::server("hello", "one");
    // The manifest: app and route are there, and nothing runs.
    let manifest = files.manifest("memory: 64M\nenv:\n  GREETING: hello there");
    assert!(api.diff(&manifest)?["diff"].is_array());
    let app = api.apply(&manifest, "hello")?;
    assert_eq!(app["state"], "STOPPED");
    let app = guid(&app);
    let route = api.one(&format!("/v3/apps/{app}/routes"))?;
    assert_eq!(route["url"], "hello.apps.bloomery.localhost");
    is_nowhere(platform);

    assert!(api.matches(&files)?.is_empty(), "nobody has seen these files");
    let droplet = stage(platform, api, &app, &files)?;
    api.logged(&app, "STG", "Python buildpack");
    let staged = api.get(&format!("/v3/droplets/{droplet}"))?;
    assert_eq!((&staged["state"], &staged["stack"]), (&json!("STAGED"), &json!("base")));
    assert_eq!(staged["process_types"]["web"], "exec python3 app.py");
    // The stager is gone, and the app is not there yet.
    is_nowhere(platform);

    api.assign(&app, &droplet)?;
    assert_eq!(guid(&api.get(&format!("/v3/apps/{app}/droplets/current"))?), droplet);
    assert_eq!(api.act(&app, "restart")?, "STARTED");
    let process = api.web(&app)?;
    let stats = api.started(&process);
    assert_eq!(stats["resources"].as_array().map(Vec::len), Some(1));
    assert_eq!(stats["resources"][0]["index"], 0);

    let desired = platform.desired();
    let [lrp] = &desired[..] else { panic!("{desired:?}") };
    assert!(lrp.process_guid.starts_with(&process), "{} of {process}", lrp.process_guid);
    assert_eq!((lrp.instances, lrp.memory_mb, lrp.domain.as_str()), (1, 64, "cf-apps"));
    let routes = String::from_utf8_lossy(&lrp.routes.routes["cf-router"]);
    assert!(routes.contains("hello.apps.bloomery.localhost"), "{routes}");
    let instances = platform.running(1);
    platform.containers_are(&instances);
    let said = says(platform, "version", "one");
    assert_eq!((&said["instance"], &said["index"]), (&json!(instances[0]), &json!("0")));
    expect_large_file(platform, &files);
    assert_eq!(platform.app("hello", "/env/GREETING").unwrap().text(), "hello there");
    expect_identity(platform, api, &app, &instances[0])?;

    // What the cf CLI shows at the end.
    assert_eq!(api.get(&format!("/v3/processes/{process}"))?["command"], "exec python3 app.py");
    api.get(&format!("/v3/processes/{process}/sidecars"))?;
    api.get(&format!("/v3/deployments?app_guids={app}&status_values=ACTIVE"))?;
    platform.app("hello", "/log/a-line-of-the-app").unwrap();
    api.logged(&app, "APP/PROC/WEB", "a-line-of-the-app");
    api.logged(&app, "RTR", "GET /log/a-line-of-the-app");
    Ok(app)
}

fn scaled(platform: &Platform, api: &Api<'_>, app: &str) -> Told<()> {
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let first = platform.running(1);
    api.post(&scale, &json!({ "instances": 2 }), 202)?;
    let both = platform.running(2);
    assert_eq!(both[0], first[0], "the first one is left alone");
    platform.containers_are(&both);
    assert_eq!(platform.desired()[0].instances, 2);
    for (index, instance) in both.iter().enumerate() {
        says(platform, "instance", instance);
        let said = platform.app_instance("hello", app, index);
        assert_eq!(said["instance"], **instance);
    }
    let stats = api.get(&format!("/v3/apps/{app}/processes/web/stats"))?;
    assert_eq!(stats["resources"].as_array().map(Vec::len), Some(2));

    // One of them is replaced.
    api.delete(&format!("/v3/apps/{app}/processes/web/instances/1"))?;
    eventually("another one is at this index", || {
        let now = platform.running(2);
        if now[0] == both[0] && now[1] != both[1] { Ok(()) } else { Err(format!("{now:?}")) }
    });
    platform.containers_are(&platform.running(2));

    api.post(&scale, &json!({ "instances": 1 }), 202)?;
    assert_eq!(platform.running(1), first);
    platform.containers_are(&first);
    eventually("the router leads to the first one alone", || {
        let said: Vec<_> = (0..4).map(|_| platform.app_answers("hello")).collect();
        if said.iter().all(|said| said["index"] == "0") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    Ok(())
}

/// It ends by itself until it is left alone for a while; users read when and why.
fn crashed(platform: &Platform, api: &Api<'_>, app: &str) -> Told<()> {
    const REASON: &str = "APP/PROC/WEB: Exited with status 7";
    const STARTED_AGAIN_AT_ONCE: usize = 2;
    let to = format!("/v3/audit_events?types=audit.app.process.crash&target_guids={app}");
    let mut instance = String::new();
    for count in 1..=STARTED_AGAIN_AT_ONCE + 1 {
        let said = eventually("another instance answers", || {
            let said = platform.app_answers("hello");
            if said["instance"] == *instance { Err(said.to_string()) } else { Ok(said) }
        });
        instance = said["instance"].as_str().unwrap().to_owned();
        assert!(platform.app("hello", "/exit/7").is_ok(), "the router answers for it");
        let events = eventually("the crash is an event", || {
            let events = api.get(&to)?["resources"].as_array().cloned().unwrap();
            if events.len() == count { Ok(events) } else { Err(format!("{events:?}")) }
        });
        let of = |event: &&serde_json::Value| event["data"]["instance"] == *instance;
        let event = events.iter().find(of).ok_or_else(|| format!("{events:?}"))?;
        assert_eq!(event["data"]["exit_description"], REASON, "{event}");
        assert_eq!(event["data"]["crash_count"], count, "{event}");
        assert_eq!(
            (&event["data"]["index"], &event["data"]["reason"]),
            (&json!(0), &json!("CRASHED"))
        );
    }
    let process = api.web(app)?;
    eventually("its state says why", || {
        let stats = api.get(&format!("/v3/processes/{process}/stats"))?;
        let [only] = stats["resources"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(stats.to_string());
        };
        let says = only["state"] == "CRASHED" && only["details"] == REASON;
        if says { Ok(()) } else { Err(stats.to_string()) }
    });
    api.logged(app, "APP/PROC/WEB", "Exit status 7");
    assert_eq!(api.act(app, "restart")?, "STARTED");
    Ok(())
}

fn stopped_and_started(platform: &Platform, api: &Api<'_>, app: &str) -> Told<()> {
    let before = platform.running(1);
    assert_eq!(api.act(app, "stop")?, "STOPPED");
    is_nowhere(platform);
    let variables = json!({ "var": { "GREETING": "again" } });
    api.patch(&format!("/v3/apps/{app}/environment_variables"), &variables)?;
    assert_eq!(api.act(app, "start")?, "STARTED");
    let after = platform.running(1);
    assert_ne!(before, after);
    platform.containers_are(&after);
    says(platform, "instance", &after[0]);
    assert_eq!(platform.app("hello", "/env/GREETING").unwrap().text(), "again");
    Ok(())
}

fn pushed_again(platform: &Platform, api: &Api<'_>, app: &str) -> Told<()> {
    let before = platform.desired()[0].process_guid.clone();
    let files = apps::server("hello", "two");
    let applied = api.apply(&files.manifest("memory: 96M"), "hello")?;
    assert_eq!(guid(&applied), app, "it is the same app");
    let matched = api.matches(&files)?;
    let names: Vec<_> = matched.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["large.bin"], "what is large is kept for the next push");
    let droplet = stage(platform, api, app, &files)?;
    assert_eq!(platform.app_answers("hello")["version"], "one", "staging disturbs nobody");
    api.assign(app, &droplet)?;
    assert_eq!(api.act(app, "restart")?, "STARTED");
    let said = says(platform, "version", "two");
    let instances = platform.running(1);
    assert_eq!(said["instance"], *instances[0]);
    platform.containers_are(&instances);
    let desired = platform.desired();
    assert!(desired.len() == 1 && desired[0].process_guid != before, "{desired:?}");
    assert_eq!(desired[0].memory_mb, 96);
    expect_large_file(platform, &files);
    Ok(())
}

/// Uploads the app's files and has them built on the cell; the droplet.
fn stage(platform: &Platform, api: &Api<'_>, app: &str, files: &App) -> Told<String> {
    let matched = api.matches(files)?;
    let package = api.package(app)?;
    assert_eq!(package["state"], "AWAITING_UPLOAD");
    let package = guid(&package);
    api.upload(&package, files, &matched)?;

    let mut tasks = platform.wait(platform.bbs().task_events()).unwrap();
    let build = api.build(&package)?;
    let droplet = api.droplet(&build)?;
    let told = until_removed(platform, &mut tasks, &build);
    assert!(told.iter().all(|task| task.domain == "cf-app-staging"), "{told:?}");
    assert!(told.iter().any(|task| task.cell_id == "cell-1"), "a cell has run it: {told:?}");
    assert!(told.iter().all(|task| !task.failed), "{told:?}");
    let of_package = api.one(&format!("/v3/packages/{package}/droplets?states=STAGED"))?;
    assert_eq!(guid(&of_package), droplet);
    Ok(droplet)
}

/// All that a BBS tells of a task, up to its end.
fn until_removed(platform: &Platform, events: &mut Events, guid: &str) -> Vec<Task> {
    let mut told = Vec::new();
    loop {
        let event = platform.wait(events.next()).unwrap().expect("the BBS goes on");
        let (task, is_end) = match event {
            Event::TaskCreated(event) => (event.task, false),
            Event::TaskChanged(event) => (event.after, false),
            Event::TaskRemoved(event) => (event.task, true),
            other => panic!("{other:?}"),
        };
        let Some(task) = task.into_option().filter(|task| task.task_guid == guid) else { continue };
        told.push(task);
        if is_end {
            return told;
        }
    }
}

/// What the app says of itself, once it says this.
fn says(platform: &Platform, key: &str, value: &str) -> serde_json::Value {
    eventually("the app says so", || {
        let said = platform.app_answers("hello");
        if said[key] == value { Ok(said) } else { Err(said.to_string()) }
    })
}

fn expect_large_file(platform: &Platform, files: &App) {
    let (_, bytes) = files.files.iter().find(|(path, _)| *path == "large.bin").unwrap();
    let served = platform.app("hello", "/file/large.bin").unwrap();
    assert!(served.body == *bytes, "the file is whole: {} bytes", served.body.len());
}

/// The app has a certificate of its own, its key, and the certificate of who vouches for it.
fn expect_identity(platform: &Platform, api: &Api<'_>, app: &str, instance: &str) -> Told<()> {
    let read = |path: &str| platform.app("hello", &format!("/read/{path}")).unwrap().text();
    let chain = read("CF_INSTANCE_CERT");
    let issuer = read("CF_SYSTEM_CERT_PATH/instance-identity-ca.crt");
    let pem = |text: &str| Pem::iter_from_buffer(text.as_bytes()).next().unwrap().unwrap();
    let (chain, issuer) = (pem(&chain), pem(&issuer));
    let (leaf, issuer) = (chain.parse_x509().unwrap(), issuer.parse_x509().unwrap());
    leaf.verify_signature(Some(issuer.public_key())).unwrap();
    let space = api.get(&format!("/v3/spaces/{}", api.space))?;
    let org = space["relationships"]["organization"]["data"]["guid"].as_str().unwrap();
    let subject =
        format!("OU=organization:{org}, OU=space:{}, OU=app:{app}, CN={instance}", api.space);
    assert_eq!(leaf.subject().to_string(), subject);
    let key = KeyPair::from_pem(&read("CF_INSTANCE_KEY")).unwrap();
    assert_eq!(*leaf.public_key().subject_public_key.data, *key.der_bytes());
    Ok(())
}

/// Nothing of an app is anywhere.
fn is_nowhere(platform: &Platform) {
    platform.app_is_unknown("hello");
    platform.containers_are(&[]);
    platform.running(0);
    assert!(platform.desired().is_empty());
}

#[test]
fn an_app_resolves_names_and_reaches_what_security_groups_allow() -> Told<()> {
    let platform = Platform::new(2);
    let _outside = Outside::of(platform.world());
    platform.put_stack();
    platform.up(&[&format!("--garden=--dns-server={}", outside::PUBLIC)]);
    platform.log_in()?.push(&apps::server("abroad", "one"))?;
    platform.app_answers("abroad");
    let fetched = |host: &str| platform.app("abroad", &format!("/fetch/{host}")).unwrap().text();
    // Others see the machine, not the container.
    let hello = format!("hello {}", outside::OWN);
    assert_eq!(fetched(outside::NAME), hello);
    assert_eq!(fetched(&outside::PUBLIC.to_string()), hello);
    assert!(fetched("nobody.example").starts_with("gaierror: "));

    let direct = platform.world().inside(|| TcpStream::connect((outside::PRIVATE, 80)));
    direct.expect("the machine itself reaches it");
    let denied = fetched(&outside::PRIVATE.to_string());
    assert!(
        denied.starts_with("ConnectionRefusedError: ") || denied.starts_with("TimeoutError: "),
        "{denied}"
    );
    Ok(())
}

#[test]
fn an_upload_that_is_hit_is_told_to_have_failed_and_leaves_no_half_package() -> Told<()> {
    let platform = Platform::started(1);
    let files = apps::server("uploaded", "first");
    let app = guid(&platform.log_in()?.apply(&files.manifest("memory: 64M"), files.name)?);
    for sent in [Sent::Half, Sent::AllButOne, Sent::All] {
        let api = platform.log_in()?;
        let package = guid(&api.package(&app)?);
        let upload = api.begin_upload(&package, &files, sent).unwrap();
        if sent != Sent::All {
            eventually("the upload is under way", || {
                let now = api.one(&format!("/v3/packages?guids={package}"))?;
                let is_on = now["state"] == "PROCESSING_UPLOAD";
                if is_on { Ok(()) } else { Err(now.to_string()) }
            });
        }
        platform.kill_and_wait(Part::Platform);
        drop(upload);

        let api = platform.log_in()?;
        let path = format!("/v3/packages/{package}");
        let now = api.get(&path)?;
        println!("{sent:?} was sent: {}", now["state"]);
        if now["state"] == "FAILED" {
            assert_eq!(now["data"]["error"], "The upload was interrupted.", "{now}");
            api.get_status(&format!("{path}/download"), 422)?;
            continue;
        }
        // Nobody knows how far a whole request had come.
        assert_eq!(sent, Sent::All, "{now}");
        let whole = match now["state"].as_str() {
            Some("AWAITING_UPLOAD") => api.upload(&package, &files, &[])?,
            _ => now,
        };
        assert_eq!(whole["state"], "READY", "{whole}");
        let digest = Sha256::digest(api.download(&package)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(whole["data"]["checksum"]["value"], *digest, "{whole}");
    }
    // Clients make another package then.
    platform.log_in()?.push(&files)?;
    assert_eq!(platform.app_answers("uploaded")["version"], "first");
    Ok(())
}

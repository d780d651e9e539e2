//! What cases must have changed, beside having answered.

use std::collections::HashMap;

use serde_json::json;

use crate::platform::Platform;

pub async fn check(case: &str, platform: &Platform, names: &HashMap<String, String>) {
    let app = names.get("app1").map(String::as_str).unwrap_or_default();
    let desired = |name: &str| {
        let state = platform.cell.state.lock().unwrap();
        let found = state.desired.values().filter(|recipe| recipe.place.app_name == name);
        found.cloned().collect::<Vec<_>>()
    };
    let is_gone = |path: String| async move {
        let answer = platform.send("GET", &path, "application/json", Vec::new()).await;
        assert_eq!(answer.0.status().as_u16(), 404, "{case}: {path} is still there");
    };
    match case {
        "delete" | "delete-r" => {
            is_gone(format!("/v3/apps/{app}")).await;
            assert!(desired("web1").is_empty(), "{case}: it still runs");
        }
        "delete-space" => is_gone(format!("/v3/spaces/{}", names["space1"])).await,
        "delete-org" => is_gone(format!("/v3/organizations/{}", names["org2"])).await,
        "delete-route" => is_gone(format!("/v3/routes/{}", names["route1"])).await,
        "delete-private-domain" => is_gone(format!("/v3/domains/{}", names["domain3"])).await,
        "create-space" => {
            let roles = platform.get(&format!("/v3/roles?space_guids={}", names["space2"])).await;
            assert_eq!(roles["pagination"]["total_results"], 2, "{roles}");
        }
        "push-processes" | "push-no-wait" => {
            let mut running: Vec<_> = desired("multi")
                .into_iter()
                .map(|recipe| (recipe.command, recipe.memory_mb, recipe.instances))
                .collect();
            running.sort();
            // What stands beside the processes is not for `web` where that is one of them.
            let expected = [("./web", 1024), ("./worker", 32)];
            let expected = expected.map(|(command, memory)| (command.to_owned(), memory, 1));
            assert_eq!(running, expected, "{case}");
        }
        "stop" => assert!(desired("web1").is_empty(), "it still runs"),
        "start" | "restart" | "restage" | "scale-m" | "scale-m-yes" => {
            let running = desired("web1");
            assert_eq!(running.len(), 1, "{case}");
            let memory = if case.starts_with("scale") { 128 } else { 64 };
            assert_eq!(running[0].memory_mb, memory, "{case}");
            assert_eq!(running[0].command, "$HOME/boot.sh");
        }
        "scale-i" => assert_eq!(desired("web1")[0].instances, 2),
        "map-route" => {
            let urls: Vec<String> =
                desired("web1")[0].routes.iter().map(|route| route.url.clone()).collect();
            assert_eq!(urls, ["web1.apps.example.test", "h2.apps.example.test"]);
        }
        "map-route-http2" => assert_eq!(desired("web1")[0].routes[1].protocol, "http2"),
        "map-route-options" => {
            let options = &desired("web1")[0].routes[1].options;
            assert_eq!(options["loadbalancing"], "least-connection");
        }
        "unmap-route" => assert!(desired("web1")[0].routes.is_empty()),
        "set-env" | "unset-env" => {
            let env = platform.get(&format!("/v3/apps/{app}/env")).await;
            let expected = if case == "set-env" { json!({"K": "V"}) } else { json!({}) };
            assert_eq!(env["environment_variables"], expected);
        }
        "restart-app-instance" => {
            assert_eq!(platform.cell.state.lock().unwrap().stopped.len(), 1);
        }
        "update-buildpack" => {
            let all = platform.get("/v3/buildpacks").await;
            assert_eq!(all["resources"][0]["name"], "binary_buildpack");
            assert_eq!(all["resources"][1]["position"], 2);
        }
        "push-manifest" => {
            let running = desired("web1");
            assert_eq!(running.len(), 1);
            assert!(running[0].environment.contains(&("A".into(), "1".into())));
            assert_eq!(running[0].routes[0].url, "web1.apps.example.test");
            let lines = platform.lines.lock().unwrap();
            assert!(lines.iter().any(|line| line.text.starts_with("Creating build for app")));
        }
        "push-nomanifest" => {
            assert_eq!(desired("web1")[0].instances, 2);
            assert_eq!(desired("web1")[0].routes[0].url, "web1.apps.example.test");
        }
        "push-staging-failed" => assert!(desired("web1").is_empty()),
        _ => {}
    }
}

//! What a manifest would change, as a list of operations on it.
//!
//! As in the original: only what the manifest names is compared, and nothing is ever removed.

use serde_json::{Map, Value, json};

use super::size;

/// Keys that are compared.
const KNOWN: [&str; 29] = [
    "name",
    "lifecycle",
    "stack",
    "buildpacks",
    "buildpack",
    "docker",
    "command",
    "memory",
    "disk_quota",
    "log-rate-limit-per-second",
    "instances",
    "timeout",
    "health-check-type",
    "health-check-http-endpoint",
    "health-check-invocation-timeout",
    "health-check-interval",
    "readiness-health-check-type",
    "readiness-health-check-http-endpoint",
    "readiness-health-check-invocation-timeout",
    "readiness-health-check-interval",
    "env",
    "routes",
    "no-route",
    "random-route",
    "default-route",
    "services",
    "sidecars",
    "processes",
    "metadata",
];

/// Operations that lead from what an app is to what the manifest's entry `index` says.
pub(crate) fn entry(
    index: usize,
    given: &Value,
    current: Option<&Map<String, Value>>,
) -> Vec<Value> {
    let mut changes = Vec::new();
    let current = current.map(with_web).unwrap_or_default();
    for (key, value) in given.as_object().into_iter().flatten() {
        // Clients write it with a dash too.
        let key = if key == "disk-quota" { "disk_quota" } else { key };
        if !KNOWN.contains(&key) {
            continue;
        }
        let path = format!("/applications/{index}/{key}");
        let value = plain(key, value);
        match key {
            // How to find a route, not what is.
            "no-route" | "random-route" | "default-route" if current.contains_key("routes") => {}
            _ => compare(&path, current.get(key), &value, &mut changes),
        }
    }
    changes
}

/// Settings of the `web` process can stand at the app as well.
fn with_web(current: &Map<String, Value>) -> Map<String, Value> {
    let mut all = current.clone();
    let processes = current.get("processes").and_then(Value::as_array);
    let web = processes.and_then(|all| all.iter().find(|process| process["type"] == "web"));
    for (key, value) in web.and_then(Value::as_object).into_iter().flatten() {
        if key != "type" {
            all.insert(key.clone(), value.clone());
        }
    }
    all
}

/// A value as we would write it.
fn plain(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("memory" | "disk_quota", Value::String(text)) => size::mebibytes(text)
            .map_or_else(|| value.clone(), |size| size::show_mebibytes(size).into()),
        ("log-rate-limit-per-second", value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            size::log_rate(&text)
                .map_or_else(|| value.clone(), |rate| size::show_log_rate(rate).into())
        }
        ("env", Value::Object(vars)) => {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            vars.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        }
        ("processes" | "sidecars", Value::Array(list)) => list
            .iter()
            .map(|one| {
                let mut entry = Map::new();
                for (key, value) in one.as_object().into_iter().flatten() {
                    let key = if key == "disk-quota" { "disk_quota" } else { key };
                    entry.insert(key.to_owned(), plain(key, value));
                }
                Value::Object(entry)
            })
            .collect(),
        _ => value.clone(),
    }
}

/// What names an element of a list.
fn name_of(value: &Value) -> Option<&Value> {
    ["type", "name", "route"].iter().find_map(|key| value.get(key))
}

fn compare(path: &str, old: Option<&Value>, new: &Value, changes: &mut Vec<Value>) {
    match (old, new) {
        (None, new) => changes.push(json!({"op": "add", "path": path, "value": new})),
        (Some(old), new) if old == new => {}
        (Some(Value::Object(old)), Value::Object(new)) => {
            for (key, value) in new {
                let key_path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                compare(&key_path, old.get(key), value, changes);
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            for (index, value) in new.iter().enumerate() {
                let same = |old: &&Value| match name_of(value) {
                    Some(name) => name_of(old) == Some(name),
                    None => *old == value,
                };
                compare(&format!("{path}/{index}"), old.iter().find(same), value, changes);
            }
        }
        (Some(old), new) => {
            changes.push(json!({"op": "replace", "path": path, "was": old, "value": new}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> Map<String, Value> {
        json!({
            "name": "web1",
            "stack": "cflinuxfs4",
            "env": {"A": "1"},
            "routes": [{"route": "web1.test", "protocol": "http1"}],
            "processes": [
                {"type": "web", "instances": 1, "memory": "64M"},
                {"type": "worker", "instances": 0, "memory": "1024M"},
            ],
        })
        .as_object()
        .cloned()
        .unwrap()
    }

    #[test]
    fn what_is_the_same_changes_nothing() {
        let given = json!({"name": "web1", "memory": "64MB", "env": {"A": 1}, "path": "/x",
            "default-route": true, "routes": [{"route": "web1.test"}]});
        assert_eq!(entry(0, &given, Some(&current())), Vec::<Value>::new());
    }

    #[test]
    fn differences_have_their_paths() {
        let given = json!({"memory": "128M", "env": {"A": "2", "B": "3"},
            "routes": [{"route": "web1.test"}, {"route": "w2.test"}],
            "processes": [{"type": "worker", "memory": "1G", "instances": 2}]});
        assert_eq!(
            entry(1, &given, Some(&current())),
            [
                json!({"op": "replace", "path": "/applications/1/memory", "was": "64M", "value": "128M"}),
                json!({"op": "replace", "path": "/applications/1/env/A", "was": "1", "value": "2"}),
                json!({"op": "add", "path": "/applications/1/env/B", "value": "3"}),
                json!({"op": "add", "path": "/applications/1/routes/1", "value": {"route": "w2.test"}}),
                json!({"op": "replace", "path": "/applications/1/processes/0/instances", "was": 0, "value": 2}),
            ]
        );
    }

    #[test]
    fn everything_of_a_new_app_is_added() {
        let changes = entry(0, &json!({"name": "new", "memory": "1G"}), None);
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|change| change["op"] == "add"));
    }
}

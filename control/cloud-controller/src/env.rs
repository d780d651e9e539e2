//! The environment of apps, as pure functions of what the database says.

use serde_json::{Map, Value, json};

use crate::store::routes::Mapping;

/// Open files of a process.
pub(crate) const FILE_DESCRIPTORS: u64 = 16384;

/// Where an app lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home<'a> {
    pub cf_api: String,
    pub app_guid: &'a str,
    pub app_name: &'a str,
    pub space_guid: &'a str,
    pub space_name: &'a str,
    pub org_guid: &'a str,
    pub org_name: &'a str,
}

/// What of `VCAP_APPLICATION` only a process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessPart<'a> {
    pub guid: &'a str,
    pub kind: &'a str,
    pub version: &'a str,
}

/// `VCAP_APPLICATION`: `limits` in MiB of memory and disk, where they are known.
pub(crate) fn vcap_application(
    home: &Home<'_>,
    limits: Option<(i64, i64)>,
    uris: &[String],
    process: Option<ProcessPart<'_>>,
) -> Map<String, Value> {
    let mut limit = json!({"fds": FILE_DESCRIPTORS});
    if let Some((memory, disk)) = limits {
        limit["mem"] = memory.into();
        limit["disk"] = disk.into();
    }
    let mut map = Map::new();
    let mut set = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    set("cf_api", home.cf_api.clone().into());
    set("limits", limit);
    set("application_name", home.app_name.into());
    set("application_uris", json!(uris));
    set("name", home.app_name.into());
    set("space_name", home.space_name.into());
    set("space_id", home.space_guid.into());
    set("organization_id", home.org_guid.into());
    set("organization_name", home.org_name.into());
    set("uris", json!(uris));
    if let Some(process) = process {
        set("process_id", process.guid.into());
        set("process_type", process.kind.into());
    }
    set("application_id", home.app_guid.into());
    if let Some(process) = process {
        set("version", process.version.into());
        set("application_version", process.version.into());
    }
    map
}

/// Addresses in `VCAP_APPLICATION`, without scheme.
pub(crate) fn uris(mappings: &[Mapping]) -> Vec<String> {
    mappings.iter().map(Mapping::url).collect()
}

/// Environment of a running process, low precedence first: the running group, the app's own
/// variables, then the platform's.
pub(crate) fn running(
    group: &Map<String, Value>,
    app: &Map<String, Value>,
    vcap_application: &Map<String, Value>,
    memory_mb: i64,
    port: Option<u16>,
) -> Vec<(String, String)> {
    let mut env = Environment::default();
    env.extend(group);
    env.extend(app);
    env.set("VCAP_APPLICATION", json!(vcap_application).to_string());
    env.set("MEMORY_LIMIT", format!("{memory_mb}m"));
    env.set("VCAP_SERVICES", "{}".into());
    if let Some(port) = port {
        env.set("PORT", port.to_string());
        env.set("VCAP_APP_PORT", port.to_string());
        env.set("VCAP_APP_HOST", "0.0.0.0".into());
    }
    env.set("LANG", "en_US.UTF-8".into());
    env.0
}

/// Environment of staging.
pub(crate) fn staging(
    group: &Map<String, Value>,
    app: &Map<String, Value>,
    vcap_application: &Map<String, Value>,
    memory_mb: i64,
    stack: &str,
) -> Vec<(String, String)> {
    let mut env = Environment::default();
    env.extend(group);
    env.extend(app);
    env.set("VCAP_APPLICATION", json!(vcap_application).to_string());
    env.set("MEMORY_LIMIT", format!("{memory_mb}m"));
    env.set("VCAP_SERVICES", "{}".into());
    env.set("CF_STACK", stack.into());
    env.set("LANG", "en_US.UTF-8".into());
    env.0
}

/// Names with values; a later one replaces an earlier one in its place.
#[derive(Debug, Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn extend(&mut self, vars: &Map<String, Value>) {
        for (name, value) in vars {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.set(name, text);
        }
    }
}

/// What is wrong with a variable that a user sets.
pub(crate) fn fault(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("VCAP_") {
        return Some("cannot start with VCAP_".into());
    }
    if upper.starts_with("VMC") {
        return Some("cannot start with VMC_".into());
    }
    if upper == "PORT" {
        return Some("cannot set PORT".into());
    }
    // A name with one of these could not be handed to a process.
    (name.is_empty() || name.contains(['=', '\0'])).then(|| "has an invalid name".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_platform_comes_last_and_the_app_before_its_group() {
        let group = map(json!({"A": "group", "B": "group"}));
        let app = map(json!({"B": "app", "N": 1, "O": {"x": true}, "MEMORY_LIMIT": "lie"}));
        let vcap = map(json!({"name": "a"}));
        let env = running(&group, &app, &vcap, 64, Some(8080));
        let get = |name: &str| {
            let mut found = env.iter().filter(|(known, _)| known == name);
            let value = found.next().map(|(_, value)| value.as_str());
            assert!(found.next().is_none(), "{name} is there twice");
            value
        };
        assert_eq!(get("A"), Some("group"));
        assert_eq!(get("B"), Some("app"));
        assert_eq!(get("N"), Some("1"));
        assert_eq!(get("O"), Some(r#"{"x":true}"#));
        assert_eq!(get("MEMORY_LIMIT"), Some("64m"));
        assert_eq!(get("VCAP_APPLICATION"), Some(r#"{"name":"a"}"#));
        assert_eq!(get("PORT"), Some("8080"));
    }

    #[test]
    fn a_worker_has_no_port() {
        let env = running(&Map::new(), &Map::new(), &Map::new(), 64, None);
        assert!(env.iter().all(|(name, _)| name != "PORT"));
    }

    #[test]
    fn reserved_names_are_refused() {
        for name in ["VCAP_SERVICES", "vcap_x", "VMC_A", "PORT", "", "A=B"] {
            assert!(fault(name).is_some(), "{name}");
        }
        for name in ["A", "PORTS", "MY_PORT"] {
            assert_eq!(fault(name), None, "{name}");
        }
    }

    #[test]
    fn vcap_application_has_the_original_s_keys() {
        let home = Home { app_guid: "a", app_name: "web1", ..Home::default() };
        let process = ProcessPart { guid: "p", kind: "web", version: "v" };
        let vcap = vcap_application(&home, Some((64, 1024)), &["u".into()], Some(process));
        assert_eq!(vcap["limits"], json!({"fds": 16384, "mem": 64, "disk": 1024}));
        assert_eq!(vcap["application_version"], "v");
        assert_eq!(vcap["uris"], json!(["u"]));
        let staging = vcap_application(&home, None, &[], None);
        assert!(!staging.contains_key("process_id"));
    }
}

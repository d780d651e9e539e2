//! Reads a manifest, and names everything that is wrong with it at once.

use serde_json::{Map, Value};

use super::size;
use crate::env;
use crate::metadata::{Change, Metadata};
use crate::resources::apps::Lifecycle;
use crate::resources::processes::Scale;
use crate::resources::routes::options_faults;
use crate::store::processes::{HealthCheck, NewSidecar, Process};

/// One app of a manifest. What is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Application {
    pub name: String,
    pub lifecycle: Lifecycle,
    pub processes: Vec<ProcessChange>,
    pub env: Option<Map<String, Value>>,
    pub routes: RouteChange,
    pub sidecars: Vec<NewSidecar>,
    pub metadata: Change,
    pub features: Vec<(String, bool)>,
}

/// What an app should be reached by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteChange {
    /// Unmap everything.
    pub none: bool,
    /// A route with a random host, unless the app has one.
    pub random: bool,
    /// A route with the app's name, unless the app has one.
    pub default: bool,
    pub routes: Vec<WantedRoute>,
}

/// A route that an app should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedRoute {
    pub route: String,
    pub protocol: Option<String>,
    pub options: Map<String, Value>,
}

/// Changes to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessChange {
    pub kind: String,
    pub command: Option<Option<String>>,
    pub scale: Scale,
    pub health: CheckChange,
    pub readiness: CheckChange,
}

/// Changes to a health check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckChange {
    pub kind: Option<String>,
    pub endpoint: Option<String>,
    pub timeout: Option<i64>,
    pub invocation_timeout: Option<i64>,
    pub interval: Option<i64>,
}

impl CheckChange {
    /// The check that an old one becomes.
    pub fn apply(&self, old: HealthCheck) -> HealthCheck {
        let mut check = match &self.kind {
            Some(kind) if *kind != old.kind => {
                HealthCheck { timeout: old.timeout, ..HealthCheck::of_kind(kind) }
            }
            _ => old,
        };
        check.endpoint = self.endpoint.clone().or(check.endpoint);
        check.timeout = self.timeout.or(check.timeout);
        check.invocation_timeout = self.invocation_timeout.or(check.invocation_timeout);
        check.interval = self.interval.or(check.interval);
        check
    }
}

impl ProcessChange {
    /// Changes a process. Sizes take effect at its next start.
    pub fn apply(&self, process: &mut Process) {
        if let Some(command) = &self.command {
            process.command = command.clone();
        }
        self.scale.apply(process);
        process.set_health(&self.health.apply(process.health()));
        process.set_readiness(&self.readiness.apply(process.readiness()));
    }

    fn is_empty(&self) -> bool {
        *self == Self { kind: self.kind.clone(), ..Self::default() }
    }
}

/// The applications of a manifest, or all that is wrong with them.
pub(crate) fn parse(yaml: &str) -> Result<Vec<Application>, Vec<String>> {
    let document = read(yaml)?;
    let list = applications(&document)?;
    let mut apps = Vec::new();
    let mut faults = Vec::new();
    for (index, app) in list.iter().enumerate() {
        let (app, own) = Reader::read(app);
        let whose = match app.name.is_empty() {
            true => format!("For application at index {index}"),
            false => format!("For application '{}'", app.name),
        };
        faults.extend(own.into_iter().map(|fault| format!("{whose}: {fault}")));
        apps.push(app);
    }
    if faults.is_empty() { Ok(apps) } else { Err(faults) }
}

/// A manifest as it is written.
pub(crate) fn read(yaml: &str) -> Result<Value, Vec<String>> {
    serde_saphyr::from_str(yaml).map_err(|err| {
        vec![format!("Request invalid due to parse error: invalid request body: {err}")]
    })
}

/// Its list of applications.
pub(crate) fn applications(document: &Value) -> Result<&Vec<Value>, Vec<String>> {
    let version = &document["version"];
    if !version.is_null() && version.as_i64() != Some(1) {
        return Err(vec![
            "Unsupported manifest schema version. Currently supported versions: [1].".into(),
        ]);
    }
    match document["applications"].as_array() {
        Some(list) if !list.is_empty() => Ok(list),
        Some(_) => Err(vec!["Manifest must have at least one application".into()]),
        None => Err(vec!["Cannot parse manifest with no 'applications' field.".into()]),
    }
}

struct Reader {
    faults: Vec<String>,
}

impl Reader {
    fn read(value: &Value) -> (Application, Vec<String>) {
        let mut reader = Self { faults: Vec::new() };
        let app = reader.application(value);
        (app, reader.faults)
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    fn application(&mut self, value: &Value) -> Application {
        let mut app = Application::default();
        match value["name"].as_str() {
            Some(name) if !name.trim().is_empty() => app.name = name.to_owned(),
            _ => self.fault("Name must not be empty"),
        }
        app.lifecycle = self.lifecycle(value);
        let web = self.process(value, "web");
        for (index, process) in list(&value["processes"]).iter().enumerate() {
            match process["type"].as_str() {
                Some(kind) if !kind.is_empty() => {
                    if app.processes.iter().any(|other| other.kind == kind) {
                        self.fault(format!("Process \"{kind}\" may only be present once"));
                    }
                    let process = self.process(process, kind);
                    app.processes.push(process);
                }
                _ => self.fault(format!("Process {index}: Type must be a string")),
            }
        }
        // Among the processes it is what they say, and nothing of what stands beside them.
        if !web.is_empty() && !app.processes.iter().any(|process| process.kind == "web") {
            app.processes.push(web);
        }
        app.env = self.env(&value["env"]);
        app.routes = self.routes(value);
        app.sidecars =
            list(&value["sidecars"]).iter().filter_map(|one| self.sidecar(one)).collect();
        if !list(&value["services"]).is_empty() {
            self.fault("Services are not served yet");
        }
        if !value["metadata"].is_null() {
            match serde_json::from_value::<Change>(value["metadata"].clone()) {
                Ok(change) => {
                    if let Err(faults) = Metadata::default().merge(&change) {
                        self.faults.extend(faults);
                    }
                    app.metadata = change;
                }
                Err(err) => self.fault(format!("Metadata is invalid: {err}")),
            }
        }
        for (name, on) in value["features"].as_object().into_iter().flatten() {
            match on.as_bool() {
                Some(on) if ["ssh", "revisions"].contains(&&**name) => {
                    app.features.push((name.clone(), on));
                }
                Some(_) => self.fault(format!("Features: '{name}' is not a valid feature")),
                None => self.fault(format!("Features: '{name}' value must be a boolean")),
            }
        }
        app
    }

    fn lifecycle(&mut self, value: &Value) -> Lifecycle {
        let mut lifecycle = Lifecycle::default();
        if let Some(docker) = value.get("docker").filter(|docker| !docker.is_null()) {
            match docker["image"].as_str() {
                Some(_) => lifecycle.kind = Some("docker".into()),
                None => self.fault("Docker image required"),
            }
        }
        match &value["lifecycle"] {
            Value::Null => {}
            Value::String(kind) if kind == "buildpack" || kind == "docker" => {
                lifecycle.kind = Some(kind.clone());
            }
            Value::String(kind) if kind == "cnb" => self.fault("Lifecycle cnb is not served yet"),
            _ => self.fault("Lifecycle must be one of: buildpack, docker, cnb"),
        }
        match (&value["buildpacks"], &value["buildpack"]) {
            (Value::Null, Value::Null) => {}
            (Value::Array(many), Value::Null) => {
                let names: Option<Vec<String>> =
                    many.iter().map(|name| name.as_str().map(str::to_owned)).collect();
                match names {
                    Some(names) => lifecycle.buildpacks = Some(names),
                    None => self.fault("Buildpacks can only contain strings"),
                }
            }
            (Value::Null, Value::String(one)) => {
                // Both words mean: let them be detected.
                let none = ["default", "null"].contains(&&**one);
                lifecycle.buildpacks = Some(if none { Vec::new() } else { vec![one.clone()] });
            }
            (Value::Null, _) => self.fault("Buildpack must be a string"),
            (_, Value::Null) => self.fault("Buildpacks must be an array of strings"),
            _ => self.fault("Buildpack and Buildpacks fields cannot be used together."),
        }
        match &value["stack"] {
            Value::Null => {}
            Value::String(stack) => lifecycle.stack = Some(Some(stack.clone())),
            _ => self.fault("Stack must be a string"),
        }
        if lifecycle.kind.as_deref() == Some("docker") && lifecycle.buildpacks.is_some() {
            self.fault("Cannot specify both buildpack(s) and docker keys");
        }
        lifecycle
    }

    fn process(&mut self, value: &Value, kind: &str) -> ProcessChange {
        let command = match value.get("command") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::String(text)) if text == "null" || text == "default" => Some(None),
            Some(Value::String(text)) if (1..=4096).contains(&text.len()) => {
                Some(Some(text.clone()))
            }
            Some(_) => {
                self.fault("Command must be between 1 and 4096 characters");
                None
            }
        };
        let disk = match value.get("disk_quota") {
            Some(disk) => disk,
            None => &value["disk-quota"],
        };
        ProcessChange {
            kind: kind.to_owned(),
            command,
            scale: Scale {
                instances: self.integer(&value["instances"], "Instances", 0),
                memory_mb: self.size(&value["memory"], "Memory"),
                disk_mb: self.size(disk, "Disk quota"),
                log_rate: self.log_rate(&value["log-rate-limit-per-second"]),
            },
            health: self.check(value, "health-check", &value["timeout"]),
            readiness: self.check(value, "readiness-health-check", &Value::Null),
        }
    }

    fn integer(&mut self, value: &Value, what: &str, least: i64) -> Option<i64> {
        if value.is_null() {
            return None;
        }
        match value.as_i64() {
            Some(number) if number >= least => Some(number),
            Some(_) => {
                self.fault(format!("{what} must be greater than or equal to {least}"));
                None
            }
            None => {
                self.fault(format!("{what} is not a number"));
                None
            }
        }
    }

    fn size(&mut self, value: &Value, what: &str) -> Option<i64> {
        if value.is_null() {
            return None;
        }
        let size = size::mebibytes(value.as_str().unwrap_or_default());
        if size.is_none() {
            let units = "B, K, KB, M, MB, G, GB, T, or TB";
            self.fault(format!("{what} must use a supported unit: {units}"));
        }
        size
    }

    fn log_rate(&mut self, value: &Value) -> Option<i64> {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rate = size::log_rate(&text);
        if rate.is_none() {
            self.fault("Log rate limit per second must use a supported unit: B, K, KB, M, MB, G, GB, T, or TB");
        }
        rate
    }

    fn check(&mut self, value: &Value, prefix: &str, timeout: &Value) -> CheckChange {
        let field = |name: &str| &value[&*format!("{prefix}-{name}")];
        let mut check = CheckChange::default();
        match field("type") {
            Value::Null => {}
            Value::String(kind) if ["port", "http", "process"].contains(&&**kind) => {
                check.kind = Some(kind.clone());
            }
            // An old name.
            Value::String(kind) if kind == "none" => check.kind = Some("process".into()),
            _ => self.fault("Health check type must be \"port\", \"process\", or \"http\""),
        }
        match field("http-endpoint") {
            Value::Null => {}
            Value::String(path) if path.starts_with('/') => check.endpoint = Some(path.clone()),
            _ => self.fault("Health check http endpoint must be a valid URI path"),
        }
        let timeouts = "Health check invocation timeout";
        check.invocation_timeout = self.integer(field("invocation-timeout"), timeouts, 1);
        check.interval = self.integer(field("interval"), "Health check interval", 1);
        check.timeout = self.integer(timeout, "Timeout", 1);
        check
    }

    fn env(&mut self, value: &Value) -> Option<Map<String, Value>> {
        let vars = match value {
            Value::Null => return None,
            Value::Object(vars) => vars,
            _ => {
                self.fault("Env must be an object of keys and values");
                return None;
            }
        };
        let mut env = Map::new();
        for (name, value) in vars {
            if let Some(fault) = env::fault(name) {
                self.fault(format!("Env {fault}"));
            }
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            env.insert(name.clone(), text.into());
        }
        Some(env)
    }

    fn flag(&mut self, value: &Value, what: &str) -> bool {
        match value {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            _ => {
                self.fault(format!("{what} must be a boolean"));
                false
            }
        }
    }

    fn routes(&mut self, value: &Value) -> RouteChange {
        let mut change = RouteChange {
            none: self.flag(&value["no-route"], "No-route"),
            random: self.flag(&value["random-route"], "Random-route"),
            default: self.flag(&value["default-route"], "Default-route"),
            routes: Vec::new(),
        };
        if change.random && change.default {
            self.fault("Random-route and default-route may not be used together");
        }
        if !value["routes"].is_null() && !value["routes"].is_array() {
            self.fault("Routes must be a list of route objects");
        }
        for entry in list(&value["routes"]) {
            let Some(route) = entry["route"].as_str() else {
                self.fault("Routes must be a list of route objects");
                continue;
            };
            let protocol = match &entry["protocol"] {
                Value::Null => None,
                Value::String(protocol) if ["http1", "http2"].contains(&&**protocol) => {
                    Some(protocol.clone())
                }
                _ => {
                    self.fault(format!("Route protocol of '{route}' must be 'http1' or 'http2'"));
                    None
                }
            };
            let options = entry["options"].as_object().cloned().unwrap_or_default();
            for fault in options_faults(&options) {
                self.fault(format!("Route '{route}': {fault}"));
            }
            change.routes.push(WantedRoute { route: route.to_owned(), protocol, options });
        }
        if change.none && !change.routes.is_empty() {
            // As in the original: the list is of no account then.
            change.routes.clear();
        }
        change
    }

    fn sidecar(&mut self, value: &Value) -> Option<NewSidecar> {
        let types: Option<Vec<String>> = value["process_types"].as_array().map(|types| {
            types.iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect()
        });
        let (name, command) = (value["name"].as_str(), value["command"].as_str());
        match (name, command, types) {
            (Some(name), Some(command), Some(types)) if !types.is_empty() => Some(NewSidecar {
                name: name.to_owned(),
                command: command.to_owned(),
                process_types: types,
                memory_mb: self.size(&value["memory"], "Sidecar memory"),
            }),
            _ => {
                self.fault("Sidecars must have a name, a command and process types");
                None
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(yaml: &str) -> Application {
        parse(yaml).unwrap().remove(0)
    }

    #[test]
    fn the_clis_manifest_is_read() {
        let app = one("applications:\n- name: web1\n  instances: 1\n  memory: 64M\n  \
            disk-quota: 1G\n  default-route: true\n  buildpacks:\n  - staticfile_buildpack\n  \
            path: /tmp/x\n  env:\n    A: \"1\"\n    N: 2\n    O: {x: true}\n  \
            routes:\n  - route: web1.apps.example.test\n    protocol: http2\n");
        assert_eq!(app.name, "web1");
        assert_eq!(app.lifecycle.buildpacks, Some(vec!["staticfile_buildpack".into()]));
        let web = &app.processes[0];
        assert_eq!((web.kind.as_str(), web.scale.instances), ("web", Some(1)));
        assert_eq!((web.scale.memory_mb, web.scale.disk_mb), (Some(64), Some(1024)));
        let env = app.env.unwrap();
        assert_eq!((env["A"].as_str(), env["N"].as_str()), (Some("1"), Some("2")));
        assert_eq!(env["O"].as_str(), Some(r#"{"x":true}"#));
        assert!(app.routes.default);
        assert_eq!(app.routes.routes[0].protocol.as_deref(), Some("http2"));
    }

    #[test]
    fn all_faults_of_all_apps_come_together() {
        let faults = parse(
            "applications:\n- name: a\n  memory: 64\n  instances: -1\n- memory: 1X\n  env:\n    \
             PORT: 1\n  services: [db]\n",
        )
        .unwrap_err();
        assert_eq!(faults.len(), 6, "{faults:#?}");
        assert!(faults.iter().any(|fault| fault.starts_with("For application 'a': Memory")));
        assert!(faults.iter().any(|fault| fault.starts_with("For application at index 1: Name")));
    }

    #[test]
    fn what_stands_beside_the_processes_is_of_web_unless_that_is_among_them() {
        let beside = "applications:\n- name: a\n  memory: 1G\n  command: run\n  processes:\n";
        let worker = "  - type: worker\n    instances: 2\n    health-check-type: none\n";
        let app = one(&format!("{beside}{worker}"));
        assert_eq!(app.processes.len(), 2);
        assert_eq!(app.processes[0].health.kind.as_deref(), Some("process"));
        let web = &app.processes[1];
        assert_eq!((web.kind.as_str(), web.scale.memory_mb), ("web", Some(1024)));
        assert_eq!(web.command, Some(Some("run".into())));

        let app = one(&format!("{beside}{worker}  - type: web\n    instances: 3\n"));
        assert_eq!(app.processes.len(), 2);
        let scale = Scale { instances: Some(3), ..Scale::default() };
        let web = ProcessChange { kind: "web".into(), scale, ..ProcessChange::default() };
        assert_eq!(app.processes[1], web);
        // It has to be right all the same.
        assert!(parse(&format!("{beside}{worker}").replace("1G", "1X")).is_err());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for yaml in [
            "",
            "a: b",
            "applications: []",
            "applications: x",
            "version: 2\napplications: [{name: a}]",
            "{",
            "- a",
        ] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
        parse("version: 1\napplications: [{name: a}]").unwrap();
    }

    #[test]
    fn a_check_of_another_kind_keeps_its_timeout_only() {
        let old = HealthCheck {
            timeout: Some(30),
            endpoint: Some("/old".into()),
            ..HealthCheck::of_kind("http")
        };
        let change = CheckChange { kind: Some("port".into()), ..CheckChange::default() };
        let new = change.apply(old.clone());
        assert_eq!((new.kind.as_str(), new.timeout, new.endpoint), ("port", Some(30), None));
        assert_eq!(CheckChange::default().apply(old.clone()), old);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("applications: [{{name: {text}}}]"));
        }
    }
}

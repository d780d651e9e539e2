//! `launcher APP_DIR START_COMMAND METADATA`: starts an app from its unpacked droplet.
//!
//! Its working directory is the droplet's root (`/home/vcap`). It sets the app's environment and
//! becomes a bash that sources the profiles and then becomes the start command.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::Deserialize;
use serde_json::{Map, Value};

/// What bash does before the app: `$1` is the app's directory, `$2` its command. Profiles are
/// sourced in the order of their names, the buildpacks' before the app's own.
const START: &str = r#"
cd "$1" || exit 1
echo "Invoking pre-start scripts."
for profile in ../profile.d/* .profile.d/*; do
  if [ -f "$profile" ]; then . "$profile"; fi
done
if [ -f .profile ]; then . ./.profile; fi
echo "Invoking start command."
exec bash -c "$2"
"#;

/// The part of `staging_info.yml` (JSON, which is YAML) that a start needs.
#[derive(Debug, Default, Deserialize)]
struct StagingInfo {
    #[serde(default)]
    start_command: Option<String>,
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    entrypoint_prefix: Option<String>,
}

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let [directory, command, _metadata, ..] = arguments else {
        eprintln!("launcher: received only {} arguments", arguments.len());
        eprintln!("Usage: launcher <app-directory> <start-command> <metadata>");
        return ExitCode::FAILURE;
    };
    let root = match env::current_dir() {
        Ok(root) => root,
        Err(error) => {
            eprintln!("launcher: the working directory cannot be found: {error}");
            return ExitCode::FAILURE;
        }
    };
    let app = root.join(directory);
    let staging = staging_info(&root);
    let command = command.to_string_lossy().into_owned();
    let start =
        if command.is_empty() { staging.start_command.unwrap_or_default() } else { command };
    if start.is_empty() {
        eprintln!("launcher: no start command specified or detected in droplet");
        return ExitCode::FAILURE;
    }
    let start = match staging.config.and_then(|config| config.entrypoint_prefix) {
        Some(prefix) if !prefix.is_empty() => format!("{prefix} {start}"),
        _ => start,
    };

    let mut bash = Command::new("bash");
    bash.args(["-c", START, "bash"]).arg(&app).arg(start);
    for (name, value) in environment(&root, &app, &|name| env::var(name).ok()) {
        bash.env(name, value);
    }
    bash.env_remove("VCAP_PLATFORM_OPTIONS");
    let error = bash.exec();
    eprintln!("launcher: bash, which starts the app, cannot be executed: {error}");
    ExitCode::FAILURE
}

fn staging_info(root: &Path) -> StagingInfo {
    let Ok(text) = std::fs::read_to_string(root.join("staging_info.yml")) else {
        return StagingInfo::default();
    };
    serde_saphyr::from_str(&text).unwrap_or_else(|error| {
        eprintln!("launcher: staging_info.yml of the droplet is not readable: {error}");
        StagingInfo::default()
    })
}

/// What the app's environment gets on top of the container's. Pure, so that it can be tested.
fn environment(
    root: &Path,
    app: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<(&'static str, OsString)> {
    let beside = |name: &str| -> OsString { PathBuf::from(root).join(name).into() };
    let mut environment = vec![
        ("HOME", app.as_os_str().to_owned()),
        ("TMPDIR", beside("tmp")),
        ("DEPS_DIR", beside("deps")),
    ];
    if let Some(application) = variable("VCAP_APPLICATION") {
        environment.push(("VCAP_APPLICATION", instance(&application, variable).into()));
    }
    if variable("DATABASE_URL").is_none()
        && let Some(url) = variable("VCAP_SERVICES").and_then(|services| database(&services))
    {
        environment.push(("DATABASE_URL", url.into()));
    }
    environment
}

/// VCAP_APPLICATION with what only the instance knows. What is not an object is passed on as it is.
fn instance(application: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(application) else {
        return application.to_owned();
    };
    object.insert("host".into(), "0.0.0.0".into());
    if let Some(guid) = variable("INSTANCE_GUID") {
        object.insert("instance_id".into(), guid.into());
    }
    for (key, name) in [("port", "PORT"), ("instance_index", "INSTANCE_INDEX")] {
        if let Some(number) = variable(name).and_then(|value| value.parse::<u32>().ok()) {
            object.insert(key.into(), number.into());
        }
    }
    Value::Object(object).to_string()
}

/// The first relational database among the bound services, in the scheme that frameworks expect.
fn database(services: &str) -> Option<String> {
    let services: Map<String, Value> = serde_json::from_str(services).ok()?;
    let bindings = services.values().filter_map(Value::as_array).flatten();
    bindings.filter_map(|binding| binding["credentials"]["uri"].as_str()).find_map(|uri| {
        let (scheme, rest) = uri.split_once("://")?;
        match scheme {
            "mysql" | "mysql2" => Some(format!("mysql2://{rest}")),
            "postgres" | "postgresql" => Some(format!("postgres://{rest}")),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{database, environment};

    fn environment_of(given: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
        let variable = |name: &str| {
            given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        environment(Path::new("/home/vcap"), Path::new("/home/vcap/app"), &variable)
            .into_iter()
            .map(|(name, value)| (name, value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn the_app_is_told_where_it_lives() {
        let set = environment_of(&[]);
        assert_eq!(set["HOME"], "/home/vcap/app");
        assert_eq!(set["TMPDIR"], "/home/vcap/tmp");
        assert_eq!(set["DEPS_DIR"], "/home/vcap/deps");
        assert!(!set.contains_key("VCAP_APPLICATION"));
    }

    #[test]
    fn the_application_gets_what_its_instance_knows() {
        let set = environment_of(&[
            ("VCAP_APPLICATION", r#"{"name":"web","uris":[]}"#),
            ("INSTANCE_GUID", "ig"),
            ("INSTANCE_INDEX", "2"),
            ("PORT", "8080"),
        ]);
        let application: Value = serde_json::from_str(&set["VCAP_APPLICATION"]).unwrap();
        assert_eq!(
            application,
            json!({"name": "web", "uris": [], "host": "0.0.0.0", "instance_id": "ig", "port": 8080, "instance_index": 2})
        );
    }

    #[test]
    fn an_unreadable_application_is_left_alone() {
        let set = environment_of(&[("VCAP_APPLICATION", "none")]);
        assert_eq!(set["VCAP_APPLICATION"], "none");
    }

    #[test]
    fn the_first_database_wins_in_the_frameworks_scheme() {
        let services = json!({
            "cache": [{"credentials": {"uri": "redis://r"}}],
            "db": [{"credentials": {}}, {"credentials": {"uri": "postgresql://u:p@h/d?x=1"}}],
            "old": [{"credentials": {"uri": "mysql://h/d"}}],
        });
        assert_eq!(database(&services.to_string()).as_deref(), Some("postgres://u:p@h/d?x=1"));
        assert_eq!(database("{}"), None);
        assert_eq!(database("nothing"), None);
    }

    #[test]
    fn a_database_url_of_the_apps_own_stays() {
        let services = json!({"db": [{"credentials": {"uri": "postgres://h/d"}}]}).to_string();
        let set = environment_of(&[("VCAP_SERVICES", &services)]);
        assert_eq!(set["DATABASE_URL"], "postgres://h/d");
        let set = environment_of(&[("VCAP_SERVICES", &services), ("DATABASE_URL", "own")]);
        assert!(!set.contains_key("DATABASE_URL"));
    }
}

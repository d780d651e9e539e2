//! What is to be pushed: the manifest, and the flags in it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::arguments::Push;
use crate::error::Error;

/// A manifest as it is sent.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The file it comes from, if any.
    pub file: Option<PathBuf>,
    document: Map<String, Value>,
}

/// One app of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub name: String,
    /// Directory or zip of its files.
    pub path: PathBuf,
}

impl Manifest {
    /// The manifest that the flags name or the directory has, with what the flags say, only of the
    /// app that they name if they do.
    pub fn of(flags: &Push, directory: &Path) -> Result<Self, Error> {
        let here = ["manifest.yml", "manifest.yaml"].map(|name| directory.join(name));
        let file = match &flags.manifest {
            _ if flags.no_manifest => None,
            Some(file) if file.is_dir() => Some(file.join("manifest.yml")),
            Some(file) => Some(file.clone()),
            None => here.into_iter().find(|file| file.is_file()),
        };
        let text = match &file {
            Some(file) => std::fs::read_to_string(file).map_err(Error::file("reading", file))?,
            None => String::new(),
        };
        Self::merge(file, &text, flags)
    }

    fn merge(file: Option<PathBuf>, text: &str, flags: &Push) -> Result<Self, Error> {
        let shown = file.as_deref().unwrap_or(Path::new("the manifest")).display().to_string();
        let document = match file {
            None => Value::Null,
            Some(_) => serde_saphyr::from_str(text)
                .map_err(|error| Error::said(format!("{shown} is no manifest: {error}")))?,
        };
        let mut document = match document {
            Value::Object(document) => document,
            Value::Null => Map::new(),
            _ => return Err(Error::said(format!("{shown} is no manifest"))),
        };
        let applications = document.entry("applications").or_insert_with(|| json!([]));
        let Value::Array(apps) = applications else {
            return Err(Error::said(format!("{shown}: applications is no list")));
        };
        if let Some(name) = &flags.name {
            match apps.len() {
                // A manifest of one app may be pushed under another name.
                1 => {
                    if let Value::Object(one) = &mut apps[0] {
                        one.insert("name".into(), json!(name));
                    }
                }
                2.. => {
                    apps.retain(|app| app["name"] == json!(name));
                    if apps.is_empty() {
                        return Err(Error::said(format!(
                            "Could not find app named '{name}' in manifest"
                        )));
                    }
                }
                0 => apps.push(json!({"name": name})),
            }
        }
        if apps.is_empty() {
            let usage = "Incorrect Usage: The push command requires an app name. The app name can \
                         be supplied as an argument or with a manifest.yml file.";
            return Err(Error::said(usage));
        }
        let several = apps.len() > 1;
        for app in apps.iter_mut() {
            let Value::Object(app) = app else {
                return Err(Error::said(format!("{shown}: an application is no mapping")));
            };
            if !matches!(app.get("name"), Some(Value::String(_))) {
                return Err(Error::said("Found an application with no name specified.".to_owned()));
            }
            if !override_with(app, flags).is_empty() && several {
                return Err(Error::said(
                    "Incorrect Usage: Command line flags (except -f and --no-start) cannot be \
                     applied when pushing multiple apps from a manifest file.",
                ));
            }
            let decided = ["routes", "no-route", "random-route", "default-route"];
            if !decided.iter().any(|key| app.contains_key(*key)) {
                app.insert("default-route".into(), json!(true));
            }
        }
        Ok(Self { file, document })
    }

    /// As YAML.
    pub fn text(&self) -> Result<String, Error> {
        serde_saphyr::to_string(&self.document)
            .map_err(|error| Error::said(format!("the manifest cannot be written: {error}")))
    }

    /// Its apps. Paths in a manifest are seen from the manifest.
    pub fn apps(&self, flags: &Push, directory: &Path) -> Vec<Wanted> {
        let beside = self.file.as_deref().and_then(Path::parent).unwrap_or(directory);
        let apps = self.document["applications"].as_array().into_iter().flatten();
        apps.map(|app| Wanted {
            name: app["name"].as_str().unwrap_or_default().to_owned(),
            path: match (&flags.path, app["path"].as_str()) {
                (Some(path), _) => directory.join(path),
                (None, Some(path)) => beside.join(path),
                (None, None) => directory.to_owned(),
            },
        })
        .collect()
    }
}

/// Writes the flags into an app. Returns the keys that were written.
fn override_with(app: &mut Map<String, Value>, flags: &Push) -> Vec<&'static str> {
    let mut written = Vec::new();
    let mut put = |key, value: Option<Value>| {
        if let Some(value) = value {
            app.insert(String::from(key), value);
            written.push(key);
        }
    };
    put("memory", flags.memory.as_ref().map(|size| json!(size)));
    put("disk_quota", flags.disk.as_ref().map(|size| json!(size)));
    put("instances", flags.instances.map(|number| json!(number)));
    put("stack", flags.stack.as_ref().map(|stack| json!(stack)));
    put("timeout", flags.timeout.map(|seconds| json!(seconds)));
    put("health-check-type", flags.health_check_type.as_ref().map(|kind| json!(kind)));
    put("health-check-http-endpoint", flags.endpoint.as_ref().map(|path| json!(path)));
    let of_staging = |command: &str| ["null", "default"].contains(&command);
    put(
        "command",
        flags.command.as_ref().map(|it| if of_staging(it) { Value::Null } else { json!(it) }),
    );
    put(
        "buildpacks",
        match &flags.buildpacks[..] {
            [] => None,
            [one] if of_staging(one) => Some(json!([])),
            several => Some(json!(several)),
        },
    );
    put("no-route", flags.no_route.then(|| json!(true)));
    put("random-route", flags.random_route.then(|| json!(true)));
    if flags.no_route || flags.random_route {
        app.remove("default-route");
    }
    if flags.path.is_some() {
        written.push("path");
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: Option<&str>, flags: &Push) -> Result<Value, String> {
        let file = text.map(|_| PathBuf::from("/app/manifest.yml"));
        let manifest = Manifest::merge(file, text.unwrap_or_default(), flags);
        manifest.map(|it| Value::Object(it.document)).map_err(|error| error.to_string())
    }

    fn named(name: &str) -> Push {
        Push { name: Some(name.into()), ..Push::default() }
    }

    #[test]
    fn flags_say_more_than_the_manifest() {
        let text = "applications:\n- name: web1\n  memory: 64M\n  env: {A: \"1\"}\n";
        let flags = Push {
            memory: Some("1G".into()),
            buildpacks: vec!["binary_buildpack".into()],
            command: Some("null".into()),
            ..Push::default()
        };
        let app = &merged(Some(text), &flags).unwrap()["applications"][0];
        let expected = json!({
            "name": "web1", "memory": "1G", "env": {"A": "1"}, "command": null,
            "buildpacks": ["binary_buildpack"], "default-route": true,
        });
        assert_eq!(*app, expected);
    }

    #[test]
    fn without_a_manifest_a_name_is_enough() {
        let expected = json!({"applications": [{"name": "web1", "default-route": true}]});
        assert_eq!(merged(None, &named("web1")).unwrap(), expected);
        let bare = Push { no_route: true, ..named("web1") };
        let expected = json!({"applications": [{"name": "web1", "no-route": true}]});
        assert_eq!(merged(None, &bare).unwrap(), expected);
        assert!(merged(None, &Push::default()).unwrap_err().contains("requires an app name"));
    }

    #[test]
    fn one_app_of_several_is_chosen_by_name() {
        let text = "applications:\n- name: first\n- name: second\n  no-route: true\n";
        let chosen = merged(Some(text), &named("second")).unwrap();
        assert_eq!(chosen["applications"], json!([{"name": "second", "no-route": true}]));
        assert!(merged(Some(text), &named("third")).unwrap_err().contains("third"));
        let flags = Push { memory: Some("1G".into()), ..Push::default() };
        assert!(merged(Some(text), &flags).unwrap_err().contains("multiple apps"));
        let one = merged(Some("applications:\n- name: first\n"), &named("other")).unwrap();
        assert_eq!(one["applications"][0]["name"], "other");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in ["- a", "applications: 1", "applications: [1]", "applications: [{}]", "a: [b"] {
            assert!(merged(Some(text), &Push::default()).is_err(), "{text}");
        }
    }
}

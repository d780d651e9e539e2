//! Labels and annotations: their rules, and how a change is merged in.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// `metadata` of a request: `null` deletes a key, and is as nothing where a map may be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(deserialize_with = "or_nothing")]
    pub labels: Map<String, Value>,
    #[serde(deserialize_with = "or_nothing")]
    pub annotations: Map<String, Value>,
}

fn or_nothing<'de, D>(deserializer: D) -> Result<Map<String, Value>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Labels and annotations as the database has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub labels: Map<String, Value>,
    pub annotations: Map<String, Value>,
}

const MOST_LABELS: usize = 50;
const MOST_ANNOTATIONS: usize = 200;

impl Metadata {
    /// From the JSON texts of the columns.
    pub fn read(labels: &str, annotations: &str) -> Self {
        let map = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Self { labels: map(labels), annotations: map(annotations) }
    }

    pub fn show(&self) -> Value {
        json!({"labels": self.labels, "annotations": self.annotations})
    }

    /// These with a change merged in, or what is wrong with it.
    pub fn merge(mut self, change: &Change) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        for (key, value) in &change.labels {
            wrong.extend(key_error("label", key));
            match value {
                Value::Null => drop(self.labels.remove(key)),
                Value::String(text) if text.is_empty() || is_word(text) => {
                    self.labels.insert(key.clone(), value.clone());
                }
                _ => wrong.push(format!("Metadata label value error: '{}'", brief(value))),
            }
        }
        for (key, value) in &change.annotations {
            wrong.extend(key_error("annotation", key));
            match value {
                Value::Null => drop(self.annotations.remove(key)),
                Value::String(text) if text.len() <= 5000 => {
                    self.annotations.insert(key.clone(), value.clone());
                }
                _ => wrong.push(format!("Metadata annotation value error: '{}'", brief(value))),
            }
        }
        if self.labels.len() > MOST_LABELS {
            wrong.push(format!("Metadata exceeds maximum of {MOST_LABELS} labels"));
        }
        if self.annotations.len() > MOST_ANNOTATIONS {
            wrong.push(format!("Metadata exceeds maximum of {MOST_ANNOTATIONS} annotations"));
        }
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }
}

/// `[prefix/]name`; a prefix is a domain, and Cloud Foundry's own is reserved.
fn key_error(kind: &str, key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        let part = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if prefix.eq_ignore_ascii_case("cloudfoundry.org") {
            return Some(format!(
                "Metadata {kind} key error: 'cloudfoundry.org' is a reserved domain"
            ));
        }
        if prefix.len() > 253 || prefix.split('.').count() < 2 || !prefix.split('.').all(part) {
            return Some(format!(
                "Metadata {kind} key error: prefix '{prefix}' must be in valid dns format"
            ));
        }
    }
    if name.is_empty() {
        return Some(format!("Metadata {kind} key error: key cannot be empty string"));
    }
    (!is_word(name)).then(|| {
        format!(
            "Metadata {kind} key error: '{name}' is greater than 63 characters, contains invalid \
             characters or does not start and end with alphanumeric characters"
        )
    })
}

fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn brief(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(labels: Value, annotations: Value) -> Change {
        serde_json::from_value(json!({"labels": labels, "annotations": annotations})).unwrap()
    }

    #[test]
    fn a_change_adds_replaces_and_deletes() {
        let metadata = Metadata::read(r#"{"a":"1","b":"2"}"#, "{}");
        let change = change(json!({"a": null, "b": "3", "x.y/c": "d.e"}), json!({"n": "any text"}));
        let merged = metadata.merge(&change).unwrap();
        assert_eq!(json!(merged.labels), json!({"b": "3", "x.y/c": "d.e"}));
        assert_eq!(merged.show()["annotations"], json!({"n": "any text"}));
    }

    #[test]
    fn null_in_place_of_all_labels_or_annotations_changes_nothing() {
        let metadata = Metadata::read(r#"{"a":"1"}"#, r#"{"b":"2"}"#);
        let change = change(Value::Null, Value::Null);
        assert_eq!(metadata.clone().merge(&change).unwrap(), metadata);
    }

    #[test]
    fn bad_keys_and_values_are_named() {
        for labels in [
            json!({"": "x"}),
            json!({"-a": "x"}),
            json!({"a b": "x"}),
            json!({"a": "x y"}),
            json!({"a": 1}),
            json!({"cloudfoundry.org/a": "x"}),
            json!({"nodots/a": "x"}),
            json!({"a": "x".repeat(64)}),
        ] {
            let change = change(labels.clone(), json!({}));
            assert_eq!(Metadata::default().merge(&change).unwrap_err().len(), 1, "{labels}");
        }
    }

    #[test]
    fn there_are_limits() {
        let labels: Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!("v"))).collect();
        assert!(Metadata::default().merge(&change(json!(labels), json!({}))).is_err());
    }
}

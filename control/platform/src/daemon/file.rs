//! A daemon's configuration file: the original's keys, and what is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use super::Error;

/// What a configuration file holds, JSON or YAML.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    values: Map<String, Value>,
}

impl ConfigFile {
    /// Reads a file. A key without a value is as good as none.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        // Not every JSON is YAML: a text may hold halves of characters.
        let read = if text.trim_start().starts_with('{') {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            serde_saphyr::from_str(&text).map_err(|error| error.to_string())
        };
        let mut values: Map<String, Value> =
            read.map_err(|reason| Error::Syntax { path: path.to_owned(), reason })?;
        values.retain(|_, value| !value.is_null());
        Ok(Self { path: path.to_owned(), values })
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to log: `log_level`, or a router's `logging.level`, in the original's words.
    pub fn log_level(&self) -> Result<LevelFilter, Error> {
        let (key, level) = match (self.values.get("log_level"), self.values.get("logging")) {
            (Some(level), _) => ("log_level", level),
            (None, Some(Value::Object(logging))) => match logging.get("level") {
                Some(level) => ("logging.level", level),
                None => return Ok(LevelFilter::INFO),
            },
            _ => return Ok(LevelFilter::INFO),
        };
        match level.as_str() {
            Some("debug") => Ok(LevelFilter::DEBUG),
            Some("info") => Ok(LevelFilter::INFO),
            Some("warn") => Ok(LevelFilter::WARN),
            Some("error") => Ok(LevelFilter::ERROR),
            Some("fatal") => Ok(LevelFilter::OFF),
            _ => {
                Err(self.wrong(key, format!("{level} is none of debug, info, warn, error, fatal")))
            }
        }
    }

    /// The settings `T`, whose every key may be missing.
    pub(super) fn settings<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let read = |values: Map<String, Value>| T::deserialize(Value::Object(values));
        let error = match read(self.values.clone()) {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        // The error does not say where: the key that alone is as wrong does.
        for (key, value) in &self.values {
            if let Err(error) = read(Map::from_iter([(key.clone(), value.clone())])) {
                return Err(self.wrong(key, error.to_string()));
            }
        }
        Err(Error::Syntax { path: self.path.clone(), reason: error.to_string() })
    }

    fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Key { path: self.path.clone(), key: key.to_owned(), reason }
    }

    /// Says which keys have no effect, if there are any.
    pub(super) fn warn_of_others(&self, known: &[&str]) {
        let is_known = |key: &str| known.contains(&key) || ["log_level", "logging"].contains(&key);
        let others: Vec<&str> =
            self.values.keys().map(String::as_str).filter(|key| !is_known(key)).collect();
        if !others.is_empty() {
            tracing::warn!(file = %self.path.display(), "without effect: {}", others.join(", "));
        }
    }
}

/// The keys of the settings `T`.
pub(super) fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It has no values, so this is an error whatever it finds.
    let _ = T::deserialize(Keys(&mut keys));
    keys
}

/// Is asked for a structure, and keeps the names of its fields.
struct Keys<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Keys<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("there are no values"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("settings are a structure"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<ConfigFile, Error> {
        let place = tempfile::NamedTempFile::new().unwrap();
        fs::write(place.path(), text).unwrap();
        ConfigFile::read(place.path())
    }

    #[test]
    fn json_and_yaml_are_read() {
        for text in
            [r#"{"cell_id": "c1", "sync_interval": "2m"}"#, "cell_id: c1\nsync_interval: 2m\nx:\n"]
        {
            let read: route_emitter::Config = file(text).unwrap().settings().unwrap();
            assert_eq!((read.cell_id.as_str(), read.sync_interval.as_secs()), ("c1", 120));
        }
    }

    #[test]
    fn errors_name_file_and_key() {
        let wrong = file(r#"{"cell_id": "c1", "memory_mb": "much", "zone": "z"}"#).unwrap();
        let error = wrong.settings::<rep::Config>().unwrap_err().to_string();
        let path = wrong.path().display().to_string();
        assert!(error.starts_with(&path) && error.contains("memory_mb: \"much\""), "{error}");
        for text in ["{", "a: [", "[]"] {
            assert!(matches!(file(text), Err(Error::Syntax { .. })), "{text}");
        }
    }

    #[test]
    fn the_level_is_the_originals() {
        let level = |text| file(text).unwrap().log_level();
        assert_eq!(level("{}").unwrap(), LevelFilter::INFO);
        assert_eq!(level(r#"{"log_level":"debug"}"#).unwrap(), LevelFilter::DEBUG);
        assert_eq!(level("logging: {level: fatal}").unwrap(), LevelFilter::OFF);
        level(r#"{"log_level":"loud"}"#).unwrap_err();
    }
}

//! What registrars say of endpoints.

use std::collections::BTreeMap;

use serde_json::Value;

/// A message on `router.register` or `router.unregister`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) uris: Vec<String>,
    pub(crate) app: String,
    pub(crate) instance_id: String,
    pub(crate) instance_index: String,
    pub(crate) server_cert_domain_san: String,
    pub(crate) protocol: String,
    pub(crate) route_service_url: String,
    pub(crate) isolation_segment: String,
    pub(crate) availability_zone: String,
    pub(crate) stale_threshold: i64,
    pub(crate) load_balancing: String,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

impl Message {
    /// Keys are read in any case, the last of several counts, unknown ones are ignored, and so is `null`.
    /// One value of a wrong type makes the message none, as does a route service without TLS.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let Value::Object(entries) = value else { return Err("it is no object".to_owned()) };
        let mut read = Self::default();
        for (key, value) in entries {
            let key = key.to_ascii_lowercase();
            read.set(&key, value)
                .ok_or_else(|| format!("the value of {key} is of a wrong type"))?;
        }
        if !read.route_service_url.is_empty() && !read.route_service_url.starts_with("https") {
            return Err("the route service's URL must begin with https".to_owned());
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, value: Value) -> Option<()> {
        if value.is_null() {
            return Some(());
        }
        match key {
            "host" => self.host = text(value)?,
            "port" => self.port = value.as_u64()?.try_into().ok()?,
            "tls_port" => self.tls_port = value.as_u64()?.try_into().ok()?,
            "uris" => self.uris = texts(value)?,
            "app" => self.app = text(value)?,
            "private_instance_id" => self.instance_id = text(value)?,
            "private_instance_index" => self.instance_index = text(value)?,
            "server_cert_domain_san" => self.server_cert_domain_san = text(value)?,
            "protocol" => self.protocol = text(value)?,
            "route_service_url" => self.route_service_url = text(value)?,
            "isolation_segment" => self.isolation_segment = text(value)?,
            "availability_zone" => self.availability_zone = text(value)?,
            "stale_threshold_in_seconds" => self.stale_threshold = value.as_i64()?,
            "endpoint_updated_at_ns" => drop(value.as_i64()?),
            "tags" => self.tags = Some(tags(value)?),
            "options" => {
                let Value::Object(options) = value else { return None };
                for (key, value) in options {
                    if key.eq_ignore_ascii_case("loadbalancing") && !value.is_null() {
                        self.load_balancing = text(value)?;
                    }
                }
            }
            _ => {}
        }
        Some(())
    }
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(values) = value else { return None };
    values
        .into_iter()
        .map(|value| if value.is_null() { Some(String::new()) } else { text(value) })
        .collect()
}

fn tags(value: Value) -> Option<BTreeMap<String, String>> {
    let Value::Object(entries) = value else { return None };
    entries
        .into_iter()
        .map(|(key, value)| Some((key, if value.is_null() { String::new() } else { text(value)? })))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_any_case() {
        let read = Message::read(
            br#"{"HOST":"1.2.3.4","Port":80,"Uris":["a"],"app":"1","app":"2","dea":"x","tags":null,
                 "options":{"loadbalancing":"least-connection"}}"#,
        )
        .unwrap();
        assert_eq!((read.host.as_str(), read.port, read.app.as_str()), ("1.2.3.4", 80, "2"));
        assert_eq!((read.uris, read.tags), (vec!["a".to_owned()], None));
        assert_eq!(read.load_balancing, "least-connection");
    }

    #[test]
    fn one_wrong_value_makes_it_no_message() {
        for bad in [
            "",
            "hello",
            "[]",
            "1",
            r#"{"port":"80"}"#,
            r#"{"port":-1}"#,
            r#"{"port":65536}"#,
            r#"{"port":1.5}"#,
            r#"{"uris":"a"}"#,
            r#"{"uris":[1]}"#,
            r#"{"tags":{"a":1}}"#,
            r#"{"private_instance_index":0}"#,
            r#"{"route_service_url":"http://x"}"#,
            r#"{"options":[]}"#,
            r#"{"stale_threshold_in_seconds":"1"}"#,
        ] {
            assert!(Message::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

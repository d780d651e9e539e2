//! JSON bodies: fields are taken out one by one, and every fault is named in one answer.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::metadata;

/// A request's JSON object. What was not taken when it is finished is unknown, and refused.
#[derive(Debug)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    faults: Vec<String>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(|err| match err.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large("The request is too large"),
                _ => ApiError::message_parse("invalid request body"),
            })?;
        Self::parse(&bytes)
    }
}

impl Fields {
    /// An empty body is an empty object.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { left: Map::new(), faults: Vec::new() });
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(left)) => Ok(Self { left, faults: Vec::new() }),
            Ok(_) | Err(_) => Err(ApiError::message_parse("invalid request body")),
        }
    }

    pub fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// The field as it is; `null` and absent differ.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.shift_remove(name)
    }

    pub fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            _ => {
                self.fault(format!("{} must be a string", title(name)));
                None
            }
        }
    }

    /// A string that must be there and not be empty.
    pub fn required(&mut self, name: &str) -> String {
        let faults = self.faults.len();
        match self.string(name) {
            Some(text) if !text.trim().is_empty() => text,
            found => {
                if self.faults.len() == faults {
                    self.fault(match found {
                        None => format!("{} must be a string", title(name)),
                        Some(_) => format!("{} can't be blank", title(name)),
                    });
                }
                String::new()
            }
        }
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            Value::Null => None,
            _ => {
                self.fault(format!("{} must be a boolean", title(name)));
                None
            }
        }
    }

    /// An integer of at least `least`.
    pub fn integer(&mut self, name: &str, least: i64) -> Option<i64> {
        let value = self.take(name)?;
        if value.is_null() {
            return None;
        }
        match value.as_i64() {
            Some(number) if number >= least => Some(number),
            Some(_) => {
                let fault = format!("{} must be greater than or equal to {least}", title(name));
                self.fault(fault);
                None
            }
            None => {
                self.fault(format!("{} is not a number", title(name)));
                None
            }
        }
    }

    /// An object. `null` is like absent.
    pub fn object(&mut self, name: &str) -> Option<Self> {
        match self.take(name)? {
            Value::Object(left) => Some(Self { left, faults: Vec::new() }),
            Value::Null => None,
            _ => {
                self.fault(format!("{} must be an object", title(name)));
                None
            }
        }
    }

    /// Faults of a nested object, and what is unknown in it, become faults of this one.
    pub fn absorb(&mut self, inner: Self) {
        self.faults.extend(inner.all_faults());
    }

    /// `metadata`.
    pub fn metadata(&mut self) -> metadata::Change {
        let Some(value) = self.take("metadata") else { return metadata::Change::default() };
        match serde_json::from_value(value) {
            Ok(change) => change,
            Err(err) => {
                self.fault(format!("Metadata is invalid: {err}"));
                metadata::Change::default()
            }
        }
    }

    /// `data.guid` of a relationship of the object `relationships`.
    pub fn guid(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        match &value["data"]["guid"] {
            Value::String(guid) => Some(guid.clone()),
            _ if value["data"].is_null() && value.get("data").is_some() => None,
            _ => {
                self.fault(format!(
                    "{} must be structured like this: \"{name}\": {{\"data\": \
                                    {{\"guid\": \"valid-guid\"}}}}",
                    title(name)
                ));
                None
            }
        }
    }

    fn all_faults(self) -> Vec<String> {
        let mut faults = self.faults;
        if !self.left.is_empty() {
            let unknown: Vec<String> = self.left.keys().map(|name| format!("'{name}'")).collect();
            faults.insert(0, format!("Unknown field(s): {}", unknown.join(", ")));
        }
        faults
    }

    /// Refuses the body if anything was wrong with it.
    pub fn finish(self) -> Result<(), ApiError> {
        let faults = self.all_faults();
        if faults.is_empty() { Ok(()) } else { Err(ApiError::unprocessable(faults.join(", "))) }
    }
}

/// `disk_in_mb` as the beginning of a sentence: `Disk in mb`.
pub(crate) fn title(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), chars.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_named_at_once() {
        let mut fields = Fields::parse(br#"{"name": 1, "instances": -1, "huh": true}"#).unwrap();
        fields.required("name");
        fields.integer("instances", 0);
        let err = fields.finish().unwrap_err();
        assert_eq!(
            err.errors[0].detail,
            "Unknown field(s): 'huh', Name must be a string, Instances must be greater than or \
             equal to 0"
        );
    }

    #[test]
    fn relationships_are_read() {
        let body = br#"{"space": {"data": {"guid": "s"}}, "org": {"data": null}, "app": 1}"#;
        let mut fields = Fields::parse(body).unwrap();
        assert_eq!(fields.guid("space").as_deref(), Some("s"));
        assert_eq!(fields.guid("org"), None);
        assert_eq!(fields.guid("app"), None);
        assert!(fields.finish().unwrap_err().errors[0].detail.starts_with("App must be"));
    }

    #[test]
    fn what_is_no_object_is_a_parse_error() {
        for body in ["[]", "1", "{", "nonsense"] {
            let err = Fields::parse(body.as_bytes()).unwrap_err();
            assert_eq!((err.status.as_u16(), err.errors[0].code), (400, 1001), "{body}");
        }
        Fields::parse(b" ").unwrap().finish().unwrap();
    }
}

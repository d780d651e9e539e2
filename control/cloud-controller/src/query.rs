//! Query strings as Cloud Controller reads them.
//!
//! A list is decoded, split at commas, and each part is decoded once more: so a client can send a
//! value that holds a comma. A list that is there and empty (`hosts=`) is one empty value.

use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// Decoded query parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// Parameters of every list.
const PAGING: [&str; 3] = ["page", "per_page", "order_by"];
/// Parameters of the lists of almost all resources.
const COMMON: [&str; 5] = ["guids", "created_ats", "updated_ats", "label_selector", "include"];

impl Query {
    pub fn parse(raw: Option<&str>) -> Self {
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(&name.replace('+', " ")), decode(&value.replace('+', " "))));
        }
        Self(pairs)
    }

    /// Refuses parameters that a list of this resource does not have.
    pub fn allow(&self, own: &[&str]) -> Result<(), ApiError> {
        let known = |name: &str| {
            let bare = name.split_once('[').map_or(name, |(bare, _)| bare);
            [&PAGING[..], &COMMON[..], own].iter().any(|names| names.contains(&bare))
        };
        let unknown: Vec<String> = self
            .0
            .iter()
            .filter(|(name, _)| !known(name))
            .map(|(name, _)| format!("'{name}'"))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let valid: Vec<String> = [&PAGING[..], &COMMON[..], own]
            .concat()
            .iter()
            .map(|name| format!("'{name}'"))
            .collect();
        Err(ApiError::bad_query(format!(
            "Unknown query parameter(s): {}. Valid parameters are: {}",
            unknown.join(", "),
            valid.join(", ")
        )))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The values of a list.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        self.get(name).map(|value| value.split(',').map(|part| decode(part.trim())).collect())
    }

    /// A truth value; anything but `true` and `false` is refused.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ApiError::bad_query(format!("{name} must be one of 'true', 'false'"))),
        }
    }

    /// What `include` names, all of which must be in `known`.
    pub fn include(&self, known: &[&str]) -> Result<Vec<String>, ApiError> {
        let wanted = self.list("include").unwrap_or_default();
        match wanted.iter().find(|name| !known.contains(&&***name)) {
            None => Ok(wanted),
            Some(name) => {
                let valid: Vec<String> = known.iter().map(|name| format!("'{name}'")).collect();
                Err(ApiError::bad_query(format!(
                    "Invalid included resource: '{name}'. Valid included resources are: {}",
                    valid.join(", ")
                )))
            }
        }
    }

    /// Values of `created_ats[gt]` and the like: the comparison in SQL, and the text.
    pub fn times(&self, name: &str) -> Vec<(Option<&'static str>, String)> {
        let mut times = Vec::new();
        for (known, value) in &self.0 {
            let Some(rest) = known.strip_prefix(name) else { continue };
            let operator = match rest {
                "" => None,
                "[gt]" => Some(">"),
                "[gte]" => Some(">="),
                "[lt]" => Some("<"),
                "[lte]" => Some("<="),
                _ => continue,
            };
            times.push((operator, value.clone()));
        }
        times
    }

    /// The parameters without `page`, encoded, for links to other pages.
    pub fn without_page(&self) -> Vec<(String, String)> {
        self.0.iter().filter(|(name, _)| name != "page" && name != "per_page").cloned().collect()
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Option<Vec<String>> {
        Query::parse(Some(query)).list("names")
    }

    #[test]
    fn commas_separate_unless_they_are_encoded_twice() {
        assert_eq!(list("names=a%2Cb").unwrap(), ["a", "b"]);
        assert_eq!(list("names=a,b&x=1").unwrap(), ["a", "b"]);
        assert_eq!(list("names=a%252Cb").unwrap(), ["a,b"]);
        assert_eq!(list("names=a+b%20c").unwrap(), ["a b c"]);
    }

    #[test]
    fn empty_is_a_value_and_absent_is_none() {
        assert_eq!(list("names=").unwrap(), [""]);
        assert_eq!(list("page=1"), None);
        assert_eq!(list(""), None);
    }

    #[test]
    fn unknown_parameters_are_refused() {
        let query = Query::parse(Some("names=a&created_ats[gt]=x&page=1"));
        query.allow(&["names"]).unwrap();
        let err = query.allow(&[]).unwrap_err();
        assert!(err.errors[0].detail.contains("Unknown query parameter(s): 'names'"), "{err}");
        assert_eq!(query.times("created_ats"), [(Some(">"), "x".to_owned())]);
    }
}

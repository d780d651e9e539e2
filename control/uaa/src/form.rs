//! What a request to the token endpoint carries: a form, and a client's name and secret.

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use crate::error::Refused;

/// A decoded form. A name given twice is refused, as OAuth demands.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub fn parse(body: &Bytes) -> Result<Self, Refused> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refused::invalid_request(format!("{name} is given twice")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }
}

/// Form-decodes one value.
fn decode(text: &str) -> String {
    let pair = format!("x={text}");
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    pairs.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Id and secret of the calling client: from Basic authentication, else from the form.
pub(crate) fn credentials(headers: &HeaderMap, form: &Form) -> Option<(String, String)> {
    match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
            let (id, secret) = decoded.split_once(':')?;
            let encoded = headers.get("x-cf-encoded-credentials").is_some_and(|on| on == "true");
            let plain = |text: &str| if encoded { decode(text) } else { text.to_owned() };
            Some((plain(id), plain(secret)))
        }
        None => {
            let secret = form.get("client_secret").unwrap_or_default();
            Some((form.get("client_id")?.to_owned(), secret.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_the_header_or_from_the_form() {
        let form = Form::parse(&"client_id=a&client_secret=b%20c".into()).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(credentials(&headers, &form), Some(("a".into(), "b c".into())));
        headers.insert(header::AUTHORIZATION, "Basic Y2Y6".parse().unwrap());
        assert_eq!(credentials(&headers, &form), Some(("cf".into(), String::new())));
        headers.insert(header::AUTHORIZATION, "bearer x".parse().unwrap());
        assert_eq!(credentials(&headers, &form), None);
        headers.insert(header::AUTHORIZATION, "Basic YSUzQTpi".parse().unwrap());
        assert_eq!(credentials(&headers, &form).unwrap().0, "a%3A");
        headers.insert("x-cf-encoded-credentials", "true".parse().unwrap());
        assert_eq!(credentials(&headers, &form).unwrap().0, "a:");
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        assert!(Form::parse(&"a=1&a=2".into()).is_err());
    }
}

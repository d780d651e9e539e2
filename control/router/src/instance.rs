//! Requests for one instance of an app.

use crate::endpoint::Said;
use crate::fields::Fields;
use crate::refusal::Refusal;

const APP: &str = "X-Cf-App-Instance";
const PROCESS: &str = "X-Cf-Process-Instance";

/// Which instance: `X-CF-App-Instance: APP:INDEX` or `X-CF-Process-Instance: PROCESS[:INDEX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instance {
    OfApp { app: String, index: String },
    OfProcess { process: String, index: Option<String> },
}

impl Instance {
    /// The app's counts if there are both.
    pub(crate) fn wanted(fields: &Fields) -> Result<Option<Self>, Refusal> {
        if let Some(value) = given(fields, APP) {
            return match value.split_once(':') {
                Some((app, index)) if is_guid(app) && is_index(index) => {
                    Ok(Some(Self::OfApp { app: app.into(), index: index.into() }))
                }
                _ => Err(invalid("invalid_cf_app_instance_header", "X-CF-App-Instance")),
            };
        }
        let Some(value) = given(fields, PROCESS) else { return Ok(None) };
        let invalid =
            || Err(invalid("invalid_cf_process_instance_header", "X-CF-Process-Instance"));
        let (process, index) = match value.split_once(':') {
            Some((process, index)) if is_index(index) => (process, Some(index.to_owned())),
            Some(_) => return invalid(),
            None => (&value[..], None),
        };
        if is_guid(process) {
            Ok(Some(Self::OfProcess { process: process.into(), index }))
        } else {
            invalid()
        }
    }

    pub(crate) fn is(&self, said: &Said) -> bool {
        match self {
            Self::OfApp { app, index } => said.app == *app && said.instance_index == *index,
            Self::OfProcess { process, index } => {
                said.tag("process_id") == process
                    && index.as_ref().is_none_or(|index| said.instance_index == *index)
            }
        }
    }
}

/// There is no such instance. The text speaks of the process where both headers are there.
pub(crate) fn unknown(fields: &Fields, host: &str) -> Refusal {
    let (what, value) = match given(fields, PROCESS) {
        Some(value) => ("process guid", value),
        None => ("guid", given(fields, APP).unwrap_or_default()),
    };
    let (guid, index) = match value.split_once(':') {
        Some((guid, index)) => (guid, format!(" ('{index}')")),
        None => (&value[..], String::new()),
    };
    let text = format!(
        "Bad Request: Requested instance{index} with {what} ('{guid}') does not exist for route \
         ('{host}')"
    );
    Refusal::new(400, "unknown_route", &text).uncached()
}

fn invalid(error: &str, name: &str) -> Refusal {
    Refusal::new(400, error, &format!("Bad Request: Invalid {name} Header")).uncached()
}

fn given(fields: &Fields, name: &str) -> Option<String> {
    let value = fields.get(name)?;
    let value = String::from_utf8_lossy(value).into_owned();
    (!value.is_empty()).then_some(value)
}

fn is_index(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// In lower case.
fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

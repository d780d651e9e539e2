//! Envelopes as the platform's parts make them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::messages::loggregator::v2::{
    Counter, Envelope, Gauge, GaugeValue, Log, envelope::Message, log,
};

/// Whose an envelope is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// An app's guid, or the name of a component.
    pub source_id: String,
    /// The instance's index, as text.
    pub instance_id: String,
    /// Further tags.
    pub tags: BTreeMap<String, String>,
}

/// What a cell measures of one instance, each 15 s. The names in the envelope are the original's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AppMetrics {
    /// Percent of one core since the last time.
    pub cpu: f64,
    /// Percent of what the instance is entitled to.
    pub cpu_entitlement: Option<f64>,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub memory_quota: u64,
    /// Bytes.
    pub disk: u64,
    /// Bytes.
    pub disk_quota: u64,
    /// Bytes a second.
    pub log_rate: f64,
    /// Bytes a second; -1 is no limit.
    pub log_rate_limit: f64,
    /// CPU time in nanoseconds.
    pub absolute_usage: u64,
    /// CPU time in nanoseconds that it was entitled to.
    pub absolute_entitlement: u64,
    /// Nanoseconds.
    pub container_age: u64,
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Envelope {
    fn new(origin: Origin, message: Message) -> Self {
        Self {
            timestamp: now(),
            source_id: origin.source_id,
            instance_id: origin.instance_id,
            deprecated_tags: BTreeMap::new(),
            tags: origin.tags,
            message: Some(message),
        }
    }

    /// A line of now. `source_type` is who says it: `APP/PROC/WEB`, `STG`, `API`, … Newlines at its
    /// end are left out: clients print a line for each.
    pub fn line(
        mut origin: Origin,
        source_type: &str,
        is_error: bool,
        text: impl Into<Bytes>,
    ) -> Self {
        let mut payload = text.into();
        let text = payload.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |at| at + 1);
        payload.truncate(text);
        origin.tags.insert("source_type".into(), source_type.into());
        let kind = if is_error { log::Type::Err } else { log::Type::Out };
        Self::new(origin, Message::Log(Log { payload, r#type: kind.into() }))
    }

    /// A counter of now that went up by `delta`.
    pub fn counter(origin: Origin, name: &str, delta: u64) -> Self {
        Self::new(origin, Message::Counter(Counter { name: name.into(), delta, total: 0 }))
    }

    /// Numbers of now, each with its name and unit.
    pub fn gauge<'a>(
        origin: Origin,
        metrics: impl IntoIterator<Item = (&'a str, f64, &'a str)>,
    ) -> Self {
        let metrics = metrics
            .into_iter()
            .map(|(name, value, unit)| (name.into(), GaugeValue { unit: unit.into(), value }));
        Self::new(origin, Message::Gauge(Gauge { metrics: metrics.collect() }))
    }

    /// What a cell has measured, in the envelopes that the original makes of it.
    pub fn app_metrics(origin: &Origin, metrics: &AppMetrics) -> Vec<Self> {
        // Bytes and nanoseconds below 2^53 are exact, and what is larger is measured no better.
        #[allow(clippy::cast_precision_loss)]
        let float = |number: u64| number as f64;
        let mut envelopes = vec![
            Self::gauge(
                origin.clone(),
                [
                    ("cpu", metrics.cpu, "percentage"),
                    ("memory", float(metrics.memory), "bytes"),
                    ("disk", float(metrics.disk), "bytes"),
                    ("memory_quota", float(metrics.memory_quota), "bytes"),
                    ("disk_quota", float(metrics.disk_quota), "bytes"),
                    ("log_rate", metrics.log_rate, "B/s"),
                    ("log_rate_limit", metrics.log_rate_limit, "B/s"),
                ],
            ),
            Self::gauge(
                origin.clone(),
                [
                    ("absolute_usage", float(metrics.absolute_usage), "nanoseconds"),
                    ("absolute_entitlement", float(metrics.absolute_entitlement), "nanoseconds"),
                    ("container_age", float(metrics.container_age), "nanoseconds"),
                ],
            ),
        ];
        if let Some(percent) = metrics.cpu_entitlement {
            let entitlement = [("cpu_entitlement", percent, "percentage")];
            envelopes.push(Self::gauge(origin.clone(), entitlement));
        }
        envelopes
    }
}

#[cfg(test)]
mod tests {
    use super::{Envelope, Origin};
    use crate::messages::loggregator::v2::envelope::Message;

    #[test]
    fn newlines_at_the_end_of_a_line_are_left_out() {
        for (text, stays) in [("a\r\n\n", "a"), ("a\nb\n", "a\nb"), ("\n", ""), ("a", "a")] {
            let envelope = Envelope::line(Origin::default(), "STG", false, text.to_owned());
            let Some(Message::Log(log)) = envelope.message else { panic!("no log") };
            assert_eq!(log.payload, stays);
        }
    }
}

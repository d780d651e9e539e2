//! Envelopes and metadata as JSON, with the original's names: every field is there even when it says
//! nothing, 64-bit integers are strings.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::messages::loggregator::v2::{Envelope, envelope::Message, log, value::Data};
use crate::store::{Entry, Meta};

/// The answer to a read. The envelopes say the time at which their entries are, moved back by
/// `shift` nanoseconds.
pub(crate) fn envelopes(entries: &[Entry], shift: i64) -> Value {
    let shown = entries.iter().map(|entry| envelope(&entry.envelope, entry.at - shift));
    json!({"envelopes": {"batch": shown.collect::<Vec<_>>()}})
}

fn envelope(envelope: &Envelope, timestamp: i64) -> Value {
    let deprecated = envelope.deprecated_tags.iter().map(|(name, value)| {
        let value = match &value.data {
            Some(Data::Text(text)) => json!({"text": text}),
            Some(Data::Integer(number)) => json!({"integer": number.to_string()}),
            Some(Data::Decimal(number)) => json!({"decimal": float(*number)}),
            None => json!({}),
        };
        (name.clone(), value)
    });
    let mut shown = json!({
        "timestamp": timestamp.to_string(),
        "source_id": envelope.source_id,
        "instance_id": envelope.instance_id,
        "deprecated_tags": deprecated.collect::<Map<_, _>>(),
        "tags": envelope.tags,
    });
    let message = match &envelope.message {
        None => return shown,
        Some(Message::Log(log)) => {
            let kind = match log::Type::try_from(log.r#type) {
                Ok(kind) => json!(kind.as_str_name()),
                Err(_) => json!(log.r#type),
            };
            ("log", json!({"payload": BASE64_STANDARD.encode(&log.payload), "type": kind}))
        }
        Some(Message::Counter(counter)) => {
            let (delta, total) = (counter.delta.to_string(), counter.total.to_string());
            ("counter", json!({"name": counter.name, "delta": delta, "total": total}))
        }
        Some(Message::Gauge(gauge)) => {
            let metrics = gauge.metrics.iter().map(|(name, gauge)| {
                (name.clone(), json!({"unit": gauge.unit, "value": float(gauge.value)}))
            });
            ("gauge", json!({"metrics": metrics.collect::<Map<_, _>>()}))
        }
        Some(Message::Timer(timer)) => {
            let (start, stop) = (timer.start.to_string(), timer.stop.to_string());
            ("timer", json!({"name": timer.name, "start": start, "stop": stop}))
        }
        Some(Message::Event(event)) => ("event", json!({"title": event.title, "body": event.body})),
    };
    shown[message.0] = message.1;
    shown
}

/// A number, or the name of what JSON has no number for.
fn float(number: f64) -> Value {
    // Below 2^53 a whole number is exact, and is written as one.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)]
    match number {
        number if number.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        number if number.fract() == 0.0 && number.abs() < WHOLE => json!(number as i64),
        number => json!(number),
    }
}

/// The answer to a question about all sources, from the gateway.
pub(crate) fn meta(sources: &BTreeMap<String, Meta>) -> Value {
    let shown = sources.iter().map(|(id, meta)| {
        let shown = json!({
            "count": meta.count.to_string(),
            "expired": meta.expired.to_string(),
            "oldest_timestamp": meta.oldest_timestamp.to_string(),
            "newest_timestamp": meta.newest_timestamp.to_string(),
        });
        (id.clone(), shown)
    });
    json!({"meta": shown.collect::<Map<_, _>>()})
}

/// The same from the proxy, which spells it differently and leaves zeros out.
pub(crate) fn public_meta(sources: &BTreeMap<String, Meta>) -> Value {
    let shown = sources.iter().map(|(id, meta)| {
        let numbers = [
            ("count", meta.count.to_string()),
            ("expired", meta.expired.to_string()),
            ("oldestTimestamp", meta.oldest_timestamp.to_string()),
            ("newestTimestamp", meta.newest_timestamp.to_string()),
        ];
        let said = numbers.into_iter().filter(|(_, number)| number != "0");
        let shown = said.map(|(name, number)| (name.to_owned(), Value::String(number)));
        (id.clone(), Value::Object(shown.collect()))
    });
    json!({"meta": shown.collect::<Map<_, _>>()})
}

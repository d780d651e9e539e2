//! Lines as lager has them, the log library of the original daemons (its `models.go`):
//!
//! ```text
//! {"timestamp":"2026-12-01T12:00:00.000000000Z","level":"info","source":"garden",
//!  "message":"garden.request.created","data":{"handle":"a","session":"7"}}
//! ```

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// How the time is given.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since 1970, and the level is a number.
    UnixEpoch,
    /// A date and a time of day, and the level is a word.
    Rfc3339,
}

/// Formats events.
#[derive(Debug)]
pub struct Lager {
    /// What the lines say they are from.
    source: &'static str,
    time: TimeFormat,
}

impl Lager {
    pub fn new(source: &'static str, time: TimeFormat) -> Self {
        Self { source, time }
    }

    fn line(&self, now: Timestamp, level: Level, message: &str, data: Map<String, Value>) -> Value {
        // lager has no warnings; its own adapters make them infos.
        let (number, word) = match level {
            Level::ERROR => (2, "error"),
            Level::WARN | Level::INFO => (1, "info"),
            _ => (0, "debug"),
        };
        let source = self.source;
        match self.time {
            TimeFormat::UnixEpoch => json!({
                "timestamp": format!("{}.{:09}", now.as_second(), now.subsec_nanosecond()),
                "source": source,
                "message": message,
                "log_level": number,
                "data": data,
            }),
            TimeFormat::Rfc3339 => json!({
                // All nine digits, and UTC.
                "timestamp": format!("{now:.9}"),
                "level": word,
                "source": source,
                "message": message,
                "data": data,
            }),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Lager {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (mut data, mut message) = (Data::default(), self.source.to_owned());
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            message.extend([".", span.name()]);
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                let fields = serde_json::from_str::<Map<String, Value>>(fields);
                data.0.extend(fields.unwrap_or_default());
            }
        }
        event.record(&mut data);
        if let Some(said) = data.0.remove("message") {
            message.extend([".", said.as_str().unwrap_or_default()]);
        }
        // A text in lager's lines, numbered with dots below it.
        if let Some(session) = data.0.get_mut("session") {
            *session = Value::String(session.to_string());
        }
        let line = self.line(Timestamp::now(), *event.metadata().level(), &message, data.0);
        writeln!(writer, "{line}")
    }
}

/// An event's fields.
#[derive(Default)]
struct Data(Map<String, Value>);

impl Data {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Data {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_lagers() {
        let now = Timestamp::new(1_700_000_000, 5).unwrap();
        let data = Map::from_iter([("handle".to_owned(), json!("a"))]);
        let line = |time, level| {
            Lager::new("garden", time).line(now, level, "garden.x", data.clone()).to_string()
        };
        assert_eq!(
            line(TimeFormat::UnixEpoch, Level::ERROR),
            r#"{"timestamp":"1700000000.000000005","source":"garden","message":"garden.x","log_level":2,"data":{"handle":"a"}}"#
        );
        assert_eq!(
            line(TimeFormat::Rfc3339, Level::WARN),
            r#"{"timestamp":"2023-11-14T22:13:20.000000005Z","level":"info","source":"garden","message":"garden.x","data":{"handle":"a"}}"#
        );
    }
}

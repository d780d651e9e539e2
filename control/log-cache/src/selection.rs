//! Which envelopes a reader wants.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::messages::logcache::v1::{EnvelopeType, ReadRequest};
use crate::messages::loggregator::v2::{Envelope, Gauge, envelope::Message};

/// The most envelopes of one answer, but for those that share the last one's time.
pub const MAX_LIMIT: i64 = 1000;
const DEFAULT_LIMIT: usize = 100;
/// Bytes of a compiled name filter.
const FILTER: usize = 1 << 20;

/// A request that the original refuses. The texts are its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSelection {
    /// More than [`MAX_LIMIT`].
    #[error("limit ({0}) must be {MAX_LIMIT} or less")]
    Limit(i64),
    /// Less than nothing.
    #[error("limit ({0}) must be greater than zero")]
    NegativeLimit(i64),
    /// It ends before it begins.
    #[error("StartTime ({0}) must be before EndTime ({1})")]
    Times(i64, i64),
    /// The name filter is no regular expression.
    #[error("name filter must be a valid regular expression: error parsing regexp: {0}")]
    NameFilter(String),
}

/// Which envelopes of a source are wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Nanoseconds since the epoch, inclusive.
    pub start: i64,
    /// Nanoseconds since the epoch, exclusive; the time of the call if none.
    pub end: Option<i64>,
    /// At most so many.
    pub limit: usize,
    /// The newest first, and these if the limit cuts.
    pub descending: bool,
    pub(crate) types: Vec<EnvelopeType>,
    pub(crate) names: Option<Regex>,
}

impl Default for Selection {
    fn default() -> Self {
        let (types, names) = (Vec::new(), None);
        Self { start: 0, end: None, limit: DEFAULT_LIMIT, descending: false, types, names }
    }
}

impl Selection {
    /// Reads a request as the original does.
    pub fn of(request: &ReadRequest) -> Result<Self, BadSelection> {
        let &ReadRequest { start_time, end_time, limit, descending, .. } = request;
        if limit > MAX_LIMIT {
            return Err(BadSelection::Limit(limit));
        }
        let Ok(limit) = usize::try_from(limit) else {
            return Err(BadSelection::NegativeLimit(limit));
        };
        if end_time != 0 && start_time > end_time {
            return Err(BadSelection::Times(start_time, end_time));
        }
        let names = match request.name_filter.as_str() {
            "" => None,
            pattern => Some(compile(pattern)?),
        };
        // ANY beside other types means nothing. A number that is no type matches nothing.
        let types = request.envelope_types.iter().filter(|number| **number != 0);
        let known: Vec<_> =
            types.clone().filter_map(|number| EnvelopeType::try_from(*number).ok()).collect();
        let none_known = known.is_empty() && types.count() > 0;
        Ok(Self {
            start: start_time,
            end: (end_time != 0).then_some(end_time),
            limit: match limit {
                _ if none_known => 0,
                0 => DEFAULT_LIMIT,
                limit => limit,
            },
            descending,
            types: known,
            names,
        })
    }

    /// Only envelopes of this type.
    pub fn of_type(self, kind: EnvelopeType) -> Self {
        Self { types: vec![kind], ..self }
    }

    /// The envelope, or what the name filter leaves of it.
    pub(crate) fn take(&self, envelope: &Arc<Envelope>) -> Option<Arc<Envelope>> {
        if !self.types.is_empty() && !type_of(envelope).is_some_and(|own| self.types.contains(&own))
        {
            return None;
        }
        let Some(names) = &self.names else { return Some(envelope.clone()) };
        match &envelope.message {
            Some(Message::Counter(counter)) if names.is_match(&counter.name) => {
                Some(envelope.clone())
            }
            Some(Message::Timer(timer)) if names.is_match(&timer.name) => Some(envelope.clone()),
            Some(Message::Gauge(gauge)) => {
                let kept = gauge.metrics.iter().filter(|(name, _)| names.is_match(name));
                let metrics: std::collections::BTreeMap<_, _> =
                    kept.map(|(name, value)| (name.clone(), value.clone())).collect();
                let message = Some(Message::Gauge(Gauge { metrics: metrics.clone() }));
                (!metrics.is_empty())
                    .then(|| Arc::new(Envelope { message, ..Envelope::clone(envelope) }))
            }
            _ => None,
        }
    }
}

fn type_of(envelope: &Envelope) -> Option<EnvelopeType> {
    Some(match envelope.message.as_ref()? {
        Message::Log(_) => EnvelopeType::Log,
        Message::Counter(_) => EnvelopeType::Counter,
        Message::Gauge(_) => EnvelopeType::Gauge,
        Message::Timer(_) => EnvelopeType::Timer,
        Message::Event(_) => EnvelopeType::Event,
    })
}

fn compile(pattern: &str) -> Result<Regex, BadSelection> {
    RegexBuilder::new(pattern).size_limit(FILTER).build().map_err(|error| {
        // The last line of this crate's message says what is wrong; Go says the same otherwise.
        let text = error.to_string();
        let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let what = match what {
            "unclosed group" => "missing closing )",
            "unopened group" => "unexpected )",
            "unclosed character class" => "missing closing ]",
            "repetition operator missing expression" => "missing argument to repetition operator",
            other => other,
        };
        BadSelection::NameFilter(format!("{what}: `{pattern}`"))
    })
}
